//! A session that runs a procedure which commits in a loop inside the server: the kind of backend that goes
//! on committing when its postmaster is dead and its client is gone.
//!
//! The commits are known from notices. Each carries the server's wall clock before and after the commit;
//! on one host that translates to the monotonic clock, with the notice's arrival as upper bound.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::journal::{Attempt, Journal, Outcome, SessionKind};
use super::session::{Login, Notice, Session, is_sync_warning};
use crate::real::clock::WallOffset;

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The looping session, straight to one server.
#[derive(Debug)]
pub struct LoopProcedure {
    journal: Journal,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl LoopProcedure {
    /// Opens the session and calls the procedure, which commits a row each `pause`. On a standby the call is
    /// refused and repeated over the same session, so that it starts with the promotion.
    pub async fn start(login: &Login, address: SocketAddr, writer_id: i32, pause: Duration) -> Result<Self> {
        let session = Session::open(login, address, Duration::from_secs(5)).await?;
        let journal = Journal::default();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(session, writer_id, pause, journal.clone(), stopped));
        Ok(Self { journal, stop, task })
    }

    /// The commits heard of so far.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Whether the session was lost.
    pub fn is_done(&self) -> bool {
        self.task.is_finished()
    }

    /// Cancels the call, closes the session, and returns the commits heard of.
    pub async fn stop(self) -> Result<Vec<Attempt>> {
        let _ = self.stop.send(true);
        self.task.await.context("the looping session panicked")?;
        Ok(self.journal.attempts())
    }
}

async fn run(
    session: Session,
    writer_id: i32,
    pause: Duration,
    journal: Journal,
    mut stopped: watch::Receiver<bool>,
) {
    let text = format!("CALL chaos_loop({writer_id}, {})", pause.as_secs_f64());
    let mut unsure = false;
    while !*stopped.borrow() && !session.is_closed() {
        let call = session.client().batch_execute(&text);
        tokio::pin!(call);
        let refused = loop {
            tokio::select! {
                done = &mut call => break done.err(),
                _ = stopped.wait_for(|stop| *stop) => break None,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            note(&session, writer_id, &journal, &mut unsure);
        };
        // What came with the connection's end.
        note(&session, writer_id, &journal, &mut unsure);
        if let Some(error) = refused {
            journal.trouble(error.to_string());
            let _ = tokio::time::timeout(LOOK_EVERY, stopped.wait_for(|stop| *stop)).await;
        }
    }
    // Closing the socket does not end a procedure that reads nothing: the server must be told. A server that
    // is dead or unreachable has nothing to be told.
    let cancel = session.client().cancel_token();
    let _ = tokio::time::timeout(Duration::from_secs(1), cancel.cancel_query(tokio_postgres::NoTls)).await;
}

fn note(session: &Session, writer_id: i32, journal: &Journal, unsure: &mut bool) {
    for notice in session.take_notices() {
        if is_sync_warning(&notice.text) {
            *unsure = true;
        } else if let Some(Committed { number, sent_ns, done_ns, xid }) = read(&notice) {
            let outcome = if std::mem::take(unsure) {
                Outcome::Unknown("committed locally only: synchronous wait cancelled".into())
            } else {
                Outcome::Acknowledged
            };
            journal.push(Attempt {
                writer_id,
                number,
                server: session.server().to_owned(),
                kind: SessionKind::Direct,
                sent_ns,
                done_ns,
                outcome,
                xid: Some(xid),
            });
        }
    }
}

struct Committed {
    number: i64,
    sent_ns: u64,
    done_ns: u64,
    xid: u32,
}

fn read(notice: &Notice) -> Option<Committed> {
    let mut words = notice.text.strip_prefix("committed ")?.split(' ');
    let number = words.next()?.parse().ok()?;
    // Sampled afresh: the wall clock may be slewed during a long run, hardly within one notice's way.
    let offset = WallOffset::sample();
    let mut instant = || Some(offset.to_monotonic_ns(words.next()?.parse().ok()?).min(notice.arrived_ns));
    let (sent_ns, done_ns) = (instant()?, instant()?);
    Some(Committed { number, sent_ns, done_ns, xid: words.next()?.parse().ok()? })
}
