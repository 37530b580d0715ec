//! What goes on by itself while no directive runs (agent/src/keeper.rs).

use regent_agent_core::{Steady, Worked, steady};

use crate::{clock::MS, event::Client, guard::Request, world::World};

const LOOK_NS: u64 = 500 * MS;

impl World {
    /// One look.
    pub fn keep(&mut self, member: usize) {
        let now_ns = self.local_ns(member);
        let agent = &mut self.hosts[member].agent;
        let busy = agent.running.is_some() || agent.fencing.is_some() || now_ns < agent.refused_until_ns;
        if now_ns < agent.keep_at_ns || busy {
            return;
        }
        agent.keep_at_ns = now_ns + LOOK_NS;
        if let Some(told) = agent.removed {
            agent.state.removed = told;
        }
        let Some(facts) = self.gather(member, &Worked::default()) else { return };
        let request = match steady(&facts) {
            Steady::StartStandby => Request::StartStandby,
            Steady::StartPrimary(epoch) => Request::StartPrimary { epoch: epoch.0 },
            Steady::StopStandby(_) => Request::Stop { immediate: false },
            Steady::Nothing | Steady::StaysStopped(_) => return,
        };
        self.ask_guard(member, request, Client::Nobody);
    }
}
