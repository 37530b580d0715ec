//! The lease: may this grant be taken, and when does the shutdown begin. Pure: time and facts come as arguments.
//!
//! Rules, and what each prevents:
//! - *fenced*: a grant that was in flight when E was fenced arrives afterwards.
//! - *stale epoch*: a deposed leader's grant arrives after a newer one's.
//! - *instance*: a grant for a machine's twin (a restored snapshot), or for this guard's predecessor.
//! - *expired / too long*: a message that was held up; a unit or clock mistake that would make a lease for ever.
//! - *floor*: after the machine was paused (its clocks came apart), a heartbeat stamped *before* the pause is answered: its deadline
//!   is later in real time than the leader thinks. Only a lease stamped after the pause was noticed counts.
//!
//! Every refusal carries both sides' numbers. A mistake here falls towards a needless self-fence, never towards a second writer.

use crate::wire::{Answer, Fields, format_instance};

/// Permission to be writable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The fencing token.
    pub epoch: u64,
    /// CLOCK_BOOTTIME.
    pub deadline_ns: u64,
}

/// A grant as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The fencing token.
    pub epoch: u64,
    /// For this guard instance.
    pub instance: u128,
    /// CLOCK_BOOTTIME.
    pub deadline_ns: u64,
}

/// What a grant is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// CLOCK_BOOTTIME.
    pub now_ns: u64,
    /// This guard.
    pub instance: u128,
    /// The highest epoch granted or being written down.
    pub highest_epoch: u64,
    /// The highest epoch fenced or being written down.
    pub fenced_through: u64,
    /// From the configuration.
    pub ttl_max_ns: u64,
    /// No deadline before this counts; 0 for none.
    pub deadline_floor_ns: u64,
}

/// The lease that a grant makes of `current`, or the refusal.
pub fn judge(grant: Grant, current: Option<Lease>, facts: Facts) -> Result<Lease, Answer> {
    let numbers = || {
        Fields::new()
            .with("epoch", grant.epoch)
            .with("highest_epoch", facts.highest_epoch)
            .with("fenced_through", facts.fenced_through)
            .with("deadline_ns", grant.deadline_ns)
            .with("now_ns", facts.now_ns)
    };
    let refuse = |reason: String| Err(Answer::Refused { reason, fields: numbers() });
    if grant.instance != facts.instance {
        let (asked, own) = (format_instance(grant.instance), format_instance(facts.instance));
        return Err(Answer::Refused {
            reason: format!("the grant is for instance {asked}, this is {own}"),
            fields: numbers().with("instance", own),
        });
    }
    if grant.epoch <= facts.fenced_through {
        return refuse(format!("epoch {} is fenced: fenced through {}", grant.epoch, facts.fenced_through));
    }
    if grant.epoch < facts.highest_epoch {
        return refuse(format!("epoch {} is stale: the highest is {}", grant.epoch, facts.highest_epoch));
    }
    if grant.deadline_ns <= facts.now_ns {
        return refuse(format!("the deadline {} has passed: it is {}", grant.deadline_ns, facts.now_ns));
    }
    if grant.deadline_ns - facts.now_ns > facts.ttl_max_ns {
        return refuse(format!(
            "the deadline is {} ns away: lease_ttl_max is {} ns",
            grant.deadline_ns - facts.now_ns,
            facts.ttl_max_ns
        ));
    }
    if grant.deadline_ns < facts.deadline_floor_ns {
        return refuse(format!(
            "the clocks came apart: only a lease asked for since then counts, with a deadline of at least {}",
            facts.deadline_floor_ns
        ));
    }
    let held = current.filter(|lease| lease.epoch == grant.epoch).map_or(0, |lease| lease.deadline_ns);
    Ok(Lease { epoch: grant.epoch, deadline_ns: grant.deadline_ns.max(held) })
}

/// The gentle way down before a deadline, CLOCK_BOOTTIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    /// Fast shutdown; from here on nothing is started and no gate opens.
    pub fast_ns: u64,
    /// Immediate shutdown.
    pub immediate_ns: u64,
    /// Kill, still before the kernel does.
    pub kill_ns: u64,
}

impl Lease {
    /// The ladder for a margin.
    pub fn ladder(self, margin_ns: u64) -> Ladder {
        Ladder {
            fast_ns: self.deadline_ns.saturating_sub(margin_ns),
            immediate_ns: self.deadline_ns.saturating_sub(margin_ns / 5 * 2),
            kill_ns: self.deadline_ns.saturating_sub(margin_ns / 10),
        }
    }

    /// May something writable be started now? Not within the margin: it would be shut down at once.
    pub fn is_usable(self, now_ns: u64, margin_ns: u64) -> bool {
        now_ns < self.ladder(margin_ns).fast_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        now_ns: 1000,
        instance: 7,
        highest_epoch: 5,
        fenced_through: 4,
        ttl_max_ns: 100,
        deadline_floor_ns: 0,
    };
    const GRANT: Grant = Grant { epoch: 5, instance: 7, deadline_ns: 1100 };

    #[test]
    fn a_good_grant_makes_a_lease_and_the_deadline_never_moves_backward() {
        let lease = judge(GRANT, None, FACTS).unwrap();
        assert_eq!(lease, Lease { epoch: 5, deadline_ns: 1100 });
        let earlier = Grant { deadline_ns: 1050, ..GRANT };
        assert_eq!(judge(earlier, Some(lease), FACTS), Ok(lease));
        // Another epoch's deadline is not inherited.
        let next = Grant { epoch: 6, deadline_ns: 1050, ..GRANT };
        assert_eq!(judge(next, Some(lease), FACTS), Ok(Lease { epoch: 6, deadline_ns: 1050 }));
    }

    #[test]
    fn every_refusal_names_both_sides() {
        for (grant, facts, parts) in [
            (Grant { instance: 8, ..GRANT }, FACTS, ["00000008", "00000007"]),
            (Grant { epoch: 4, ..GRANT }, FACTS, ["epoch 4 is fenced", "through 4"]),
            (GRANT, Facts { highest_epoch: 6, ..FACTS }, ["epoch 5 is stale", "highest is 6"]),
            (Grant { deadline_ns: 1000, ..GRANT }, FACTS, ["deadline 1000", "it is 1000"]),
            (Grant { deadline_ns: 1101, ..GRANT }, FACTS, ["101 ns away", "is 100 ns"]),
            (GRANT, Facts { deadline_floor_ns: 1101, ..FACTS }, ["came apart", "1101"]),
        ] {
            let Err(Answer::Refused { reason, fields }) = judge(grant, None, facts) else {
                panic!("{grant:?} was not refused");
            };
            assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
            assert!(fields.get("highest_epoch").is_some() && fields.get("now_ns").is_some());
        }
    }

    #[test]
    fn the_ladder_ends_before_the_deadline() {
        let lease = Lease { epoch: 1, deadline_ns: 10_000 };
        let ladder = lease.ladder(1000);
        assert_eq!(ladder, Ladder { fast_ns: 9000, immediate_ns: 9600, kill_ns: 9900 });
        assert!(lease.is_usable(8999, 1000) && !lease.is_usable(9000, 1000));
    }
}
