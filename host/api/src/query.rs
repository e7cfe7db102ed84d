//! The words that queries of several routes share.

use std::time::Duration;

use crate::problem::Problem;

/// Reads the time in a query: `30s`, `1m30s`, `500ms`, or a plain number of seconds.
pub(crate) fn duration(field: &str, text: &str) -> Result<Duration, Problem> {
    let seconds = text.parse::<f64>().ok();
    let plain = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let spelled = || {
        let signed = text.parse::<jiff::SignedDuration>().ok()?;
        Duration::try_from(signed).ok()
    };
    plain.or_else(spelled).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        Problem::bad_request(format!("the query's {field} is no time: {shown:?}"))
            .hint("write it as 30s, 500ms or 1m30s")
    })
}

/// Reads a whole number in a query.
pub(crate) fn number<T: std::str::FromStr>(field: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        Problem::bad_request(format!("the query's {field} is no whole number: {shown:?}"))
    })
}

/// Reads a switch in a query: `true`, `1` or nothing after the name, `false` or `0`.
pub(crate) fn switch(field: &str, text: &str) -> Result<bool, Problem> {
    match text {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Problem::bad_request(format!(
            "the query's {field} is true or false"
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("5", 5_000),
            ("0.25", 250),
            ("0s", 0),
        ] {
            let found = duration("wait", text).unwrap();
            assert_eq!(found, Duration::from_millis(millis), "{text}");
        }
        for text in ["", "soon", "-3s", "-1", "inf", "NaN", "1e400"] {
            assert!(duration("wait", text).is_err(), "{text}");
        }
    }
}
