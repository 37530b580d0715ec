//! One direction of one pair of regions: delay, cut, and what has passed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::real::clock::monotonic_ns;

#[derive(Clone, Copy, Debug, Default)]
struct Condition {
    delay: Duration,
    cut: bool,
}

/// What a direction has let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Bytes delivered, of streams and datagrams.
    pub delivered_bytes: u64,
    /// When the last of them was delivered, on `CLOCK_MONOTONIC`; 0 before the first.
    pub last_delivery_ns: u64,
}

/// A directed link. Clones share it.
#[derive(Clone, Debug)]
pub struct OneWay {
    condition: Arc<watch::Sender<Condition>>,
    delivered_bytes: Arc<AtomicU64>,
    last_delivery_ns: Arc<AtomicU64>,
}

impl OneWay {
    pub fn new() -> Self {
        Self {
            condition: Arc::new(watch::Sender::new(Condition::default())),
            delivered_bytes: Arc::default(),
            last_delivery_ns: Arc::default(),
        }
    }

    pub fn set_delay(&self, delay: Duration) {
        self.condition.send_modify(|now| now.delay = delay);
    }

    pub fn set_cut(&self, cut: bool) {
        self.condition.send_modify(|now| now.cut = cut);
    }

    pub fn delay(&self) -> Duration {
        self.condition.borrow().delay
    }

    pub fn is_cut(&self) -> bool {
        self.condition.borrow().cut
    }

    /// Resolves while, or as soon as, the direction is whole.
    pub async fn whole(&self) {
        self.reaches(false).await;
    }

    /// Resolves while, or as soon as, the direction is cut.
    pub async fn cut(&self) {
        self.reaches(true).await;
    }

    async fn reaches(&self, cut: bool) {
        let mut watch = self.condition.subscribe();
        // The sender is in `self`, so it outlives the wait.
        watch.wait_for(|now| now.cut == cut).await.expect("the sender is alive");
    }

    pub fn delivered(&self, bytes: usize) {
        self.delivered_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.last_delivery_ns.store(monotonic_ns(), Ordering::Relaxed);
    }

    pub fn stats(&self) -> LinkStats {
        LinkStats {
            delivered_bytes: self.delivered_bytes.load(Ordering::Relaxed),
            last_delivery_ns: self.last_delivery_ns.load(Ordering::Relaxed),
        }
    }
}
