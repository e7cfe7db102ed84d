//! Fields that are almost those that are read.
//!
//! Unknown fields are ignored, because clients send what other servers read. But `limit`, or a
//! `graceSeconds` that stands outside of `limits`, is no field of anybody else's: to ignore it
//! would silently leave out what somebody asked for. So a name is refused if it is that of a
//! field in another place, or is mistyped by a letter. What answers hold may be sent back.

use super::field::{Object, Problems};
use super::places::EITHER;

/// The most unknown fields that are compared: nobody mistypes more.
const MOST_COMPARED: usize = 64;
/// The longest name that is compared.
const MOST_BYTES: usize = 40;
/// From this length on two letters may differ, otherwise one.
const LONG: usize = 8;
/// From this length on a field of another place may be mistyped as well. Short words are too
/// near to those of others.
const LONG_ELSEWHERE: usize = 6;

/// An object whose fields are known.
pub(super) struct Known {
    /// What is read here.
    read: &'static [&'static [&'static str]],
    /// What is ignored, but no mistake: answers hold it.
    answered: &'static [&'static str],
    /// What stands elsewhere, and where.
    elsewhere: &'static [(&'static str, &'static str)],
    /// What is written before a field's name to tell where it stands.
    prefix: &'static str,
}

/// What a task, and a command in it, are told by at other places.
const NESTED: &[(&str, &str)] = &[
    ("timeout", "timeoutSeconds"),
    ("command", "process.command"),
    ("args", "process.args"),
    ("env", "process.env"),
    ("workingDir", "process.workingDir"),
    ("grace", "limits.graceSeconds"),
    ("queueSeconds", "limits.queueSeconds"),
    ("startSeconds", "limits.startSeconds"),
    ("idleSeconds", "limits.idleSeconds"),
    ("runSeconds", "limits.runSeconds"),
    ("graceSeconds", "limits.graceSeconds"),
    ("maxAttempts", "retry.maxAttempts"),
    ("backoffSeconds", "retry.backoffSeconds"),
    ("maxBackoffSeconds", "retry.maxBackoffSeconds"),
    ("cpu", "resources.cpu"),
    ("memory", "resources.memory"),
    ("pids", "resources.pids"),
    ("openFiles", "resources.openFiles"),
    ("fileSize", "resources.fileSize"),
];

/// A task.
pub(super) const TASK: Known = Known {
    read: &[&["name", "spec", "podTemplateSpec"], &EITHER],
    answered: &[
        "status",
        "deletionTimestamp",
        "processStatus",
        "podStatus",
        "id",
        "namespace",
        "state",
        "outcome",
        "attempts",
        "createdAt",
        "problem",
    ],
    elsewhere: NESTED,
    prefix: "",
};

/// A task's `spec`.
pub(super) const SPEC: Known = Known {
    read: &[&["container", "document"], &EITHER],
    answered: &["name", "podTemplateSpec"],
    elsewhere: NESTED,
    prefix: "",
};

/// A task's `process`.
pub(super) const PROCESS: Known = Known {
    read: &[&["command", "args", "env", "workingDir", "timeoutSeconds"]],
    answered: &[],
    elsewhere: &[("timeout", "process.timeoutSeconds")],
    prefix: "process.",
};

/// A task's `limits`.
pub(super) const LIMITS: Known = Known {
    read: &[&[
        "queueSeconds",
        "startSeconds",
        "idleSeconds",
        "runSeconds",
        "graceSeconds",
    ]],
    answered: &[],
    elsewhere: &[
        ("queue", "limits.queueSeconds"),
        ("start", "limits.startSeconds"),
        ("idle", "limits.idleSeconds"),
        ("run", "limits.runSeconds"),
        ("timeout", "limits.runSeconds"),
        ("timeoutSeconds", "limits.runSeconds"),
        ("grace", "limits.graceSeconds"),
        ("cpu", "resources.cpu"),
        ("memory", "resources.memory"),
    ],
    prefix: "limits.",
};

/// A task's `retry`.
pub(super) const RETRY: Known = Known {
    read: &[&["maxAttempts", "backoffSeconds", "maxBackoffSeconds", "on"]],
    answered: &[],
    elsewhere: &[
        ("attempts", "retry.maxAttempts"),
        ("backoff", "retry.backoffSeconds"),
        ("maxBackoff", "retry.maxBackoffSeconds"),
    ],
    prefix: "retry.",
};

/// Adds a problem for each field of `object` that is not read, and was meant to be.
pub(super) fn check(object: Object<'_>, known: &Known, problems: &mut Problems) {
    let unknown = object.map.iter().filter(|(key, value)| {
        let key = key.as_str();
        !value.is_null() && !known.reads(key) && !known.answered.contains(&key)
    });
    for (key, _) in unknown.take(MOST_COMPARED) {
        if let Some(meant) = known.meant_by(key) {
            let message = format!("is not read: did you mean `{meant}`?");
            problems.add(&object.path.key(key), message);
        }
    }
}

impl Known {
    fn reads(&self, key: &str) -> bool {
        self.read.iter().any(|fields| fields.contains(&key))
    }

    /// The field that `key` was to be, with its place.
    fn meant_by(&self, key: &str) -> Option<String> {
        if key.len() > MOST_BYTES {
            return None;
        }
        let key = letters(key);
        let here = self.read.iter().copied().flatten().map(|field| {
            let field_letters = letters(field);
            let may_differ = if field_letters.len() < LONG { 1 } else { 2 };
            (field_letters, may_differ, format!("{}{field}", self.prefix))
        });
        let elsewhere = self.elsewhere.iter().map(|(field, place)| {
            let may_differ = usize::from(field.len() >= LONG_ELSEWHERE);
            (letters(field), may_differ, (*place).to_owned())
        });
        let near = here.chain(elsewhere).filter_map(|(field, most, place)| {
            let differ = strsim::levenshtein(&key, &field);
            (differ <= most && differ < field.len()).then_some((differ, place))
        });
        near.min_by_key(|(differ, _)| *differ)
            .map(|(_, place)| place)
    }
}

/// A name without what people write differently: `grace_seconds` is `graceSeconds`.
fn letters(name: &str) -> String {
    let letters = name.chars().filter(|letter| !matches!(letter, '_' | '-'));
    letters.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_almost_a_field_is_taken_for_it() {
        for (known, key, meant) in [
            (&TASK, "resource", "resources"),
            (&TASK, "limit", "limits"),
            (&TASK, "Process", "process"),
            (&TASK, "timeout", "timeoutSeconds"),
            (&TASK, "timeout_seconds", "timeoutSeconds"),
            (&TASK, "graceSeconds", "limits.graceSeconds"),
            (&TASK, "grace-second", "limits.graceSeconds"),
            (&TASK, "command", "process.command"),
            (&TASK, "memory", "resources.memory"),
            (&TASK, "no_new_privilege", "noNewPrivileges"),
            (&SPEC, "contaner", "container"),
            (&PROCESS, "arg", "process.args"),
            (&LIMITS, "grace", "limits.graceSeconds"),
            (&LIMITS, "memory", "resources.memory"),
            (&RETRY, "maxAttempt", "retry.maxAttempts"),
        ] {
            assert_eq!(known.meant_by(key).as_deref(), Some(meant), "{key}");
        }
    }

    #[test]
    fn what_others_read_is_not_taken_for_ours() {
        let others = [
            "unknown",
            "metadata",
            "kind",
            "apiVersion",
            "annotations",
            "image",
            "tags",
            "type",
            "id",
            "pid",
            "x",
            "",
            "owner",
            "version",
            "taskTemplate",
            "shardTaskPatches",
            "replicas",
            "lastState",
            "template",
            "selector",
            "volumeMounts",
            "hostname",
            "title",
        ];
        for key in others {
            assert_eq!(TASK.meant_by(key), None, "{key}");
            assert_eq!(SPEC.meant_by(key), None, "{key}");
        }
        assert_eq!(TASK.meant_by(&"limits".repeat(1000)), None);
    }
}
