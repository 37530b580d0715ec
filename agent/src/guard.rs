//! The agent's side of the guard's socket: one request, one answer, each with a deadline. A connection a request: a
//! request that hangs (a fence waits for PostgreSQL's end) holds up no other.

use std::{path::PathBuf, time::Duration};

use regent_agent_core::{GuardPromise, GuardView};
use regent_guard::wire::{
    Answer, ControlView, Fields, LINE_BYTES_MAX, PostgresState as WireState, Request, Status,
};
use regent_types::{BootId, Epoch, FencedEvidence, Grant, InstanceId, Lsn, PostgresState, Timeline};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use crate::clock::boottime_ns;

/// A request to the guard failed.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The socket.
    #[error("the guard cannot be reached at {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No answer: it may have been done.
    #[error("the guard has not answered {verb} within {limit_ms} ms")]
    Deadline {
        /// The request.
        verb: &'static str,
        /// The deadline.
        limit_ms: u64,
    },
    /// Nothing was done.
    #[error("the guard refuses {verb}: {reason}")]
    Refused {
        /// The request.
        verb: &'static str,
        /// Its reason.
        reason: String,
    },
    /// It failed, or the answer is not understood.
    #[error("the guard failed at {verb}: {reason}")]
    Failed {
        /// The request.
        verb: &'static str,
        /// The reason.
        reason: String,
    },
}

/// The deadline of a request that the guard answers from memory and one fsync.
const QUICK: Duration = Duration::from_secs(3);

/// The guard's client.
#[derive(Debug, Clone)]
pub struct Guard {
    socket: PathBuf,
}

impl Guard {
    /// For the guard at `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Sends `request`; the fields of an `ok`.
    pub async fn ask(&self, request: &Request, limit: Duration) -> Result<Fields, GuardError> {
        let verb = request.verb();
        let answer = timeout(limit, self.exchange(request)).await;
        let text = answer
            .map_err(|_| GuardError::Deadline { verb, limit_ms: crate::clock::ms(limit) })?
            .map_err(|source| GuardError::Io { path: self.socket.clone(), source })?;
        match Answer::parse(text.trim_end_matches('\n')) {
            Ok(Answer::Ok(fields)) => Ok(fields),
            Ok(Answer::Refused { reason, .. }) => Err(GuardError::Refused { verb, reason }),
            Ok(Answer::Error { reason }) => Err(GuardError::Failed { verb, reason }),
            Err(error) => Err(GuardError::Failed { verb, reason: error.to_string() }),
        }
    }

    async fn exchange(&self, request: &Request) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(request.encode().as_bytes()).await?;
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while !answer.ends_with(b"\n") {
            let read = stream.read(&mut chunk).await?;
            if read == 0 {
                return Err(std::io::Error::other("the guard closed the connection without an answer"));
            }
            answer.extend_from_slice(&chunk[..read]);
            if answer.len() > LINE_BYTES_MAX {
                return Err(std::io::Error::other("the guard's answer is too long"));
            }
        }
        String::from_utf8(answer).map_err(std::io::Error::other)
    }

    /// Everything it knows.
    pub async fn status(&self) -> Result<Status, GuardError> {
        let fields = self.ask(&Request::Status, QUICK).await?;
        Status::from_fields(&fields).map_err(|e| GuardError::Failed { verb: "status", reason: e.to_string() })
    }

    /// Hands over a lease.
    pub async fn grant(&self, grant: &Grant) -> Result<(), GuardError> {
        let request = Request::Grant {
            epoch: grant.epoch.0,
            instance: grant.instance.0,
            deadline_ns: grant.deadline_ns(),
        };
        self.ask(&request, QUICK).await.map(drop)
    }

    /// Fences; the answer is the proof.
    pub async fn fence(&self, epoch: Epoch, grace_ms: u64) -> Result<FencedEvidence, GuardError> {
        let before = self.status().await?;
        let limit = Duration::from_millis(grace_ms) + Duration::from_secs(30);
        let fields = self.ask(&Request::Fence { epoch: epoch.0, grace_ms }, limit).await?;
        let failed = |reason: String| GuardError::Failed { verb: "fence", reason };
        let control = ControlView::from_fields(&fields).map_err(|e| failed(e.to_string()))?;
        let after = self.status().await?;
        if after.instance != before.instance {
            return Err(failed("the guard was restarted while it fenced".into()));
        }
        Ok(FencedEvidence {
            epoch,
            instance: InstanceId(after.instance),
            boot: BootId(after.boot_id),
            succeeds: after.lineage.iter().map(|id| InstanceId(*id)).collect(),
            checkpoint_lsn: control.as_ref().map(|c| Lsn(c.checkpoint_lsn)),
            timeline: control.as_ref().map(|c| Timeline(c.timeline)),
            clean: control.is_some_and(|c| c.state.starts_with("shut down")),
        })
    }
}

/// The status as the planner wants it.
pub fn view(status: &Status) -> GuardView {
    let live = status.lease_deadline_ns.is_some_and(|deadline| deadline > boottime_ns());
    GuardView {
        instance: InstanceId(status.instance),
        boot: BootId(status.boot_id.clone()),
        highest_epoch: Epoch(status.highest_epoch),
        fenced_through: Epoch(status.fenced_through),
        promises_closed: Epoch(status.promises_closed),
        lease_epoch: status.lease_epoch.filter(|_| live).map(Epoch),
        run: run_state(status.postgres),
        started_at_ns: status.started_at_ns,
        job_running: status.job.starts_with("running"),
        refused: refused(status),
        succeeds: status.lineage.iter().map(|id| InstanceId(*id)).collect(),
        promise: promise(status),
    }
}

/// The promise that the guard holds to.
pub fn promise(status: &Status) -> Option<GuardPromise> {
    let until_ns = status.promised_until_ns.filter(|until_ns| *until_ns > boottime_ns())?;
    Some(GuardPromise { epoch: status.promised_epoch.map(Epoch), until_ns })
}

/// Why automatic failover is refused for this member, if it is.
pub fn refused(status: &Status) -> Option<String> {
    if status.namespaces != "ok" {
        return Some(format!("namespaces: {}", status.namespaces));
    }
    (status.timer != "ok").then(|| format!("timer: {}", status.timer))
}

/// The guard's word for what PostgreSQL does, as reported.
pub fn run_state(state: WireState) -> PostgresState {
    match state {
        WireState::Stopped => PostgresState::Stopped,
        WireState::Starting => PostgresState::Starting,
        WireState::Standby => PostgresState::Standby,
        WireState::Primary => PostgresState::Primary,
        WireState::Stopping => PostgresState::Stopping,
    }
}
