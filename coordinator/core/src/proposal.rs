//! Proposals: the only things that enter the log.

use std::collections::{BTreeMap, BTreeSet};

use regent_types::{
    Automation, BootId, CandidateReport, ClusterName, CoordinatorId, EffectKey, Epoch, FencedEvidence,
    GroupId, InstanceId, Lsn, MemberName, OperationId, Outcome, RequestId, SyncSet,
};
use serde::{Deserialize, Serialize};

use crate::{
    AlertKind, ClusterConfig, DrillNews, Explanation, FenceProof, GroupNews, GroupRequest, ImportedMember,
    MemberConfig, Policy, Sighting, Step, Trigger, switch::Readiness,
};

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Wall time of the proposer, ms: for display only, no decision reads it.
    pub wall_ms: u64,
    /// Who proposed it.
    pub proposer: CoordinatorId,
    /// What.
    pub body: Body,
}

/// What is proposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Add a cluster, or change its configuration.
    Configure(Box<ClusterConfig>),
    /// The detector wants an operation.
    Declare(Declare),
    /// An operator wants something.
    Request(OperatorRequest),
    /// The executor has a proof and the candidates' reports.
    FenceProven {
        /// The `Fence` effect.
        key: EffectKey,
        /// The proof, begun after that effect was committed.
        proof: FenceProof,
        /// Reports of the candidates, prepared after the proof.
        candidates: Vec<CandidateReport>,
    },
    /// The candidates have reported again.
    CandidatesReported {
        /// The `Collect` effect.
        key: EffectKey,
        /// The old primary's guard has acknowledged by now.
        acknowledged: Option<FencedEvidence>,
        /// Reports.
        candidates: Vec<CandidateReport>,
    },
    /// What came of an effect.
    Outcome {
        /// Which.
        key: EffectKey,
        /// What.
        outcome: Outcome,
    },
    /// A step has lasted longer than its deadline on the leader's clock.
    StepOverdue {
        /// The cluster.
        cluster: ClusterName,
        /// The operation.
        operation: OperationId,
        /// The step that was meant.
        step: Step,
        /// The epoch that was meant.
        epoch: Epoch,
        /// For how long it lasted, ms.
        after_ms: u64,
    },
    /// A standby has been in sync for the whole window.
    SyncConfirmed {
        /// The cluster.
        cluster: ClusterName,
        /// The standby.
        member: MemberName,
        /// The epoch whose primary it streams from.
        epoch: Epoch,
        /// What it had received.
        received_lsn: Lsn,
    },
    /// The leader has counted the cooldown after an automatic failover to its end.
    CooldownOver {
        /// The cluster.
        cluster: ClusterName,
        /// The failover that began it.
        operation: OperationId,
        /// For how long the leader has seen it, ms.
        counted_ms: u64,
    },
    /// The operator's command objects to an automatic failover: recorded, nothing else.
    Vetoed {
        /// The cluster.
        cluster: ClusterName,
        /// The epoch that was meant.
        epoch: Epoch,
        /// What it said.
        reason: String,
    },
    /// The event hook was told every event up to this one.
    EventsTold {
        /// Sequence number.
        through: u64,
    },
    /// The primary that a pending failover is about is well again.
    Withdraw {
        /// The cluster.
        cluster: ClusterName,
        /// The epoch that was meant.
        epoch: Epoch,
        /// What is well, with numbers.
        found: String,
    },
    /// No lease of earlier terms, or of a forgotten cluster, can be valid any more: the leader has led for their whole
    /// bound since it applied the change.
    LeasesSettled {
        /// The cluster.
        cluster: ClusterName,
        /// The change's entry.
        index: u64,
    },
    /// A member acts by this member list.
    MembersAcknowledged {
        /// The cluster.
        cluster: ClusterName,
        /// The member.
        member: MemberName,
        /// The list's version.
        version: u64,
    },
    /// An operator wants something of the whole group.
    Group(GroupRequest),
    /// The leader's shell found something out about the coordinators.
    GroupNews(GroupNews),
    /// Something about a member needs an operator's eye, or does so no more.
    Alert {
        /// The cluster.
        cluster: ClusterName,
        /// The member.
        member: MemberName,
        /// What.
        kind: AlertKind,
        /// In words, with numbers; `None` when it is over.
        text: Option<String>,
    },
    /// Every member of the group understands this feature level.
    RaiseLevel {
        /// The level.
        level: u8,
    },
    /// The leader's wall clock has reached a scheduled switchover.
    SwitchoverDue {
        /// The cluster.
        cluster: ClusterName,
        /// The scheduled time that was meant.
        at_wall_ms: u64,
        /// It could not start for too long: give it up.
        expired: bool,
        /// What the leader knows.
        readiness: Box<Readiness>,
    },
    /// A member of the preferred region has been in sync for long enough.
    FailbackReady {
        /// The cluster.
        cluster: ClusterName,
        /// The epoch that was seen.
        expected_epoch: Epoch,
        /// To whom.
        target: MemberName,
        /// What the leader knows.
        readiness: Box<Readiness>,
    },
    /// The primary has the list of who may be promoted on its disk (DESIGN section 6).
    PromotableAcknowledged {
        /// The cluster.
        cluster: ClusterName,
        /// The epoch under which it has it.
        epoch: Epoch,
        /// The primary's instance.
        instance: InstanceId,
        /// The list's version.
        version: u64,
    },
    /// The leader has something to say about a drill.
    Drill {
        /// The cluster.
        cluster: ClusterName,
        /// The drill.
        operation: OperationId,
        /// What.
        news: DrillNews,
    },
    /// The leader has seen something of a cluster that another tool leads.
    Observed {
        /// The cluster.
        cluster: ClusterName,
        /// What.
        sighting: Sighting,
    },
    /// A member of a cluster that comes from another group obeys this group: it is on its disk.
    ImportAcknowledged {
        /// The cluster.
        cluster: ClusterName,
        /// The member.
        member: MemberName,
        /// The group that it obeys.
        group: GroupId,
        /// What it says with that heartbeat.
        said: Box<ImportedMember>,
        /// Earlier instances that its guard speaks for.
        succeeds: Vec<InstanceId>,
    },
    /// Commits are to wait for others than before.
    SynchronousSet {
        /// The cluster.
        cluster: ClusterName,
        /// The epoch that was meant.
        epoch: Epoch,
        /// The newest rule that was seen.
        version: u64,
        /// The rule; nobody without one.
        set: Option<SyncSet>,
        /// Why.
        why: String,
    },
    /// The newest rule is in force, and its members have everything from before.
    SynchronousProven {
        /// The cluster.
        cluster: ClusterName,
        /// The epoch that was meant.
        epoch: Epoch,
        /// The rule that was meant.
        version: u64,
        /// Since when it is in force.
        since_lsn: Lsn,
        /// What its members have received.
        received: BTreeMap<MemberName, Lsn>,
    },
    /// PostgreSQL acts by something else than the newest rule.
    SynchronousLost {
        /// The cluster.
        cluster: ClusterName,
        /// The epoch that was meant.
        epoch: Epoch,
        /// The rule that was meant.
        version: u64,
        /// What it was found with.
        found: String,
    },
}

/// The detector's wish for an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declare {
    /// The cluster.
    pub cluster: ClusterName,
    /// The epoch that the detector saw: another one by now means that its evidence is stale.
    pub expected_epoch: Epoch,
    /// The member it is about: the silent primary, the member to bootstrap or to rejoin.
    pub member: MemberName,
    /// Why.
    pub trigger: Trigger,
    /// What the detector knows.
    pub evidence: Evidence,
}

/// What the leader knew when it declared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Instance and boot of `member`, when it is heard (bootstrap).
    pub instance: Option<(InstanceId, BootId)>,
    /// The primary's WAL at its last report.
    pub primary_lsn: Option<Lsn>,
    /// Age of that report, ms.
    pub primary_age_ms: Option<u64>,
    /// Members other than the primary that are heard and could be candidates.
    pub heard: Vec<MemberName>,
    /// `member`'s data directory is empty (bootstrap).
    pub empty: bool,
    /// The newest epoch that `member`'s data descends from (rejoin).
    pub lineage: Epoch,
    /// What the standbys lacked when the primary was heard last.
    #[serde(default)]
    pub lag: Box<LagEvidence>,
    /// Triggers, guards, candidates and who heard whom at that moment: for the report only, no decision but a drill's
    /// words rests on it.
    #[serde(default)]
    pub snapshot: Option<Box<Explanation>>,
}

/// Lag at the last contact with the primary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LagEvidence {
    /// How old the primary's own figures were when it was heard last, ms, when that is too old to call a lag small.
    pub frozen_ms: Option<u64>,
    /// By standby: age, at that last contact, of the oldest write that it lacked, ms; a standby that is not named lacked
    /// more than the leader remembers.
    pub by_member_ms: BTreeMap<MemberName, u64>,
}

/// A mutating call of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRequest {
    /// The cluster.
    pub cluster: ClusterName,
    /// Who, e.g. `regent://operator/alice`.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The epoch that the operator saw.
    pub expected_epoch: Epoch,
    /// The same id a second time returns the first answer.
    pub request_id: RequestId,
    /// What.
    pub kind: RequestKind,
}

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestKind {
    /// Fail over now.
    Failover {
        /// To this member, or to the best one.
        to: Option<MemberName>,
        /// Consent to lose what this member lacks.
        consent_to_loss: Option<MemberName>,
        /// What the leader knew.
        evidence: Evidence,
    },
    /// Stop automation; leases and self-fencing go on.
    Pause,
    /// Start automation again.
    Resume,
    /// Take the risk that the fenced epoch's instance still writes: an exception to promise 1.
    AssumeFenced,
    /// Change how much happens by itself.
    SetAutomation {
        /// The mode wanted.
        automation: Automation,
    },
    /// Take note of the last automatic failover: the next one need not wait.
    Acknowledge,
    /// Let what is pending begin.
    Approve {
        /// What the leader knew.
        evidence: Evidence,
        /// The same for the guards of a failback.
        #[serde(default)]
        readiness: Box<Readiness>,
    },
    /// Change the policy.
    SetPolicy {
        /// As it was when the change was made up: another one by now is refused, so that two operators do not undo each
        /// other's change without knowing.
        from: Box<Policy>,
        /// As it is to be.
        to: Box<Policy>,
        /// The worst re-election by the leader's time-outs, ms.
        election_worst_ms: u64,
        /// The longest lease that each guard takes, where it is known, ms.
        guards: BTreeMap<MemberName, u64>,
    },
    /// Add a member.
    AddMember {
        /// Its name.
        member: MemberName,
        /// As configured.
        config: Box<MemberConfig>,
    },
    /// Remove a member.
    RemoveMember {
        /// Its name.
        member: MemberName,
    },
    /// Change the primary as planned, losing nothing.
    Switchover {
        /// To this member, or to the best one.
        to: Option<MemberName>,
        /// What the leader knew.
        readiness: Box<Readiness>,
    },
    /// The same at a wall time.
    Schedule {
        /// To this member, or to the best one.
        to: Option<MemberName>,
        /// When, wall ms.
        at_wall_ms: u64,
    },
    /// Switch over to the preferred region.
    Failback {
        /// What the leader knew.
        readiness: Box<Readiness>,
    },
    /// Stop a planned change of primary before its appointment, or take a scheduled one back.
    Abort,
    /// Restart PostgreSQL on a member, or have it read its configuration again.
    Restart {
        /// Which member.
        member: MemberName,
        /// Only reload.
        reload_only: bool,
        /// Standbys that run with less than the files say of a parameter that they need as high as their primary, with the
        /// parameters: as the leader last heard them.
        #[serde(default)]
        behind: BTreeMap<MemberName, Vec<String>>,
    },
    /// Change PostgreSQL's parameters on every member.
    SetParameters {
        /// New values.
        set: BTreeMap<String, String>,
        /// Back to what the members' own files say.
        unset: BTreeSet<String>,
    },
    /// Change what is configured of a member.
    SetMember {
        /// Its name.
        member: MemberName,
        /// What is to be different.
        changes: MemberChanges,
    },
    /// Rehearse the loss of the primary's region.
    Drill {
        /// There and back by switchovers; without it, it stops before anything is touched.
        full: bool,
        /// What the leader knew.
        readiness: Box<Readiness>,
    },
}

/// What is to be different about a member; `None` stays as it is. Region, host and port are not among them: a member that lives
/// elsewhere is another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberChanges {
    /// Higher is preferred between candidates with equal WAL.
    pub priority: Option<u32>,
    /// May ever be promoted.
    pub promotable: Option<bool>,
    /// Address that the DNS name gets when it is primary.
    pub client_address: Option<std::net::IpAddr>,
    /// Port for clients.
    pub client_port: Option<u16>,
    /// Where its agent is asked for promises.
    pub agent_address: Option<String>,
}
