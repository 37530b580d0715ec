//! The outcomes already given, by [`EffectKey`]: a repeated directive gets its first `Done` again, a running one is not
//! started twice, a newer key supersedes an older one.

use std::collections::VecDeque;

use regent_types::{EffectKey, Outcome};

/// What to do with a directive that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Begin it; another that runs is to be dropped first.
    Start {
        /// The superseded directive.
        supersedes: Option<EffectKey>,
    },
    /// It runs already.
    Running,
    /// It was answered already.
    Answered(Outcome),
    /// An older key than the running one, of the same or an older operation.
    Older {
        /// The one that runs.
        running: EffectKey,
    },
}

/// Outcomes of the last directives.
#[derive(Debug, Default)]
pub struct OutcomeCache {
    done: VecDeque<(EffectKey, Outcome)>,
    running: Option<EffectKey>,
}

const KEPT_MAX: usize = 64;

impl OutcomeCache {
    /// What to do with `key`.
    pub fn admit(&mut self, key: &EffectKey) -> Admission {
        if let Some((_, outcome)) = self.done.iter().find(|(k, _)| k == key) {
            return Admission::Answered(outcome.clone());
        }
        match &self.running {
            Some(running) if running == key => Admission::Running,
            Some(running) if order(running) > order(key) => Admission::Older { running: running.clone() },
            running => {
                let supersedes = running.clone();
                self.running = Some(key.clone());
                Admission::Start { supersedes }
            }
        }
    }

    /// Records the outcome of `key`. Only `Done` is final: a refusal or an unknown is tried again when asked again.
    pub fn finish(&mut self, key: &EffectKey, outcome: &Outcome) {
        if self.running.as_ref() == Some(key) {
            self.running = None;
        }
        if matches!(outcome, Outcome::Done(_)) {
            self.done.push_back((key.clone(), outcome.clone()));
            if self.done.len() > KEPT_MAX {
                self.done.pop_front();
            }
        }
    }

    /// The one that runs.
    pub fn running(&self) -> Option<&EffectKey> {
        self.running.as_ref()
    }
}

fn order(key: &EffectKey) -> (u64, u64, u32) {
    (key.operation.0, key.epoch.0, key.step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use regent_types::{ClusterName, Epoch, Evidence, OperationId};

    fn key(operation: u64, step: u32) -> EffectKey {
        EffectKey {
            cluster: ClusterName::new("c").unwrap(),
            operation: OperationId(operation),
            step,
            epoch: Epoch(1),
        }
    }

    #[test]
    fn a_repeat_gets_the_first_answer_and_a_newer_key_supersedes() {
        let mut cache = OutcomeCache::default();
        assert_eq!(cache.admit(&key(1, 1)), Admission::Start { supersedes: None });
        assert_eq!(cache.admit(&key(1, 1)), Admission::Running);
        let done =
            Outcome::Done(Evidence::Validated { address: "a".into(), elapsed_ms: 1, connected_ms: None });
        cache.finish(&key(1, 1), &done);
        assert_eq!(cache.admit(&key(1, 1)), Admission::Answered(done));
        assert_eq!(cache.admit(&key(1, 2)), Admission::Start { supersedes: None });
        assert_eq!(cache.admit(&key(2, 1)), Admission::Start { supersedes: Some(key(1, 2)) });
        assert_eq!(cache.admit(&key(1, 3)), Admission::Older { running: key(2, 1) });
    }

    #[test]
    fn a_refusal_is_tried_again_when_asked_again() {
        let mut cache = OutcomeCache::default();
        cache.admit(&key(1, 1));
        cache.finish(&key(1, 1), &Outcome::Refused { reason: "no".into() });
        assert_eq!(cache.admit(&key(1, 1)), Admission::Start { supersedes: None });
    }
}
