//! Ages of silence: what coordinators tell each other (DESIGN section 7). Ages, not times: no two clocks are compared.

use regent_types::{ClusterName, MemberName};

use super::{Detector, PositionAges};

/// How long ago somebody heard a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hearing {
    /// The cluster.
    pub cluster: ClusterName,
    /// The member.
    pub member: MemberName,
    /// Age, ms.
    pub age_ms: u64,
    /// Where its WAL stood when it was primary.
    pub position: Option<PositionAges>,
}

impl Hearing {
    /// The same, told `since_ms` ago.
    pub fn later(mut self, since_ms: u64) -> Self {
        self.age_ms = self.age_ms.saturating_add(since_ms);
        for (_, age_ms) in self.position.iter_mut().flat_map(|position| &mut position.marks) {
            *age_ms = age_ms.saturating_add(since_ms);
        }
        self
    }
}

impl Detector {
    /// Ages of all members that anybody has heard.
    pub fn ages(&self, now_ns: u64) -> Vec<Hearing> {
        let known = self.members.iter().filter_map(|((cluster, member), memory)| {
            let age_ms = age_ms(now_ns, memory.heard_ns?);
            let position = memory.position.as_ref().map(|position| position.ages(now_ns));
            Some(Hearing { cluster: cluster.clone(), member: member.clone(), age_ms, position })
        });
        known.collect()
    }

    /// How long nobody has heard this member, ms; counted from the beginning of the leadership when nobody ever told.
    pub fn silence_ms(&self, now_ns: u64, cluster: &ClusterName, member: &MemberName) -> u64 {
        let began_ns = self.led.map_or(now_ns, |(_, began_ns)| began_ns);
        let heard_ns = self.memory(cluster, member).and_then(|memory| memory.heard_ns);
        age_ms(now_ns, heard_ns.unwrap_or(i128::from(began_ns)))
    }
}

fn age_ms(now_ns: u64, heard_ns: i128) -> u64 {
    let age_ms = ((i128::from(now_ns) - heard_ns) / 1_000_000).max(0);
    u64::try_from(age_ms).unwrap_or(u64::MAX)
}
