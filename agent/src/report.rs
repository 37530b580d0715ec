//! Observations → the report of a heartbeat. What is not known stays unknown.

use regent_agent_core::outlook;
use regent_guard::wire::Status;
use regent_types::{
    Epoch, GivenPromise, GuardFacts, InstanceId, PostgresFacts, PostgresState, PromiseFacts, WalFacts,
    WalRetention,
};

use crate::{
    app::Observed,
    clock::{boottime_ns, ms_since},
    guard,
};

/// The guard's part.
pub fn guard(status: Option<&Status>) -> GuardFacts {
    let Some(status) = status else {
        return GuardFacts {
            reachable: false,
            refused: None,
            highest_epoch: Epoch::NONE,
            fenced_through: Epoch::NONE,
            lease_epoch: None,
            lease_remaining_ms: None,
            succeeds: vec![],
            restarts: 0,
            rogue_promotions: 0,
            state_file: String::new(),
            lease_ttl_max_ms: None,
        };
    };
    let left = status.lease_deadline_ns.and_then(|d| d.checked_sub(boottime_ns())).filter(|left| *left > 0);
    GuardFacts {
        reachable: true,
        refused: guard::refused(status),
        highest_epoch: Epoch(status.highest_epoch),
        fenced_through: Epoch(status.fenced_through),
        lease_epoch: status.lease_epoch.filter(|_| left.is_some()).map(Epoch),
        lease_remaining_ms: left.map(|ns| ns / 1_000_000),
        succeeds: status.lineage.iter().map(|id| InstanceId(*id)).collect(),
        restarts: status.restarts,
        rogue_promotions: status.rogue_promotions,
        state_file: status.state_file.clone(),
        lease_ttl_max_ms: status.lease_ttl_max_ms,
    }
}

/// Promises.
pub fn promise(status: Option<&Status>) -> PromiseFacts {
    let now_ns = boottime_ns();
    let given = status.and_then(guard::promise).map(|promise| GivenPromise {
        epoch: promise.epoch,
        remaining_ms: promise.until_ns.saturating_sub(now_ns).div_ceil(1_000_000),
    });
    PromiseFacts { given, ..PromiseFacts::default() }
}

/// The server's part.
pub fn postgres(seen: &Observed, status: Option<&Status>) -> PostgresFacts {
    let accepting = seen.sample.is_some() && seen.sample_error.is_none();
    PostgresFacts {
        state: status.map_or(PostgresState::Unknown, |s| guard::run_state(s.postgres)),
        accepting,
        not_accepting_for_ms: if accepting { 0 } else { ms_since(seen.answered_ns) },
        major: seen.major,
        logical_slots_at_risk: seen.logical_slots_at_risk,
    }
}

/// The WAL's part: the last figures with their age, also when the server has stopped answering.
pub fn wal(seen: &Observed) -> WalFacts {
    let Some((sample, at_ns)) = &seen.sample else { return WalFacts::default() };
    let server = &sample.server;
    let standby = server.in_recovery;
    WalFacts {
        write_lsn: server.lsn.filter(|_| !standby),
        received_lsn: server.lsn.filter(|_| standby),
        replayed_lsn: server.replayed.filter(|_| standby),
        streaming: standby && server.streaming && seen.sample_error.is_none(),
        timeline: server.timeline,
        replay_lag_ms: sample.replay_lag_ms,
        sample_age_ms: ms_since(*at_ns),
        standbys: sample.standbys.clone(),
        retention: retention(seen),
    }
}

/// What a primary's WAL does to its disk.
fn retention(seen: &Observed) -> Option<WalRetention> {
    let kept = seen.sample.as_ref()?.0.kept?;
    let bytes_per_s = seen.rate.bytes_per_s();
    let free = seen.space.map(|(free, _)| free);
    let full_in_s = free.zip(bytes_per_s).and_then(|(free, bytes_per_s)| {
        outlook::full_in_s(free, bytes_per_s, kept.idle_retained_bytes, kept.slot_keep_max_bytes)
    });
    Some(WalRetention {
        oldest_lsn: kept.oldest_lsn,
        bytes_per_s,
        slot_keep_max_bytes: kept.slot_keep_max_bytes,
        full_in_s,
    })
}
