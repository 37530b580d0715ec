//! What happened, as a running hash and, when asked for, in words.
//!
//! The hash covers every line whether or not the lines are kept, so a quiet run and a told one can be compared.

use crate::clock::MS;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// See the module's documentation.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Keeps the lines only when `told`.
    pub fn new(told: bool) -> Self {
        Self { hash: OFFSET, lines: told.then(Vec::new) }
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    /// Numbers only: for what happens too often to be told.
    pub fn mark(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.feed(&number.to_le_bytes()));
    }

    /// A line.
    pub fn note(&mut self, at_ns: u64, text: &str) {
        self.mark(&[at_ns]);
        self.feed(text.as_bytes());
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9.3}  {text}", (at_ns / 1000) as f64 / (MS / 1000) as f64 / 1000.0));
        }
    }

    /// Of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, if they were kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
