//! A member acts by a newer member list: told to the core once, for people. Whom a primary asks for promises is told by
//! [`crate::LeaseTable::acknowledged_lists`].

use regent_types::ClusterName;

use super::Detector;
use crate::{Body, Cluster};

impl Detector {
    pub(super) fn members_acknowledged(
        &self,
        now_ns: u64,
        name: &ClusterName,
        cluster: &Cluster,
    ) -> Option<Body> {
        let membership = &cluster.membership;
        // 0: every member was there from the beginning, there is nothing to acknowledge.
        let newest = membership.version;
        cluster.config.members.keys().find_map(|member| {
            let known = membership.acknowledged.get(member).copied().unwrap_or(0);
            let (heartbeat, _) = self.fresh(now_ns, cluster, member)?;
            let version = heartbeat.members_version;
            let news = known < newest && version > known && version <= membership.version;
            let (cluster, member) = (name.clone(), member.clone());
            news.then_some(Body::MembersAcknowledged { cluster, member, version })
        })
    }
}
