//! Ways to a deployment: addresses and links, DNS, HTTP, PostgreSQL.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::config::APP;
use super::layout::{DNS_CHECKS, EAST, MEMBERS, NAME, NORTH, REGIONS, Service, WITNESS, checked_dns, host};
use super::life::Deployment;
use crate::real::clock::wait_until;
use crate::real::resolver::StubResolver;
use crate::real::workload::{Endpoint, Login, Session};

const SOON: Duration = Duration::from_secs(5);

impl Deployment {
    /// Where the service of `region` is reached from `from`: straight within a region, else over the link.
    pub fn address(&self, from: &str, region: &str, service: Service) -> Result<SocketAddr> {
        let ip = host(self.world.addresses(), from, region, service)?;
        Ok((ip, self.ports.of(service)).into())
    }

    /// A link's end for each service and each pair of regions.
    pub(super) fn open_links(&self) -> Result<()> {
        for region in REGIONS {
            let local = checked_dns(self.world.addresses(), self.ports, region)?;
            let target = self.address(region, region, Service::Dns)?;
            self.net().listen_udp(DNS_CHECKS, region, local, target)?;
        }
        for from in REGIONS {
            for to in REGIONS.iter().copied().filter(|to| *to != from) {
                let mut services = vec![Service::Coordinator, Service::Dns];
                if MEMBERS.contains(&to) {
                    services.extend([Service::Postgres, Service::AgentPeer]);
                }
                for service in services {
                    let local = self.address(from, to, service)?;
                    let target = self.address(to, to, service)?;
                    self.net().listen_on(from, to, local, target)?;
                    if service == Service::Dns {
                        self.net().listen_udp(from, to, local, target)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The resolver of a client in `region`: all coordinators, the own region's first.
    pub fn resolver(&self, region: &str) -> Result<StubResolver> {
        let mut servers = vec![self.address(region, region, Service::Dns)?];
        for other in REGIONS.iter().filter(|other| **other != region) {
            servers.push(self.address(region, other, Service::Dns)?);
        }
        Ok(StubResolver::new(servers, Duration::from_millis(500)))
    }

    /// The member that the name leads clients to, and the epoch beside it.
    pub async fn dns(&self) -> Result<(Option<&'static str>, Option<u64>)> {
        let answer = self.resolver(WITNESS)?.resolve(NAME).await?;
        for member in MEMBERS {
            if answer.addresses == [self.address(WITNESS, member, Service::Postgres)?.ip()] {
                return Ok((Some(member), answer.epoch));
            }
        }
        Ok((None, answer.epoch))
    }

    /// How a client in the witness region writes: by name, over the links.
    pub fn by_name(&self) -> Result<Endpoint> {
        Ok(Endpoint::Name {
            resolver: self.resolver(WITNESS)?,
            name: NAME.to_owned(),
            port: self.ports.of(Service::Postgres),
            routes: BTreeMap::new(),
        })
    }

    /// The member's PostgreSQL, straight.
    pub fn direct(&self, member: &str) -> Result<SocketAddr> {
        self.address(member, member, Service::Postgres)
    }

    /// How evidence names the member's PostgreSQL.
    pub fn server_name(&self, member: &str) -> Result<String> {
        Ok(self.direct(member)?.to_string())
    }

    /// The application's role.
    pub fn login(&self) -> Login {
        Login { user: APP.into(), database: APP.into(), password: None }
    }

    /// The database superuser.
    pub fn superuser_login(&self) -> Login {
        Login { user: self.superuser.clone(), database: "postgres".into(), password: None }
    }

    /// A session of the superuser, straight to the member.
    pub async fn pg(&self, member: &str) -> Result<Session> {
        Session::open(&self.superuser_login(), self.direct(member)?, SOON).await
    }

    /// A session of the application, straight to the member.
    pub async fn app(&self, member: &str) -> Result<Session> {
        Session::open(&self.login(), self.direct(member)?, SOON).await
    }

    /// Makes the application's role and database on the first primary and waits for them on its standby.
    pub async fn make_application(&self) -> Result<()> {
        let session = self.pg(NORTH).await?;
        // Not in one string: CREATE DATABASE refuses to be part of a transaction.
        for text in [format!("CREATE ROLE {APP} LOGIN"), format!("CREATE DATABASE {APP} OWNER {APP}")] {
            session.client().batch_execute(&text).await.with_context(|| text.clone())?;
        }
        wait_until("the application's database on the standby", Duration::from_secs(30), async || {
            self.app(EAST).await.is_ok()
        })
        .await
    }

    /// `GET path` of an HTTP service: status code and body.
    pub async fn http(&self, address: SocketAddr, path: &str) -> Result<(u16, String)> {
        tokio::time::timeout(SOON, get(address, path)).await.context("HTTP: no answer")?
    }

    /// `GET path` of a member's agent, straight.
    pub async fn agent_http(&self, member: &str, path: &str) -> Result<(u16, String)> {
        self.http(self.address(member, member, Service::AgentHttp)?, path).await
    }

    /// One sample of a coordinator's metrics, by name and labels as they are printed.
    pub async fn coordinator_metric(&self, region: &str, sample: &str) -> Result<f64> {
        let address = self.address(region, region, Service::CoordinatorHttp)?;
        let (code, body) = self.http(address, "/metrics").await?;
        ensure!(code == 200, "/metrics of {region} answers {code}");
        body.lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
            .with_context(|| format!("no sample {sample} among the metrics of {region}"))
    }
}

async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("reading the HTTP answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the HTTP head")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status code")?;
    Ok((code, body.to_owned()))
}
