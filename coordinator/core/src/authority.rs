//! The only place where an epoch rises and where `FenceDecided` is set.
//!
//! Invariants (DESIGN section 5):
//! - an epoch is appointed once, to one member and one instance id;
//! - another appointment needs `FenceDecided` of the current epoch and a proof for the instance bound to it. The
//!   caller hands the proof over; it was checked by [`check_proof`], which says why.

use regent_types::{
    BootId, Epoch, InstanceId, MemberName,
    mutant::{Mutant, is_on},
};

use crate::{Appointment, Cluster, FenceProof, Leadership, Rejection, synchronous};

/// `FenceDecided(epoch)`: from the applying of this entry on, no leader grants `epoch` or anything below.
pub(crate) fn decide_fence(cluster: &mut Cluster, epoch: Epoch) {
    assert!(epoch <= cluster.epoch, "only what was appointed is fenced");
    cluster.fenced_through = cluster.fenced_through.max(epoch);
}

/// Appoints `member` at the next epoch, bound to `instance`.
///
/// Interleaving that the assertion prevents: two appointments without a fence between them, so that two instances
/// hold leases of two epochs at once.
pub(crate) fn appoint(
    cluster: &mut Cluster,
    member: MemberName,
    instance: InstanceId,
    boot: BootId,
) -> Epoch {
    assert_eq!(cluster.fenced_through, cluster.epoch, "appointing needs FenceDecided of the current epoch");
    if !is_on(Mutant::SameEpoch) {
        cluster.epoch = cluster.epoch.next();
    }
    let epoch = cluster.epoch;
    // The new primary's list comes with a view of its own epoch, so it is at least this one.
    let promotable_acknowledged = cluster.promotable.version;
    let appointment =
        Appointment { epoch, member, instance, boot, established: None, promotable_acknowledged };
    let verified = cluster.established().is_some();
    cluster.appointment = Some(appointment);
    synchronous::appointed(cluster, verified);
    epoch
}

/// Whether `proof` proves that the instance bound by `bound` cannot write any more.
///
/// `under` is the leadership that appended the entry. Interleaving that its comparison prevents: node 1 leads, its
/// bound passes, it loses the lead; node 2 leads and grants a lease; node 1 leads again and proposes with the bound
/// that it remembers.
pub(crate) fn check_proof(
    bound: &Appointment,
    proof: &FenceProof,
    under: Leadership,
) -> Result<(), Rejection> {
    let bad = |reason: String| Err(Rejection::BadProof { reason });
    match proof {
        FenceProof::Acknowledged(evidence) => {
            if evidence.epoch < bound.epoch {
                return bad(format!(
                    "the guard fenced epoch {}, epoch {} is asked",
                    evidence.epoch, bound.epoch
                ));
            }
            let speaks_for_itself = evidence.instance == bound.instance;
            // Another boot may be another machine restored from an image: it cannot speak for the first.
            let speaks_for_predecessor =
                evidence.boot == bound.boot && evidence.succeeds.contains(&bound.instance);
            if speaks_for_itself || speaks_for_predecessor {
                return Ok(());
            }
            bad(format!(
                "the guard that answered is instance {} of boot {}, epoch {} is bound to instance {} of boot {}",
                evidence.instance, evidence.boot, bound.epoch, bound.instance, bound.boot
            ))
        }
        FenceProof::LeaseExpired { leadership, .. } => {
            if *leadership == under {
                return Ok(());
            }
            bad(format!("the bound was computed under {leadership}, the entry was proposed under {under}"))
        }
        FenceProof::Operator { .. } => Ok(()),
        // A guard that has restarted is another instance, and its epoch another epoch: what a driver did to the last one
        // says nothing of it.
        FenceProof::External(evidence) => {
            if evidence.begun_for.epoch != bound.epoch {
                return bad(format!(
                    "driver {} was started to fence epoch {}, epoch {} is asked",
                    evidence.driver, evidence.begun_for.epoch, bound.epoch
                ));
            }
            if evidence.instance != bound.instance {
                return bad(format!(
                    "driver {} fenced instance {}, epoch {} is bound to instance {}",
                    evidence.driver, evidence.instance, bound.epoch, bound.instance
                ));
            }
            Ok(())
        }
    }
}
