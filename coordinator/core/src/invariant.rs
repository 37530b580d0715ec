//! What must hold after every entry. A violation is a bug: the node stops rather than go on with it.

use crate::{Cluster, EffectKind, State, Step};

/// Checks every cluster.
pub(crate) fn check(state: &State) {
    for cluster in state.clusters.values() {
        check_cluster(cluster);
    }
}

fn check_cluster(cluster: &Cluster) {
    let name = &cluster.config.name;
    assert!(cluster.fenced_through <= cluster.epoch, "{name}: fenced beyond the current epoch");
    if let Some(appointment) = &cluster.appointment {
        assert_eq!(appointment.epoch, cluster.epoch, "{name}: the appointment is the current epoch's");
        assert!(cluster.config.members.contains_key(&appointment.member), "{name}: the primary is a member");
    }
    for pair in cluster.history.windows(2) {
        assert!(pair[0].epoch < pair[1].epoch, "{name}: epochs rise");
        assert_eq!(pair[0].established.system_id, pair[1].established.system_id, "{name}: one database");
    }
    if let Some(record) = cluster.history.last() {
        assert!(record.epoch <= cluster.epoch, "{name}: history beyond the current epoch");
    }
    let established = cluster.established().is_some();
    let Some(operation) = &cluster.operation else {
        // Fenced or unverified without an operation, nothing would ever bring a primary back.
        assert!(cluster.appointment.is_none() || established, "{name}: unverified without an operation");
        assert!(
            cluster.appointment.is_none() || cluster.fenced_through < cluster.epoch,
            "{name}: fenced without an operation"
        );
        return;
    };
    for effect in &operation.effects {
        assert_eq!(effect.key.operation, operation.id, "{name}: an effect belongs to the running operation");
        if let EffectKind::Agent { directive, .. } = &effect.kind {
            assert!(
                directive.epoch() <= cluster.epoch,
                "{name}: no directive of an epoch that was never appointed"
            );
        }
    }
    match operation.step {
        Step::Fence | Step::Choose => {
            assert_eq!(cluster.fenced_through, cluster.epoch, "{name}: fencing without FenceDecided");
            assert!(!operation.effects.is_empty(), "{name}: nothing would end the wait");
        }
        Step::Promote
        | Step::Redirect
        | Step::Validate
        | Step::Rebuild
        | Step::Checkpoint
        | Step::Restart => {
            assert_eq!(established, operation.step != Step::Promote, "{name}: {:?}", operation.step);
            assert!(cluster.fenced_through < cluster.epoch, "{name}: {:?} of a fenced epoch", operation.step);
            assert!(!operation.effects.is_empty(), "{name}: nothing would end the step");
        }
        Step::Declare | Step::Done | Step::Away | Step::Back => {
            panic!("{name}: {:?} does not last, or is kept beside the running operation", operation.step)
        }
        Step::Detect => {
            assert!(established && cluster.fenced_through < cluster.epoch, "{name}: a drill has fenced");
            assert!(operation.effects.is_empty(), "{name}: a drill has effects");
        }
        Step::Confirm => {
            assert!(established && cluster.fenced_through < cluster.epoch, "{name}: confirming nobody");
        }
    }
}
