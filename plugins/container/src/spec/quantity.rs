//! Quantities as Kubernetes writes them: `500m`, `2`, `0.5`, `64Mi`, `1G`, `129e6`.

use serde_json::Value;

use super::json::Node;

/// The most digits that a quantity may have; more than that measures nothing on a machine.
const MOST_DIGITS: usize = 24;
/// How much is shown of what is no quantity.
const MOST_SHOWN: usize = 60;
/// Kubernetes' own largest exponent.
const MOST_EXPONENT: i32 = 18;

/// With less memory a start may fail: what starts a container, some MiB, counts as its own.
const LEAST_MEMORY_BYTES: u64 = 6 << 20;

/// A quantity in thousandths, rounded up. `None` if the text is no quantity, or a negative one.
pub(crate) fn thousandths(text: &str) -> Option<u128> {
    let number_ends = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '+')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(number_ends)?;
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || digits.len() > MOST_DIGITS {
        return None;
    }
    let mantissa: u128 = digits.parse().ok()?;
    let (power_of_ten, power_of_two) = scale(suffix)?;
    let exponent = power_of_ten + 3 - i32::try_from(fraction.len()).ok()?;
    let scaled = mantissa.checked_mul(1u128.checked_shl(power_of_two)?)?;
    let factor = 10u128.checked_pow(exponent.unsigned_abs())?;
    if exponent >= 0 {
        scaled.checked_mul(factor)
    } else {
        Some(scaled.div_ceil(factor))
    }
}

/// What a suffix multiplies with: a power of ten and a power of two.
fn scale(suffix: &str) -> Option<(i32, u32)> {
    let known = match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            if !(-MOST_EXPONENT..=MOST_EXPONENT).contains(&exponent) {
                return None;
            }
            (exponent, 0)
        }
    };
    Some(known)
}

/// The text of a quantity, which may be written as a number too.
fn written(node: &Node<'_>) -> Option<String> {
    match node.value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn read(node: &Node<'_>, example: &str) -> Option<u128> {
    let found = written(node).and_then(|text| thousandths(&text));
    if found.is_none() {
        let given: String = node.value.to_string().chars().take(MOST_SHOWN).collect();
        node.problem(format!("must be a quantity, as {example}, not {given}"));
    }
    found
}

/// More than nothing, which Kubernetes takes as no limit at all.
fn positive(node: &Node<'_>, amount: u128) -> Option<u128> {
    if amount == 0 {
        node.problem("must be more than 0: leave it out for no limit");
        return None;
    }
    Some(amount)
}

/// Thousandths of a core.
pub(crate) fn cpu(node: &Node<'_>) -> Option<u32> {
    let millis = read(node, "\"500m\" or \"2\"")?;
    let millis = positive(node, millis)?;
    let fitting = u32::try_from(millis).ok();
    if fitting.is_none() {
        node.problem("is more than any machine has");
    }
    fitting
}

/// Bytes.
pub(crate) fn memory(node: &Node<'_>) -> Option<u64> {
    let thousandths = read(node, "\"64Mi\" or \"1G\"")?;
    let bytes = positive(node, thousandths.div_ceil(1000))?;
    if bytes < u128::from(LEAST_MEMORY_BYTES) {
        node.problem(
            "must be at least 6Mi: what starts a container counts as its own, and with less it may \
             not start",
        );
    }
    // The kernel's own counters are signed.
    let fitting = i64::try_from(bytes)
        .ok()
        .and_then(|it| u64::try_from(it).ok());
    if fitting.is_none() {
        node.problem("is more than any machine has");
    }
    fitting
}

/// What a limit is divided by before it is told, in thousandths; 1 where nothing is said.
pub(crate) fn divisor(node: Option<&Node<'_>>) -> Option<u128> {
    let Some(node) = node else {
        return Some(1000);
    };
    match read(node, "\"1m\" or \"1Mi\"")? {
        // Kubernetes' zero value: clients in Go send it for what they leave out.
        0 => Some(1000),
        divisor => Some(divisor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("500m", 500),
            ("2", 2_000),
            ("0.5", 500),
            (".5", 500),
            ("2.", 2_000),
            ("+1", 1_000),
            ("1.0005", 1_001),
            ("1n", 1),
            ("100u", 1),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("1.5Gi", 3 * 512 * 1024 * 1024 * 1000),
            ("1G", 1_000_000_000_000),
            ("1k", 1_000_000),
            ("128974848", 128_974_848_000),
            ("128974848000m", 128_974_848_000),
            ("129e6", 129_000_000_000),
            ("129E6", 129_000_000_000),
            ("1e-3", 1),
            ("1E", 1_000_000_000_000_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(thousandths(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in [
            "",
            "-1",
            "1K",
            "1mi",
            "Mi",
            ".",
            "1.2.3",
            "1 Mi",
            "1e",
            "1e99",
            "0x10",
            "NaN",
            "1_0",
            "1+1",
            "99999999999999999999999999",
            "16777216999999999999999Ei",
        ] {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }
}
