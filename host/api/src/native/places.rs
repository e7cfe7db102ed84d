//! Where a submitter wrote what a problem is about.
//!
//! A runtime sees one task and points into that: `/spec/runtime`, `/resources/memory`. A
//! submitter may have written the same field at the top or under `spec`, and in `setTasks` below
//! an element's number. What is told is where it stands in the body.

use serde_json::Value;
use taskwright_control::port::SpecProblem;

use super::field::Path;
use crate::problem::FieldProblem;

/// What may stand at the top and under `spec`.
pub(super) const EITHER: [&str; 13] = [
    "process",
    "timeoutSeconds",
    "labels",
    "priority",
    "runtime",
    "limits",
    "retry",
    "config",
    "resources",
    "user",
    "noNewPrivileges",
    "readOnlyPaths",
    "bestEffort",
];

/// The places of one task's fields.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Where the task itself stands.
    task: String,
    top: Vec<&'static str>,
    under: Vec<&'static str>,
}

impl Places {
    /// Those of the task `body`, which stands at `path`.
    pub(crate) fn of(body: &Value, path: &Path<'_>) -> Self {
        let said = |holder: Option<&Value>| {
            let says = |key: &&str| {
                let value = holder.and_then(|holder| holder.get(key));
                value.is_some_and(|value| !value.is_null())
            };
            EITHER.into_iter().filter(says).collect()
        };
        Self {
            task: path.pointer(),
            top: said(Some(body)),
            under: said(body.get("spec")),
        }
    }

    /// A runtime's problem, at the place that the submitter knows.
    pub(crate) fn told(&self, problem: &SpecProblem) -> FieldProblem {
        FieldProblem::new(self.find(&problem.field), problem.message.as_str())
    }

    fn find(&self, field: &str) -> String {
        let below = field.strip_prefix("/spec").unwrap_or(field);
        let first = below.split('/').nth(1).unwrap_or_default();
        let task = &self.task;
        if self.top.contains(&first) {
            format!("{task}{below}")
        } else if self.under.contains(&first) {
            format!("{task}/spec{below}")
        } else {
            format!("{task}{field}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_is_told_where_the_field_was_written() {
        let body = json!({"name": "x", "runtime": "a", "process": {"command": ["a"]}, "config": null,
            "spec": {"resources": {"memory": 1}, "config": {"a": 1}, "container": {}}});
        let root = Path::ROOT;
        for (path, prefix) in [(root, ""), (root.index(3), "/3")] {
            let places = Places::of(&body, &path);
            for (field, expected) in [
                ("/spec/runtime", "/runtime"),
                ("/spec/process/command/0", "/process/command/0"),
                ("/resources/memory", "/spec/resources/memory"),
                ("/config/a", "/spec/config/a"),
                ("/spec/container/image", "/spec/container/image"),
                ("/podTemplateSpec/spec", "/podTemplateSpec/spec"),
                ("/user", "/user"),
                ("/spec", "/spec"),
                ("", ""),
            ] {
                assert_eq!(places.find(field), format!("{prefix}{expected}"), "{field}");
            }
        }
    }
}
