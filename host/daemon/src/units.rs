//! Durations and sizes as people write them.

use std::time::Duration;

/// Reads a duration in Go's syntax, as `500ms`, `1h30m` or `2.5s`. A bare whole number
/// means seconds.
///
/// # Errors
/// A sentence that says what is allowed.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("{text:?} is not a duration: write 500ms, 30s, 5m or 1h30m");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(fault());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(fault)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let seconds =
            number.parse::<f64>().map_err(|_| fault())? * unit_seconds(unit).ok_or_else(fault)?;
        let part = Duration::try_from_secs_f64(seconds).map_err(|_| fault())?;
        total = total.checked_add(part).ok_or_else(fault)?;
        rest = next;
    }
    Ok(total)
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

/// Reads a size in bytes, as `65536`, `64KiB`, `64MiB` or `2GB`.
///
/// # Errors
/// A sentence that says what is allowed.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let fault = || format!("{text:?} is not a size: write 65536, 64KiB, 64MiB or 1GB");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(fault()),
    };
    let number: u64 = number.parse().map_err(|_| fault())?;
    number.checked_mul(factor).ok_or_else(fault)
}

/// A duration for people, two units at most: `3s`, `4m12s`, `2d3h`.
pub(crate) fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    match () {
        () if seconds == 0 => format!("{}ms", duration.as_millis()),
        () if minutes == 0 => format!("{seconds}s"),
        () if hours == 0 => two(minutes, "m", seconds % 60, "s"),
        () if days == 0 => two(hours, "h", minutes % 60, "m"),
        () => two(days, "d", hours % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let read = |text| parse_duration(text).unwrap();
        assert_eq!(read("500ms"), Duration::from_millis(500));
        assert_eq!(read("1h30m"), Duration::from_secs(5400));
        assert_eq!(read("2.5s"), Duration::from_millis(2500));
        assert_eq!(read("1m.5s"), Duration::from_millis(60_500));
        assert_eq!(read("30"), Duration::from_secs(30));
        assert_eq!(read("0"), Duration::ZERO);
        for bad in ["", "-1s", "5 s", "5x", "s", "1s2", "1e400h", "..s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("65536"), Ok(65_536));
        assert_eq!(parse_bytes("2 GB"), Ok(2_000_000_000));
        for bad in ["", "MiB", "-1", "1.5GiB", "10M", "99999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_are_told_in_two_units() {
        let told = |seconds| human_duration(Duration::from_secs(seconds));
        assert_eq!(human_duration(Duration::from_millis(250)), "250ms");
        assert_eq!(told(3), "3s");
        assert_eq!(told(60), "1m");
        assert_eq!(told(252), "4m12s");
        assert_eq!(told(2 * 86_400 + 3 * 3600 + 5), "2d3h");
    }
}
