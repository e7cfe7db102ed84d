//! Moments and faults at random, the same ones again for the same seed.

use std::time::{SystemTime, UNIX_EPOCH};

/// Whether tests go on for as long as a night allows.
#[must_use]
pub fn nightly() -> bool {
    std::env::var_os("TASKWRIGHT_NIGHTLY").is_some_and(|value| value == "1")
}

/// Good enough to choose moments: xorshift64.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// By `TASKWRIGHT_CHAOS_SEED`, or by the clock; says which, for whoever reads of a failure.
    #[expect(clippy::print_stdout, reason = "captured, and shown when it fails")]
    #[must_use]
    pub fn seeded() -> Self {
        let said = std::env::var("TASKWRIGHT_CHAOS_SEED").ok();
        let seed = said.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(1, |since| u64::from(since.subsec_nanos()) | 1)
        });
        println!("TASKWRIGHT_CHAOS_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 | 1
    }

    /// One for another thread, which then goes its own way.
    #[must_use]
    pub fn another(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}
