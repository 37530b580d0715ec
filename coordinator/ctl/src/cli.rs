//! Flags and arguments, with examples in every help text.

mod planned;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};
use regent_types::{ClusterName, MemberName, RequestId};

pub(crate) use planned::{PlannedArgs, SwitchoverArgs};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused by the cluster, or the operation was aborted or rolled back
  2  usage or configuration
  3  no coordinator could be reached, or none has a leader
  4  still waiting when the time was up";

/// The operator's command line of Regent.
#[derive(Debug, Parser)]
#[command(name = "regentctl", version, about, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Configuration file [default: ~/.config/regent/regentctl.toml, then /etc/regent/regentctl.toml].
    #[arg(long, global = true, env = "REGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A coordinator, HOST:PORT; repeat it to name several. Any of them answers any call.
    #[arg(
        long = "endpoint",
        global = true,
        env = "REGENT_ENDPOINTS",
        value_delimiter = ',',
        value_name = "ADDRESS"
    )]
    pub endpoints: Vec<String>,
    /// The CA whose word counts, PEM.
    #[arg(long, global = true, env = "REGENT_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Your certificate, PEM.
    #[arg(long, global = true, env = "REGENT_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, global = true, env = "REGENT_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// How long one coordinator may take to answer [default: 5s].
    #[arg(long, global = true, env = "REGENT_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// Speak without TLS; loopback addresses only.
    #[arg(long, global = true, env = "REGENT_PLAINTEXT", value_parser = FalseyValueParser::new())]
    pub plaintext: bool,
    /// Tables for people or JSON for scripts.
    #[arg(long, short = 'o', global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Colours; `auto` means on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show coordinators, clusters, members and what is running.
    #[command(after_help = "Examples:\n  regentctl status\n  regentctl status gravl --watch\n  \
                            regentctl status gravl -o json | jq -r '.clusters[0].primary'")]
    Status(StatusArgs),
    /// Follow the events, from the oldest that is kept or from a sequence number.
    #[command(after_help = "Examples:\n  regentctl watch\n  regentctl watch --cluster gravl --from 1200\n  \
                            regentctl watch -o json | jq -r .kind")]
    Watch(WatchArgs),
    /// Fail over to another member, now.
    #[command(
        after_help = "Examples:\n  regentctl failover gravl --reason 'eu-north-1 is flooded' --dry-run\n  \
                            regentctl failover gravl --reason 'eu-north-1 is flooded' --to us-east-1 --wait\n  \
                            regentctl failover gravl --reason 'runbook 7' --expected-epoch 4 --yes -o json\n\n\
                            Without --expected-epoch the status is read first and the plan is shown. With the same\n\
                            --request-id a repeated call returns the first answer, so a lost answer is no risk."
    )]
    Failover(FailoverArgs),
    /// Let nothing start by itself; leases and self-fencing go on.
    #[command(after_help = "Example:\n  regentctl pause gravl --reason 'network maintenance until 14:00'")]
    Pause(AutomationArgs),
    /// Let failover start by itself again.
    #[command(after_help = "Example:\n  regentctl resume gravl --reason 'maintenance is over'")]
    Resume(AutomationArgs),
    /// Would it fail over now, what says no, what would be lost, how long would it take.
    #[command(after_help = "Examples:\n  regentctl explain gravl\n  \
                            regentctl explain gravl -o json | jq '.guards[] | select(.holds | not)'")]
    Explain(ExplainArgs),
    /// Change how much happens by itself: automatic, approve, observe or paused.
    #[command(
        after_help = "Examples:\n  regentctl automation gravl approve --reason 'first weeks in production'\n  \
                            regentctl automation gravl automatic --reason 'it was always right' --dry-run\n\n\
                            approve: a failover is declared as pending and waits for `regentctl approve`; nothing is fenced\n\
                            before. observe: only for a cluster that another tool leads."
    )]
    Automation(SetAutomationArgs),
    /// Take note of the last automatic failover, so that the next one need not wait.
    #[command(
        after_help = "Example:\n  regentctl acknowledge gravl --reason 'the switch in eu-north-1 is replaced'\n\n\
                            After an automatic failover the next one waits for this call, until the cooldown is over\n\
                            (policy `cooldown`, 1 h by default). What waits begins while its reason lasts."
    )]
    Acknowledge(AutomationArgs),
    /// Let what waits for an approval begin.
    #[command(after_help = "Examples:\n  regentctl approve gravl --reason 'seen by bob' --dry-run\n  \
                            regentctl approve gravl --reason 'eu-north-1 is gone' --expected-epoch 4 --wait\n\n\
                            What waits is shown by `regentctl status`.")]
    Approve(ApproveArgs),
    /// DANGEROUS: take a fenced primary for dead on your word, without a fence proof.
    #[command(
        after_help = "Example:\n  regentctl assume-fenced gravl --member eu-north-1 --expected-epoch 4 \\\n    \
                            --reason 'power is cut, seen by bob' --i-accept-two-writers\n\n\
                            A failover that waits for its fence proof goes on at once. If the old primary still writes,\n\
                            there are two writers. Without this call the lease's end is waited for, which is always\n\
                            enough: see `regentctl status`. Recorded in the history as an exception to promise 1."
    )]
    AssumeFenced(AssumeFencedArgs),
    /// Change the primary as planned: nothing is lost, or it is rolled back.
    #[command(
        after_help = "Examples:\n  regentctl switchover gravl --reason 'kernel update in eu-north-1' --dry-run\n  \
                            regentctl switchover gravl --reason 'kernel update' --to us-east-1 --yes\n  \
                            regentctl switchover gravl --reason 'kernel update' --at 2026-11-23T02:00:00Z --yes\n\n\
                            Only to a confirmed standby; refused with the name of every guard that says no. The old\n\
                            primary is shut down cleanly, and the target must have replayed its shutdown checkpoint;\n\
                            otherwise the old primary is appointed again. It is followed to its end unless --no-wait."
    )]
    Switchover(SwitchoverArgs),
    /// Switch over to the preferred region, now.
    #[command(
        after_help = "Examples:\n  regentctl failback gravl --reason 'eu-north-1 is repaired' --dry-run\n  \
                            regentctl failback gravl --reason 'eu-north-1 is repaired' --yes"
    )]
    Failback(PlannedArgs),
    /// Rehearse the loss of the primary's region on the live system, and file a report.
    #[command(after_help = "Examples:\n  regentctl drill gravl --reason 'monthly drill' --dry-run\n  \
                            regentctl drill gravl --reason 'monthly drill'\n  \
                            regentctl drill gravl --reason 'quarterly drill' --full --yes\n\n\
                            For the drill only, the coordinators count the members of the primary's region as silent; leases\n\
                            and the real detection go on, so no lease is lost and a real failure comes first. It ends when a\n\
                            failover would have begun: nothing is fenced. --full then switches over and back, losing nothing.\n\
                            Refused when anything is not in order. `regentctl abort` stops it. Exit code 1 when it would not\n\
                            have failed over. docs/drill.md")]
    Drill(crate::command::DrillArgs),
    /// Stop a drill, a switchover or failback before its appointment, or take a scheduled one back.
    #[command(after_help = "Examples:\n  regentctl abort gravl --reason 'wrong cluster' --dry-run\n  \
                            regentctl abort gravl --reason 'wrong cluster'")]
    Abort(AutomationArgs),
    /// Restart PostgreSQL on one member, in its present role: no failover, the lease stays.
    #[command(
        after_help = "Examples:\n  regentctl restart gravl us-east-1 --reason 'max_connections' --wait\n  \
                            regentctl restart gravl eu-north-1 --reason 'minor upgrade' --dry-run\n  \
                            regentctl restart gravl --if-pending --reason 'max_connections'\n\n\
                            A restart of the primary is refused while a standby that is heard runs with less than the files\n\
                            say of a parameter such as max_connections: its replay would stop. A restart of the primary that takes longer than the policy's promote_timeout is\n\
                            given up, and a server that is down then is failed over as usual. docs/everyday.md"
    )]
    Restart(RestartArgs),
    /// Have PostgreSQL on one member read its configuration again; closes no connection.
    #[command(after_help = "Example:\n  regentctl reload gravl eu-north-1 --reason 'work_mem' --wait")]
    Reload(RestartArgs),
    /// List a cluster's operations, or show the report of one.
    #[command(after_help = "Examples:\n  regentctl history gravl\n  regentctl history gravl 7\n  \
                            regentctl history gravl 7 -o json | jq .loss_final")]
    History(HistoryArgs),
    /// Show and change thresholds while the cluster runs.
    #[command(subcommand)]
    Policy(crate::command::PolicyCommand),
    /// Show and change PostgreSQL's own parameters on every member.
    #[command(subcommand)]
    Postgres(crate::command::PostgresCommand),
    /// Add, remove and list members, clusters and coordinators.
    #[command(subcommand)]
    Members(crate::command::MembersCommand),
    /// Take over PostgreSQL servers that were made without Regent.
    #[command(
        after_help = "Examples:\n  regentctl adopt --file gravl.toml --system-id 7412345678901234567 --reason 'move in' --dry-run\n  \
                            regentctl adopt --file gravl.toml --reason 'move in'\n\n\
                            It costs one restart of each server under its guard; --dry-run says which settings will be\n\
                            managed. Stop PostgreSQL, start guard and agent on each host, and the primary goes on at once."
    )]
    Adopt(crate::command::AdoptArgs),
    /// Take a cluster over from a group of coordinators that is lost for good.
    #[command(
        after_help = "Examples:\n  regentctl import gravl --reason 'all coordinators lost' --dry-run\n  \
                            regentctl import gravl --reason 'all coordinators lost'\n  \
                            regentctl import gravl --unheard us-east-1 --reason 'its host is gone too'\n\n\
                            Every member that could be promoted comes to obey the new group first; then the primary is\n\
                            appointed above every epoch that any of them knows, while it writes on. --dry-run says what each\n\
                            agent says. docs/quorum-lost.md has the whole procedure."
    )]
    Import(crate::command::ImportArgs),
    /// What was kept of divergent histories: list, show, read rows.
    #[command(subcommand)]
    Salvage(crate::command::salvage::args::SalvageCommand),
    /// Make and look at certificates; asks no coordinator.
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  regentctl completions bash > /etc/bash_completion.d/regentctl")]
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual, or write a page for each command.
    #[command(after_help = "Examples:\n  regentctl man | man -l -\n  regentctl man failover | man -l -\n  \
                            regentctl man --dir /usr/local/share/man/man1")]
    Man(ManArgs),
    /// Print the version.
    #[command(after_help = "Example:\n  regentctl version -o json")]
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only this cluster.
    pub cluster: Option<ClusterName>,
    /// Show it again and again: as a page on a terminal (q quits, Tab turns over the clusters), else as plain text.
    #[arg(long)]
    pub watch: bool,
    /// Time between two looks with --watch.
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub interval: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The page of this command, e.g. `failover` or `pki issue` [default: the whole program's].
    #[arg(conflicts_with = "dir")]
    pub command: Vec<String>,
    /// Write every page into this folder; made when it is missing.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// First sequence number [default: the oldest that is kept].
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0, hide_default_value = true)]
    pub from: u64,
    /// Only this cluster.
    #[arg(long)]
    pub cluster: Option<ClusterName>,
    /// End after so many events.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// Why; recorded with the operation.
    #[arg(long, value_parser = reason)]
    pub reason: String,
    /// Whom to promote [default: the member that has most].
    #[arg(long, value_name = "MEMBER")]
    pub to: Option<MemberName>,
    /// Refuse when the cluster is at another epoch [default: read the status first].
    #[arg(long, value_name = "EPOCH")]
    pub expected_epoch: Option<u64>,
    /// Accept what promoting this member loses, beyond the lag bound.
    #[arg(long, value_name = "MEMBER")]
    pub consent_to_loss: Option<MemberName>,
    /// Names this request: a second call with it returns the first answer [default: random].
    #[arg(long, value_name = "ID", value_parser = request_id)]
    pub request_id: Option<RequestId>,
    /// Say what would be done and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Follow the operation to its end and print its report.
    #[arg(long)]
    pub wait: bool,
    /// With --wait: give up following (not the operation) after this time.
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub wait_timeout: Duration,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AutomationArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// Why; recorded.
    #[arg(long, value_parser = reason)]
    pub reason: String,
    /// Refuse when the cluster is at another epoch [default: read the status first].
    #[arg(long, value_name = "EPOCH")]
    pub expected_epoch: Option<u64>,
    /// Names this request: a second call with it returns the first answer [default: random].
    #[arg(long, value_name = "ID", value_parser = request_id)]
    pub request_id: Option<RequestId>,
    /// Say what would change and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Automatic,
    Approve,
    Observe,
    Paused,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Automatic => "automatic",
            Mode::Approve => "approve",
            Mode::Observe => "observe",
            Mode::Paused => "paused",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Which cluster.
    pub cluster: ClusterName,
}

#[derive(Debug, Args)]
pub(crate) struct SetAutomationArgs {
    #[command(flatten)]
    pub common: AutomationArgs,
    /// The mode.
    #[arg(value_enum)]
    pub mode: Mode,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    pub common: AutomationArgs,
    /// Follow the operation to its end and print its report.
    #[arg(long)]
    pub wait: bool,
    /// With --wait: give up following (not the operation) after this time.
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub wait_timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// Which member.
    #[arg(required_unless_present = "if_pending")]
    pub member: Option<MemberName>,
    /// Only where a parameter waits for a restart; without a member one after the other, standbys first.
    #[arg(long, conflicts_with_all = ["request_id"])]
    pub if_pending: bool,
    /// Why; recorded with the operation.
    #[arg(long, value_parser = reason)]
    pub reason: String,
    /// Refuse when the cluster is at another epoch [default: read first].
    #[arg(long, value_name = "EPOCH")]
    pub expected_epoch: Option<u64>,
    /// Names this request: a second call with it returns the first answer [default: random].
    #[arg(long, value_name = "ID", value_parser = request_id)]
    pub request_id: Option<RequestId>,
    /// Say what would happen and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Follow the operation to its end and print its report.
    #[arg(long)]
    pub wait: bool,
    /// With --wait: give up following (not the operation) after this time.
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub wait_timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct AssumeFencedArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// The member that is dead for certain.
    #[arg(long)]
    pub member: MemberName,
    /// The epoch that it holds.
    #[arg(long, value_name = "EPOCH")]
    pub expected_epoch: u64,
    /// How you know; recorded with the operation.
    #[arg(long, value_parser = reason)]
    pub reason: String,
    /// Names this request: a second call with it returns the first answer [default: random].
    #[arg(long, value_name = "ID", value_parser = request_id)]
    pub request_id: Option<RequestId>,
    /// Say whether it would be taken and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// You accept that two members may write if you are wrong.
    #[arg(long, required_unless_present = "dry_run")]
    pub i_accept_two_writers: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// Number of an operation: show its report.
    pub operation: Option<u64>,
    /// At most so many, newest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Make a certificate authority: ca.crt and ca.key.
    #[command(after_help = "Example:\n  regentctl pki init --dir pki --name 'Regent of example.net'")]
    Init {
        /// Folder for the CA; made when it is missing.
        #[arg(long, default_value = "pki")]
        dir: PathBuf,
        /// Common name of the CA.
        #[arg(long, default_value = "Regent CA")]
        name: String,
        /// Validity in days.
        #[arg(long, default_value_t = regent_pki::CA_DAYS_DEFAULT)]
        days: u32,
        /// Replace a CA that is there. Every certificate that it issued becomes worthless.
        #[arg(long)]
        force: bool,
    },
    /// Issue a certificate for an identity: NAME.crt and NAME.key.
    #[command(after_help = "Examples:\n  regentctl pki issue coordinator/1\n  \
                            regentctl pki issue agent/gravl/eu-north-1 --out /etc/regent/pki\n  \
                            regentctl pki issue operator/alice viewer/grafana --days 90")]
    Issue {
        /// coordinator/ID, agent/CLUSTER/MEMBER, operator/NAME or viewer/NAME; several at once if you like.
        #[arg(required = true, value_parser = identity)]
        identities: Vec<regent_pki::Identity>,
        /// Folder of the CA.
        #[arg(long, default_value = "pki")]
        dir: PathBuf,
        /// Folder for the certificates [default: the CA's].
        #[arg(long)]
        out: Option<PathBuf>,
        /// Validity in days.
        #[arg(long, default_value_t = regent_pki::LEAF_DAYS_DEFAULT)]
        days: u32,
        /// Replace files that are there.
        #[arg(long)]
        force: bool,
    },
    /// Show whose a certificate is and until when.
    #[command(after_help = "Example:\n  regentctl pki show pki/*.crt")]
    Show {
        /// Certificates, PEM.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

pub(crate) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("a reason is required: it is what the report will say".to_owned());
    }
    Ok(text.to_owned())
}

pub(crate) fn request_id(text: &str) -> Result<RequestId, String> {
    RequestId::new(text).map_err(|error| error.to_string())
}

/// With or without `regent://`.
fn identity(text: &str) -> Result<regent_pki::Identity, String> {
    let full = if text.contains("://") { text.to_owned() } else { format!("regent://{text}") };
    full.parse().map_err(|error: regent_pki::IdentityError| error.to_string())
}
