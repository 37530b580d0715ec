//! What an agent observes.

use regent_types::{
    DataFacts, DataForm, DiskFacts, DiskProbe, Epoch, GuardFacts, JobProgress, PostgresFacts, PostgresState,
    Report, StandbyFacts, SystemId, Timeline, WalFacts,
};

use super::{
    ConvertError, Converted, filled, list, optional, parsed, parsed_list, parsed_optional, present, required,
    unspecified,
};
use crate::v1::{self, disk_probe};

impl From<Report> for v1::Report {
    fn from(report: Report) -> Self {
        Self {
            guard: Some(report.guard.into()),
            postgres: Some(report.postgres.into()),
            data: Some(report.data.into()),
            wal: Some(report.wal.into()),
            disk: Some(report.disk.into()),
            job: report.job.map(Into::into),
            salvages: report.salvages.into_iter().map(Into::into).collect(),
            promise: Some(report.promise.into()),
            parameters: Some(report.parameters.into()),
            synchronous: report.synchronous.map(Into::into),
            blocked_writes: report.blocked_writes.map(Into::into),
        }
    }
}

impl TryFrom<v1::Report> for Report {
    type Error = ConvertError;
    fn try_from(report: v1::Report) -> Converted<Self> {
        Ok(Self {
            guard: required(report.guard, "guard")?,
            postgres: required(report.postgres, "postgres")?,
            data: required(report.data, "data")?,
            wal: required(report.wal, "wal")?,
            disk: required(report.disk, "disk")?,
            job: optional(report.job, "job")?,
            salvages: list(report.salvages, "salvages")?,
            promise: optional(report.promise, "promise")?.unwrap_or_default(),
            parameters: optional(report.parameters, "parameters")?.unwrap_or_default(),
            synchronous: optional(report.synchronous, "synchronous")?,
            blocked_writes: report.blocked_writes.map(Into::into),
        })
    }
}

impl From<GuardFacts> for v1::GuardFacts {
    fn from(guard: GuardFacts) -> Self {
        Self {
            reachable: guard.reachable,
            refused: guard.refused,
            highest_epoch: guard.highest_epoch.0,
            fenced_through: guard.fenced_through.0,
            lease_epoch: guard.lease_epoch.map(|epoch| epoch.0),
            lease_remaining_ms: guard.lease_remaining_ms,
            succeeds: guard.succeeds.into_iter().map(Into::into).collect(),
            restarts: guard.restarts,
            rogue_promotions: guard.rogue_promotions,
            state_file: guard.state_file,
            lease_ttl_max_ms: guard.lease_ttl_max_ms,
        }
    }
}

impl TryFrom<v1::GuardFacts> for GuardFacts {
    type Error = ConvertError;
    fn try_from(guard: v1::GuardFacts) -> Converted<Self> {
        Ok(Self {
            reachable: guard.reachable,
            refused: guard.refused,
            highest_epoch: Epoch(guard.highest_epoch),
            fenced_through: Epoch(guard.fenced_through),
            lease_epoch: guard.lease_epoch.map(Epoch),
            lease_remaining_ms: guard.lease_remaining_ms,
            succeeds: parsed_list(&guard.succeeds, "succeeds")?,
            restarts: guard.restarts,
            rogue_promotions: guard.rogue_promotions,
            state_file: guard.state_file,
            lease_ttl_max_ms: guard.lease_ttl_max_ms,
        })
    }
}

impl From<PostgresState> for v1::PostgresState {
    fn from(state: PostgresState) -> Self {
        match state {
            PostgresState::Unknown => Self::Unknown,
            PostgresState::Stopped => Self::Stopped,
            PostgresState::Starting => Self::Starting,
            PostgresState::Standby => Self::Standby,
            PostgresState::Primary => Self::Primary,
            PostgresState::Stopping => Self::Stopping,
        }
    }
}

/// A state that only a newer agent knows is *unknown*: refusing the heartbeat would cost its member the lease.
fn postgres_state(value: i32, field: &str) -> Converted<PostgresState> {
    use v1::PostgresState as Proto;
    Ok(match Proto::try_from(value).unwrap_or(Proto::Unknown) {
        Proto::Unspecified => return unspecified(field),
        Proto::Unknown => PostgresState::Unknown,
        Proto::Stopped => PostgresState::Stopped,
        Proto::Starting => PostgresState::Starting,
        Proto::Standby => PostgresState::Standby,
        Proto::Primary => PostgresState::Primary,
        Proto::Stopping => PostgresState::Stopping,
    })
}

impl From<PostgresFacts> for v1::PostgresFacts {
    fn from(postgres: PostgresFacts) -> Self {
        Self {
            state: v1::PostgresState::from(postgres.state).into(),
            accepting: postgres.accepting,
            not_accepting_for_ms: postgres.not_accepting_for_ms,
            major: postgres.major,
            logical_slots_at_risk: postgres.logical_slots_at_risk,
        }
    }
}

impl TryFrom<v1::PostgresFacts> for PostgresFacts {
    type Error = ConvertError;
    fn try_from(postgres: v1::PostgresFacts) -> Converted<Self> {
        Ok(Self {
            state: postgres_state(postgres.state, "state")?,
            accepting: postgres.accepting,
            not_accepting_for_ms: postgres.not_accepting_for_ms,
            major: postgres.major,
            logical_slots_at_risk: postgres.logical_slots_at_risk,
        })
    }
}

impl From<DataForm> for v1::DataForm {
    fn from(form: DataForm) -> Self {
        match form {
            DataForm::Empty => Self::Empty,
            DataForm::Primary => Self::Primary,
            DataForm::Standby => Self::Standby,
            DataForm::Rewinding => Self::Rewinding,
            DataForm::Cloning => Self::Cloning,
            DataForm::Unusable => Self::Unusable,
        }
    }
}

/// A form that only a newer agent knows is *unusable*: not promotable, and nobody fills the directory.
pub(super) fn data_form(value: i32, field: &str) -> Converted<DataForm> {
    use v1::DataForm as Proto;
    Ok(match Proto::try_from(value).unwrap_or(Proto::Unusable) {
        Proto::Unspecified => return unspecified(field),
        Proto::Unusable => DataForm::Unusable,
        Proto::Empty => DataForm::Empty,
        Proto::Primary => DataForm::Primary,
        Proto::Standby => DataForm::Standby,
        Proto::Rewinding => DataForm::Rewinding,
        Proto::Cloning => DataForm::Cloning,
    })
}

impl From<DataFacts> for v1::DataFacts {
    fn from(data: DataFacts) -> Self {
        Self {
            form: v1::DataForm::from(data.form).into(),
            system_id: data.system_id.map(|id| id.0),
            timeline: data.timeline.map(|timeline| timeline.0),
            lineage: data.lineage.0,
        }
    }
}

impl TryFrom<v1::DataFacts> for DataFacts {
    type Error = ConvertError;
    fn try_from(data: v1::DataFacts) -> Converted<Self> {
        Ok(Self {
            form: data_form(data.form, "form")?,
            system_id: data.system_id.map(SystemId),
            timeline: data.timeline.map(Timeline),
            lineage: Epoch(data.lineage),
        })
    }
}

impl From<WalFacts> for v1::WalFacts {
    fn from(wal: WalFacts) -> Self {
        Self {
            write_lsn: wal.write_lsn.map(|lsn| lsn.to_string()),
            received_lsn: wal.received_lsn.map(|lsn| lsn.to_string()),
            replayed_lsn: wal.replayed_lsn.map(|lsn| lsn.to_string()),
            streaming: wal.streaming,
            timeline: wal.timeline.map(|timeline| timeline.0),
            replay_lag_ms: wal.replay_lag_ms,
            sample_age_ms: wal.sample_age_ms,
            standbys: wal.standbys.into_iter().map(Into::into).collect(),
            retention: wal.retention.map(Into::into),
        }
    }
}

impl TryFrom<v1::WalFacts> for WalFacts {
    type Error = ConvertError;
    fn try_from(wal: v1::WalFacts) -> Converted<Self> {
        Ok(Self {
            write_lsn: parsed_optional(wal.write_lsn.as_deref(), "write_lsn")?,
            received_lsn: parsed_optional(wal.received_lsn.as_deref(), "received_lsn")?,
            replayed_lsn: parsed_optional(wal.replayed_lsn.as_deref(), "replayed_lsn")?,
            streaming: wal.streaming,
            timeline: wal.timeline.map(Timeline),
            replay_lag_ms: wal.replay_lag_ms,
            sample_age_ms: wal.sample_age_ms,
            standbys: list(wal.standbys, "standbys")?,
            retention: optional(wal.retention, "retention")?,
        })
    }
}

impl From<StandbyFacts> for v1::StandbyFacts {
    fn from(standby: StandbyFacts) -> Self {
        Self {
            member: standby.member.into(),
            state: standby.state,
            flush_lsn: standby.flush_lsn.map(|lsn| lsn.to_string()),
            replay_lsn: standby.replay_lsn.map(|lsn| lsn.to_string()),
        }
    }
}

impl TryFrom<v1::StandbyFacts> for StandbyFacts {
    type Error = ConvertError;
    fn try_from(standby: v1::StandbyFacts) -> Converted<Self> {
        Ok(Self {
            member: parsed(&standby.member, "member")?,
            state: standby.state,
            flush_lsn: parsed_optional(standby.flush_lsn.as_deref(), "flush_lsn")?,
            replay_lsn: parsed_optional(standby.replay_lsn.as_deref(), "replay_lsn")?,
        })
    }
}

impl From<DiskFacts> for v1::DiskFacts {
    fn from(disk: DiskFacts) -> Self {
        Self {
            probe: Some(disk.probe.into()),
            free_bytes: disk.free_bytes,
            total_bytes: disk.total_bytes,
            slot_retained_bytes: disk.slot_retained_bytes,
        }
    }
}

impl TryFrom<v1::DiskFacts> for DiskFacts {
    type Error = ConvertError;
    fn try_from(disk: v1::DiskFacts) -> Converted<Self> {
        Ok(Self {
            probe: required(disk.probe, "probe")?,
            free_bytes: disk.free_bytes,
            total_bytes: disk.total_bytes,
            slot_retained_bytes: disk.slot_retained_bytes,
        })
    }
}

impl From<DiskProbe> for v1::DiskProbe {
    fn from(probe: DiskProbe) -> Self {
        use disk_probe::Outcome;
        let outcome = match probe {
            DiskProbe::Ok { latency_ms } => Outcome::Ok(disk_probe::Ok { latency_ms }),
            DiskProbe::Stalled { for_ms } => Outcome::Stalled(disk_probe::Stalled { for_ms }),
            DiskProbe::Failed { error } => Outcome::Failed(disk_probe::Failed { error }),
            DiskProbe::NotProbed => Outcome::NotProbed(disk_probe::NotProbed {}),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<v1::DiskProbe> for DiskProbe {
    type Error = ConvertError;
    fn try_from(probe: v1::DiskProbe) -> Converted<Self> {
        use disk_probe::Outcome;
        Ok(match present(probe.outcome, "outcome")? {
            Outcome::Ok(ok) => Self::Ok { latency_ms: ok.latency_ms },
            Outcome::Stalled(stalled) => Self::Stalled { for_ms: stalled.for_ms },
            Outcome::Failed(failed) => Self::Failed { error: filled(failed.error, "failed.error")? },
            Outcome::NotProbed(_) => Self::NotProbed,
        })
    }
}

impl From<JobProgress> for v1::JobProgress {
    fn from(job: JobProgress) -> Self {
        Self { kind: job.kind, done_bytes: job.done_bytes, total_bytes: job.total_bytes }
    }
}

impl TryFrom<v1::JobProgress> for JobProgress {
    type Error = ConvertError;
    fn try_from(job: v1::JobProgress) -> Converted<Self> {
        Ok(Self { kind: filled(job.kind, "kind")?, done_bytes: job.done_bytes, total_bytes: job.total_bytes })
    }
}
