//! What a primary needs for failover: the role `regent`, the marker schema, and a slot for every other member. All of it is
//! idempotent and replicated, except slots, which each new primary makes anew.

use std::{collections::BTreeSet, time::Duration};

use regent_types::{CheckpointedEvidence, Epoch, Lsn, MemberName, StandbyFacts};

use super::{
    conf::{password, slot_name},
    connect::{Connection, PgError, local, remote},
};
use crate::config::{Config, ROLE};

const LIMIT: Duration = Duration::from_secs(10);
/// A checkpoint writes everything that is dirty; the coordinator gives up sooner by its own deadline.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(3600);

/// The walsenders, after the checkpoint.
const STREAMS: &str = "
SELECT application_name, state, flush_lsn, replay_lsn, pg_current_wal_flush_lsn() FROM pg_stat_replication
UNION ALL SELECT NULL, NULL, NULL, NULL, pg_current_wal_flush_lsn()";

/// Writes a checkpoint and looks at whom the WAL goes to.
pub async fn checkpoint(config: &Config, epoch: Epoch) -> Result<CheckpointedEvidence, PgError> {
    let began = std::time::Instant::now();
    let connection = local(config, LIMIT).await?;
    connection.row("checkpoint", "CHECKPOINT", CHECKPOINT_LIMIT).await?;
    let elapsed_ms = crate::clock::ms(began.elapsed());
    let rows = connection.rows("look at the standbys", STREAMS, LIMIT).await?;
    let write_lsn =
        rows.iter().filter_map(|row| row.parse::<Lsn>(4)).max().ok_or_else(|| PgError::Local {
            what: "look at the standbys".into(),
            source: std::io::Error::other("the server did not say where its WAL ends"),
        })?;
    let standbys = rows.iter().filter_map(|row| {
        Some(StandbyFacts {
            member: MemberName::new(row.text(0)?).ok()?,
            state: row.text(1)?.to_owned(),
            flush_lsn: row.parse(2),
            replay_lsn: row.parse(3),
        })
    });
    Ok(CheckpointedEvidence { epoch, write_lsn, standbys: standbys.collect(), elapsed_ms })
}

/// A string literal that is read the same whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

const IN_PLACE: &str = "
SELECT CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = 'regent' AND rolreplication AND rolcanlogin)
  THEN pg_has_role('regent', 'pg_monitor', 'member') AND pg_has_role('regent', 'pg_checkpoint', 'member')
    AND has_function_privilege('regent', 'pg_read_binary_file(text, bigint, bigint, boolean)', 'execute')
    AND to_regclass('regent.marker') IS NOT NULL
  ELSE false END";

/// Role, grants, schema. Writes nothing when they are there and the password lets the role in.
pub async fn configure(config: &Config) -> Result<(), PgError> {
    let what = "set up the role regent";
    let connection = local(config, LIMIT).await?;
    let in_place = connection.row(what, IN_PLACE, LIMIT).await?.is_some_and(|row| row.is_true(0));
    if in_place && remote(config, "localhost", config.port, LIMIT).await.is_ok() {
        return Ok(());
    }
    let password = password(config).map_err(|source| PgError::Local { what: what.into(), source })?;
    // Hashed here: a plain password would appear in the server's log when statements are logged.
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    let functions = [
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
    ]
    .map(|f| format!("GRANT EXECUTE ON FUNCTION pg_catalog.{f} TO {ROLE};"))
    .join("\n");
    // The first commit after a promotion may have no standby to wait for.
    let sql = format!(
        "SET synchronous_commit = local;
         DO $$ BEGIN
           IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN CREATE ROLE {ROLE}; END IF;
         END $$;
         ALTER ROLE {ROLE} LOGIN REPLICATION PASSWORD {verifier};
         GRANT pg_monitor, pg_checkpoint TO {ROLE};
         {functions}
         CREATE SCHEMA IF NOT EXISTS {ROLE};
         CREATE TABLE IF NOT EXISTS {ROLE}.marker (
           id int PRIMARY KEY, epoch bigint NOT NULL, token text NOT NULL, written_at timestamptz NOT NULL);
         ALTER SCHEMA {ROLE} OWNER TO {ROLE};
         ALTER TABLE {ROLE}.marker OWNER TO {ROLE};",
        verifier = literal(&verifier),
    );
    connection.row(what, &sql, LIMIT).await.map(drop)
}

/// Slots: one for each of `members`, none of ours for anybody else.
pub async fn slots<'a>(
    config: &Config,
    members: impl Iterator<Item = &'a MemberName>,
) -> Result<(), PgError> {
    let connection = local(config, LIMIT).await?;
    let wanted: BTreeSet<String> = members.filter(|m| **m != config.member).map(slot_name).collect();
    let mut present = ours(&connection).await?;
    // Invalidated by max_slot_wal_keep_size: no standby can ever use it again. A new one holds what is still there.
    for slot in present.iter().filter(|slot| slot.lost && !slot.active) {
        tracing::warn!(slot = %slot.name, "the slot has lost WAL that its standby needs: made anew");
        drop_slot(&connection, &slot.name).await?;
    }
    present.retain(|slot| !slot.lost || slot.active);
    for name in wanted.iter().filter(|n| !present.iter().any(|slot| slot.name == **n)) {
        let sql = format!("SELECT pg_create_physical_replication_slot('{name}', true)");
        connection.row(&format!("create slot {name}"), &sql, LIMIT).await?;
        tracing::info!(slot = %name, "slot created");
    }
    for slot in present {
        if !wanted.contains(&slot.name) && !slot.active {
            drop_slot(&connection, &slot.name).await?;
        }
    }
    Ok(())
}

/// A standby's own slots would retain WAL for ever: they are left from a time as primary.
pub async fn drop_slots(config: &Config) -> Result<(), PgError> {
    let connection = local(config, LIMIT).await?;
    for slot in ours(&connection).await? {
        if !slot.active {
            drop_slot(&connection, &slot.name).await?;
        }
    }
    if config.logical_slots && crate::data::major(&config.data_dir) >= Some(super::conf::LOGICAL_FROM) {
        // Left from a time as primary: the slot of the same name cannot be kept in step with the new primary's.
        let sql = "SELECT slot_name FROM pg_replication_slots
                   WHERE slot_type = 'logical' AND failover AND NOT synced AND NOT active AND NOT temporary";
        for row in connection.rows("list logical slots", sql, LIMIT).await? {
            if let Some(name) = row.text(0) {
                drop_slot(&connection, name).await?;
            }
        }
    }
    Ok(())
}

struct Slot {
    name: String,
    active: bool,
    lost: bool,
}

async fn ours(connection: &Connection) -> Result<Vec<Slot>, PgError> {
    let sql = "SELECT slot_name, active, wal_status = 'lost' FROM pg_replication_slots
               WHERE slot_type = 'physical' AND NOT temporary AND starts_with(slot_name, 'regent_')";
    let rows = connection.rows("list slots", sql, LIMIT).await?;
    let slot = |row: &super::connect::Row| {
        Some(Slot { name: row.text(0)?.to_owned(), active: row.is_true(1), lost: row.is_true(2) })
    };
    Ok(rows.iter().filter_map(slot).collect())
}

async fn drop_slot(connection: &Connection, name: &str) -> Result<(), PgError> {
    let sql = format!("SELECT pg_drop_replication_slot('{name}')");
    connection.row(&format!("drop slot {name}"), &sql, LIMIT).await?;
    tracing::info!(slot = %name, "slot dropped");
    Ok(())
}
