//! The endpoint: who may call, how often, what is pending, and the faults that a test orders.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    http::{self, Request},
    signature::{self, Credentials},
    xml,
    zone::{Record, Refusal, Zone},
};

/// How the double behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// `Z...`.
    pub zone_id: String,
    /// Name of the zone.
    pub zone: String,
    /// Access key id.
    pub key_id: String,
    /// Secret access key.
    pub secret: String,
    /// For temporary credentials.
    pub session_token: Option<String>,
    /// Region of the signature.
    pub region: String,
    /// How long a change is PENDING.
    pub insync_after: Duration,
    /// How long the zone is busy after a change.
    pub busy_for: Duration,
    /// Requests in each second (QUOTAS: 5).
    pub requests_per_second: usize,
    /// Most records on a page of a list.
    pub page_max: usize,
}

impl Options {
    /// One zone, made-up credentials, the documented limits.
    pub fn new(zone: &str) -> Self {
        Self {
            zone_id: "Z0FAKE".into(),
            zone: zone.into(),
            key_id: "AKIDFAKE".into(),
            secret: "fake-secret-key".into(),
            session_token: None,
            region: "us-east-1".into(),
            insync_after: Duration::from_millis(100),
            busy_for: Duration::ZERO,
            requests_per_second: 5,
            page_max: 300,
        }
    }
}

/// What a test orders for the next fitting request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// QUOTAS: HTTP 400, `Throttling`.
    Throttling,
    /// QUOTAS: HTTP 400, `PriorRequestNotComplete`. Of a change.
    PriorRequestNotComplete,
    /// ERRORS: HTTP 403, `AccessDenied`. Of a change.
    AccessDenied,
    /// HTTP 500, `InternalFailure`.
    InternalFailure,
    /// A change is made and never answered.
    AnswerLost,
    /// A change is made and its connection is cut.
    CutAfterChange,
    /// A change is neither made nor answered.
    Unanswered,
}

impl Fault {
    fn only_changes(self) -> bool {
        !matches!(self, Self::Throttling | Self::InternalFailure)
    }
}

struct Accepted {
    id: String,
    insync_at: Instant,
    /// The zone after this change.
    zone: Zone,
}

struct State {
    options: Options,
    zone: Zone,
    /// What name servers show: the newest INSYNC change's zone.
    served: Zone,
    changes: Vec<Accepted>,
    busy_until: Instant,
    recent: VecDeque<Instant>,
    faults: VecDeque<Fault>,
    down: bool,
    /// `ListResourceRecordSets`, ... with the code of the answer.
    log: Vec<(String, u16)>,
}

impl State {
    fn settle(&mut self) {
        let now = Instant::now();
        if let Some(newest) = self.changes.iter().rev().find(|change| change.insync_at <= now) {
            self.served = newest.zone.clone();
        }
    }
}

/// A running double; ends when dropped.
pub struct Fake {
    /// Of the HTTP endpoint.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Fake {
    /// Listens on a free port of loopback.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let zone = Zone::new(&options.zone);
        let state = Arc::new(Mutex::new(State {
            served: zone.clone(),
            zone,
            options,
            changes: Vec::new(),
            busy_until: Instant::now(),
            recent: VecDeque::new(),
            faults: VecDeque::new(),
            down: false,
            log: Vec::new(),
        }));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    let state = shared.clone();
                    tokio::spawn(async move { serve(stream, &state).await.ok() });
                }
            }
        });
        Ok(Self { address, state, task })
    }

    /// `http://address`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every record of a name, PENDING ones included.
    pub fn records(&self, name: &str) -> Vec<Record> {
        lock(&self.state).zone.of(name)
    }

    /// Every record of a name that name servers show: INSYNC.
    pub fn served(&self, name: &str) -> Vec<Record> {
        let mut state = lock(&self.state);
        state.settle();
        state.served.of(name)
    }

    /// Puts a record there by hand, at once on every name server.
    pub fn put(&self, record: Record) {
        let mut state = lock(&self.state);
        state.zone.put(record.clone());
        state.served.put(record);
    }

    /// Orders a fault for the next fitting request; several are queued.
    pub fn order(&self, fault: Fault) {
        lock(&self.state).faults.push_back(fault);
    }

    /// Faults that have not happened yet.
    pub fn ordered(&self) -> usize {
        lock(&self.state).faults.len()
    }

    /// Closes every connection without an answer, or stops doing so.
    pub fn set_down(&self, down: bool) {
        lock(&self.state).down = down;
    }

    /// Changes how it behaves.
    pub fn set(&self, change: impl FnOnce(&mut Options)) {
        change(&mut lock(&self.state).options);
    }

    /// Action and code of every answer so far.
    pub fn log(&self) -> Vec<(String, u16)> {
        lock(&self.state).log.clone()
    }
}

async fn serve(mut stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    if lock(state).down {
        return Ok(());
    }
    let Some(request) = http::read(&mut stream).await? else { return Ok(()) };
    if lock(state).down {
        return Ok(());
    }
    let answer = handle(&request, &mut lock(state));
    match answer {
        Answer::Give(code, body) => http::answer(&mut stream, code, &body).await,
        Answer::Cut => Ok(()),
        // For longer than any client's patience; the client hangs up first.
        Answer::Silence => http::read(&mut stream).await.map(drop),
    }
}

enum Answer {
    Give(u16, String),
    Cut,
    Silence,
}

fn error(code: u16, name: &str, message: &str) -> Answer {
    Answer::Give(code, xml::error(name, message))
}

fn handle(request: &Request, state: &mut State) -> Answer {
    let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let what = match (request.method.as_str(), &path[..]) {
        ("GET", ["2013-04-01", "hostedzone", _, "rrset"]) => "ListResourceRecordSets",
        ("POST", ["2013-04-01", "hostedzone", _, "rrset"]) => "ChangeResourceRecordSets",
        ("GET", ["2013-04-01", "change", _]) => "GetChange",
        _ => "unknown",
    };
    let answer = decide(request, what, path.get(2).copied().unwrap_or_default(), state);
    let code = if let Answer::Give(code, _) = &answer { *code } else { 0 };
    state.log.push((what.to_owned(), code));
    answer
}

fn decide(request: &Request, what: &str, id: &str, state: &mut State) -> Answer {
    let options = state.options.clone();
    let credentials =
        Credentials { key_id: options.key_id, secret: options.secret, session_token: options.session_token };
    if let Err((code, message)) = signature::check(request, &credentials, &options.region) {
        return error(403, code, &message);
    }
    // QUOTAS, "All requests: Five requests per second per AWS account".
    let now = Instant::now();
    while state.recent.front().is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(1)) {
        state.recent.pop_front();
    }
    state.recent.push_back(now);
    if state.recent.len() > options.requests_per_second {
        return error(400, "Throttling", "Rate exceeded");
    }
    let fault = match state.faults.front() {
        Some(fault) if what == "ChangeResourceRecordSets" || !fault.only_changes() => {
            state.faults.pop_front()
        }
        _ => None,
    };
    match fault {
        Some(Fault::Throttling) => return error(400, "Throttling", "Rate exceeded"),
        Some(Fault::InternalFailure) => {
            return error(500, "InternalFailure", "We encountered an internal error");
        }
        Some(Fault::PriorRequestNotComplete) => return busy(),
        Some(Fault::AccessDenied) => {
            let message = format!(
                "User: arn:aws:iam::123456789012:user/regent is not authorized to perform: route53:{what}"
            );
            return error(403, "AccessDenied", &message);
        }
        Some(Fault::Unanswered) => return Answer::Silence,
        Some(Fault::AnswerLost | Fault::CutAfterChange) | None => {}
    }
    match what {
        "GetChange" => get_change(id, state),
        "ListResourceRecordSets" | "ChangeResourceRecordSets" if id != options.zone_id => {
            error(404, "NoSuchHostedZone", &format!("No hosted zone found with ID: {id}"))
        }
        "ListResourceRecordSets" => list(request, state),
        "ChangeResourceRecordSets" => {
            let answer = change(request, state);
            match fault {
                Some(Fault::AnswerLost) => Answer::Silence,
                Some(Fault::CutAfterChange) => Answer::Cut,
                _ => answer,
            }
        }
        _ => error(404, "InvalidAction", "no such action"),
    }
}

/// QUOTAS: "If Route 53 can't process a request before the next request arrives, it will reject subsequent requests for
/// the same hosted zone".
fn busy() -> Answer {
    let message = "The request was rejected because Route 53 was still processing a prior request.";
    error(400, "PriorRequestNotComplete", message)
}

/// LRRS, "URI Request Parameters".
fn list(request: &Request, state: &State) -> Answer {
    let parameters = ["name", "type", "identifier", "maxitems"].map(|name| request.parameter(name));
    let [name, kind, identifier, max] = parameters;
    // LRRS: "Type specified but Name not specified: Amazon Route 53 returns the InvalidInput error".
    if name.is_none() && kind.is_some() {
        return error(400, "InvalidInput", "type needs name");
    }
    // LRRS, "maxitems": up to 300.
    let max = match max.map(|max| max.parse::<usize>()) {
        None => 300,
        Some(Ok(max)) if max > 0 => max.min(300),
        Some(_) => return error(400, "InvalidInput", "maxitems"),
    };
    let max = max.min(state.options.page_max);
    let start = (name.as_deref(), kind.as_deref(), identifier.as_deref());
    let (page, next) = state.zone.list(start, max);
    Answer::Give(200, xml::list(&page, next.as_ref(), max))
}

fn change(request: &Request, state: &mut State) -> Answer {
    let now = Instant::now();
    if now < state.busy_until {
        return busy();
    }
    let changes = match xml::read_batch(&String::from_utf8_lossy(&request.body)) {
        Ok(changes) => changes,
        Err(problem) => return error(400, "InvalidInput", &format!("Invalid XML ; {problem}")),
    };
    match state.zone.change(&changes) {
        Ok(()) => {}
        Err(Refusal::Input(message)) => return error(400, "InvalidInput", &message),
        // Both forms are seen: the documented element for several messages, a common error with the list as its message
        // for one (boto issue 2887).
        Err(Refusal::Batch(messages)) if messages.len() == 1 => {
            return error(400, "InvalidChangeBatch", &format!("[{}]", messages[0]));
        }
        Err(Refusal::Batch(messages)) => return Answer::Give(400, xml::invalid_change_batch(&messages)),
    }
    state.busy_until = now + state.options.busy_for;
    let id = format!("C{:05}", state.changes.len() + 1);
    let insync_at = now + state.options.insync_after;
    state.changes.push(Accepted { id: id.clone(), insync_at, zone: state.zone.clone() });
    Answer::Give(200, xml::change("ChangeResourceRecordSetsResponse", &id, "PENDING"))
}

/// GC: PENDING until every name server has it, then INSYNC.
fn get_change(id: &str, state: &mut State) -> Answer {
    state.settle();
    let Some(change) = state.changes.iter().find(|change| change.id == id) else {
        return error(404, "NoSuchChange", &format!("Could not find resource with ID: {id}"));
    };
    let status = if change.insync_at <= Instant::now() { "INSYNC" } else { "PENDING" };
    Answer::Give(200, xml::change("GetChangeResponse", id, status))
}
