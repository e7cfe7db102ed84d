//! How plugins do, as the lists of plugins and of policies tell it.

use serde_json::Value;

use crate::output::style::{Tone, tame_lines};
use crate::output::table::Cell;

/// The word for it. A file that is refused is trouble also where what was there before serves:
/// somebody meant the file to count.
pub(super) fn cell(plugin: &Value) -> Cell {
    match trouble(plugin) {
        None => Cell::toned("ok", Tone::Good),
        Some(_) => Cell::toned("trouble", Tone::Bad),
    }
}

/// What is wrong with it, as lines below a table; empty if nothing is.
pub(super) fn lines(plugin: &Value) -> String {
    let name = text(plugin, "name");
    trouble(plugin)
        .map(|trouble| tame_lines(&format!("{name}: {trouble}")) + "\n")
        .unwrap_or_default()
}

fn trouble(plugin: &Value) -> Option<String> {
    let healthy = plugin.get("healthy").and_then(Value::as_bool);
    let (trouble, refused) = (text(plugin, "trouble"), text(plugin, "refused"));
    match (healthy.unwrap_or(true), refused) {
        (true, "") => None,
        (true, why) => Some(format!(
            "its file is not used, what served before goes on: {why}"
        )),
        (false, "") => Some(trouble.to_owned()),
        (false, why) => Some(format!("{trouble}: {why}")),
    }
}

fn text<'a>(plugin: &'a Value, key: &str) -> &'a str {
    plugin.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refused_file_is_trouble_whatever_serves() {
        let check = |plugin: Value, wanted: &str| assert_eq!(lines(&plugin), wanted);
        check(json!({"name": "a", "healthy": true}), "");
        check(
            json!({"name": "a", "healthy": true, "refused": "bad\n  hint: mend it"}),
            "a: its file is not used, what served before goes on: bad\n  hint: mend it\n",
        );
        check(
            json!({"name": "a", "healthy": false, "trouble": "not loaded", "refused": "bad"}),
            "a: not loaded: bad\n",
        );
        check(
            json!({"name": "a", "healthy": false, "trouble": "it trapped"}),
            "a: it trapped\n",
        );
    }
}
