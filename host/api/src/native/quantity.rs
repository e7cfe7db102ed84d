//! Amounts as Kubernetes writes them: `500m`, `2`, `64Mi`, `1G`, `129e6`, or plain numbers.
//!
//! The form is that of `apimachinery/pkg/api/resource.Quantity`. Everything is computed in whole
//! thousandths; what is finer is rounded up, so that no limit becomes stricter than it says.

use serde_json::Value;

/// The longest text that is read as an amount.
const MOST_BYTES: usize = 32;
/// How much is shown of what is no amount.
const MOST_SHOWN: usize = 60;

/// An amount in thousandths, or what is wrong with it.
pub(crate) fn millis(value: &Value) -> Result<u128, String> {
    let wanted = || {
        let shown = shown(value);
        format!("must be an amount, as 2, 0.5, \"500m\", \"64Mi\" or \"1G\", not {shown}")
    };
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err(wanted()),
    };
    if text.len() > MOST_BYTES {
        return Err(wanted());
    }
    if text.starts_with('-') {
        return Err(format!("must not be negative, as {} is", shown(value)));
    }
    parse(text.strip_prefix('+').unwrap_or(&text)).ok_or_else(wanted)
}

/// An amount in whole units; a part of one counts as one.
pub(crate) fn units(value: &Value) -> Result<u64, String> {
    let whole = millis(value)?.div_ceil(1000);
    u64::try_from(whole).map_err(|_| format!("{} is more than any machine has", shown(value)))
}

/// A value as it was written, its end left out where it is long.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= MOST_SHOWN {
        return text;
    }
    let begin: String = text.chars().take(MOST_SHOWN).collect();
    format!("{begin}...")
}

fn parse(text: &str) -> Option<u128> {
    let digits = text
        .find(|one: char| !one.is_ascii_digit() && one != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // The number as an integer, over ten to the power of its decimals.
    let digits = format!("{whole}{fraction}");
    let value: u128 = digits
        .trim_start_matches('0')
        .parse()
        .or_else(|_| {
            let zero = digits.bytes().all(|one| one == b'0');
            if zero { Ok(0) } else { Err(()) }
        })
        .ok()?;
    let (times, over) = factor(suffix)?;
    let over = over.checked_mul(10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    Some(value.checked_mul(times)?.div_ceil(over))
}

/// What a suffix multiplies by, in thousandths, as a fraction.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1000 << (10 * power), 1));
    let decimal = |power: u32| Some((10_u128.checked_pow(power + 3)?, 1));
    match suffix {
        "" => decimal(0),
        "n" => Some((1, 1_000_000)),
        "u" => Some((1, 1000)),
        "m" => Some((1, 1)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            match u32::try_from(power) {
                Ok(power) if power <= 18 => decimal(power),
                Err(_) if power >= -18 => Some((1000, 10_u128.checked_pow(power.unsigned_abs())?)),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_read_as_kubernetes_writes_them() {
        for (written, thousandths) in [
            (json!("500m"), 500),
            (json!("2"), 2000),
            (json!(2), 2000),
            (json!(0.5), 500),
            (json!("0.1"), 100),
            (json!(".5"), 500),
            (json!("1.5Ki"), 1_536_000),
            (json!("64Mi"), 64 * 1024 * 1024 * 1000),
            (json!("1G"), 1_000_000_000_000),
            (json!("129e6"), 129_000_000_000),
            (json!("12E2"), 1_200_000),
            (json!("1e-1"), 100),
            (json!("100u"), 1),
            (json!("0"), 0),
            (json!("000"), 0),
        ] {
            assert_eq!(millis(&written), Ok(thousandths), "{written}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for written in [
            json!(""),
            json!("m"),
            json!("."),
            json!("1.2.3"),
            json!("1 Gi"),
            json!("1GB"),
            json!("-1"),
            json!(-1),
            json!("e5"),
            json!("1e99"),
            json!(true),
            json!([1]),
            json!("9".repeat(40)),
        ] {
            assert!(millis(&written).is_err(), "{written}");
        }
        for (written, words) in [
            (json!("1GB"), "not \"1GB\""),
            (json!(-1), "as -1 is"),
            (json!([1]), "not [1]"),
            (json!("9".repeat(400)), "999..."),
        ] {
            let message = millis(&written).err().unwrap_or_default();
            assert!(message.contains(words) && message.len() < 200, "{message}");
        }
        assert!(units(&json!("9999999E")).is_err());
        assert_eq!(units(&json!("1m")), Ok(1));
    }
}
