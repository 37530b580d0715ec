//! Validate: does a client that knows only the name reach a primary that takes writes?

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use regent_agent_core::NameSeen;
use regent_types::Epoch;

use crate::{
    clock::{boottime_ns, ms_since},
    config::Config,
    dns,
    executor::steps::StepError,
    postgres::connect::remote,
};

const LIMIT: Duration = Duration::from_secs(5);

/// Resolves `name`, connects, writes the marker row and reads it back.
pub async fn validate(
    config: &Config,
    name: &str,
    address: &str,
    port: u16,
    epoch: Epoch,
) -> Result<NameSeen, StepError> {
    let begun = boottime_ns();
    let found = dns::resolve(&config.dns_servers, name).await.map_err(StepError::Other)?;
    let wanted: Vec<IpAddr> = match address.parse() {
        Ok(ip) => vec![ip],
        Err(_) => dns::resolve(&config.dns_servers, address).await.map_err(StepError::Other)?,
    };
    let Some(ip) = found.iter().find(|ip| wanted.contains(ip)) else {
        return Err(StepError::Other(format!("{name} leads to {found:?}, not to {address}")));
    };
    if let Some(other) = found.iter().find(|ip| !wanted.contains(ip)) {
        return Err(StepError::Other(format!("{name} leads to {other} too, not only to {address}")));
    }
    let at = SocketAddr::new(*ip, port);
    let connection = remote(config, &ip.to_string(), port, LIMIT).await?;
    let connected_ms = ms_since(begun);
    let token = format!("{:032x}", rand::random::<u128>());
    // One row, replaced: the table does not grow with each failover. An older epoch never overwrites a newer one.
    // A new primary has no standby to wait for yet.
    connection.row("prepare the marker row", "SET synchronous_commit = local", LIMIT).await?;
    let sql = format!(
        "INSERT INTO regent.marker (id, epoch, token, written_at) VALUES (1, {epoch}, '{token}', now())
         ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, token = excluded.token, written_at = now()
         WHERE marker.epoch <= excluded.epoch"
    );
    connection.row("write the marker row", &sql, LIMIT).await?;
    let sql = "SELECT epoch, token FROM regent.marker WHERE id = 1";
    let row = connection.row("read the marker row", sql, LIMIT).await?;
    let (read_epoch, read_token) =
        (row.as_ref().and_then(|r| r.parse(0)), row.as_ref().and_then(|r| r.text(1)));
    if read_epoch != Some(epoch.0) || read_token != Some(token.as_str()) {
        return Err(StepError::Other(format!(
            "{at} answers the marker of epoch {read_epoch:?}, epoch {epoch} was written"
        )));
    }
    Ok(NameSeen { address: ip.to_string(), connected_ms, elapsed_ms: ms_since(begun) })
}
