//! Nouns of planned changes of primary: what the leader knows of the members, what is scheduled, what waits for approval,
//! and when a failback may start by itself. Pure; wall times are the operators' and the maintenance windows', nothing that
//! promise 1 depends on reads them.

use regent_types::{DataForm, InstanceId, Lsn, MemberName, Region, Timeline};
use serde::{Deserialize, Serialize};

use crate::DeclareEvidence;

/// One member's last heartbeat, as far as a planned change of primary depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberFacts {
    /// Who.
    pub member: MemberName,
    /// The guard's instance id.
    pub instance: InstanceId,
    /// Age of the heartbeat and of its WAL sample, whichever is older, ms.
    pub age_ms: u64,
    /// Older than this counts as not heard, ms.
    pub fresh_ms: u64,
    /// The guard answered its agent.
    pub guard_reachable: bool,
    /// Why its guard refuses automatic failover.
    pub guard_refused: Option<String>,
    /// What the data directory is.
    pub form: DataForm,
    /// PostgreSQL accepts connections.
    pub accepting: bool,
    /// The WAL receiver streams.
    pub streaming: bool,
    /// Primary: end of WAL; standby: received.
    pub lsn: Option<Lsn>,
    /// Timeline.
    pub timeline: Option<Timeline>,
}

/// What the leader knew when a planned change of primary was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// As for a failover.
    pub evidence: DeclareEvidence,
    /// Every member that was ever heard.
    pub members: Vec<MemberFacts>,
}

impl Readiness {
    /// One member's facts.
    pub fn of(&self, member: &MemberName) -> Option<&MemberFacts> {
        self.members.iter().find(|facts| facts.member == *member)
    }
}

/// A switchover that starts at a wall time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// When, wall ms.
    pub at_wall_ms: u64,
    /// To whom, or to the best one.
    pub to: Option<MemberName>,
    /// Who asked.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The epoch that the operator saw: at another one it is dropped.
    pub epoch: regent_types::Epoch,
    /// Why it did not start when it was due.
    pub waiting: Option<String>,
}

/// A failback that waits for an operator's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingFailback {
    /// To whom.
    pub target: MemberName,
    /// Its region.
    pub region: Region,
    /// The epoch that it was found at: at another one it is void.
    pub epoch: regent_types::Epoch,
    /// Since when, wall ms.
    pub since_wall_ms: u64,
}

/// How a cluster gets back to its preferred region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailbackMode {
    /// Found ready, then an operator approves.
    #[default]
    Approval,
    /// By itself, within the maintenance window if one is set.
    Automatic,
    /// Only when an operator asks.
    Manual,
}

/// When an automatic failback may start: days and hours, UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Days on which it begins: 0 is Monday.
    pub days: Vec<u8>,
    /// Minute of the day at which it begins.
    pub from_minute: u16,
    /// Minute of the day at which it ends; not after `from_minute` means on the next day.
    pub to_minute: u16,
}

const MINUTES_A_DAY: u64 = 24 * 60;

impl Window {
    /// Whether `wall_ms` (since 1970, UTC) lies within.
    pub fn contains(&self, wall_ms: u64) -> bool {
        let minutes = wall_ms / 60_000;
        let minute = (minutes % MINUTES_A_DAY) as u16;
        // 1 January 1970 was a Thursday.
        let today = ((minutes / MINUTES_A_DAY + 3) % 7) as u8;
        let on = |day: u8| self.days.contains(&day);
        if self.from_minute < self.to_minute {
            return on(today) && (self.from_minute..self.to_minute).contains(&minute);
        }
        let yesterday = (today + 6) % 7;
        (on(today) && minute >= self.from_minute) || (on(yesterday) && minute < self.to_minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;
    /// Sunday 22 November 2026, 00:00 UTC.
    const SUNDAY_MS: u64 = 1_795_305_600_000;

    #[test]
    fn a_window_knows_its_days_and_may_pass_midnight() {
        let day = Window { days: vec![6], from_minute: 120, to_minute: 300 };
        assert!(day.contains(SUNDAY_MS + 120 * MINUTE_MS));
        assert!(!day.contains(SUNDAY_MS + 300 * MINUTE_MS), "the end is outside");
        assert!(!day.contains(SUNDAY_MS + (1440 + 120) * MINUTE_MS), "Monday");
        let night = Window { days: vec![6], from_minute: 1380, to_minute: 60 };
        assert!(night.contains(SUNDAY_MS + 1439 * MINUTE_MS));
        assert!(night.contains(SUNDAY_MS + (1440 + 59) * MINUTE_MS), "it began on Sunday");
        assert!(!night.contains(SUNDAY_MS + 59 * MINUTE_MS), "it did not begin on Saturday");
    }
}
