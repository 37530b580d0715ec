//! The cluster of a run: small numbers whose relations hold, some of them drawn from the seed.

use std::collections::BTreeMap;

use rand::{Rng, rngs::StdRng};
use regent_core::{ClusterConfig, FailbackMode, MemberConfig, Policy};
use regent_types::{Automation, ClusterName, LeaseTerms, MemberName, Region};

use crate::raft::ELECTION_WORST_MS;

/// Coordinators.
pub const NODES: usize = 3;
/// The provider beside the embedded zone.
pub const PROVIDER: &str = "outside";
const NAMES: [&str; 3] = ["a", "b", "c"];

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Member hosts.
    pub members: usize,
    /// A commit waits for a standby's word.
    pub synchronous: bool,
    /// Largest rate error of any clock in this run, parts per million; the policy assumes at least that.
    pub drift_max_ppm: i64,
    /// The cluster.
    pub cluster: ClusterConfig,
}

/// The name of a member.
pub fn member_name(index: usize) -> MemberName {
    MemberName::new(NAMES[index]).expect("a good name")
}

/// Which member that is.
pub fn member_index(name: &MemberName) -> usize {
    NAMES.iter().position(|known| *known == name.as_str()).expect("a member of this run")
}

/// The cluster's name.
pub fn cluster_name() -> ClusterName {
    ClusterName::new("gravl").expect("a good name")
}

impl Setup {
    /// Drawn from the seed.
    pub fn draw(rng: &mut StdRng) -> Self {
        let members = if rng.random_range(0..4) == 0 { 3 } else { 2 };
        let synchronous = members == 2 && rng.random_range(0..4) == 0;
        let rho_ppm = [5_000, 50_000, 100_000][rng.random_range(0..3)];
        let kill_ms = [1_000, 2_500][rng.random_range(0..2)];
        let terms = LeaseTerms { ttl_ms: 8_000, rho_ppm, kill_ms };
        let bound_ms = terms.bound_ns().div_ceil(1_000_000);
        let spare_ms = rng.random_range(0..3_000);
        let failback = [FailbackMode::Manual, FailbackMode::Automatic, FailbackMode::Approval];
        let policy = Policy {
            partition_timeout_ms: ELECTION_WORST_MS + bound_ms + spare_ms,
            lease: terms,
            postgres_down_timeout_ms: 6_000,
            disk_stall_timeout_ms: 4_000,
            heartbeat_interval_ms: 1_000,
            fence_grace_ms: 2_000,
            promote_timeout_ms: 10_000,
            replay_timeout_ms: 5_000,
            validate_timeout_ms: 8_000,
            rejoin_timeout_ms: 20_000,
            rewind_timeout_ms: 10_000,
            sync_lag_bytes_max: 64 * 1024,
            sync_window_ms: 2_000,
            max_lag_bytes: None,
            cooldown_ms: if rng.random_range(0..4) == 0 { 20_000 } else { 0 },
            max_lag_ms: None,
            disk_full_alert_ms: 0,
            switchover_timeout_ms: 6_000,
            failback: failback[rng.random_range(0..3)],
            failback_after_ms: 10_000,
            failback_window: None,
            promise_ms: if rng.random_range(0..2) == 0 { 6_000 } else { 0 },
            synchronous: regent_core::SynchronousPolicy::default(),
        };
        let member = |index: usize| MemberConfig {
            region: Region::new(format!("region-{}", region(index))).expect("a good name"),
            host: format!("10.0.0.{}", index + 1),
            port: 5432,
            client_address: format!("192.0.2.{}", index + 1).parse().expect("an address"),
            client_port: 5432,
            priority: 100,
            promotable: true,
            agent_address: Some(format!("10.0.0.{}:7001", index + 1)),
        };
        let cluster = ClusterConfig {
            name: cluster_name(),
            dns_name: "gravl.db.example".into(),
            dns_ttl_s: 5,
            dns_providers: vec![PROVIDER.into()],
            initial_primary: member_name(0),
            members: (0..members).map(|at| (member_name(at), member(at))).collect::<BTreeMap<_, _>>(),
            policy,
            automation: Automation::Automatic,
            preferred_region: None,
        };
        cluster.check(ELECTION_WORST_MS).expect("the numbers fit");
        let drift_max_ppm = i64::try_from(rho_ppm).expect("small");
        Self { members, synchronous, drift_max_ppm, cluster }
    }
}

/// Where a member lives: two beside the coordinators 0 and 2, a third beside the second.
pub fn region(member: usize) -> usize {
    [0, 2, 2][member]
}
