//! Starting, ending and finding the processes of a deployment.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::layout::{CLUSTER, DNS_CHECKS, Files, MEMBERS, Ports, REGIONS};
use super::options::DeploymentOptions;
use super::timing::Timing;
use crate::real::dirs::staged_binaries;
use crate::real::link::Net;
use crate::real::pg::PgInstall;
use crate::real::process::{Process, ProcessSpec};
use crate::real::shim::{Disk, Shim};
use crate::real::user::RunAs;
use crate::real::world::World;

const BINARIES: [&str; 4] = ["regent-coordinator", "regent-agent", "regent-guard", "regentctl"];

/// How long a fresh deployment may take until its standby is in sync: two debug builds of it beside each other on two
/// busy cores are slow.
const READY_AT_MOST: Duration = Duration::from_secs(120);

/// A running deployment. Everything of it ends when it is dropped.
#[derive(Debug)]
pub struct Deployment {
    // Dropped first: killed before the world's sweep.
    processes: Mutex<BTreeMap<String, Arc<Process>>>,
    shims: BTreeMap<String, Shim>,
    hooks: Mutex<BTreeMap<String, String>>,
    finished: AtomicBool,
    pub(super) options: DeploymentOptions,
    pub(super) timing: Timing,
    pub(super) files: Files,
    pub(super) ports: Ports,
    pub(super) postgres: PgInstall,
    pub(super) superuser: String,
    pub(super) bin: PathBuf,
    pub(super) world: World,
}

impl Deployment {
    /// Starts everything from two empty data directories and waits until the standby is confirmed in sync.
    pub async fn start(options: DeploymentOptions) -> Result<Self> {
        let deployment = Self::prepare(options)?;
        deployment.begin().await?;
        Ok(deployment)
    }

    /// The rest of [`Deployment::start`], after [`Deployment::prepare`].
    pub async fn begin(&self) -> Result<()> {
        self.start_coordinators()?;
        self.start_members()?;
        self.wait_ready(READY_AT_MOST).await.context("starting the deployment")?;
        self.make_application().await
    }

    /// A script of the operator's in the scenario's directory, run by the coordinators' user.
    pub fn script(&self, name: &str, body: &str) -> Result<PathBuf> {
        let path = self.files.root().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        self.world.user().chown(&path)?;
        Ok(path)
    }

    /// Directories, certificates and configurations; nothing runs yet.
    pub fn prepare(options: DeploymentOptions) -> Result<Self> {
        // What may take long comes before anything that would have to be cleaned up.
        let user = RunAs::unprivileged()?;
        let bin = staged_binaries(&BINARIES, &user)?;
        let postgres = PgInstall::locate(options.postgres_major, &user)?;
        let places: Vec<&str> = REGIONS.into_iter().chain([DNS_CHECKS]).collect();
        let world = World::new(&options.name, &places)?;
        for (at, a) in REGIONS.iter().enumerate() {
            for b in &REGIONS[at + 1..] {
                world.net().set_delay(a, b, options.link_delay)?;
            }
        }
        let files = Files::new(world.root());
        let mut deployment = Self {
            processes: Mutex::default(),
            shims: BTreeMap::new(),
            hooks: Mutex::new(options.hooks.clone()),
            finished: AtomicBool::new(false),
            timing: Timing::scaled(options.partition_timeout),
            ports: Ports::pick(world.addresses())?,
            superuser: name_of(world.user())?,
            postgres,
            bin,
            files,
            options,
            world,
        };
        deployment.make_dirs()?;
        deployment.make_certificates()?;
        deployment.write_configs()?;
        deployment.open_links()?;
        Ok(deployment)
    }

    fn make_dirs(&mut self) -> Result<()> {
        let user = self.world.user().clone();
        user.make_dir(&self.files.root().join("etc"))?;
        for region in REGIONS {
            user.make_dir(&self.files.coordinator(region))?;
        }
        for member in MEMBERS {
            let files = &self.files;
            for dir in [
                files.member(member),
                files.disk(member),
                files.guard_state(member),
                files.agent_state(member),
                files.salvage(member),
            ] {
                user.make_dir(&dir)?;
            }
            self.link_postgres(member)?;
            if self.options.failing_disks.contains(member) {
                let control = files.root().join("etc").join(format!("disk-{member}"));
                let disk = if self.options.one_disk { files.member(member) } else { files.disk(member) };
                self.shims.insert(member.to_owned(), Shim::new(&disk, &control, &user)?);
            }
        }
        Ok(())
    }

    fn make_certificates(&self) -> Result<()> {
        let pki = self.files.pki();
        self.run_ctl_offline(&["pki", "init"], &["--dir"], &pki)?;
        let mut identities: Vec<String> = (1..=REGIONS.len()).map(|id| format!("coordinator/{id}")).collect();
        identities.extend(MEMBERS.iter().map(|member| format!("agent/{CLUSTER}/{member}")));
        identities.extend(["operator/alice".to_owned(), "viewer/grafana".to_owned()]);
        self.issue(&identities.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Issues certificates (`operator/bob`) with the deployment's CA, into its `pki` folder.
    pub fn issue(&self, identities: &[&str]) -> Result<()> {
        let args: Vec<&str> = ["pki", "issue"].into_iter().chain(identities.iter().copied()).collect();
        self.run_ctl_offline(&args, &["--dir"], &self.files.pki())
    }

    pub(super) fn run_ctl_offline(&self, args: &[&str], flag: &[&str], dir: &std::path::Path) -> Result<()> {
        let mut command = Command::new(self.bin.join("regentctl"));
        command.args(args).args(flag).arg(dir).current_dir(self.files.root());
        self.world.user().apply(&mut command);
        let done = command.output().context("running regentctl")?;
        ensure!(done.status.success(), "regentctl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    /// Starts all coordinators.
    pub fn start_coordinators(&self) -> Result<()> {
        REGIONS.iter().try_for_each(|region| self.restart(&format!("coordinator-{region}")))
    }

    /// Starts all guards and agents.
    pub fn start_members(&self) -> Result<()> {
        for member in MEMBERS {
            self.restart(&format!("guard-{member}"))?;
            self.restart(&format!("agent-{member}"))?;
        }
        Ok(())
    }

    /// Starts the named process; one that still runs is killed first.
    pub fn restart(&self, name: &str) -> Result<()> {
        self.kill(name);
        let (kind, region) = name.split_once('-').with_context(|| format!("no process {name}"))?;
        let program = match kind {
            "coordinator" => "regent-coordinator",
            "guard" => "regent-guard",
            "agent" | "observer" => "regent-agent",
            _ => bail!("no process {name}"),
        };
        let mut spec = ProcessSpec::new(name, self.bin.join(program))
            .args([if kind == "observer" { "observe" } else { "run" }, "--config"])
            .args([self.files.config(name)])
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "1");
        if kind == "coordinator" {
            spec = spec.env("RUST_LOG", &self.options.log_filter);
        } else if let Some(shim) = self.shims.get(region) {
            spec = shim.apply(spec);
        }
        let process = Arc::new(self.world.spawn(spec)?);
        self.lock().insert(name.to_owned(), process);
        Ok(())
    }

    /// SIGKILL to the named process, if it runs.
    pub fn kill(&self, name: &str) {
        if let Some(process) = self.lock().remove(name) {
            process.kill();
        }
    }

    /// The named process.
    pub fn process(&self, name: &str) -> Result<Arc<Process>> {
        self.lock().get(name).cloned().with_context(|| format!("process {name} was not started"))
    }

    /// Kills guard and agent of a member together (and so PostgreSQL); its coordinator and its links live.
    pub fn crash_member(&self, member: &str) {
        self.kill(&format!("guard-{member}"));
        self.kill(&format!("agent-{member}"));
    }

    /// The loss of a whole region: its links first, so that nobody sees a socket close, then all its processes.
    pub fn lose_host(&self, region: &str) -> Result<()> {
        self.net().isolate(region)?;
        self.crash_member(region);
        self.kill(&format!("coordinator-{region}"));
        Ok(())
    }

    /// Starts again whatever of the region does not run.
    pub fn start_region(&self, region: &str) -> Result<()> {
        let member = MEMBERS.contains(&region);
        for kind in ["coordinator", "guard", "agent"] {
            let name = format!("{kind}-{region}");
            let runs = self.lock().get(&name).is_some_and(|process| process.is_running());
            if !runs && (member || kind == "coordinator") {
                self.restart(&name)?;
            }
        }
        Ok(())
    }

    /// Sets or clears the hook of a coordinator and starts it anew.
    pub fn restart_with_hook(&self, region: &str, step: Option<&str>) -> Result<()> {
        match step {
            Some(step) => self.lock_hooks().insert(region.to_owned(), step.to_owned()),
            None => self.lock_hooks().remove(region),
        };
        self.write_coordinator(region)?;
        self.restart(&format!("coordinator-{region}"))
    }

    /// What the member's disk does from now on; it must be among `failing_disks`.
    pub fn set_disk(&self, member: &str, disk: Disk) -> Result<()> {
        self.shims
            .get(member)
            .with_context(|| format!("{member} was not started with failing_disk"))?
            .set(disk)
    }

    /// The links.
    pub fn net(&self) -> &Net {
        self.world.net()
    }

    /// The time-outs.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Where its files are.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// What it was started with.
    pub fn options(&self) -> &DeploymentOptions {
        &self.options
    }

    /// The PostgreSQL that it runs on.
    pub fn postgres(&self) -> &PgInstall {
        &self.postgres
    }

    /// Names of the processes that were started and have not been killed by [`Deployment::kill`].
    pub fn running(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Ends everything, and errs when something is left. A deployment that is dropped without keeps its artefacts.
    pub async fn finish(self) -> Result<()> {
        self.finished.store(true, Ordering::Relaxed);
        self.lock().clear();
        self.world.sweep()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_hooks(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if !self.finished.load(Ordering::Relaxed) {
            self.keep_artefacts();
        }
        self.lock().clear();
    }
}

/// The operating system's name of the user that servers run as: the database superuser is called so.
fn name_of(user: &RunAs) -> Result<String> {
    if let RunAs::Other { name, .. } = user {
        return Ok(name.clone());
    }
    let done = Command::new("id").arg("-un").output().context("running id")?;
    ensure!(done.status.success(), "this user has no name: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}
