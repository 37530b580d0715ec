//! Handing the leadership over.
//!
//! openraft has no way back: from the request on, this leader refuses proposals until there is a new one, and when the
//! request is lost it refuses for ever. So it is made only to a target that has everything and answers, it is repeated,
//! and when the deadline has passed this node starts an election, which ends the state in any case.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    TransferError, leadership, status,
    types::{Metrics, Raft},
};

fn check(metrics: &Metrics, to: u64, silence_max: Duration) -> Result<(), TransferError> {
    let change = leadership::of(metrics);
    if change.current.is_none() {
        return Err(TransferError::NotLeader { leader: change.leader });
    }
    let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
    if !voters.contains(&to) {
        return Err(TransferError::NoVoter { to, voters });
    }
    let matched =
        metrics.replication.as_ref().and_then(|all| all.get(&to)).and_then(|id| *id).map(|id| id.index());
    let heard = status::heard_age(metrics, to);
    if matched < metrics.last_log_index || heard.is_none_or(|age| age > silence_max) {
        return Err(TransferError::Behind {
            to,
            matched,
            last: metrics.last_log_index,
            heard_ms: heard.map(|age| age.as_millis() as u64),
        });
    }
    Ok(())
}

/// Runs to its end even if nobody waits for it any more.
pub(crate) async fn transfer(
    raft: Raft,
    to: u64,
    deadline: Instant,
    heartbeat: Duration,
) -> Result<(), TransferError> {
    let mut metrics = raft.metrics();
    let me = {
        let now = metrics.borrow_watched();
        if now.id == to && leadership::of(&now).current.is_some() {
            return Ok(());
        }
        check(&now, to, heartbeat * 3)?;
        now.id
    };
    let fatal = |error: &dyn std::fmt::Display| TransferError::Fatal { reason: error.to_string() };
    while Instant::now() < deadline {
        raft.trigger().transfer_leader(to).await.map_err(|error| fatal(&error))?;
        let again = deadline.min(Instant::now() + heartbeat * 2);
        loop {
            let (leader, leads) = {
                let now = metrics.borrow_watched();
                (now.current_leader, leadership::of(&now).current.is_some())
            };
            if leader == Some(to) {
                return Ok(());
            }
            if leader.is_some_and(|leader| leader != me) {
                return Err(TransferError::Overdue { to });
            }
            match timeout_at(again, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(fatal(&"its task has ended")),
                // Somebody is being elected: no second request, but wait on.
                Err(_) if !leads && Instant::now() < deadline => sleep_until(again + heartbeat / 4).await,
                Err(_) => break,
            }
        }
    }
    raft.trigger().elect(false).await.map_err(|error| fatal(&error))?;
    Err(TransferError::Overdue { to })
}
