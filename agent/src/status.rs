//! `regent-agent status`: what the agent that runs here knows, also when no coordinator answers. Asks its `/health` and puts
//! it into words; decides nothing.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use regent_types::Report;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(5);

/// Asks the agent whose `http_listen` this is.
pub fn ask(listen: SocketAddr) -> anyhow::Result<Value> {
    let here = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(here, listen.port());
    let said = || format!("the agent's http_listen {address}");
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).with_context(said)?;
    stream.set_read_timeout(Some(LIMIT)).with_context(said)?;
    stream.set_write_timeout(Some(LIMIT)).with_context(said)?;
    write!(stream, "GET /health HTTP/1.0\r\nhost: {address}\r\n\r\n").with_context(said)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(said)?;
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("{address} does not speak HTTP"))?;
    let first = head.lines().next().unwrap_or_default();
    // 503 is an answer too: the guard does not answer, and the report says so.
    ensure!(first.contains(" 200 ") || first.contains(" 503 "), "{address} answered {first:?}");
    serde_json::from_str(body).with_context(|| format!("{address} answered what is no report"))
}

/// A report in words, a line each.
pub fn words(health: &Value) -> anyhow::Result<String> {
    let report: Report = serde_json::from_value(health["report"].clone()).context("the agent's report")?;
    let text = |key: &str| health[key].as_str().unwrap_or("?");
    let lease = match (report.guard.lease_epoch, report.guard.lease_remaining_ms) {
        (Some(epoch), Some(left_ms)) => format!("lease of epoch {epoch} for another {}", seconds(left_ms)),
        _ if report.guard.reachable => "no lease".to_owned(),
        _ => "the guard does not answer".to_owned(),
    };
    let accepting = if report.postgres.accepting { "accepts connections" } else { "accepts no connections" };
    let mut lines = vec![format!(
        "{} of {} ({}): PostgreSQL {:?}, {accepting}; {lease}",
        text("member"),
        text("cluster"),
        text("region"),
        report.postgres.state
    )];
    let coordinators = &health["coordinators"];
    lines.push(match coordinators["silent_ms"].as_u64() {
        Some(silent_ms) => format!("a coordinator has answered {} ago", seconds(silent_ms)),
        None => "no coordinator has answered since the agent's start".to_owned(),
    });
    let at = |left_ms: u64| {
        humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_millis(left_ms)).to_string()
    };
    lines.extend(regent_agent_core::promise::words(&report.promise, at));
    if let Some(why) = coordinators["why_not_extended"].as_str() {
        lines.push(why.to_owned());
    }
    Ok(lines.join("\n"))
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
