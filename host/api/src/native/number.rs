//! Numbers as people write them.

use std::time::Duration;

use serde::Serialize;

/// A number that is written without a fraction where it has none: `60`, not `60.0`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain(f64);

impl Plain {
    /// Up to here a float leaves no whole number out.
    const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

    pub(super) fn new(number: f64) -> Self {
        Self(number)
    }

    pub(super) fn seconds(time: Duration) -> Self {
        Self(time.as_secs_f64())
    }
}

impl Serialize for Plain {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() <= Self::MOST_EXACT {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_have_no_fraction() {
        for (number, text) in [
            (3600.0, "3600"),
            (0.25, "0.25"),
            (-2.0, "-2"),
            (1e300, "1e+300"),
        ] {
            assert_eq!(json!(Plain::new(number)).to_string(), text);
        }
        let time = Duration::from_millis(1500);
        assert_eq!(json!(Plain::seconds(time)).to_string(), "1.5");
    }
}
