//! What a follower heard itself, and what the last leader told it: the memory that lets a new leader count on
//! (DESIGN section 7). Ages, not times, travel between nodes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use regent_core::Hearing;

use crate::sessions::Who;

#[derive(Default)]
struct Inner {
    /// When this node last heard a member, monotonic ns.
    own_ns: BTreeMap<Who, u64>,
    /// The last report of a confirmed leader, and when it arrived.
    told: Option<(u64, Vec<Hearing>)>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Heard(Mutex<Inner>);

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A message of this member arrived here.
    pub fn touch(&self, who: &Who, now_ns: u64) {
        self.lock().own_ns.insert(who.clone(), now_ns);
    }

    /// A confirmed leader told its ages.
    pub fn told(&self, now_ns: u64, ages: Vec<Hearing>) {
        self.lock().told = Some((now_ns, ages));
    }

    /// What this node heard itself, as ages.
    pub fn own(&self, now_ns: u64) -> Vec<Hearing> {
        let inner = self.lock();
        let ages = inner.own_ns.iter().map(|((cluster, member), at_ns)| Hearing {
            cluster: cluster.clone(),
            member: member.clone(),
            age_ms: now_ns.saturating_sub(*at_ns) / 1_000_000,
            position: None,
        });
        ages.collect()
    }

    /// What a leader that starts here and now inherits: the last leader's ages plus the time since, and its own.
    pub fn inherited(&self, now_ns: u64) -> Vec<Hearing> {
        let told = self.lock().told.clone();
        let mut ages = self.own(now_ns);
        if let Some((at_ns, told)) = told {
            let since_ms = now_ns.saturating_sub(at_ns) / 1_000_000;
            ages.extend(told.into_iter().map(|hearing| hearing.later(since_ms)));
        }
        ages
    }
}

#[cfg(test)]
mod tests {
    use regent_core::PositionAges;
    use regent_types::{ClusterName, Epoch, Lsn, MemberName};

    use super::*;

    #[test]
    fn a_new_leader_counts_on_from_what_the_last_one_told() {
        let heard = Heard::default();
        let (cluster, member) = (ClusterName::new("c").unwrap(), MemberName::new("m").unwrap());
        let position = PositionAges { epoch: Epoch(3), frozen_ms: 20, marks: vec![(Lsn(7), 39_000)] };
        let told = Hearing {
            cluster: cluster.clone(),
            member: member.clone(),
            age_ms: 40_000,
            position: Some(position),
        };
        heard.told(1_000_000_000, vec![told]);
        heard.touch(&(cluster, MemberName::new("n").unwrap()), 3_000_000_000);
        let ages = heard.inherited(4_000_000_000);
        let of = |name: &str| ages.iter().find(|age| age.member.as_str() == name).unwrap().age_ms;
        assert_eq!(of("m"), 43_000);
        assert_eq!(of("n"), 1_000);
        // The position grows older with the silence; how stale it was at last contact does not.
        let position = ages.iter().find_map(|age| age.position.clone()).unwrap();
        assert_eq!((position.frozen_ms, position.marks), (20, vec![(Lsn(7), 42_000)]));
    }
}
