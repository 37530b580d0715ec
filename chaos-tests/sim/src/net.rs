//! The network between coordinators and members: one-way cuts, loss, delay, reordering and duplication.

use std::collections::BTreeMap;

use rand::{Rng, rngs::StdRng};

use crate::{clock::MS, event::Address};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Net {
    regions: BTreeMap<Address, usize>,
    /// How many faults cut this direction now.
    cuts: BTreeMap<(Address, Address), u32>,
    /// Lost messages of a thousand, between regions.
    pub loss_permille: u32,
    /// Added to every delay between regions, at most.
    pub slow_ms: u64,
}

impl Net {
    /// Where everybody is.
    pub fn new(places: impl IntoIterator<Item = (Address, usize)>) -> Self {
        Self { regions: places.into_iter().collect(), ..Self::default() }
    }

    /// The region of an address.
    pub fn region(&self, of: Address) -> usize {
        self.regions[&of]
    }

    /// Everybody.
    pub fn addresses(&self) -> Vec<Address> {
        self.regions.keys().copied().collect()
    }

    /// One direction is cut, once more.
    pub fn cut(&mut self, from: Address, to: Address) {
        *self.cuts.entry((from, to)).or_default() += 1;
    }

    /// One of the cuts ends.
    pub fn mend(&mut self, from: Address, to: Address) {
        if let Some(count) = self.cuts.get_mut(&(from, to)) {
            *count = count.saturating_sub(1);
        }
    }

    /// Whether this direction carries anything.
    pub fn carries(&self, from: Address, to: Address) -> bool {
        self.cuts.get(&(from, to)).is_none_or(|count| *count == 0)
    }

    /// A connection needs both.
    pub fn connects(&self, a: Address, b: Address) -> bool {
        self.carries(a, b) && self.carries(b, a)
    }

    /// When copies of one message arrive, ns from now; empty when it is lost.
    pub fn delays(&self, rng: &mut StdRng, from: Address, to: Address) -> Vec<u64> {
        let far = self.regions[&from] != self.regions[&to];
        // Drawn always, so that a cut does not shift what follows.
        let lost = rng.random_range(0..1000) < if far { self.loss_permille } else { 0 };
        let doubled = far && rng.random_range(0..100) == 0;
        let mut delay = || {
            let base = if far { rng.random_range(20..60) } else { rng.random_range(0..3) };
            let late = if far && self.slow_ms > 0 { rng.random_range(0..=self.slow_ms) } else { 0 };
            let stray = if far && rng.random_range(0..200) == 0 { rng.random_range(0..3000) } else { 0 };
            (base + late + stray) * MS + rng.random_range(0..MS)
        };
        let (first, second) = (delay(), delay());
        if lost || !self.carries(from, to) {
            return Vec::new();
        }
        if doubled { vec![first, second] } else { vec![first] }
    }
}
