//! The state as operators see it: from the core's nouns to the protocol's messages. Decides nothing.

mod operation;
mod plan;
mod restraint;
mod status;
mod synchronous;

use regent_core::{Event, EventKind, Rejection, Step};
use regent_proto::v1;
use regent_types::Automation;
use tonic::Status;

pub use operation::{report, summary};
pub use plan::plan;
pub use status::status;

/// A step's name in the protocol, in metrics and in hooks.
pub fn step_name(step: Step) -> &'static str {
    match step {
        Step::Declare => "declare",
        Step::Fence => "fence",
        Step::Choose => "choose",
        Step::Promote => "promote",
        Step::Redirect => "redirect",
        Step::Validate => "validate",
        Step::Rebuild => "rebuild",
        Step::Confirm => "confirm",
        Step::Restart => "restart",
        Step::Done => "done",
        Step::Checkpoint => "checkpoint",
        Step::Detect => "detect",
        Step::Away => "away",
        Step::Back => "back",
    }
}

fn event_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::ClusterConfigured => "cluster_configured",
        EventKind::Declared => "declared",
        EventKind::FenceDecided => "fence_decided",
        EventKind::FenceProven => "fence_proven",
        EventKind::Waiting => "waiting",
        EventKind::Appointed => "appointed",
        EventKind::Promoted => "promoted",
        EventKind::PromotionFailed => "promotion_failed",
        EventKind::RecordChanged => "record_changed",
        EventKind::Redirected => "redirected",
        EventKind::Validated => "validated",
        EventKind::Rejoined => "rejoined",
        EventKind::SyncConfirmed => "sync_confirmed",
        EventKind::LossFinal => "loss_final",
        EventKind::Ended => "ended",
        EventKind::Paused => "paused",
        EventKind::Resumed => "resumed",
        EventKind::AutomationChanged => "automation_changed",
        EventKind::Pending => "pending",
        EventKind::Withdrawn => "withdrawn",
        EventKind::Approved => "approved",
        EventKind::Acknowledged => "acknowledged",
        EventKind::CooldownOver => "cooldown_over",
        EventKind::Vetoed => "vetoed",
        EventKind::Drill => "drill",
        EventKind::PrimarySeen => "primary_seen",
        EventKind::WouldFailOver => "would_fail_over",
        EventKind::PolicyChanged => "policy_changed",
        EventKind::MemberAdded => "member_added",
        EventKind::MemberRemoved => "member_removed",
        EventKind::MembersAcknowledged => "members_acknowledged",
        EventKind::ClusterForgotten => "cluster_forgotten",
        EventKind::Adopted => "adopted",
        EventKind::AlertRaised => "alert_raised",
        EventKind::AlertCleared => "alert_cleared",
        EventKind::Scheduled => "scheduled",
        EventKind::Unscheduled => "unscheduled",
        EventKind::ApprovalWanted => "approval_wanted",
        EventKind::Checkpointed => "checkpointed",
        EventKind::RollingBack => "rolling_back",
        EventKind::PromotableAcknowledged => "promotable_acknowledged",
        EventKind::ParametersChanged => "parameters_changed",
        EventKind::MemberChanged => "member_changed",
        EventKind::ClusterImported => "cluster_imported",
        EventKind::ImportAcknowledged => "import_acknowledged",
        EventKind::SynchronousChanged => "synchronous_changed",
        EventKind::SynchronousProven => "synchronous_proven",
    }
}

/// One event.
pub fn event(event: &Event) -> v1::Event {
    v1::Event {
        sequence: event.sequence,
        wall_ms: event.wall_ms,
        cluster: event.cluster.to_string(),
        epoch: event.epoch.0,
        kind: event_name(event.kind).to_owned(),
        rule: event.rule.clone(),
        text: event.text.clone(),
        operation: event.operation.map(|id| id.0),
        member: event.member.as_ref().map(ToString::to_string),
    }
}

/// Where this node's file says something else of a cluster than the replicated state, which is in force.
pub fn file_differs(config: &crate::config::Config, cluster: &regent_core::Cluster) -> Vec<String> {
    let Some(file) = config.clusters.iter().find(|one| one.name == cluster.config.name) else {
        return Vec::new();
    };
    let state = &cluster.config;
    let mut differences: Vec<String> = regent_core::differences(&file.policy, &state.policy)
        .into_iter()
        .map(|difference| format!("policy (file -> in force): {difference}"))
        .collect();
    for member in state.members.keys().filter(|member| !file.members.contains_key(*member)) {
        differences.push(format!("member {member} is not in the file"));
    }
    for (member, config) in &file.members {
        match state.members.get(member) {
            None => differences.push(format!("member {member} is in the file only")),
            Some(known) if known != config => {
                differences.push(format!("member {member} is different in the file"))
            }
            Some(_) => {}
        }
    }
    if (&file.dns_name, file.dns_ttl_s, &file.dns_providers)
        != (&state.dns_name, state.dns_ttl_s, &state.dns_providers)
    {
        differences.push("the DNS settings are different in the file".to_owned());
    }
    differences
}

/// Automation.
pub fn automation(automation: Automation) -> v1::Automation {
    match automation {
        Automation::Automatic => v1::Automation::Automatic,
        Automation::Paused => v1::Automation::Paused,
        Automation::Approve => v1::Automation::Approve,
        Automation::Observe => v1::Automation::Observe,
    }
}

/// A rejection as a status: ABORTED for a stale epoch, NOT_FOUND for what is not there, INVALID_ARGUMENT for what could
/// never be, FAILED_PRECONDITION for what the state refuses now.
pub fn rejected(rejection: &Rejection) -> Status {
    let text = rejection.to_string();
    match rejection {
        Rejection::StaleEpoch { .. } => Status::aborted(format!("expected_epoch: {text}")),
        Rejection::StaleGroup { .. } => Status::aborted(format!("expected_version: {text}")),
        Rejection::UnknownCluster { .. }
        | Rejection::UnknownMember { .. }
        | Rejection::UnknownCoordinator { .. } => Status::not_found(text),
        Rejection::Config(_) | Rejection::BadTime { .. } => Status::invalid_argument(text),
        _ => Status::failed_precondition(text),
    }
}
