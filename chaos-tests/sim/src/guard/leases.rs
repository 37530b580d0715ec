//! The lease in force (agent/guard/src/guard/leases.rs): taken by the shipped rules, ended in time, enforced by the kernel.

use super::*;

impl World {
    pub(super) fn arm(&mut self, member: usize, deadline_ns: u64) {
        let host = &mut self.hosts[member];
        host.guard.armed += 1;
        let armed = host.guard.armed;
        let at_ns = host.clock.world(deadline_ns).max(self.now_ns);
        self.queue.at(at_ns, Event::KernelTimer { member, armed });
    }

    pub(super) fn relax(&mut self, member: usize) {
        let guard = &mut self.hosts[member].guard;
        if guard.lease.is_none() && !guard.run.as_ref().is_some_and(Run::may_write) {
            guard.armed += 1;
        }
    }

    /// guard/leases.rs, `grant`. `None`: its epoch is on its way to the disk.
    pub(super) fn judge_grant(&mut self, member: usize, grant: lease::Grant, now_ns: u64) -> Option<Answer> {
        let fencing = |run: &Run| run.plan.is_some_and(|plan| plan.fencing);
        if self.hosts[member].guard.run.as_ref().is_some_and(fencing) {
            return Some(Answer::Refused("PostgreSQL is being fenced".into()));
        }
        self.check_clocks(member, now_ns);
        let guard = &self.hosts[member].guard;
        if let Some(reason) = guard.promised_to_another(grant.epoch, now_ns) {
            return Some(Answer::Refused(reason));
        }
        let facts = lease::Facts {
            now_ns,
            instance: guard.wanted.instance,
            highest_epoch: guard.wanted.highest,
            fenced_through: guard.wanted.fenced,
            ttl_max_ns: TTL_MAX_NS,
            deadline_floor_ns: guard.floor_ns,
        };
        let lease = match lease::judge(grant, guard.lease, facts) {
            Ok(lease) => lease,
            Err(answer) => return Some(Answer::Refused(format!("{answer:?}"))),
        };
        if guard.durable.highest < lease.epoch {
            if guard.wanted.highest < lease.epoch {
                self.raise(member, |file| file.highest = lease.epoch);
            }
            return None;
        }
        self.arm(member, lease.deadline_ns);
        let wall = self.hosts[member].wall_offset_ms;
        let guard = &mut self.hosts[member].guard;
        if guard.lease.is_none_or(|held| held.epoch != lease.epoch) {
            let text = format!("{} holds a lease of epoch {}", config::member_name(member), lease.epoch);
            self.trace.note(self.now_ns, &text);
        }
        guard.wall_offset_ms = wall;
        guard.lease = Some(lease);
        self.fact(Fact::LeaseHeld { member: config::member_name(member), epoch: lease.epoch });
        Some(Answer::Ok)
    }

    /// guard/promises.rs, `extend`.
    pub(super) fn extend(&mut self, member: usize, grant: lease::Grant, now_ns: u64) -> Answer {
        self.check_clocks(member, now_ns);
        let Some(lease) = self.hosts[member].guard.usable(now_ns).filter(|lease| lease.epoch == grant.epoch)
        else {
            return Answer::Refused("promises extend a running lease, they make none".into());
        };
        if grant.deadline_ns <= lease.deadline_ns {
            return Answer::Ok;
        }
        let text = format!("{}'s lease of epoch {} runs on by promises", self.name(member), lease.epoch);
        self.note(text);
        self.judge_grant(member, grant, now_ns).unwrap_or(Answer::Ok)
    }

    /// guard/leases.rs, `check_clocks`.
    pub(super) fn check_clocks(&mut self, member: usize, now_ns: u64) {
        let wall = self.hosts[member].wall_offset_ms;
        let guard = &mut self.hosts[member].guard;
        if (wall - guard.wall_offset_ms).abs() <= DIVERGENCE_MAX_MS {
            return;
        }
        (guard.floor_ns, guard.wall_offset_ms) = (now_ns + TTL_MAX_NS, wall);
        let Some(lease) = guard.lease else { return };
        let ladder = lease.ladder(MARGIN_NS);
        let plan = Plan {
            stage: Stop::Fast,
            immediate_ns: (now_ns + MARGIN_NS / 5 * 3).min(ladder.immediate_ns),
            kill_ns: (now_ns + MARGIN_NS / 10 * 9).min(ladder.kill_ns),
            fencing: true,
        };
        self.fence_self(member, plan, now_ns);
    }

    pub(super) fn fence_self(&mut self, member: usize, plan: Plan, now_ns: u64) {
        self.note(format!("guard {} fences itself", self.name(member)));
        let guard = &mut self.hosts[member].guard;
        if let Some(run) = guard.run.as_mut().filter(|run| run.may_write()) {
            run.stop(plan);
        }
        guard.lease = None;
        self.relax(member);
        self.apply_plan(member, now_ns);
    }

    /// The kernel's timer: it works on a stopped process too (agent/guard/src/timer.rs).
    pub fn kernel_timer(&mut self, member: usize, armed: u64) {
        let guard = &self.hosts[member].guard;
        if !guard.up || guard.armed != armed {
            return;
        }
        self.note(format!("the kernel kills guard {} at its deadline", self.name(member)));
        self.guard_dies(member, 500 * MS);
    }
}
