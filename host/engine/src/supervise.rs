//! How a plugin has been doing, and whether it is called at all.
//!
//! Calls, faults, and faults in a row. After [`MOST_FAULTS`] in a row a plugin rests: it is not
//! called for a while that doubles up to [`LONGEST_REST`], then one call tries it. That bounds
//! what a broken plugin costs others, and leaves its tasks waiting instead of failed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Faults in a row after which a plugin rests.
const MOST_FAULTS: u64 = 5;
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A task is being checked. That this works says nothing of what comes after, so it ends no
    /// rest.
    Check,
    /// An attempt.
    Attempt,
}

/// The account of one plugin since it was loaded.
#[derive(Debug, Default)]
pub(crate) struct Supervision {
    calls: AtomicU64,
    faults: AtomicU64,
    breaker: Mutex<Breaker>,
}

#[derive(Debug, Default)]
struct Breaker {
    in_a_row: u64,
    last_fault: Option<String>,
    /// The error that its newest call answered with, if it did.
    last_error: Option<String>,
    /// The newest rest: how long, and until when.
    rest: Option<(Duration, Instant)>,
}

/// Why a plugin is not called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it rests for {} s more: its last {faults} calls failed by its own fault, the newest: \
     {newest}", .left.as_secs_f32().ceil()
)]
pub(crate) struct Resting {
    pub(crate) left: Duration,
    faults: u64,
    newest: String,
}

impl Supervision {
    /// Whether a call may be made now. When a rest is over one call of an attempt is let through
    /// to try it, and further ones as long as nobody knows what came of it, one for each such
    /// rest.
    ///
    /// # Errors
    /// For how long it rests, and why.
    pub(crate) fn admit(&self, call: Call, now: Instant) -> Result<(), Resting> {
        let mut breaker = self.breaker.lock();
        let Some((rest, until)) = breaker.rest else {
            return Ok(());
        };
        if now < until {
            return Err(Resting {
                left: until - now,
                faults: breaker.in_a_row,
                newest: breaker.newest(),
            });
        }
        if call == Call::Attempt {
            breaker.rest = Some((rest, now + rest));
        }
        Ok(())
    }

    /// A call came back and kept the contract.
    pub(crate) fn went_well(&self, call: Call) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if call == Call::Attempt {
            let mut breaker = self.breaker.lock();
            breaker.in_a_row = 0;
            breaker.rest = None;
            breaker.last_error = None;
        }
    }

    /// A call of a policy kept the contract and answered with an error where a verdict is wanted.
    /// That is a fault of its own, but no reason to rest: it may be about this one task, and a
    /// submitter must not put a policy to rest for all.
    pub(crate) fn answered_error(&self, message: &str) {
        self.went_well(Call::Attempt);
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.breaker.lock().last_error = Some(message.to_owned());
    }

    /// A call gave no answer, but not by the plugin's fault.
    pub(crate) fn was_spoiled(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A call failed by the plugin's fault. Answers with the faults in a row.
    pub(crate) fn failed(&self, message: &str, now: Instant) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.faults.fetch_add(1, Ordering::Relaxed);
        let mut breaker = self.breaker.lock();
        breaker.in_a_row += 1;
        breaker.last_fault = Some(message.to_owned());
        if breaker.in_a_row >= MOST_FAULTS {
            let rest = breaker.rest.map_or(FIRST_REST, |(rest, _)| rest * 2);
            let rest = rest.min(LONGEST_REST);
            breaker.rest = Some((rest, now + rest));
        }
        breaker.in_a_row
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// `Err` while the newest calls failed by the plugin's fault.
    pub(crate) fn health(&self) -> Result<(), String> {
        let breaker = self.breaker.lock();
        match (breaker.in_a_row, &breaker.last_error) {
            (0, None) => Ok(()),
            (0, Some(error)) => Err(format!("its newest answer was an error: {error}")),
            (faults, _) => Err(format!(
                "its last {faults} calls failed by its own fault, the newest: {}",
                breaker.newest()
            )),
        }
    }
}

impl Breaker {
    fn newest(&self) -> String {
        self.last_fault
            .clone()
            .unwrap_or_else(|| "unknown".to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn fail(plugin: &Supervision, times: u64, now: Instant) {
        for _ in 0..times {
            plugin.failed("trap", now);
        }
    }

    #[test]
    fn a_few_faults_make_no_rest_and_a_good_call_forgives_them() {
        let (plugin, now) = (Supervision::default(), Instant::now());
        fail(&plugin, MOST_FAULTS - 1, now);
        assert_eq!(plugin.admit(Call::Attempt, now), Ok(()));
        plugin.went_well(Call::Attempt);
        fail(&plugin, MOST_FAULTS - 1, now);
        assert_eq!(plugin.admit(Call::Attempt, now), Ok(()));
        assert_eq!(plugin.faults(), 2 * (MOST_FAULTS - 1));
    }

    #[test]
    fn rests_double_up_to_a_minute_and_let_one_call_through_after_each() {
        let (plugin, mut now) = (Supervision::default(), Instant::now());
        fail(&plugin, MOST_FAULTS, now);
        let mut rests = Vec::new();
        for _ in 0..8 {
            let resting = plugin.admit(Call::Check, now).unwrap_err();
            assert!(resting.to_string().contains("trap"), "{resting}");
            rests.push(resting.left.as_secs());
            now += resting.left;
            assert_eq!(plugin.admit(Call::Check, now), Ok(()));
            plugin.went_well(Call::Check);
            assert_eq!(
                plugin.admit(Call::Attempt, now),
                Ok(()),
                "one call tries it"
            );
            let other = plugin.admit(Call::Attempt, now);
            assert!(other.is_err(), "and no other beside it");
            plugin.failed("trap", now);
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn an_error_as_answer_is_a_fault_and_makes_no_rest() {
        let (plugin, now) = (Supervision::default(), Instant::now());
        for _ in 0..2 * MOST_FAULTS {
            plugin.answered_error("line 2");
            assert_eq!(plugin.admit(Call::Attempt, now), Ok(()));
        }
        assert_eq!(plugin.faults(), 2 * MOST_FAULTS);
        assert_eq!(plugin.calls(), 2 * MOST_FAULTS);
        assert!(plugin.health().unwrap_err().contains("line 2"));
        plugin.went_well(Call::Attempt);
        assert_eq!(plugin.health(), Ok(()));
    }

    #[test]
    fn a_good_call_ends_the_rest() {
        let (plugin, now) = (Supervision::default(), Instant::now());
        fail(&plugin, MOST_FAULTS, now);
        let after = now + FIRST_REST;
        assert_eq!(plugin.admit(Call::Attempt, after), Ok(()));
        plugin.went_well(Call::Attempt);
        assert_eq!(plugin.admit(Call::Attempt, after), Ok(()));
        assert_eq!(plugin.health(), Ok(()));
    }
}
