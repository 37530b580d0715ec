//! Time bounds of the lease protocol and the modes of automation.

use serde::{Deserialize, Serialize};

use crate::mutant::{Mutant, is_on};

/// How much Regent does by itself for a cluster (DESIGN section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Automation {
    /// Failover starts by itself.
    Automatic,
    /// Nothing starts by itself; leases and self-fencing go on.
    Paused,
    /// A failover is declared as pending, with everything that it needs; nothing is fenced before an operator says go.
    Approve,
    /// Nothing is done at all: what would have been done is logged and counted. No leases, no fencing, no directives.
    Observe,
}

impl Automation {
    /// Its name in configuration files, events and messages.
    pub fn name(self) -> &'static str {
        match self {
            Automation::Automatic => "automatic",
            Automation::Paused => "paused",
            Automation::Approve => "approve",
            Automation::Observe => "observe",
        }
    }
}

impl std::fmt::Display for Automation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The numbers of the lease protocol (DESIGN section 5): the same on every coordinator, from the replicated policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// Lease time, ms.
    pub ttl_ms: u64,
    /// Bound of each clock's rate error, parts per million (default 5000 = 0.5 %).
    pub rho_ppm: u64,
    /// From deadline to the last process dead, ms.
    pub kill_ms: u64,
}

impl LeaseTerms {
    /// `ttl * (1 + rho) / (1 - rho) + kill` in nanoseconds, rounded up: how long, on the leader's clock, a lease
    /// may be valid on a member's clock. Rounding down would let the bound pass early.
    pub fn bound_ns(&self) -> u64 {
        let million = 1_000_000u128;
        let rho = u128::from(self.rho_ppm).min(500_000);
        let rho = if is_on(Mutant::BoundWithoutStretch) { 0 } else { rho };
        let kill_ms = if is_on(Mutant::BoundWithoutKill) { 0 } else { self.kill_ms };
        let ttl_ns = u128::from(self.ttl_ms) * million;
        let stretched = (ttl_ns * (million + rho)).div_ceil(million - rho);
        u64::try_from(stretched + u128::from(kill_ms) * million).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_stretched_and_rounded_up() {
        let terms = LeaseTerms { ttl_ms: 270_000, rho_ppm: 5_000, kill_ms: 1_000 };
        // 270 s * 1.005 / 0.995 + 1 s = 273.7135678... s
        assert_eq!(terms.bound_ns(), 273_713_567_840);
        let no_drift = LeaseTerms { ttl_ms: 8_000, rho_ppm: 0, kill_ms: 1_000 };
        assert_eq!(no_drift.bound_ns(), 9_000_000_000);
    }
}
