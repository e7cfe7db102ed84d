//! What became of a JSON document: a line for each value that is other than before.

use json_patch::PatchOperation;
use serde_json::Value;

use super::style::{Colours, Tone, tame};

/// Lines of `-` and `+`, each with the JSON pointer of the value.
pub(crate) fn diff(before: &Value, after: &Value, colours: Colours) -> String {
    let mut told = String::new();
    let mut line = |sign: &str, tone: Tone, path: &str, value: &Value| {
        let text = tame(&format!("  {sign} {path}: {value}"));
        told.push_str(&tone.paint(&text, colours));
        told.push('\n');
    };
    let nothing = Value::Null;
    for operation in json_patch::diff(before, after).0 {
        let path = operation.path().to_string();
        let was = before.pointer(&path).unwrap_or(&nothing);
        match operation {
            PatchOperation::Add(add) => line("+", Tone::Good, &path, &add.value),
            PatchOperation::Remove(_) => line("-", Tone::Bad, &path, was),
            PatchOperation::Replace(replace) => {
                line("-", Tone::Bad, &path, was);
                line("+", Tone::Good, &path, &replace.value);
            }
            // A diff is made of the three above.
            PatchOperation::Move(_) | PatchOperation::Copy(_) | PatchOperation::Test(_) => {}
        }
    }
    told
}

#[cfg(test)]
mod tests {
    //! Every kind of line.

    use serde_json::json;

    use super::*;

    #[test]
    fn each_difference_is_told_with_its_place() {
        let before = json!({"limits": {"run": 1}, "labels": {"a": "b"}, "same": 1});
        let after = json!({"limits": {"run": 2}, "user": {"uid": 7}, "same": 1});
        let told = diff(&before, &after, Colours::No);
        let mut lines: Vec<&str> = told.lines().collect();
        lines.sort_unstable();
        let wanted = [
            "  + /limits/run: 2",
            "  + /user: {\"uid\":7}",
            "  - /labels: {\"a\":\"b\"}",
            "  - /limits/run: 1",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(diff(&before, &before, Colours::No), "");
    }
}
