//! One look at the running server: role, positions, replication. Reads only.

use std::{path::Path, time::Duration};

use regent_agent_core::Server;
use regent_types::{Lsn, MemberName, StandbyFacts, Timeline};

use super::connect::{Connection, PgError, local};
use crate::{config::Config, data, rejoin::archive};

/// What was seen.
#[derive(Debug, Clone)]
pub struct Sample {
    /// For the planner.
    pub server: Server,
    /// When its postmaster was started, by its own wall clock, us: which run this is.
    pub started_us: i64,
    /// Age of the newest replayed commit while behind, ms.
    pub replay_lag_ms: Option<u64>,
    /// The primary's view of its standbys.
    pub standbys: Vec<StandbyFacts>,
    /// The largest amount of WAL retained for a slot.
    pub slot_retained_bytes: Option<u64>,
    /// Primary: what it keeps.
    pub kept: Option<Kept>,
}

/// What WAL a primary keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Start of its oldest segment.
    pub oldest_lsn: Option<Lsn>,
    /// `max_slot_wal_keep_size`, bytes; `None` without a limit.
    pub slot_keep_max_bytes: Option<u64>,
    /// The largest amount retained for a slot that nobody is connected to.
    pub idle_retained_bytes: Option<u64>,
}

const KEPT: &str = "
SELECT (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
       (SELECT max(greatest(0, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)))::bigint
        FROM pg_replication_slots WHERE restart_lsn IS NOT NULL AND NOT active)";

const LOOK: &str = "
SELECT r.recovering,
       CASE WHEN r.recovering THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
            ELSE pg_current_wal_flush_lsn() END,
       CASE WHEN r.recovering THEN pg_last_wal_replay_lsn() END,
       CASE WHEN r.recovering THEN pg_get_wal_replay_pause_state() <> 'not paused' ELSE false END,
       EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup'
               AND wait_event IN ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval')),
       w.pid IS NOT NULL, coalesce(w.status = 'streaming', false),
       CASE WHEN r.recovering
            THEN greatest(w.received_tli, (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                          (SELECT timeline_id FROM pg_control_checkpoint()))::text
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int::text END,
       CASE WHEN r.recovering AND pg_last_wal_receive_lsn() IS DISTINCT FROM pg_last_wal_replay_lsn()
            THEN (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint
            WHEN r.recovering THEN 0 END,
       (SELECT max(greatest(0, pg_wal_lsn_diff(
            CASE WHEN r.recovering THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
            restart_lsn)))::bigint
        FROM pg_replication_slots WHERE restart_lsn IS NOT NULL),
       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint
FROM (SELECT pg_is_in_recovery() AS recovering) r LEFT JOIN pg_stat_wal_receiver w ON true";

const STANDBYS: &str = "
SELECT application_name, coalesce(state, ''), flush_lsn, replay_lsn FROM pg_stat_replication
WHERE state IN ('startup', 'catchup', 'streaming')";

/// Keeps one connection to the local server.
#[derive(Debug, Default)]
pub struct Prober {
    connection: Option<Connection>,
}

impl Prober {
    /// Looks, within `limit` in all.
    pub async fn look(&mut self, config: &Config, limit: Duration) -> Result<Sample, PgError> {
        let result = tokio::time::timeout(limit, self.try_look(config, limit)).await.unwrap_or_else(|_| {
            let what = "probe of the local server".to_owned();
            Err(PgError::Deadline { what, limit_ms: crate::clock::ms(limit) })
        });
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn try_look(&mut self, config: &Config, limit: Duration) -> Result<Sample, PgError> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            let connection = local(config, limit).await?;
            let timeouts = format!(
                "SET statement_timeout = {}; SET lock_timeout = {0}; SET idle_session_timeout = 0",
                crate::clock::ms(limit)
            );
            connection.row("prepare the probe", &timeouts, limit).await?;
            self.connection = Some(connection);
        }
        let connection = self.connection.as_ref().expect("made above");
        let row = connection.row("probe", LOOK, limit).await?;
        let row = row.ok_or_else(|| PgError::Local {
            what: "probe".into(),
            source: std::io::Error::other("the server answered no row"),
        })?;
        let in_recovery = row.is_true(0);
        let standbys = if in_recovery { vec![] } else { connection.rows("probe", STANDBYS, limit).await? };
        let kept = match in_recovery {
            true => None,
            false => {
                let oldest_lsn = archive::begins(connection, limit).await?;
                let row = connection.row("probe", KEPT, limit).await?;
                let keep_max_mb: Option<i64> = row.as_ref().and_then(|row| row.parse(0));
                Some(Kept {
                    oldest_lsn,
                    slot_keep_max_bytes: keep_max_mb.and_then(|mb| u64::try_from(mb).ok()).map(|mb| mb << 20),
                    idle_retained_bytes: row.as_ref().and_then(|row| row.parse(1)),
                })
            }
        };
        let timeline: Option<Timeline> = row.parse(7).map(Timeline);
        let server = Server {
            in_recovery,
            lsn: row.parse(1),
            replayed: row.parse(2),
            replay_paused: row.is_true(3),
            replay_idle: row.is_true(4),
            receiver: row.is_true(5),
            streaming: row.is_true(6),
            timeline,
            switch_lsn: timeline.and_then(|t| switch(&config.data_dir, t)),
        };
        Ok(Sample {
            server,
            started_us: row.parse(10).unwrap_or_default(),
            replay_lag_ms: row.parse(8),
            standbys: standbys
                .iter()
                .filter_map(|r| {
                    Some(StandbyFacts {
                        member: MemberName::new(r.text(0)?).ok()?,
                        state: r.text(1)?.to_owned(),
                        flush_lsn: r.parse(2),
                        replay_lsn: r.parse(3),
                    })
                })
                .collect(),
            slot_retained_bytes: row.parse(9),
            kept,
        })
    }
}

fn switch(data_dir: &Path, timeline: Timeline) -> Option<Lsn> {
    data::switch_lsn(data_dir, timeline)
}
