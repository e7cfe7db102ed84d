//! What a guest sees of WASI: no arguments, no environment, no files, no sockets, its standard
//! error; and a clock and random numbers that are the machine's only if they were lent.

mod lent;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand_core::TryRng;
use sha2::{Digest, Sha256};
use taskwright_capability::Capability;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx};

use crate::wasi::lent::{Kernel, Passing, Wall};

use crate::call::Scope;
use crate::import::Stderr;
use crate::load::Identity;
use crate::tape::Tape;

/// Where the wall clock stands that was not lent: 2000-01-01T00:00:00Z. Part of the contract.
const STANDING: Duration = Duration::from_secs(946_684_800);
/// By how much each look at the other clock moves it on, in nanoseconds.
const STEP: u64 = 1000;
/// Random bytes that a guest gets at a time.
const MOST_RANDOM_BYTES: u64 = 1 << 20;

/// The WASI of one call.
pub(crate) fn context(plugin: &Identity, about: &str, tape: &Tape, stderr: &Stderr) -> WasiCtx {
    let mut builder = WasiCtx::builder();
    builder
        .stderr(stderr.clone())
        // Some toolchains import sockets whatever a program uses: none can be made.
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(MOST_RANDOM_BYTES);
    if !plugin.grants.allows(Capability::Clock) {
        builder
            .wall_clock(StandingClock)
            .monotonic_clock(CountingClock::default());
    } else if tape.is_on() {
        builder
            .wall_clock(Wall(tape.clone()))
            .monotonic_clock(Passing::new(tape.clone()));
    }
    if !plugin.grants.allows(Capability::Random) {
        let numbers = |what| Random(Repeatable::of(about, what));
        builder
            .secure_random(numbers("secure"))
            .insecure_random(numbers("insecure"))
            .insecure_random_seed(numbers("seed").seed());
    } else if tape.is_on() {
        let mut numbers = Random(Kernel(tape.clone()));
        let seed = numbers.seed();
        builder
            .secure_random(Random(Kernel(tape.clone())))
            .insecure_random(numbers)
            .insecure_random_seed(seed);
    }
    builder.build()
}

/// What a call is about, as far as a repeat of it is about the same.
pub(crate) fn about(plugin: &str, scope: &Scope) -> String {
    match scope.task() {
        Some(given) => format!("{plugin}/{}/{}", given.task.id, given.attempt),
        None => plugin.to_owned(),
    }
}

/// A clock that stands still.
struct StandingClock;

impl HostWallClock for StandingClock {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        STANDING
    }
}

/// A clock that goes on whenever it is looked at, and tells nothing else.
#[derive(Default)]
struct CountingClock(AtomicU64);

impl HostMonotonicClock for CountingClock {
    fn resolution(&self) -> u64 {
        STEP
    }

    fn now(&self) -> u64 {
        self.0.fetch_add(STEP, Ordering::Relaxed)
    }
}

/// Numbers that look random and are the same for the same seed: SHA-256 of the seed and a count.
struct Repeatable {
    seed: Sha256,
    count: u64,
    block: [u8; 32],
    /// How much of the block was given away.
    given: usize,
}

impl Repeatable {
    fn of(about: &str, what: &str) -> Self {
        let seed = Sha256::new_with_prefix(what)
            .chain_update([0])
            .chain_update(about);
        let block = [0; 32];
        Self {
            seed,
            count: 0,
            given: block.len(),
            block,
        }
    }
}

impl Bytes for Repeatable {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.given >= self.block.len() {
                let counted = self.seed.clone().chain_update(self.count.to_le_bytes());
                self.block = counted.finalize().into();
                self.count = self.count.wrapping_add(1);
                self.given = 0;
            }
            *byte = self.block.get(self.given).copied().unwrap_or_default();
            self.given += 1;
        }
    }
}

/// Where random bytes come from.
pub(crate) trait Bytes: Send + 'static {
    /// Fills all of `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// The numbers that such bytes make.
struct Random<B>(B);

impl<B: Bytes> Random<B> {
    fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A seed of its own for numbers that need not be secret.
    fn seed(&mut self) -> u128 {
        (u128::from(self.next()) << 64) | u128::from(self.next())
    }
}

impl<B: Bytes> TryRng for Random<B> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! What a guest sees that was lent neither.

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_gives_others() {
        let numbers = |about, what| {
            let mut source = Random(Repeatable::of(about, what));
            let mut bytes = vec![0; 100];
            source.0.fill(&mut bytes);
            (bytes, source.next())
        };
        assert_eq!(numbers("a/1", "x"), numbers("a/1", "x"));
        assert_ne!(numbers("a/1", "x"), numbers("a/2", "x"));
        assert_ne!(numbers("a/1", "x"), numbers("a/1", "y"));
        let (bytes, _) = numbers("a/1", "x");
        assert_ne!(bytes.get(..32), bytes.get(32..64));
    }

    #[test]
    fn one_clock_stands_and_the_other_counts() {
        assert_eq!(StandingClock.now(), StandingClock.now());
        let counting = CountingClock::default();
        let looks = [counting.now(), counting.now(), counting.now()];
        assert_eq!(looks, [0, STEP, 2 * STEP]);
    }
}
