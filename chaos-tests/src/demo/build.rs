//! Starting a deployment with a word about each step.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::events::Events;
use super::narrator::{Narrator, Tone};
use crate::real::clock::wait_until;
use crate::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, MEMBERS, NAME, NORTH, REGIONS, Service, WITNESS,
};

const READY_AT_MOST: Duration = Duration::from_secs(180);

/// Prepares directories, certificates and links. Nothing runs when it is interrupted.
pub fn prepare(narrator: &Narrator, options: DeploymentOptions) -> Result<Deployment> {
    narrator.chapter(
        "Three regions on this machine: eu-north-1 (primary), us-east-1 (standby), eu-west-1 (witness)",
    );
    narrator.say(
        Tone::Act,
        format!("looking for PostgreSQL {} (fetched when it is not installed)", options.postgres_major),
    );
    let deployment = Deployment::prepare(options)?;
    let timing = deployment.timing();
    narrator.say(
        Tone::Act,
        format!(
            "{} in {}; partition timeout {:?}, lease {:?}, heartbeat {:?}",
            deployment.postgres().version,
            deployment.postgres().bin_dir.display(),
            timing.partition_timeout,
            timing.lease_ttl,
            timing.heartbeat
        ),
    );
    Ok(deployment)
}

/// Starts everything and waits until the standby is confirmed in sync.
pub async fn start(narrator: &Narrator, deployment: &Deployment) -> Result<Events> {
    narrator.say(
        Tone::Act,
        "starting three coordinators (mutual TLS; a faulty link between each pair of regions)",
    );
    deployment.start_coordinators()?;
    wait_until("a leader among the coordinators", READY_AT_MOST, async || deployment.leader().await.is_ok())
        .await?;
    narrator.say(Tone::Act, format!("the coordinator in {} leads", deployment.leader().await?));
    let events = Events::follow(deployment, *narrator)?;
    narrator.say(Tone::Act, "starting two members, each a guard and an agent beside an empty data directory");
    deployment.start_members()?;
    deployment
        .wait_status("a primary that accepts", READY_AT_MOST, |status| {
            status.member(NORTH)["accepting"] == true
        })
        .await?;
    narrator.say(Tone::Act, format!("{NORTH} is primary; {EAST} is being cloned with pg_basebackup"));
    deployment.wait_ready(READY_AT_MOST).await.context("waiting for the first standby")?;
    deployment.make_application().await?;
    narrator.say(Tone::Good, format!("{EAST} streams and is confirmed in sync"));
    Ok(events)
}

/// How to use it from another terminal.
pub fn how_to(narrator: &Narrator, deployment: &Deployment) -> Result<()> {
    narrator.chapter("From another terminal");
    let line = |text: String| narrator.print(&format!("  {text}"));
    let ctl = format!(
        "{} --config {}",
        shown(crate::real::dirs::build_dir()?.join("regentctl")),
        deployment.files().ctl_config(WITNESS).display()
    );
    line(format!("{ctl} status {CLUSTER} --watch"));
    line(format!("{ctl} history {CLUSTER}"));
    line(format!("{ctl} failover {CLUSTER} --reason 'trying it' --dry-run"));
    let dns = deployment.address(WITNESS, WITNESS, Service::Dns)?;
    line(format!("dig @{} -p {} {NAME} A +short; dig @{0} -p {1} {NAME} TXT +short", dns.ip(), dns.port()));
    for member in MEMBERS {
        let direct = deployment.direct(member)?;
        let linked = deployment.address(WITNESS, member, Service::Postgres)?;
        line(format!(
            "psql -h {} -p {} -U app app    # {member}, inside its region; from {WITNESS}: -h {}",
            direct.ip(),
            direct.port(),
            linked.ip()
        ));
    }
    for member in MEMBERS {
        line(format!("curl http://{}/primary", deployment.address(member, member, Service::AgentHttp)?));
    }
    for region in REGIONS {
        let http = deployment.address(region, region, Service::CoordinatorHttp)?;
        line(format!("curl http://{http}/metrics    # coordinator in {region}"));
    }
    line(format!("logs: {}", deployment.files().root().join("logs").display()));
    Ok(())
}

/// Relative to here when that is shorter.
fn shown(path: PathBuf) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).map(PathBuf::from).unwrap_or(path).display().to_string()
}
