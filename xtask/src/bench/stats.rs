//! What is said of many durations.

use std::time::Duration;

/// The value that a part of `sorted` (0.5: half of it) does not exceed. 0 of nothing.
pub(super) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let nearest = (last as f64 * part).round() as usize;
    sorted.get(nearest.min(last)).copied().unwrap_or(0.0)
}

/// The middle of `values`. 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    quantile(&sorted(values.to_vec()), 0.5)
}

/// The same values, smallest first.
pub(super) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Durations in seconds, smallest first.
pub(super) fn seconds(durations: &[Duration]) -> Vec<f64> {
    sorted(durations.iter().map(Duration::as_secs_f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = sorted(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&values, 0.5), 3.0);
        assert_eq!(quantile(&values, 0.99), 5.0);
        assert_eq!(quantile(&values, 1.0), 5.0);
        assert_eq!(median(&[2.0]), 2.0);
    }

    #[test]
    fn nothing_has_the_quantile_zero() {
        assert_eq!(median(&[]), 0.0);
    }
}
