//! Runs an external fencing driver once and reads what it says (the contract: docs/fencing-drivers.md).
//!
//! Decides nothing: what it returns is judged by the core's `check_proof`. Invariants:
//! - only an exit code of 0 together with the driver's own words about *this* instance is a proof. A shell script whose
//!   last command happens to succeed proves nothing: the mistake would be a second writer;
//! - whatever ends a run (time-out, another proof, the loss of the leadership), every process of it is killed. A run that
//!   went on would switch off a member that has come back meanwhile.

use std::time::Duration;

use regent_core::{Confinement, ExternalEvidence};
use regent_types::{BootId, EffectKey, InstanceId, MemberName, Region};
use serde::{Deserialize, Serialize};

use crate::{clock::Clock, config::FencingDriver, process::Process};

/// Version of the contract, on standard input.
const VERSION: u32 = 1;
/// Exit code: this driver can never fence this instance; it is not asked again for this fence.
const CANNOT: i32 = 10;
/// Longest text of a driver that is kept in the log.
const DETAIL_MAX: usize = 500;

/// Whom to fence.
#[derive(Debug, Clone)]
pub struct Target {
    /// The `Fence` effect.
    pub key: EffectKey,
    /// The member.
    pub member: MemberName,
    /// Its region.
    pub region: Region,
    /// Where the other members reach its PostgreSQL.
    pub host: String,
    /// At which port.
    pub port: u16,
    /// The instance that the epoch is bound to.
    pub instance: InstanceId,
    /// Its boot.
    pub boot: BootId,
}

/// What a driver reads on its standard input: one JSON object.
#[derive(Serialize)]
struct Question<'q> {
    version: u32,
    action: &'static str,
    driver: &'q str,
    cluster: &'q str,
    member: &'q str,
    region: &'q str,
    host: &'q str,
    port: u16,
    epoch: u64,
    instance: String,
    boot: &'q str,
    operation: u64,
    attempt: u32,
    timeout_ms: u64,
}

/// What it prints, as the last line of its standard output.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    instance: String,
    state: Confinement,
    #[serde(default)]
    evidence: String,
}

/// Why a run proved nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoProof {
    /// It may be tried again.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// The driver says that it can never fence this instance.
    #[error("exit code 10, it cannot fence this member: {reason}")]
    Cannot {
        /// What it printed.
        reason: String,
    },
}

fn failed<T>(reason: impl Into<String>) -> Result<T, NoProof> {
    Err(NoProof::Failed { reason: reason.into() })
}

/// One run. Dropping the future kills the run.
pub async fn run(
    clock: &Clock,
    driver: &FencingDriver,
    target: &Target,
    attempt: u32,
) -> Result<ExternalEvidence, NoProof> {
    let began_ms = clock.now_ms();
    let instance = target.instance.to_string();
    let question = Question {
        version: VERSION,
        action: "fence",
        driver: &driver.name,
        cluster: target.key.cluster.as_str(),
        member: target.member.as_str(),
        region: target.region.as_str(),
        host: &target.host,
        port: target.port,
        epoch: target.key.epoch.0,
        instance: instance.clone(),
        boot: &target.boot.0,
        operation: target.key.operation.0,
        attempt,
        timeout_ms: u64::try_from(driver.timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let mut input = serde_json::to_vec(&question).expect("a question is plain data");
    input.push(b'\n');
    let arguments = [question.action, question.cluster, question.member, &instance];
    let process = match Process::start(&driver.command, &arguments) {
        Ok(process) => process,
        Err(error) => return failed(format!("cannot start {:?}: {error}", driver.command[0])),
    };
    let Some(ended) = clock.within(driver.timeout, process.finish(input)).await else {
        let after = humantime::format_duration(driver.timeout);
        return failed(format!("no answer within {after}; it was killed with its children"));
    };
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => return failed(format!("cannot read its answer: {error}")),
    };
    let said = shorten(&ended.errors);
    let code = match ended.code {
        Some(0) => 0,
        Some(CANNOT) => return Err(NoProof::Cannot { reason: said }),
        Some(code) => return failed(format!("exit code {code}: {said}")),
        None => return failed(format!("it was killed by a signal: {said}")),
    };
    let line = ended.output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let answer: Answer = match serde_json::from_str(line) {
        Ok(answer) => answer,
        Err(error) => {
            let line = shorten(line);
            return failed(format!("exit code {code}, but its last line {line:?} is no answer: {error}"));
        }
    };
    if answer.instance != instance {
        let (named, asked) = (shorten(&answer.instance), instance);
        return failed(format!("it answers for instance {named:?}, instance {asked} was to be fenced"));
    }
    Ok(ExternalEvidence {
        driver: driver.name.clone(),
        begun_for: target.key.clone(),
        instance: target.instance,
        confinement: answer.state,
        detail: shorten(&answer.evidence),
        elapsed_ms: clock.now_ms().saturating_sub(began_ms),
    })
}

/// The pause after the n-th failed run.
pub fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.clamp(1, 6)).min(Duration::from_secs(30))
}

/// One line, not too long.
fn shorten(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(DETAIL_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
