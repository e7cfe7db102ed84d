//! The time that all who share a queue go by.
//!
//! Leases and time limits end by it, so it must not jump: a wall clock that is set
//! an hour forward would take every task from every worker at once. This clock goes
//! on by the monotonic one, and follows the wall clock, or the server's, by at most a
//! tenth of the time that passes.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use taskwright_model::Timestamp;

/// Tells the time of a queue.
pub trait QueueClock: Send + Sync + 'static {
    /// Now. Never before what it told earlier.
    fn now(&self) -> Timestamp;
}

/// A time that follows another without jumping. Microseconds since the epoch, so that short steps
/// are not lost.
#[derive(Clone, Copy, Debug)]
struct Steady {
    told: i64,
}

impl Steady {
    /// The time after so long, with the other clock at `target`.
    fn advance(&mut self, passed: Duration, target: i64) -> i64 {
        let passed = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
        let expected = self.told.saturating_add(passed);
        let most = passed / 10;
        let correction = target.saturating_sub(expected).clamp(-most, most);
        self.told = expected.saturating_add(correction);
        self.told
    }
}

/// A steady clock that follows a reference.
pub(super) struct SteadyClock {
    state: Mutex<State>,
}

struct State {
    steady: Steady,
    at: Instant,
    /// What the reference showed, and when.
    reference: i64,
    referred: Instant,
}

impl SteadyClock {
    /// A clock that shows the reference's time: microseconds since the epoch.
    pub(super) fn starting_at(reference: i64) -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State {
                steady: Steady { told: reference },
                at: now,
                reference,
                referred: now,
            }),
        }
    }

    /// Takes note of the reference's time.
    pub(super) fn refer(&self, reference: i64) {
        let mut state = self.state.lock();
        state.reference = reference;
        state.referred = Instant::now();
    }
}

impl QueueClock for SteadyClock {
    fn now(&self) -> Timestamp {
        let mut state = self.state.lock();
        let now = Instant::now();
        let since = |earlier: Instant| now.saturating_duration_since(earlier);
        let drifted = i64::try_from(since(state.referred).as_micros()).unwrap_or(i64::MAX);
        let target = state.reference.saturating_add(drifted);
        let passed = since(state.at);
        state.at = now;
        Timestamp::from_millis(state.steady.advance(passed, target).div_euclid(1000))
    }
}

/// A steady clock that follows this machine's wall clock.
pub(super) struct LocalClock {
    clock: SteadyClock,
    wall: fn() -> i64,
}

impl LocalClock {
    pub(super) fn new(wall: fn() -> i64) -> Self {
        Self {
            clock: SteadyClock::starting_at(wall()),
            wall,
        }
    }
}

impl QueueClock for LocalClock {
    fn now(&self) -> Timestamp {
        self.clock.refer((self.wall)());
        self.clock.now()
    }
}

/// This machine's wall clock, in microseconds since the epoch.
pub(super) fn wall() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    //! That it follows, and does not jump.
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_jump_of_the_reference_is_followed_slowly() {
        for jump in [3600 * SECOND, -3600 * SECOND] {
            let mut steady = Steady { told: 0 };
            let mut real = 0;
            let mut before = 0;
            for _ in 0..60 {
                real += SECOND;
                let told = steady.advance(Duration::from_secs(1), real + jump);
                assert!(told > before, "it goes on");
                assert!(
                    (told - before - SECOND).abs() <= SECOND / 10,
                    "no faster than a tenth"
                );
                before = told;
            }
            assert!(
                (before - real).abs() <= 6 * SECOND,
                "within a tenth of a minute"
            );
        }
    }

    #[test]
    fn it_gets_there() {
        let mut steady = Steady { told: 0 };
        let mut real = 0;
        for _ in 0..200 {
            real += SECOND;
            steady.advance(Duration::from_secs(1), real + 10 * SECOND);
        }
        assert_eq!(steady.told, real + 10 * SECOND);
    }
}
