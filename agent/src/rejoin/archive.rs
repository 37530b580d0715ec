//! Where the upstream's WAL begins, by its own word. Only asks; what follows from it, the planner decides.

use std::time::Duration;

use regent_agent_core::UpstreamWal;
use regent_types::{Lsn, Upstream};

use crate::{
    app::App,
    postgres::connect::{Connection, PgError, remote},
};

const LIMIT: Duration = Duration::from_secs(5);

/// Start of the oldest segment in `pg_wal`, of whatever timeline: a mistake is towards *still there*.
pub const OLDEST: &str = "
SELECT min(substr(name, 9)), (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size')
FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'";

/// Asks.
pub async fn oldest(app: &App, upstream: &Upstream) -> UpstreamWal {
    match ask(app, upstream).await {
        Ok(Some(lsn)) => UpstreamWal::From(lsn),
        Ok(None) => UpstreamWal::Unreachable("the upstream names no WAL segment".into()),
        Err(error) => UpstreamWal::Unreachable(error.to_string()),
    }
}

async fn ask(app: &App, upstream: &Upstream) -> Result<Option<Lsn>, PgError> {
    let connection = remote(&app.config, &upstream.host, upstream.port, LIMIT).await?;
    begins(&connection, LIMIT).await
}

/// Start of the oldest segment of the connection's server.
pub async fn begins(connection: &Connection, limit: Duration) -> Result<Option<Lsn>, PgError> {
    let row = connection.row("the oldest WAL segment", OLDEST, limit).await?;
    Ok(row.and_then(|row| segment_start(row.text(0)?, row.parse(1)?)))
}

/// From the last sixteen digits of a segment's name.
fn segment_start(name: &str, segment_bytes: u64) -> Option<Lsn> {
    let (log, segment) = name.split_at_checked(8)?;
    let (log, segment) = (u64::from_str_radix(log, 16).ok()?, u64::from_str_radix(segment, 16).ok()?);
    Some(Lsn((log << 32).checked_add(segment.checked_mul(segment_bytes)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segments_start_is_read_from_its_name() {
        assert_eq!(segment_start("0000000100000002", 16 << 20), Some(Lsn(0x1_0200_0000)));
        assert_eq!(segment_start("00000001", 16 << 20), None);
    }
}
