//! One operation at a time per cluster: which proposal waits for, ends, or is refused by which running operation
//! (DESIGN section 8). The whole rule is [`verdict`], and docs/operations.md shows it; everything that begins an operation
//! asks it. It decides only who goes first, never whether the proposal is sound.
//!
//! Interleaving to fear: a proposal ends an operation between `FenceDecided` and the proof, and nobody is left who waits for
//! that proof. So what ends a fenced operation is a failover only, and it takes over the fence.

use crate::{Cluster, Kind, Rejection, Step};

/// What is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposed {
    /// The detector's failover.
    AutomaticFailover,
    /// An operator's failover.
    OperatorFailover,
    /// An operator's switchover, a failback, or a scheduled one that is due.
    PlannedMove,
    /// The detector's rejoin.
    Rejoin,
    /// An operator's abort.
    Abort,
    /// An operator takes the fenced member for dead.
    AssumeFenced,
    /// An operator's drill.
    Drill,
}

/// What runs, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// Nothing.
    Nothing,
    /// The first appointment of a new cluster.
    Bootstrap,
    /// A failover that waits for a proof or for a candidate.
    FailoverFencing,
    /// A switchover or failback that has fenced nothing yet.
    MovePreparing,
    /// A switchover or failback between `FenceDecided` and its appointment.
    MoveFencing,
    /// Somebody is appointed, and the promotion is not verified.
    Promoting,
    /// The promotion is verified; DNS and the marker row are left.
    Verified,
    /// A rejoin, or a restart of one member.
    Rejoining,
    /// A drill that waits for its detector.
    Drilling,
    /// A full drill between two of its moves.
    Touring,
}

/// What becomes of the proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It begins.
    Begins,
    /// It begins, and what runs ends for it.
    Ends(&'static str),
    /// It is for the running operation itself.
    Joins(&'static str),
    /// Not now: it is proposed again by itself.
    Waits(&'static str),
    /// The caller is told no.
    Refused(&'static str),
}

/// All of `Proposed`, in the table's order.
pub const PROPOSED: [Proposed; 7] = [
    Proposed::AutomaticFailover,
    Proposed::OperatorFailover,
    Proposed::PlannedMove,
    Proposed::Rejoin,
    Proposed::Abort,
    Proposed::AssumeFenced,
    Proposed::Drill,
];

/// All of `Running`, in the table's order.
pub const RUNNING: [Running; 10] = [
    Running::Nothing,
    Running::Bootstrap,
    Running::FailoverFencing,
    Running::MovePreparing,
    Running::MoveFencing,
    Running::Promoting,
    Running::Verified,
    Running::Rejoining,
    Running::Drilling,
    Running::Touring,
];

const OWN_RUNGS: &str = "the promotion has its own deadline and its own next rung";
const NOT_PROMOTABLE: &str = "its member is not promotable before the end anyway";
const VERIFIED: &str = "the promotion stands; a dead DNS provider must not forbid the next failover";

/// The table: a row per proposal, a column per running operation.
pub fn verdict(proposed: Proposed, running: Running) -> Verdict {
    use Verdict::{Begins, Ends, Joins, Refused, Waits};
    match (proposed, running) {
        (Proposed::Abort, Running::Nothing) => Joins("a scheduled switchover is taken back, if there is one"),
        (Proposed::AssumeFenced, Running::Nothing) => Refused("nothing waits for a fence proof"),
        (_, Running::Nothing) => Begins,

        (Proposed::Drill, _) => Refused("a drill begins when nothing else runs"),
        (Proposed::AutomaticFailover | Proposed::OperatorFailover, Running::Drilling | Running::Touring) => {
            Ends("a drill gives way to the real thing")
        }
        (Proposed::Rejoin, Running::Drilling) => Ends("a standby that is not in sync comes first"),
        (Proposed::Rejoin, Running::Touring) => Begins,
        (Proposed::Abort, Running::Drilling | Running::Touring) => {
            Joins("it ends; the primary stays where it is")
        }

        (Proposed::AutomaticFailover, Running::Bootstrap) => Waits(OWN_RUNGS),
        (Proposed::AutomaticFailover, Running::FailoverFencing) => Waits("the running failover sees to it"),
        (Proposed::AutomaticFailover, Running::MovePreparing) => Ends("nothing is fenced yet"),
        (Proposed::AutomaticFailover, Running::MoveFencing) => {
            Waits("it becomes a failover by itself when the old primary does not acknowledge")
        }
        (Proposed::AutomaticFailover, Running::Promoting) => Waits(OWN_RUNGS),
        (Proposed::AutomaticFailover, Running::Verified) => Ends(VERIFIED),
        (Proposed::AutomaticFailover, Running::Rejoining) => Ends(NOT_PROMOTABLE),

        (Proposed::OperatorFailover, Running::Bootstrap) => Refused("there is no primary to replace"),
        (Proposed::OperatorFailover, Running::FailoverFencing) => Refused("the running failover sees to it"),
        (Proposed::OperatorFailover, Running::MovePreparing) => Ends("nothing is fenced yet"),
        (Proposed::OperatorFailover, Running::MoveFencing) => Ends("the failover takes over its fence"),
        (Proposed::OperatorFailover, Running::Promoting) => Refused(OWN_RUNGS),
        (Proposed::OperatorFailover, Running::Verified) => Ends(VERIFIED),
        (Proposed::OperatorFailover, Running::Rejoining) => Ends(NOT_PROMOTABLE),

        (Proposed::PlannedMove, _) => Refused("a planned move begins when nothing else runs"),
        (Proposed::Rejoin, _) => Waits("a rejoin begins when nothing else runs"),

        (Proposed::Abort, Running::MovePreparing) => Joins("it ends; nothing is fenced yet"),
        (Proposed::Abort, Running::MoveFencing) => Joins("it rolls back to the old primary"),
        (Proposed::Abort, Running::Promoting) => Refused("the new primary is appointed"),
        (Proposed::Abort, Running::Verified) => Refused("the new primary is verified"),
        (Proposed::Abort, Running::Bootstrap | Running::FailoverFencing | Running::Rejoining) => {
            Refused("only a switchover or failback can be aborted")
        }

        (Proposed::AssumeFenced, Running::FailoverFencing) => Joins("the word is its proof"),
        (Proposed::AssumeFenced, Running::MoveFencing) => {
            Joins("it becomes a failover; the word is its proof")
        }
        (Proposed::AssumeFenced, _) => Refused("nothing waits for a fence proof"),
    }
}

/// Where the cluster is.
pub fn running(cluster: &Cluster) -> Running {
    let Some(operation) = &cluster.operation else {
        return if cluster.rehearsal.is_some() { Running::Touring } else { Running::Nothing };
    };
    match (operation.step, &operation.kind) {
        (_, Kind::Drill { .. }) => Running::Drilling,
        (_, Kind::Observed { .. }) => unreachable!("what is only observed never runs"),
        (Step::Rebuild | Step::Confirm, _) => Running::Rejoining,
        (Step::Redirect | Step::Validate | Step::Done, _) => Running::Verified,
        (_, Kind::Rejoin { .. } | Kind::Restart { .. }) => Running::Rejoining,
        (Step::Declare | Step::Checkpoint, Kind::Switchover | Kind::Failback) => Running::MovePreparing,
        (Step::Fence | Step::Choose, Kind::Switchover | Kind::Failback) => Running::MoveFencing,
        // A first promotion that failed is fenced like any other.
        (Step::Fence | Step::Choose, Kind::Failover | Kind::Bootstrap) => Running::FailoverFencing,
        (_, Kind::Bootstrap) => Running::Bootstrap,
        (_, Kind::Failover | Kind::Switchover | Kind::Failback) => Running::Promoting,
    }
}

/// A rejection when `proposed` may not begin now, with the running operation's number and step.
pub(crate) fn check(cluster: &Cluster, proposed: Proposed) -> Result<(), Rejection> {
    match verdict(proposed, running(cluster)) {
        Verdict::Begins | Verdict::Ends(_) | Verdict::Joins(_) => Ok(()),
        Verdict::Waits(_) => Err(refusal(cluster, None)),
        Verdict::Refused(why) => Err(refusal(cluster, Some(why))),
    }
}

fn refusal(cluster: &Cluster, why: Option<&str>) -> Rejection {
    let parked = cluster.rehearsal.as_ref().map(|rehearsal| &*rehearsal.drill);
    let operation = cluster.operation.as_ref().or(parked);
    let Some(operation) = operation else { return Rejection::NotWaiting };
    match why {
        Some(why) => {
            Rejection::Precedence { operation: operation.id, step: operation.step, why: why.to_owned() }
        }
        None => Rejection::OperationRunning { operation: operation.id, step: operation.step },
    }
}
