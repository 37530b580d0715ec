//! One file a command. Each asks, prints and returns; what is common to the mutating ones is here.

mod abort;
mod assume_fenced;
mod automation;
mod change;
mod drill;
mod explain;
mod failover;
mod follow;
mod history;
mod import;
mod man;
mod members;
mod pki;
mod policy;
mod postgres;
mod restart;
mod restart_pending;
mod restraint;
pub(crate) mod salvage;
mod status;
mod switchover;
mod watch;

use std::io;

use clap::CommandFactory;
use rand::Rng;
use regent_proto::v1::{ClusterStatus, StatusRequest};
use regent_types::{ClusterName, RequestId};
use serde::Serialize;

use crate::{
    Cli, Failure, Settings,
    cli::{Command, Global},
    client::Client,
    output::Output,
};

pub(crate) use drill::DrillArgs;
pub(crate) use import::ImportArgs;
pub(crate) use members::{AdoptArgs, MembersCommand};
pub(crate) use policy::PolicyCommand;
pub(crate) use postgres::PostgresCommand;

pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let output = Output::new(&cli.global);
    match cli.command {
        Command::Status(args) => status::run(&connect(&cli.global)?, &output, args).await,
        Command::Watch(args) => watch::run(&connect(&cli.global)?, &output, args).await,
        Command::Failover(args) => failover::run(&connect(&cli.global)?, &output, args).await,
        Command::Pause(args) => automation::pause(&connect(&cli.global)?, &output, args).await,
        Command::Resume(args) => automation::resume(&connect(&cli.global)?, &output, args).await,
        Command::Drill(args) => drill::run(&connect(&cli.global)?, &output, args).await,
        Command::Explain(args) => explain::run(&connect(&cli.global)?, &output, args).await,
        Command::Automation(args) => restraint::automation(&connect(&cli.global)?, &output, args).await,
        Command::Acknowledge(args) => restraint::acknowledge(&connect(&cli.global)?, &output, args).await,
        Command::Approve(args) => restraint::approve(&connect(&cli.global)?, &output, args).await,
        Command::AssumeFenced(args) => assume_fenced::run(&connect(&cli.global)?, &output, args).await,
        Command::Switchover(args) => switchover::switchover(&connect(&cli.global)?, &output, args).await,
        Command::Failback(args) => switchover::failback(&connect(&cli.global)?, &output, args).await,
        Command::Abort(args) => abort::run(&connect(&cli.global)?, &output, args).await,
        Command::Restart(args) => restart::restart(&connect(&cli.global)?, &output, args).await,
        Command::Reload(args) => restart::reload(&connect(&cli.global)?, &output, args).await,
        Command::History(args) => history::run(&connect(&cli.global)?, &output, args).await,
        Command::Policy(command) => policy::run(&connect(&cli.global)?, &output, command).await,
        Command::Postgres(command) => postgres::run(&connect(&cli.global)?, &output, command).await,
        Command::Members(command) => members::run(&connect(&cli.global)?, &output, command).await,
        Command::Import(args) => import::run(&connect(&cli.global)?, &output, args).await,
        Command::Adopt(args) => members::adopt(&connect(&cli.global)?, &output, args).await,
        Command::Salvage(command) => salvage::run(&cli.global, &output, command).await,
        Command::Pki(command) => pki::run(&output, command),
        Command::Man(args) => man::run(&output, &args),
        Command::Completions { shell } => completions(&output, shell),
        Command::Version => version(&output),
    }
}

fn connect(global: &Global) -> Result<Client, Failure> {
    Client::new(&Settings::resolve(global)?)
}

/// The named cluster as the leader sees it.
async fn cluster_status(client: &Client, cluster: &ClusterName) -> Result<ClusterStatus, Failure> {
    let request = StatusRequest { cluster: Some(cluster.to_string()) };
    let reply = client.call(async |operators| operators.get_status(request.clone()).await).await?;
    let found = reply.clusters.into_iter().find(|status| status.name == cluster.as_str());
    found.ok_or_else(|| Failure::Refused(format!("not found: there is no cluster {cluster}")))
}

/// The given request id, or a random one.
fn request_id(given: Option<RequestId>) -> RequestId {
    given.unwrap_or_else(|| {
        let number: u128 = rand::rng().random();
        RequestId::new(format!("ctl-{number:032x}")).expect("hexadecimal digits are printable")
    })
}

fn completions(output: &Output, shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "regentctl", &mut script);
    output.text(&String::from_utf8(script).map_err(|error| io::Error::other(error.to_string()))?)
}

fn version(output: &Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Version {
        version: &'static str,
    }
    let version = Version { version: env!("CARGO_PKG_VERSION") };
    output.print(&version, |version, _| format!("regentctl {}\n", version.version))
}
