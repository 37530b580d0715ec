//! Writers that insert numbered rows one by one: through a name as an application does, or over one session
//! held open towards a given server.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::journal::{Attempt, Journal, Outcome, SessionKind};
use super::session::{Login, Session};
use crate::real::clock::monotonic_ns;
use crate::real::resolver::StubResolver;

/// Where a writer connects to.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// One server, straight.
    Direct(SocketAddr),
    /// One server over a faulty link.
    Linked(SocketAddr),
    /// Whatever the name resolves to, asked again at each connection.
    Name {
        /// Who is asked.
        resolver: StubResolver,
        /// For what.
        name: String,
        /// The port of every server.
        port: u16,
        /// Where the link to an address listens, when it is not the address itself.
        routes: BTreeMap<IpAddr, SocketAddr>,
    },
}

impl Endpoint {
    async fn address(&self) -> Result<SocketAddr> {
        match self {
            Self::Direct(address) | Self::Linked(address) => Ok(*address),
            Self::Name { resolver, name, port, routes } => {
                let answer = resolver.resolve(name).await?;
                let ip = *answer.addresses.first().with_context(|| format!("no address for {name}"))?;
                Ok(routes.get(&ip).copied().unwrap_or_else(|| (ip, *port).into()))
            }
        }
    }

    fn kind(&self) -> SessionKind {
        match self {
            Self::Direct(_) => SessionKind::Direct,
            Self::Linked(_) | Self::Name { .. } => SessionKind::Linked,
        }
    }
}

/// How a writer behaves.
#[derive(Clone, Debug)]
pub struct WriterSpec {
    /// Its id, unique within a scenario.
    pub writer_id: i32,
    /// Who it is to PostgreSQL.
    pub login: Login,
    /// Where it writes to.
    pub endpoint: Endpoint,
    /// Deadline of a connection.
    pub connect_within: Duration,
    /// Deadline of a statement; overdue is unknown, and the connection is given up.
    pub statement_within: Duration,
    /// Between two rows, and between two tries to connect.
    pub pause: Duration,
}

impl WriterSpec {
    /// A writer with 2 s to connect, 5 s a statement, and 20 ms between rows.
    pub fn new(writer_id: i32, endpoint: Endpoint) -> Self {
        Self {
            writer_id,
            login: Login::default(),
            endpoint,
            connect_within: Duration::from_secs(2),
            statement_within: Duration::from_secs(5),
            pause: Duration::from_millis(20),
        }
    }

    /// Starts a writer that connects again, by name again, for as long as it runs.
    pub fn start(self) -> RunningWriter {
        self.start_with(None)
    }

    /// Opens one session now and starts writing over it; when it is lost the writer is done. Rows refused by
    /// a standby are failures, and it goes on: it notices a promotion at once.
    pub async fn start_held(self) -> Result<RunningWriter> {
        let address = self.endpoint.address().await?;
        let session = Session::open(&self.login, address, self.connect_within).await?;
        Ok(self.start_with(Some(session)))
    }

    fn start_with(self, held: Option<Session>) -> RunningWriter {
        let journal = Journal::default();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(write(self, held, journal.clone(), stopped));
        RunningWriter { journal, stop, task }
    }
}

/// A writer at work.
#[derive(Debug)]
pub struct RunningWriter {
    journal: Journal,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl RunningWriter {
    /// What it was told so far.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Whether it has ended by itself: the session held was lost.
    pub fn is_done(&self) -> bool {
        self.task.is_finished()
    }

    /// Lets it finish the row at hand, within that row's deadline, and returns all attempts.
    pub async fn stop(self) -> Result<Vec<Attempt>> {
        let _ = self.stop.send(true);
        self.task.await.context("a writer panicked")?;
        Ok(self.journal.attempts())
    }
}

async fn write(
    spec: WriterSpec,
    held: Option<Session>,
    journal: Journal,
    mut stopped: watch::Receiver<bool>,
) {
    let reconnects = held.is_none();
    let mut session = held;
    let mut number = 0;
    while !*stopped.borrow() {
        match session.take() {
            Some(mut open) => {
                number += 1;
                if insert(&spec, &mut open, number, &journal).await {
                    session = Some(open);
                } else if !reconnects {
                    return;
                }
            }
            None => session = connect(&spec, &journal).await,
        }
        // Ends early when told to stop.
        let _ = tokio::time::timeout(spec.pause, stopped.wait_for(|stop| *stop)).await;
    }
}

async fn connect(spec: &WriterSpec, journal: &Journal) -> Option<Session> {
    let opened = async {
        let address = spec.endpoint.address().await?;
        Session::open(&spec.login, address, spec.connect_within).await
    };
    opened.await.map_err(|error| journal.trouble(format!("{error:#}"))).ok()
}

/// Writes one row; false when the session is of no use any more.
async fn insert(spec: &WriterSpec, session: &mut Session, number: i64, journal: &Journal) -> bool {
    let sent_ns = monotonic_ns();
    let (outcome, xid) = session.insert(spec.writer_id, number, spec.statement_within).await;
    let done_ns = monotonic_ns();
    // A standby is the wrong server for a writer that follows a name: it asks the name again. Over a held
    // session it keeps trying.
    let follows_name = matches!(spec.endpoint, Endpoint::Name { .. });
    let usable = match &outcome {
        Outcome::Acknowledged => true,
        Outcome::Failed(_) => !follows_name,
        Outcome::Unknown(why) => {
            journal.trouble(why.clone());
            false
        }
    };
    journal.push(Attempt {
        writer_id: spec.writer_id,
        number,
        server: session.server().to_owned(),
        kind: spec.endpoint.kind(),
        sent_ns,
        done_ns,
        outcome,
        xid,
    });
    usable && !session.is_closed()
}
