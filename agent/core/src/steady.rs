//! What to do while no directive runs.
//!
//! A standby streams on when it was stopped (a crash, a reboot, no coordinator in reach): it is not writable, so no lease
//! is needed. A data directory of primary form stays stopped until it is told, unless the guard holds a live lease for the
//! very epoch that the data was promoted at: a primary that fenced itself in a cut shorter than the lease goes on by itself. One whose lineage is unknown is not
//! started either: it could be half rewritten, and a start would recycle WAL that nobody has salvaged.
//! A member that an operator has removed is stopped, and stays so until a coordinator calls it a member again.

use regent_types::{DataForm, Epoch, PostgresState};

use crate::Facts;

/// The action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steady {
    /// Nothing.
    Nothing,
    /// Start the standby again.
    StartStandby,
    /// Start the primary again under its lease.
    StartPrimary(Epoch),
    /// Stop the standby, and why.
    StopStandby(String),
    /// It stays stopped, and why.
    StaysStopped(String),
}

/// Decides.
pub fn steady(facts: &Facts) -> Steady {
    // A removed member never holds a lease; should one be live all the same, its end is the lease protocol's business.
    if let Some(version) = facts.agent.removed.filter(|_| facts.guard.lease_epoch.is_none()) {
        let why = format!("this member was removed from its cluster (member list version {version})");
        return match facts.guard.run {
            PostgresState::Standby if !facts.guard.job_running => Steady::StopStandby(why),
            PostgresState::Stopped => Steady::StaysStopped(why),
            _ => Steady::Nothing,
        };
    }
    if facts.guard.run != PostgresState::Stopped || facts.guard.job_running {
        return Steady::Nothing;
    }
    match facts.data.form {
        DataForm::Standby if facts.agent.lineage != Epoch::NONE || facts.agent.rejoining.is_some() => {
            Steady::StartStandby
        }
        DataForm::Standby => Steady::StaysStopped("the lineage of the standby's data is not known".into()),
        DataForm::Empty => Steady::Nothing,
        DataForm::Primary
            if facts.agent.lineage != Epoch::NONE && facts.guard.lease_epoch == Some(facts.agent.lineage) =>
        {
            Steady::StartPrimary(facts.agent.lineage)
        }
        DataForm::Primary => Steady::StaysStopped("a primary's data starts only under a lease".into()),
        form => Steady::StaysStopped(format!("the data directory is {form:?}")),
    }
}
