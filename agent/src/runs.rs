//! Tells a server that is back from one that only comes up between two crashes.
//!
//! Decides whether an answer counts as the end of *not accepting*. It does for the first run seen at an epoch, and for a
//! later one once it has held out. Interleaving: PostgreSQL crashes a second after each start; each of its answers started
//! the clock of detection anew, and no failover ever came. Too long a hold errs towards a failover for a server that
//! crashed, came back, and stops answering once more just then; too short a one towards none.

use regent_types::Epoch;

/// See the module's documentation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Runs {
    /// The epoch, and the run that is taken for steady, by the start of its postmaster.
    steady: Option<(Epoch, i64)>,
    /// A later run, and when it answered first.
    young: Option<(i64, u64)>,
}

impl Runs {
    /// The run that was started at `started_us` has answered; whether that counts.
    pub fn answered(&mut self, epoch: Epoch, started_us: i64, now_ns: u64, hold_ns: u64) -> bool {
        let Some((of, steady)) = self.steady.filter(|(of, _)| *of == epoch) else {
            *self = Self { steady: Some((epoch, started_us)), young: None };
            return true;
        };
        if steady == started_us {
            return true;
        }
        let since_ns = match self.young {
            Some((run, since_ns)) if run == started_us => since_ns,
            _ => {
                self.young = Some((started_us, now_ns));
                now_ns
            }
        };
        if now_ns.saturating_sub(since_ns) < hold_ns {
            return false;
        }
        *self = Self { steady: Some((of, started_us)), young: None };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: u64 = 10;

    #[test]
    fn a_run_after_a_crash_counts_when_it_has_held_out() {
        let mut runs = Runs::default();
        assert!(runs.answered(Epoch(1), 100, 0, HOLD), "the first one that is seen");
        assert!(!runs.answered(Epoch(1), 200, 5, HOLD));
        assert!(!runs.answered(Epoch(1), 200, 14, HOLD));
        assert!(runs.answered(Epoch(1), 200, 15, HOLD));
        assert!(runs.answered(Epoch(1), 200, 16, HOLD));
    }

    #[test]
    fn runs_that_crash_again_never_count_however_many() {
        let mut runs = Runs::default();
        assert!(runs.answered(Epoch(1), 100, 0, HOLD));
        assert!((1..50).all(|n: u64| !runs.answered(Epoch(1), 100 + n as i64, n * 9, HOLD)));
    }

    #[test]
    fn a_new_epoch_begins_anew() {
        let mut runs = Runs::default();
        assert!(runs.answered(Epoch(1), 100, 0, HOLD));
        assert!(!runs.answered(Epoch(1), 200, 1, HOLD));
        assert!(runs.answered(Epoch(2), 200, 2, HOLD));
    }
}
