//! Task files: JSON or YAML, one task, a list of tasks, or several YAML documents.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize as _;
use serde_json::Value;

use crate::failure::Advise as _;

/// The largest file that is read.
const MOST_BYTES: u64 = 64 << 20;

/// Reads the tasks in `path`; `-` is standard input.
///
/// # Errors
/// When it cannot be read, or holds something else.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Value>> {
    let from_stdin = path == Path::new("-");
    let what = if from_stdin {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let mut text = String::new();
    let read = if from_stdin {
        std::io::stdin()
            .lock()
            .take(MOST_BYTES + 1)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text))
    };
    read.with_context(|| format!("read {what}"))?;
    if text.len() as u64 > MOST_BYTES {
        bail!("read {what}: it has more than {MOST_BYTES} bytes");
    }
    parse(&text)
        .with_context(|| format!("read the tasks in {what}"))
        .hint("write one task, or a list of tasks, as JSON or YAML")
}

fn parse(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents = if text.trim_start().starts_with(['{', '[']) {
        vec![serde_json::from_str(text)?]
    } else {
        serde_yaml_ng::Deserializer::from_str(text)
            .map(Value::deserialize)
            .collect::<Result<_, _>>()?
    };
    let (mut tasks, mut said_something) = (Vec::new(), false);
    for document in documents {
        said_something |= !document.is_null();
        match document {
            Value::Array(list) => tasks.extend(list),
            Value::Object(_) => tasks.push(document),
            // What stands after a last `---`.
            Value::Null => {}
            other => bail!("{other} is not a task"),
        }
    }
    // The file of a program that failed is no wish to have nothing.
    if !said_something {
        bail!("there is nothing in it; write [] for no tasks at all");
    }
    if let Some(stranger) = tasks.iter().find(|task| !task.is_object()) {
        bail!("{stranger} is not a task");
    }
    Ok(tasks)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn names(text: &str) -> Vec<String> {
        let name = |task: &Value| task.get("name").and_then(Value::as_str).unwrap().to_owned();
        parse(text).unwrap().iter().map(name).collect()
    }

    #[test]
    fn json_and_yaml_hold_one_task_or_many() {
        assert_eq!(names(r#"{"name": "a"}"#), ["a"]);
        assert_eq!(names(r#" [{"name": "a"}, {"name": "b"}]"#), ["a", "b"]);
        assert_eq!(names("name: a\n"), ["a"]);
        assert_eq!(names("- name: a\n- name: b\n"), ["a", "b"]);
        assert_eq!(names("name: a\n---\nname: b\n---\n"), ["a", "b"]);
        assert_eq!(names("[]"), Vec::<String>::new());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "hello",
            "[1]",
            "{",
            "a: [",
            "- b\n",
            "",
            "# only a comment\n",
            "null",
            "---\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
