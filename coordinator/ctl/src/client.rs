//! Calls that any coordinator may answer. An endpoint that cannot be reached, or that has no leader, is not an
//! answer: the next one is asked. Repeating a mutating call is safe because it carries a request id.

use std::{
    cell::{Cell, RefCell},
    error::Error as _,
    fmt::Write as _,
    time::Duration,
};

use regent_proto::v1::operator_service_client::OperatorServiceClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Failure, Settings,
    failure::{chain, final_answer},
};

/// Before asking again when coordinators answer but none of them has a leader (an election takes about a second).
const PAUSE: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3);

pub(crate) type Operators = OperatorServiceClient<Channel>;

/// All coordinators that are known.
pub(crate) struct Client {
    endpoints: Vec<(String, Endpoint)>,
    timeout: Duration,
    /// Index of the one to ask first: the one that answered last.
    first: Cell<usize>,
    /// Its connection.
    current: RefCell<Option<(usize, Operators)>>,
}

impl Client {
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        let tls = match &settings.tls {
            Some(files) => {
                let material = files.load().map_err(|error| Failure::usage(&error))?;
                for warning in &material.warnings {
                    eprintln!("regentctl: warning: {warning}");
                }
                Some(material.client())
            }
            None => None,
        };
        let connect_timeout = settings.timeout.min(CONNECT_TIMEOUT_MAX);
        let mut endpoints = Vec::new();
        for uri in &settings.endpoints {
            let name = uri.authority().map(ToString::to_string).unwrap_or_default();
            let mut endpoint = Endpoint::from(uri.clone())
                .connect_timeout(connect_timeout)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(Duration::from_secs(5))
                .keep_alive_timeout(Duration::from_secs(5))
                .user_agent(concat!("regentctl/", env!("CARGO_PKG_VERSION")))
                .map_err(|error| Failure::usage(&error))?;
            if let Some(tls) = &tls {
                endpoint = endpoint.tls_config(tls.clone()).map_err(|error| Failure::usage(&error))?;
            }
            endpoints.push((name, endpoint));
        }
        Ok(Self { endpoints, timeout: settings.timeout, first: Cell::new(0), current: RefCell::new(None) })
    }

    /// Asks one coordinator after the other until one has a final answer. When some are alive but have no leader,
    /// asks again until the time-out.
    pub async fn call<T>(
        &self,
        call: impl AsyncFn(&mut Operators) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let give_up = Instant::now() + self.timeout;
        loop {
            let mut reasons = String::new();
            let mut alive = false;
            let first = self.first.get();
            for index in (0..self.endpoints.len()).map(|i| (first + i) % self.endpoints.len()) {
                match self.ask(index, &call).await {
                    Ok(answer) => {
                        self.first.set(index);
                        return Ok(answer);
                    }
                    Err(Asked::Final(failure)) => return Err(failure),
                    Err(Asked::Next { reason, connected }) => {
                        alive |= connected;
                        let _ = write!(reasons, "\n  {}: {reason}", self.endpoints[index].0);
                    }
                }
            }
            if !alive || Instant::now() + PAUSE >= give_up {
                let hint = if alive {
                    "coordinators answer, but no leader could be asked; without a majority of them nothing changes"
                } else {
                    "no coordinator could be reached; check the addresses, the network and the certificates"
                };
                return Err(Failure::Unreachable(format!("{hint}:{reasons}")));
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask<T>(
        &self,
        index: usize,
        call: &impl AsyncFn(&mut Operators) -> Result<Response<T>, Status>,
    ) -> Result<T, Asked> {
        let mut operators = self.connected(index).await?;
        match timeout(self.timeout, call(&mut operators)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => match final_answer(&status) {
                Some(failure) => Err(Asked::Final(failure)),
                None => {
                    self.current.borrow_mut().take();
                    // A status with a source was made here: the connection broke, or the handshake was refused.
                    Err(Asked::Next { reason: describe(&status), connected: status.source().is_none() })
                }
            },
            Err(_) => {
                self.current.borrow_mut().take();
                let time = humantime::format_duration(self.timeout);
                Err(Asked::Next { reason: format!("no answer within {time}"), connected: false })
            }
        }
    }

    async fn connected(&self, index: usize) -> Result<Operators, Asked> {
        if let Some((at, operators)) = &*self.current.borrow()
            && *at == index
        {
            return Ok(operators.clone());
        }
        let channel = self.endpoints[index]
            .1
            .connect()
            .await
            .map_err(|error| Asked::Next { reason: chain(&error), connected: false })?;
        let operators = OperatorServiceClient::new(channel);
        *self.current.borrow_mut() = Some((index, operators.clone()));
        Ok(operators)
    }

    /// Forgets the connection and starts the next call with the next coordinator: this one has fallen silent.
    pub fn rotate(&self) {
        self.current.borrow_mut().take();
        self.first.set((self.first.get() + 1) % self.endpoints.len());
    }
}

/// What came of asking one coordinator.
enum Asked {
    Final(Failure),
    Next { reason: String, connected: bool },
}

fn describe(status: &Status) -> String {
    if status.message().is_empty() { status.code().to_string() } else { chain(status) }
}
