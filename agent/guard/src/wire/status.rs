//! The answer to `status`, typed.

use super::{Fields, WireError, format_instance, format_lsn, parse_instance, parse_lsn};
use std::fmt;

/// What PostgreSQL is doing, as its guard sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresState {
    /// No process.
    Stopped,
    /// Started; `pg_control` does not say yet whether it is in recovery.
    Starting,
    /// In recovery.
    Standby,
    /// Out of recovery, or past the promotion gate.
    Primary,
    /// Told to stop; processes may still be alive.
    Stopping,
}

impl PostgresState {
    const ALL: [Self; 5] = [Self::Stopped, Self::Starting, Self::Standby, Self::Primary, Self::Stopping];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Primary => "primary",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for PostgresState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What `pg_control` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlView {
    /// The cluster's identity, made by initdb.
    pub system_id: u64,
    /// As `pg_controldata` words it.
    pub state: String,
    /// The latest checkpoint's location; after a clean stop, the shutdown checkpoint's.
    pub checkpoint_lsn: u64,
    /// The latest checkpoint's timeline.
    pub timeline: u32,
    /// A standby must replay at least to here.
    pub min_recovery_lsn: u64,
    /// The timeline of `min_recovery_lsn`.
    pub min_recovery_timeline: u32,
}

impl ControlView {
    /// Adds the fields to an answer.
    pub fn push_to(&self, fields: &mut Fields) {
        fields.push("system_id", self.system_id);
        fields.push("state", &self.state);
        fields.push("checkpoint_lsn", format_lsn(self.checkpoint_lsn));
        fields.push("timeline", self.timeline);
        fields.push("min_recovery_lsn", format_lsn(self.min_recovery_lsn));
        fields.push("min_recovery_timeline", self.min_recovery_timeline);
    }

    /// Reads them back from an answer (`status`, `fence`, `stop`); `None` when there was no `pg_control`.
    pub fn from_fields(fields: &Fields) -> Result<Option<Self>, WireError> {
        if fields.get("system_id").is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            system_id: fields.number("system_id")?,
            state: fields.require("state")?.to_owned(),
            checkpoint_lsn: lsn(fields, "checkpoint_lsn")?,
            timeline: fields.number("timeline")?,
            min_recovery_lsn: lsn(fields, "min_recovery_lsn")?,
            min_recovery_timeline: fields.number("min_recovery_timeline")?,
        }))
    }
}

fn lsn(fields: &Fields, key: &str) -> Result<u64, WireError> {
    let text = fields.require(key)?;
    parse_lsn(text).ok_or_else(|| WireError(format!("field `{key}`: `{text}` is not an LSN")))
}

/// Everything the guard knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The guard's process id.
    pub pid: u32,
    /// Random, made at this start of the guard.
    pub instance: u128,
    /// The instance whose death this one can speak for: the same boot, a readable state file, its leftovers emptied.
    pub succeeds: Option<u128>,
    /// Every such instance of this boot, newest first (the last ones; bounded).
    pub lineage: Vec<u128>,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The highest epoch ever granted here; 0 for none.
    pub highest_epoch: u64,
    /// This epoch and all below are refused for ever; 0 for none.
    pub fenced_through: u64,
    /// No promise for this epoch or any below; 0 for none.
    pub promises_closed: u64,
    /// A promise was given to this epoch; none when none is outstanding, or when its epoch is lost.
    pub promised_epoch: Option<u64>,
    /// A promise is held until then, CLOCK_BOOTTIME; none when none is outstanding.
    pub promised_until_ns: Option<u64>,
    /// The live lease's epoch.
    pub lease_epoch: Option<u64>,
    /// The live lease's deadline, CLOCK_BOOTTIME.
    pub lease_deadline_ns: Option<u64>,
    /// What PostgreSQL is doing.
    pub postgres: PostgresState,
    /// The postmaster, as seen from outside its namespace.
    pub postmaster_pid: Option<u32>,
    /// When the running PostgreSQL was started, CLOCK_BOOTTIME.
    pub started_at_ns: Option<u64>,
    /// How the last one ended.
    pub last_exit: Option<String>,
    /// The last thing that went wrong, for people.
    pub last_error: Option<String>,
    /// Local restarts after a crash, since the guard's start.
    pub restarts: u64,
    /// Attempts to leave recovery without a lease, each killed.
    pub rogue_promotions: u64,
    /// What the last of them was.
    pub last_rogue: Option<String>,
    /// `none`, `running` or how the last job ended.
    pub job: String,
    /// `ok`, or why namespaces cannot be made.
    pub namespaces: String,
    /// `ok`, or why the kernel timer cannot be made.
    pub timer: String,
    /// `none`, or `ready`, `armed` or `broken` with device, timeout or reason.
    pub watchdog: String,
    /// `possible`, or `refused`: without namespaces and timer.
    pub automatic_failover: String,
    /// `all`, `current-only` or why not.
    pub memory_locked: String,
    /// `ok`, `missing`, `damaged` or `other-boot`: what was found at the start.
    pub state_file: String,
    /// What `pg_control` says, when there is one.
    pub control: Option<ControlView>,
    /// Why `pg_control` could not be read.
    pub control_error: Option<String>,
    /// The longest lease that it takes, ms; absent from an older guard.
    pub lease_ttl_max_ms: Option<u64>,
}

impl Status {
    /// As the fields of an `ok`.
    pub fn to_fields(&self) -> Fields {
        let mut f = Fields::new();
        f.push("pid", self.pid);
        f.push("instance", format_instance(self.instance));
        f.push_some("succeeds", self.succeeds.map(format_instance));
        let lineage: Vec<_> = self.lineage.iter().map(|i| format_instance(*i)).collect();
        f.push("lineage", lineage.join(","));
        f.push("boot_id", &self.boot_id);
        f.push("highest_epoch", self.highest_epoch);
        f.push("fenced_through", self.fenced_through);
        f.push("promises_closed", self.promises_closed);
        f.push_some("promised_epoch", self.promised_epoch);
        f.push_some("promised_until_ns", self.promised_until_ns);
        f.push_some("lease_epoch", self.lease_epoch);
        f.push_some("lease_deadline_ns", self.lease_deadline_ns);
        f.push("postgres", self.postgres);
        f.push_some("postmaster_pid", self.postmaster_pid);
        f.push_some("started_at_ns", self.started_at_ns);
        f.push_some("last_exit", self.last_exit.as_ref());
        f.push_some("last_error", self.last_error.as_ref());
        f.push("restarts", self.restarts);
        f.push("rogue_promotions", self.rogue_promotions);
        f.push_some("last_rogue", self.last_rogue.as_ref());
        f.push("job", &self.job);
        f.push("namespaces", &self.namespaces);
        f.push("timer", &self.timer);
        f.push("watchdog", &self.watchdog);
        f.push("automatic_failover", &self.automatic_failover);
        f.push("memory_locked", &self.memory_locked);
        f.push("state_file", &self.state_file);
        if let Some(control) = &self.control {
            control.push_to(&mut f);
        }
        f.push_some("control_error", self.control_error.as_ref());
        f.push_some("lease_ttl_max_ms", self.lease_ttl_max_ms);
        f
    }

    /// Reads the fields of an `ok`. Unknown fields are passed over: a newer guard may say more.
    pub fn from_fields(f: &Fields) -> Result<Self, WireError> {
        let text = |key: &str| f.require(key).map(str::to_owned);
        let state = f.require("postgres")?;
        let lineage = f.require("lineage")?;
        Ok(Self {
            pid: f.number("pid")?,
            instance: instance("instance", f.require("instance")?)?,
            succeeds: f.get("succeeds").map(|t| instance("succeeds", t)).transpose()?,
            lineage: lineage
                .split(',')
                .filter(|t| !t.is_empty())
                .map(|t| instance("lineage", t))
                .collect::<Result<_, _>>()?,
            boot_id: text("boot_id")?,
            highest_epoch: f.number("highest_epoch")?,
            fenced_through: f.number("fenced_through")?,
            promises_closed: f.number("promises_closed")?,
            promised_epoch: f.number_opt("promised_epoch")?,
            promised_until_ns: f.number_opt("promised_until_ns")?,
            lease_epoch: f.number_opt("lease_epoch")?,
            lease_deadline_ns: f.number_opt("lease_deadline_ns")?,
            postgres: PostgresState::ALL
                .into_iter()
                .find(|s| s.name() == state)
                .ok_or_else(|| WireError(format!("field `postgres`: unknown state `{state}`")))?,
            postmaster_pid: f.number_opt("postmaster_pid")?,
            started_at_ns: f.number_opt("started_at_ns")?,
            last_exit: f.get("last_exit").map(str::to_owned),
            last_error: f.get("last_error").map(str::to_owned),
            restarts: f.number("restarts")?,
            rogue_promotions: f.number("rogue_promotions")?,
            last_rogue: f.get("last_rogue").map(str::to_owned),
            job: text("job")?,
            namespaces: text("namespaces")?,
            timer: text("timer")?,
            // A guard of an earlier version has none.
            watchdog: f.get("watchdog").unwrap_or("none").to_owned(),
            automatic_failover: text("automatic_failover")?,
            memory_locked: text("memory_locked")?,
            state_file: text("state_file")?,
            control: ControlView::from_fields(f)?,
            control_error: f.get("control_error").map(str::to_owned),
            lease_ttl_max_ms: f.number_opt("lease_ttl_max_ms")?,
        })
    }
}

fn instance(key: &str, text: &str) -> Result<u128, WireError> {
    parse_instance(text).ok_or_else(|| WireError(format!("field `{key}`: `{text}` is not an instance id")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Answer;

    #[test]
    fn status_survives_a_round_trip() {
        let status = Status {
            pid: 7,
            instance: 1,
            succeeds: Some(2),
            lineage: vec![2, 3],
            boot_id: "b".into(),
            highest_epoch: 4,
            fenced_through: 3,
            promises_closed: 0,
            promised_epoch: Some(3),
            promised_until_ns: Some(70),
            lease_epoch: Some(4),
            lease_deadline_ns: Some(99),
            postgres: PostgresState::Primary,
            postmaster_pid: Some(10),
            started_at_ns: Some(5),
            last_exit: Some("exit code 1".into()),
            last_error: None,
            restarts: 1,
            rogue_promotions: 0,
            last_rogue: None,
            job: "none".into(),
            namespaces: "ok".into(),
            timer: "ok".into(),
            watchdog: "none".into(),
            automatic_failover: "possible".into(),
            memory_locked: "all".into(),
            state_file: "ok".into(),
            control: Some(ControlView {
                system_id: 1,
                state: "in production".into(),
                checkpoint_lsn: 0x1_0000_0028,
                timeline: 2,
                min_recovery_lsn: 0,
                min_recovery_timeline: 0,
            }),
            control_error: None,
            lease_ttl_max_ms: Some(270_000),
        };
        let line = Answer::Ok(status.to_fields()).encode();
        let back = Answer::parse(&line).unwrap();
        assert_eq!(Status::from_fields(back.fields().unwrap()), Ok(status));
    }
}
