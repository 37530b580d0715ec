//! One look at a server over a DSN, with the rights of `pg_monitor`; and what is reported of it.

use regent_types::{
    DataFacts, DataForm, DiskFacts, DiskProbe, Epoch, ParameterFacts, PostgresFacts, PostgresState,
    PromiseFacts, Report, SystemId, Timeline, WalFacts,
};
use tokio_postgres::Config as Dsn;

use super::config::Config;
use crate::{
    clock::{boottime_ns, ms, ms_since},
    postgres::connect::{self, Connection, PgError},
    report,
};

const LOOK: &str = "
SELECT r.recovering,
       CASE WHEN r.recovering THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
            ELSE pg_current_wal_flush_lsn() END,
       CASE WHEN r.recovering THEN pg_last_wal_replay_lsn() END,
       coalesce(w.status = 'streaming', false),
       CASE WHEN r.recovering
            THEN greatest(w.received_tli, (SELECT timeline_id FROM pg_control_checkpoint()))::text
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int::text END,
       (SELECT system_identifier FROM pg_control_system()),
       current_setting('server_version_num')::int / 10000
FROM (SELECT pg_is_in_recovery() AS recovering) r LEFT JOIN pg_stat_wal_receiver w ON true";

/// What a look found.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    recovering: bool,
    wal: WalFacts,
    system_id: Option<SystemId>,
    major: Option<u32>,
}

/// Keeps one connection.
#[derive(Debug, Default)]
pub(super) struct Prober {
    connection: Option<Connection>,
}

impl Prober {
    pub(super) async fn look(&mut self, config: &Config) -> Result<Sample, PgError> {
        let limit = config.probe_timeout;
        let looked = tokio::time::timeout(limit, self.try_look(&config.dsn(), config)).await;
        let looked = looked.unwrap_or_else(|_| {
            Err(PgError::Deadline { what: "probe of the server".into(), limit_ms: ms(limit) })
        });
        if looked.is_err() {
            self.connection = None;
        }
        looked
    }

    async fn try_look(&mut self, dsn: &Dsn, config: &Config) -> Result<Sample, PgError> {
        let limit = config.probe_timeout;
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.connection = Some(connect::observed(dsn, limit).await?);
        }
        let connection = self.connection.as_ref().expect("made above");
        let row = connection.row("probe", LOOK, limit).await?.ok_or_else(|| PgError::Local {
            what: "probe".into(),
            source: std::io::Error::other("the server answered no row"),
        })?;
        let recovering = row.is_true(0);
        let lsn = row.parse(1);
        let wal = WalFacts {
            write_lsn: lsn.filter(|_| !recovering),
            received_lsn: lsn.filter(|_| recovering),
            replayed_lsn: row.parse(2),
            streaming: recovering && row.is_true(3),
            timeline: row.parse(4).map(Timeline),
            ..WalFacts::default()
        };
        Ok(Sample { recovering, wal, system_id: row.parse(5).map(SystemId), major: row.parse(6) })
    }
}

/// The last look that was answered, and since when none has been.
#[derive(Debug)]
pub(super) struct Seen {
    sample: Option<(Sample, u64)>,
    failing: Option<String>,
    /// The last answer, or the beginning.
    answered_ns: u64,
}

impl Seen {
    pub(super) fn new(now_ns: u64) -> Self {
        Self { sample: None, failing: None, answered_ns: now_ns }
    }

    pub(super) fn note(&mut self, looked: Result<Sample, PgError>, now_ns: u64) {
        match looked {
            Ok(sample) => {
                if self.failing.take().is_some() || self.sample.is_none() {
                    tracing::info!(recovering = sample.recovering, "PostgreSQL answers");
                }
                self.sample = Some((sample, now_ns));
                self.answered_ns = now_ns;
            }
            Err(error) => {
                let text = error.to_string();
                if self.failing.as_ref() != Some(&text) {
                    tracing::warn!(%error, "PostgreSQL does not answer");
                }
                self.failing = Some(text);
            }
        }
    }

    /// What a heartbeat says. The role of a server that does not answer is the last one known.
    pub(super) fn report(&self) -> Report {
        let accepting = self.sample.is_some() && self.failing.is_none();
        let sample = self.sample.as_ref().map(|(sample, _)| sample);
        let state = match sample {
            _ if !accepting => PostgresState::Unknown,
            Some(sample) if sample.recovering => PostgresState::Standby,
            Some(_) => PostgresState::Primary,
            None => PostgresState::Unknown,
        };
        let form = match sample {
            Some(sample) if sample.recovering => DataForm::Standby,
            Some(_) => DataForm::Primary,
            None => DataForm::Unusable,
        };
        let mut wal = sample.map(|sample| sample.wal.clone()).unwrap_or_default();
        wal.sample_age_ms = self.sample.as_ref().map_or(0, |(_, at_ns)| ms_since(*at_ns));
        wal.streaming &= accepting;
        Report {
            guard: report::guard(None),
            postgres: PostgresFacts {
                state,
                accepting,
                not_accepting_for_ms: if accepting {
                    0
                } else {
                    ms_since(self.answered_ns.min(boottime_ns()))
                },
                major: sample.and_then(|sample| sample.major),
                logical_slots_at_risk: 0,
            },
            data: DataFacts {
                form,
                system_id: sample.and_then(|sample| sample.system_id),
                timeline: sample.and_then(|sample| sample.wal.timeline),
                lineage: Epoch::NONE,
            },
            wal,
            disk: DiskFacts {
                probe: DiskProbe::NotProbed,
                free_bytes: None,
                total_bytes: None,
                slot_retained_bytes: None,
            },
            job: None,
            salvages: Vec::new(),
            promise: PromiseFacts::default(),
            parameters: ParameterFacts::default(),
            synchronous: None,
            blocked_writes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(recovering: bool) -> Sample {
        let wal = WalFacts { streaming: recovering, ..WalFacts::default() };
        Sample { recovering, wal, system_id: None, major: Some(18) }
    }

    fn lost() -> PgError {
        PgError::Deadline { what: "probe".into(), limit_ms: 2000 }
    }

    #[test]
    fn a_server_that_stops_answering_is_neither_accepting_nor_streaming() {
        let now_ns = boottime_ns();
        let mut seen = Seen::new(now_ns);
        assert_eq!(seen.report().postgres.state, PostgresState::Unknown);
        seen.note(Ok(sample(true)), now_ns);
        let report = seen.report();
        assert_eq!((report.postgres.state, report.postgres.accepting), (PostgresState::Standby, true));
        assert!(report.wal.streaming && !report.guard.reachable);
        seen.note(Err(lost()), now_ns);
        let report = seen.report();
        assert_eq!((report.postgres.state, report.postgres.accepting), (PostgresState::Unknown, false));
        assert!(!report.wal.streaming, "{report:?}");
        assert_eq!(report.data.form, DataForm::Standby, "what it was stays known");
    }
}
