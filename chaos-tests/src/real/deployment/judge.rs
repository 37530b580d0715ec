//! Collects the evidence of a run for the checker: who reigned when, which rows survive, which are in salvage.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::layout::MEMBERS;
use super::life::Deployment;
use crate::real::checker::{Evidence, Reign, Verdict, check};
use crate::real::clock::WallOffset;
use crate::real::workload::{Attempt, FoundRow, read_rows};

/// How long the return of an old primary may take, rewind and clone included.
pub const REJOIN_AT_MOST: Duration = Duration::from_secs(120);

impl Deployment {
    /// Who was primary at each epoch, from the history.
    pub async fn reigns(&self) -> Result<Vec<Reign>> {
        let mut reigns = Vec::new();
        let offset = WallOffset::sample();
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        for operation in self.history().await?.iter().rev() {
            let appoints = operation["kind"]
                .as_str()
                .is_some_and(|kind| ["bootstrap", "failover", "switchover", "failback"].contains(&kind));
            let (Some(epoch), Some(member)) =
                (operation["to_epoch"].as_u64(), operation["to_member"].as_str())
            else {
                continue;
            };
            if !appoints {
                continue;
            }
            let server = self.server_name(member)?;
            let started_ms = operation["started_wall_ms"].as_u64().unwrap_or(0);
            // A server's first reign needs no beginning, and a bound that is too late would blame the innocent.
            let not_before_ns = match seen.insert(server.clone(), epoch) {
                Some(_) => self.appointed_ns(operation, started_ms, offset).await?,
                None => 0,
            };
            reigns.push(Reign { epoch, server, not_before_ns });
        }
        Ok(reigns)
    }

    /// When the operation had appointed: the beginning of its step *promote*.
    async fn appointed_ns(&self, operation: &Value, started_ms: u64, offset: WallOffset) -> Result<u64> {
        let id = operation["id"].as_u64().context("an operation without id")?;
        let report = self.operation(id).await?;
        let steps = report["steps"].as_array().cloned().unwrap_or_default();
        let promote = steps.iter().rev().find(|step| step["name"] == "promote");
        let at_ms = promote.and_then(|step| step["started_wall_ms"].as_u64()).unwrap_or(started_ms);
        Ok(offset.to_monotonic_ns(at_ms as i64 * 1000))
    }

    /// Judges what writers were told against the primary's rows and all salvage.
    pub async fn judge(&self, attempts: Vec<Attempt>, offset: WallOffset) -> Result<Verdict> {
        offset.ensure_steady(Duration::from_millis(50))?;
        let status = self.status().await?;
        let primary = status.primary().context("no primary to read the rows from")?;
        let surviving = read_rows(&self.app(primary).await?).await?;
        let salvaged = self.salvaged_rows(&attempts).await?;
        let evidence = Evidence { attempts, reigns: self.reigns().await?, surviving, salvaged };
        Ok(check(&evidence, offset))
    }

    /// Acknowledged rows whose transaction is committed in the salvaged WAL of the server that took them.
    async fn salvaged_rows(&self, attempts: &[Attempt]) -> Result<Vec<FoundRow>> {
        let mut rows = Vec::new();
        for member in MEMBERS {
            let server = self.server_name(member)?;
            for salvage in self.salvages(member).await? {
                let kept = |attempt: &&Attempt| {
                    attempt.server == server
                        && attempt.xid.is_some_and(|xid| salvage.committed.contains(&xid))
                };
                rows.extend(attempts.iter().filter(kept).map(|attempt| FoundRow {
                    writer_id: attempt.writer_id,
                    number: attempt.number,
                    server: server.clone(),
                    begun_us: 0,
                }));
            }
        }
        Ok(rows)
    }
}
