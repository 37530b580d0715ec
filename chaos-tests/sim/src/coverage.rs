//! Which effects the core has emitted, and what the agents' planner made of each directive: every effect that can be
//! emitted must be one that the agent accepts, or refuses with a reason (issue: coverage of directives).

use std::collections::BTreeMap;

use regent_agent_core::Next;
use regent_core::EffectKind;
use regent_types::{Directive, Outcome};

/// Counts of one directive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fate {
    /// Effects in the log.
    pub created: u64,
    /// Steps that the planner returned for it.
    pub steps: u64,
    /// Ended well.
    pub done: u64,
    /// Ended with a reason.
    pub refused: u64,
    /// Ended in doubt.
    pub unknown: u64,
    /// Refused or in doubt, without a word why.
    pub speechless: u64,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Effects by kind.
    pub effects: BTreeMap<String, u64>,
    /// Directives by name.
    pub directives: BTreeMap<String, Fate>,
}

impl Coverage {
    fn of(&mut self, name: &str) -> &mut Fate {
        self.directives.entry(name.to_owned()).or_default()
    }

    /// An effect has entered the state.
    pub fn created(&mut self, kind: &EffectKind) {
        let name = match kind {
            EffectKind::Fence { .. } => "fence",
            EffectKind::Collect { .. } => "collect",
            EffectKind::Agent { directive, .. } => {
                self.of(directive.name()).created += 1;
                "agent"
            }
            EffectKind::Redirect { .. } => "redirect",
            EffectKind::Handover { .. } => "handover",
        };
        *self.effects.entry(name.to_owned()).or_default() += 1;
    }

    /// The planner was asked.
    pub fn planned(&mut self, directive: &Directive, next: &Next) {
        let fate = self.of(directive.name());
        match next {
            Next::Step(_) => fate.steps += 1,
            Next::Done(_) => {}
            Next::Refuse(reason) | Next::Unknown(reason) => fate.speechless += u64::from(reason.is_empty()),
        }
    }

    /// A directive has ended.
    pub fn ended(&mut self, directive: &Directive, outcome: &Outcome) {
        let fate = self.of(directive.name());
        match outcome {
            Outcome::Done(_) => fate.done += 1,
            Outcome::Refused { .. } => fate.refused += 1,
            Outcome::Unknown { .. } => fate.unknown += 1,
        }
    }

    /// Both.
    pub fn merge(&mut self, other: &Coverage) {
        for (name, count) in &other.effects {
            *self.effects.entry(name.clone()).or_default() += count;
        }
        for (name, theirs) in &other.directives {
            let own = self.of(name);
            own.created += theirs.created;
            own.steps += theirs.steps;
            own.done += theirs.done;
            own.refused += theirs.refused;
            own.unknown += theirs.unknown;
            own.speechless += theirs.speechless;
        }
    }
}
