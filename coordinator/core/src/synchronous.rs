//! Synchronous replication (DESIGN section 8): the policy, the rules that were logged for the current epoch, and what they prove
//! when a primary is lost.
//!
//! A rule is `ANY n (members)`. PostgreSQL acknowledges a commit when any `n` of them have flushed it. The log knows, at every
//! instant, *every* rule by which a commit of this epoch may have been acknowledged ([`Synchronous::logged`]): a change is
//! logged before PostgreSQL is told, and an earlier rule leaves the list only when the primary's agent has shown that the
//! newer one is in force since some LSN, and every member of the newer one has received that LSN ([`Synchronous::proven`]).
//! `nobody` is a rule like any other: each epoch begins with it, because what the new primary had at its appointment may be
//! with it alone.
//!
//! Which way a mistake falls: a rule too many in the list makes a failover wait for an operator's consent; a rule that is
//! missing would call a loss "none". So rules are added early and taken out late.
//!
//! Interleavings to fear, and what catches them:
//! - *Degraded in PostgreSQL, not in the log.* The primary goes on alone, dies, and the standby is promoted as if it had
//!   everything. The view that lets the agent reload is made from the applied state only. `sync-02-degrade.txt`.
//! - *Degraded because the primary is dying.* Its server hangs, no standby streams, "nobody" is logged, and the failover that
//!   follows waits for consent though nothing was lost. Standbys are only called lost while the primary is heard and accepts
//!   connections. `sync-05-primary-down.txt`.
//! - *Entered in the log, not yet in PostgreSQL.* Commits between are acknowledged by nobody: `nobody` stays in the list until
//!   the agent's word, and the word is given only after every process was seen to act by the new rule
//!   (agent/src/postgres/synchronous.rs). `sync-03-not-proven.txt`.
//! - *A second failover right after the first.* The new primary has what the old one acknowledged, its standbys may not: the
//!   list begins with `nobody` again. `sync-06-second-failover.txt`.
//! - *A promotion that fails.* Its epoch acknowledged nothing if the target's data is a standby's still; then the rules of the
//!   epoch before count ([`Synchronous::earlier`]), otherwise both.

use std::{collections::BTreeSet, fmt, str::FromStr};

use regent_types::{CandidateReport, DataForm, Lsn, MemberName, SyncSet, SynchronousView};
use serde::{Deserialize, Serialize};

use crate::{Appointment, Cluster, ClusterConfig, ConfigError, SyncState, candidate::VerdictReason};

/// What happens when fewer standbys are left than a commit has to wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortage {
    /// Commits wait.
    Strict,
    /// After a time-out fewer standbys, or none, are waited for: logged first.
    #[default]
    Degrade,
}

impl Shortage {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Degrade => "degrade",
        }
    }
}

/// Which members may be waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncMembers {
    /// Every promotable one but the primary.
    #[default]
    All,
    /// Those of them that are in another region than the primary.
    OtherRegions,
    /// Those of them that are named.
    Named(BTreeSet<MemberName>),
}

impl fmt::Display for SyncMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::OtherRegions => f.write_str("other-regions"),
            Self::Named(names) => {
                let names: Vec<&str> = names.iter().map(MemberName::as_str).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl FromStr for SyncMembers {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "all" => Ok(Self::All),
            "other-regions" => Ok(Self::OtherRegions),
            "" => Err("is empty: all, other-regions, or names with commas between".to_owned()),
            names => {
                let one = |name: &str| {
                    MemberName::new(name.trim()).map_err(|error| format!("{:?}: {error}", name.trim()))
                };
                names.split(',').map(one).collect::<Result<_, _>>().map(Self::Named)
            }
        }
    }
}

/// The policy of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynchronousPolicy {
    /// Commits wait for standbys.
    pub on: bool,
    /// For how many.
    pub standbys: u32,
    /// For whom.
    pub members: SyncMembers,
    /// When too few are left.
    pub shortage: Shortage,
    /// How long a standby may be without its stream before it is waited for no more, ms.
    pub timeout_ms: u64,
}

impl Default for SynchronousPolicy {
    fn default() -> Self {
        Self {
            on: false,
            standbys: 1,
            members: SyncMembers::All,
            shortage: Shortage::Degrade,
            timeout_ms: 30_000,
        }
    }
}

/// A rule that was logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedSet {
    /// Its number.
    pub version: u64,
    /// The rule; `None` is nobody.
    pub set: Option<SyncSet>,
    /// Why.
    pub why: String,
}

impl fmt::Display for LoggedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.set {
            Some(set) => set.fmt(f),
            None => f.write_str("nobody"),
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synchronous {
    /// Rises with each change, over all epochs.
    pub version: u64,
    /// Every rule by which a commit of the current epoch may have been acknowledged, oldest first; the last is the one that
    /// the primary is to act by. Empty while synchronous replication is off.
    pub logged: Vec<LoggedSet>,
    /// Those of the last verified epoch, until the promotion of the current one is verified.
    pub earlier: Vec<LoggedSet>,
    /// Since when the one rule that is left covers everything.
    pub proven: Option<Lsn>,
}

impl Synchronous {
    /// The rule that the primary is to act by.
    pub fn wanted(&self) -> Option<&SyncSet> {
        self.logged.last().and_then(|logged| logged.set.as_ref())
    }

    /// Only one rule may have acknowledged anything.
    pub fn is_proven(&self) -> bool {
        self.logged.len() == 1 && self.wanted().is_some()
    }

    /// Adds a rule. One that says the same as an earlier one takes its place: the list is a set of rules.
    pub(crate) fn log(&mut self, set: Option<SyncSet>, why: String) {
        self.version += 1;
        self.logged.retain(|logged| logged.set != set);
        self.logged.push(LoggedSet { version: self.version, set, why });
        self.proven = None;
    }
}

impl ClusterConfig {
    /// Whom commits of `primary` may wait for by the policy.
    pub fn sync_members(&self, primary: &MemberName) -> BTreeSet<MemberName> {
        let region = self.members.get(primary).map(|member| &member.region);
        let others = self.members.iter().filter(|(name, member)| *name != primary && member.promotable);
        let chosen = others.filter(|(name, member)| match &self.policy.synchronous.members {
            SyncMembers::All => true,
            SyncMembers::OtherRegions => Some(&member.region) != region,
            SyncMembers::Named(names) => names.contains(*name),
        });
        chosen.map(|(name, _)| name.clone()).collect()
    }

    /// Whether every member that may be promoted would have enough standbys to wait for.
    pub(crate) fn check_synchronous(&self) -> Result<(), ConfigError> {
        let policy = &self.policy.synchronous;
        let error = |field: &str, problem: String| {
            Err(ConfigError { field: format!("cluster.{}.{field}", self.name), problem })
        };
        if !policy.on {
            return Ok(());
        }
        if policy.standbys == 0 {
            return error("synchronous_standbys", "0 is off: set synchronous = \"off\"".into());
        }
        let least_ms = self.policy.heartbeat_interval_ms.saturating_mul(3);
        if policy.timeout_ms < least_ms {
            let problem = format!(
                "{} ms is below three heartbeat intervals of {} ms: a lost heartbeat would end a standby's part",
                policy.timeout_ms, self.policy.heartbeat_interval_ms
            );
            return error("synchronous_timeout", problem);
        }
        if let SyncMembers::Named(names) = &policy.members
            && let Some(stranger) =
                names.iter().find(|name| self.members.get(*name).is_none_or(|member| !member.promotable))
        {
            let problem = format!("{stranger} is not a promotable member");
            return error("synchronous_members", problem);
        }
        for (name, _) in self.members.iter().filter(|(_, member)| member.promotable) {
            let there = self.sync_members(name).len();
            if u32::try_from(there).is_ok_and(|there| there < policy.standbys) {
                let problem = format!(
                    "{} are wanted, but with {name} as primary only {there} may be waited for (synchronous_members = \"{}\")",
                    policy.standbys, policy.members
                );
                return error("synchronous_standbys", problem);
            }
        }
        Ok(())
    }
}

/// The rule to act by, given who is fit to be waited for. In strict mode never less than the policy asks for.
pub(crate) fn wanted(
    policy: &SynchronousPolicy,
    eligible: &BTreeSet<MemberName>,
    fit: &BTreeSet<MemberName>,
    current: Option<&SyncSet>,
) -> Option<SyncSet> {
    let number = policy.standbys;
    let there = u32::try_from(fit.len()).unwrap_or(u32::MAX);
    if there >= number {
        return Some(SyncSet { number, members: fit.clone() });
    }
    match policy.shortage {
        Shortage::Strict => {
            let kept = current.filter(|set| set.number == number && set.members.is_subset(eligible));
            Some(kept.cloned().unwrap_or_else(|| SyncSet { number, members: eligible.clone() }))
        }
        Shortage::Degrade => (there > 0).then(|| SyncSet { number: there, members: fit.clone() }),
    }
}

/// A new appointment: what its member has may be with it alone. `verified`: the appointment before was.
pub(crate) fn appointed(cluster: &mut Cluster, verified: bool) {
    let policy = cluster.config.policy.synchronous.clone();
    let Some(primary) = cluster.appointment.as_ref().map(|appointment| appointment.member.clone()) else {
        return;
    };
    let eligible = cluster.config.sync_members(&primary);
    let all = &mut cluster.synchronous;
    if !policy.on {
        *all = Synchronous { version: all.version, ..Synchronous::default() };
        return;
    }
    let before = std::mem::take(&mut all.logged);
    if verified {
        all.earlier = before;
    }
    all.log(None, format!("{primary} is appointed: what it has may be with it alone"));
    if policy.shortage == Shortage::Strict {
        let set = SyncSet { number: policy.standbys, members: eligible };
        all.log(Some(set), "strict from the first commit on".into());
    }
}

/// The promotion of the current epoch is verified.
pub(crate) fn verified(cluster: &mut Cluster) {
    cluster.synchronous.earlier.clear();
}

/// The policy has changed: off forgets every rule, on begins with nobody.
pub(crate) fn policy_changed(cluster: &mut Cluster) {
    let on = cluster.config.policy.synchronous.on;
    let all = &mut cluster.synchronous;
    if !on && !all.logged.is_empty() {
        *all = Synchronous { version: all.version + 1, ..Synchronous::default() };
    } else if on && all.logged.is_empty() && cluster.appointment.is_some() {
        all.log(None, "synchronous replication was off".into());
    }
}

impl Cluster {
    /// What members are told; nothing while it is off.
    pub(crate) fn synchronous_view(&self) -> Option<SynchronousView> {
        let policy = &self.config.policy.synchronous;
        if !policy.on {
            return None;
        }
        let primary = self.appointment.as_ref().map(|appointment| &appointment.member);
        let rule = |name: &MemberName| {
            if Some(name) == primary {
                return self.synchronous.wanted().cloned();
            }
            // In place before a promotion, so that its first commit waits already.
            let strict = policy.shortage == Shortage::Strict;
            strict.then(|| SyncSet { number: policy.standbys, members: self.config.sync_members(name) })
        };
        let promotable = self.config.members.iter().filter(|(_, member)| member.promotable);
        Some(SynchronousView {
            epoch: self.epoch,
            version: self.synchronous.version,
            rules: promotable.filter_map(|(name, _)| Some((name.clone(), rule(name)?))).collect(),
        })
    }

    /// The rules that a failover from the current appointment has to satisfy, given what its candidates report.
    fn rules(&self, from: &Appointment, reports: &[CandidateReport]) -> Vec<&LoggedSet> {
        let all = &self.synchronous;
        if from.established.is_some() {
            return all.logged.iter().collect();
        }
        // Its data is a standby's still: it has acknowledged nothing in its epoch.
        let target = reports.iter().find(|report| report.member == from.member);
        if target.is_some_and(|report| counts(self, report)) {
            return all.earlier.iter().collect();
        }
        all.logged.iter().chain(&all.earlier).collect()
    }
}

/// A report that says what its member has received of the current history, and that it has held that since it was confirmed.
fn counts(cluster: &Cluster, report: &CandidateReport) -> bool {
    let Some(record) = cluster.history.last() else { return false };
    let confirmed = matches!(cluster.sync.get(&report.member), Some(SyncState::Confirmed { epoch }) if *epoch == record.epoch);
    confirmed
        && report.form == DataForm::Standby
        && report.timeline == Some(record.established.timeline)
        && report.system_id == Some(record.established.system_id)
        && report.received_lsn.is_some()
}

/// Whether promoting the member of `report` keeps every acknowledged write: why, in words. `None` while synchronous
/// replication is off, when only the bounds of asynchronous loss count.
pub(crate) fn check(
    cluster: &Cluster,
    from: &Appointment,
    report: &CandidateReport,
    reports: &[CandidateReport],
) -> Result<Option<String>, VerdictReason> {
    let rules = cluster.rules(from, reports);
    if rules.is_empty() {
        return Ok(None);
    }
    let received = report.received_lsn.unwrap_or_default();
    let mut proofs = Vec::new();
    for logged in rules {
        let Some(set) = &logged.set else {
            return Err(VerdictReason::NobodyWaitedFor { why: logged.why.clone() });
        };
        let answered: Vec<&CandidateReport> = reports
            .iter()
            .filter(|report| set.members.contains(&report.member) && counts(cluster, report))
            .collect();
        let (found, needed) = (answered.len(), set.answers_needed());
        if found < needed {
            return Err(VerdictReason::TooFewAnswered { rule: set.to_string(), found, needed });
        }
        let highest = answered.iter().max_by_key(|report| report.received_lsn);
        if let Some(highest) = highest.filter(|highest| highest.received_lsn > report.received_lsn) {
            return Err(VerdictReason::BehindRule {
                rule: set.to_string(),
                received,
                holder: highest.member.clone(),
                highest: highest.received_lsn.unwrap_or_default(),
            });
        }
        proofs.push(format!("{set}: {found} of {} answered, {needed} were needed", set.members.len()));
    }
    Ok(Some(format!("none: received {received}; {}", proofs.join("; "))))
}

/// What a failover now would lose of acknowledged writes, if these members answer: `Err` says why it would wait.
pub(crate) fn outlook(cluster: &Cluster, heard: &BTreeSet<MemberName>) -> Result<String, String> {
    for logged in &cluster.synchronous.logged {
        let Some(set) = &logged.set else {
            return Err(format!("commits may have waited for nobody: {}", logged.why));
        };
        let found = set.members.intersection(heard).count();
        let needed = set.answers_needed();
        if found < needed {
            return Err(format!("{set}: {found} are heard and in sync, {needed} have to answer"));
        }
    }
    Ok(format!(
        "{}: no acknowledged write would be lost",
        cluster.synchronous.logged.last().map_or_else(String::new, ToString::to_string)
    ))
}
