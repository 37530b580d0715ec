//! A third member, in the witness region: everything that its host needs, as an operator would prepare it.

use anyhow::Result;

use super::layout::{CLUSTER, MEMBERS, NORTH, Service, WITNESS, client_address};
use super::life::Deployment;

impl Deployment {
    /// Directories, certificate, configuration and links of a member in [`WITNESS`]; started with `restart("guard-...")` and
    /// `restart("agent-...")`. Gives the arguments of `regentctl members add` that describe it.
    pub fn prepare_third(&self) -> Result<Vec<String>> {
        let (files, user) = (self.files(), self.world.user().clone());
        for dir in [
            files.member(WITNESS),
            files.disk(WITNESS),
            files.guard_state(WITNESS),
            files.agent_state(WITNESS),
            files.salvage(WITNESS),
        ] {
            user.make_dir(&dir)?;
        }
        self.issue(&[&format!("agent/{CLUSTER}/{WITNESS}")])?;
        self.write_member(WITNESS)?;
        for from in MEMBERS {
            for service in [Service::Postgres, Service::AgentPeer] {
                let local = self.address(from, WITNESS, service)?;
                let target = self.address(WITNESS, WITNESS, service)?;
                self.net().listen_on(from, WITNESS, local, target)?;
            }
        }
        // One address for everybody, over the link from the first primary's region.
        let postgres = self.address(NORTH, WITNESS, Service::Postgres)?;
        let peer = self.address(NORTH, WITNESS, Service::AgentPeer)?;
        let clients = client_address(self.world.addresses(), self.ports, WITNESS)?;
        let args = [
            "--region".to_owned(),
            WITNESS.to_owned(),
            "--host".to_owned(),
            postgres.ip().to_string(),
            "--port".to_owned(),
            postgres.port().to_string(),
            "--client-address".to_owned(),
            clients.ip().to_string(),
            "--agent-address".to_owned(),
            peer.to_string(),
        ];
        Ok(args.to_vec())
    }
}
