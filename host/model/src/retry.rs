//! Whether another attempt is due, and when.

use std::time::Duration;

use crate::outcome::Outcome;
use crate::spec::RetryPolicy;

/// The wait before the next attempt, or `None` when `outcome` of attempt `number` is final.
///
/// Success, a stop that somebody asked for and a policy's refusal are always final.
#[must_use]
pub fn next_attempt_after(
    policy: &RetryPolicy,
    number: u32,
    outcome: &Outcome,
) -> Option<Duration> {
    let final_by_nature = outcome.is_success()
        || matches!(outcome, Outcome::Canceled { .. } | Outcome::Denied { .. });
    if final_by_nature || number >= policy.max_attempts {
        return None;
    }
    if !policy.on.iter().any(|cause| cause == outcome.cause()) {
        return None;
    }
    let doublings = number.saturating_sub(1).min(31);
    let wait = policy.backoff.saturating_mul(1 << doublings);
    Some(wait.min(policy.max_backoff))
}
