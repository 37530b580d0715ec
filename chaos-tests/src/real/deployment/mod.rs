//! A whole Regent on loopback: three coordinators, two members with guard, agent and PostgreSQL, mutual TLS, the
//! zone served by the coordinators, and a faulty link between each pair of regions.
//!
//! It starts and stops real binaries and reads what any operator can read (`regentctl`, DNS, HTTP, PostgreSQL); it
//! decides nothing. How to write a scenario (one file a theme in `chaos-tests/tests/`, several tests in it):
//!
//! ```ignore
//! #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
//! async fn partition_fails_over() -> Result<()> {
//!     // Bootstrapped from two empty directories; the standby is sync confirmed.
//!     let deployment = Deployment::start(DeploymentOptions::new("partition")).await?;
//!     // Writers of every kind: by name, and sessions held open straight to both members.
//!     let workload = Workload::start(&deployment).await?;
//!     deployment.net().isolate(NORTH)?;
//!     // Polls `regentctl status --output json` until the condition holds.
//!     deployment.wait_status("promoted", deployment.timing().failover_at_most(), |status| {
//!         status.primary() == Some(EAST) && status.idle()
//!     }).await?;
//!     deployment.net().heal();
//!     deployment.wait_ready(REJOIN_AT_MOST).await?;
//!     // Which step, rung and rule, not only the end state: `regentctl history CLUSTER N --output json`.
//!     let report = deployment.last_operation("failover").await?;
//!     assert_eq!(report["fence"][0]["rung"], "lease_expired");
//!     // Every acknowledged row is kept, or in salvage; the reigns do not overlap.
//!     workload.finish(&deployment, LossAllowed::Salvaged).await?;
//!     // Without this call the logs, configurations and the last status are kept in target/chaos/<name>/.
//!     deployment.finish().await
//! }
//! ```
//!
//! Processes are named `coordinator-<region>`, `guard-<region>` and `agent-<region>`; a member is named like its
//! region. [`Deployment::process`] gives a running one to kill, stop and continue; [`Deployment::restart`] starts it
//! again. Addresses: every region has IP addresses of its own, and one for each region *as seen from* each other, so
//! that a service has the same port wherever it is looked at ([`Deployment::address`]). Clients and operators live in
//! [`WITNESS`]. To lose a whole host, cut its links first, then kill ([`Deployment::lose_host`]).
//! Time-outs are scaled from the partition timeout (default 15 s, lease 8.5 s; the demo's 12 s and 8 s): [`Timing`].

mod access;
mod artefacts;
mod by_hand;
mod config;
mod ctl;
mod events;
mod host;
mod impostors;
mod judge;
mod layout;
mod life;
mod minors;
mod options;
mod salvage;
mod status;
mod third;
mod timing;
mod workload;

pub use events::Stops;
pub use host::{PostgresRun, SpoiltState};
pub use judge::REJOIN_AT_MOST;
pub use layout::{CLUSTER, DNS_CHECKS, EAST, MEMBERS, NAME, NORTH, REGIONS, Service, WITNESS};
pub use life::Deployment;
pub use options::DeploymentOptions;
pub use status::Status;
pub use timing::Timing;
pub use workload::Workload;
