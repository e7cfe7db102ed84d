//! A task as the document that somebody could have sent: what policies see and may change.
//!
//! Written from what was understood of a submission, not from its text, so that there is one form:
//! a command stands in `process`, a container in `spec.container`, a pod in `podTemplateSpec`, work of
//! another kind in `spec.document`, and all else at the top. Reading it gives the same task again.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use taskwright_control::port::{Documents, FeedEntry};
use taskwright_model::{Namespace, TaskKey, TaskName, TaskSpec, Work};

use super::bounds::{LimitsView, ResourcesView, RetryView, UserView, is_false};
use super::dto::{EnvValues, ProcessView};
use super::events::EventView;
use super::field::Path;
use super::parse::{self, CONTAINER, POD_TEMPLATE};
use crate::problem::FieldProblem;

/// The largest patch that is read, in bytes.
const MOST_PATCH_BYTES: usize = 64 * 1024;

/// The native documents.
#[derive(Clone, Copy, Debug)]
pub struct TaskDocuments;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    name: &'a str,
    /// There even if there are none: policies look into them.
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'a str>,
    priority: i32,
    limits: LimitsView,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<RetryView<'a>>,
    #[serde(skip_serializing_if = "ResourcesView::is_empty")]
    resources: ResourcesView,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserView<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    no_new_privileges: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    read_only_paths: &'a [String],
    #[serde(skip_serializing_if = "is_false")]
    best_effort: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Spec<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_template_spec: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Spec<'a> {
    Container(&'a RawValue),
    Document {
        kind: &'a str,
        content: Option<&'a RawValue>,
    },
}

impl<'a> Spec<'a> {
    fn of(work: &'a Work) -> Option<Self> {
        let Work::Document { kind, json } = work else {
            return None;
        };
        match kind.as_str() {
            POD_TEMPLATE => None,
            CONTAINER => raw_of(json).map(Self::Container),
            kind => Some(Self::Document {
                kind,
                content: raw_of(json),
            }),
        }
    }
}

impl TaskDocuments {
    /// Reads a task as it could be submitted, or as it is answered.
    ///
    /// # Errors
    /// Every problem of it, as a sentence with its field.
    pub fn read(&self, document: &Value) -> Result<(TaskName, TaskSpec), Vec<String>> {
        match parse::task(document, &Path::ROOT) {
            Ok(wanted) => Ok((wanted.name, wanted.spec)),
            Err(unreadable) => Err(unreadable
                .problems
                .iter()
                .map(FieldProblem::sentence)
                .collect()),
        }
    }
}

impl Documents for TaskDocuments {
    fn write(&self, key: &TaskKey, spec: &TaskSpec) -> String {
        let confinement = &spec.confinement;
        let of_kind = |wanted: &str| match &spec.work {
            Work::Document { kind, json } if kind == wanted => raw_of(json),
            _ => None,
        };
        let document = Document {
            name: key.name.as_str(),
            labels: &spec.labels,
            runtime: spec.runtime.as_ref().map(|runtime| runtime.as_str()),
            priority: spec.priority,
            limits: LimitsView::of(&spec.limits),
            retry: RetryView::of(&spec.retry),
            resources: ResourcesView::of(confinement),
            user: confinement.user.as_ref().map(UserView::of),
            no_new_privileges: confinement.no_new_privileges,
            read_only_paths: &confinement.read_only_paths,
            best_effort: confinement.best_effort,
            config: raw_of(&spec.config),
            process: match &spec.work {
                Work::Process(process) => Some(ProcessView::of(process, EnvValues::Shown)),
                Work::Document { .. } => None,
            },
            spec: Spec::of(&spec.work),
            pod_template_spec: of_kind(POD_TEMPLATE),
        };
        text_of(&document)
    }

    fn patch(&self, document: &str, patch: &str) -> Result<(TaskSpec, String), String> {
        if patch.len() > MOST_PATCH_BYTES {
            let length = patch.len();
            return Err(format!(
                "the patch has {length} bytes, at most {MOST_PATCH_BYTES} are read"
            ));
        }
        let mut value: Value =
            serde_json::from_str(document).map_err(|error| format!("the document: {error}"))?;
        let patch: Value = serde_json::from_str(patch)
            .map_err(|error| format!("the patch is no JSON: {error}"))?;
        if !patch.is_object() {
            return Err("the patch is no JSON object".to_owned());
        }
        let name = value.get("name").cloned();
        json_patch::merge(&mut value, &patch);
        if value.get("name") != name.as_ref() {
            return Err("/name: a policy cannot give a task another name".to_owned());
        }
        let (name, spec) = self.read(&value).map_err(|problems| problems.join("; "))?;
        let key = TaskKey {
            namespace: Namespace::native(),
            name,
        };
        let document = self.write(&key, &spec);
        Ok((spec, document))
    }

    fn event(&self, entry: &FeedEntry) -> String {
        text_of(&EventView::of(entry))
    }
}

fn raw_of(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

fn text_of(value: &impl Serialize) -> String {
    // Structs of texts and numbers: writing them to memory cannot fail.
    serde_json::to_string(value).unwrap_or_else(|error| {
        tracing::error!(%error, "a document could not be written as JSON");
        "{}".to_owned()
    })
}

#[cfg(test)]
mod tests {
    //! What is written is read again as the same task.
    #![expect(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test that cannot go on has failed"
    )]

    use super::*;
    use serde_json::json;

    fn key() -> TaskKey {
        TaskKey {
            namespace: Namespace::native(),
            name: TaskName::parse("a").unwrap(),
        }
    }

    fn spec(body: &Value) -> TaskSpec {
        let read = parse::task(body, &Path::ROOT);
        read.unwrap_or_else(|unreadable| panic!("{unreadable:?}"))
            .spec
    }

    fn samples() -> Vec<Value> {
        vec![
            json!({"name": "a", "process": {"command": ["true"]}}),
            json!({
                "name": "a",
                "labels": {"x": "y"},
                "runtime": "bwrap",
                "priority": -3,
                "limits": {
                    "queueSeconds": 1.5, "startSeconds": 2, "idleSeconds": 3,
                    "runSeconds": 0.25, "graceSeconds": 0,
                },
                "retry": {"maxAttempts": 3, "backoffSeconds": 0.5, "on": ["exit"]},
                "resources": {
                    "cpu": 0.25, "memory": "64Mi", "pids": 7, "openFiles": 100,
                    "fileSize": 4096,
                },
                "user": {"uid": 1000, "gid": 1001, "groups": [5]},
                "noNewPrivileges": true,
                "readOnlyPaths": ["/etc"],
                "bestEffort": true,
                "config": {"network": true},
                "process": {
                    "command": ["sh", "-c"], "args": ["x"], "workingDir": "/tmp",
                    "env": [{"name": "A", "value": "b"}],
                },
            }),
            json!({"name": "a", "spec": {"container": {"image": "x", "command": ["y"]}}}),
            json!({
                "name": "a",
                "podTemplateSpec": {"spec": {"containers": [{"name": "main", "image": "x"}]}},
            }),
            json!({
                "name": "a", "runtime": "echo",
                "spec": {"document": {"kind": "echo", "content": ["echo hello", "sleep 1"]}},
            }),
        ]
    }

    #[test]
    fn a_document_is_read_as_the_task_it_was_written_from() {
        for body in samples() {
            let wanted = spec(&body);
            let document = TaskDocuments.write(&key(), &wanted);
            let read: Value = serde_json::from_str(&document).unwrap();
            assert_eq!(spec(&read), wanted, "{document}");
            let (patched, again) = TaskDocuments.patch(&document, "{}").unwrap();
            assert_eq!((patched, again), (wanted, document));
        }
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let document = TaskDocuments.write(
            &key(),
            &spec(&json!({
                "name": "a", "process": {"command": ["true"]}, "limits": {"runSeconds": 900},
            })),
        );
        let patch = r#"{"limits": {"runSeconds": 60}, "labels": {"capped": "yes"}}"#;
        let (spec, document) = TaskDocuments.patch(&document, patch).unwrap();
        assert_eq!(spec.limits.run.unwrap().as_secs(), 60);
        assert_eq!(spec.labels["capped"], "yes");
        assert!(document.contains("\"capped\""));
    }

    #[test]
    fn a_patch_that_makes_no_task_is_told_with_its_field() {
        let document = TaskDocuments.write(&key(), &spec(&samples()[0]));
        for (patch, why) in [
            ("[]", "no JSON object"),
            ("{", "no JSON"),
            (r#"{"name": "b"}"#, "/name"),
            (r#"{"process": null}"#, "nothing to run"),
            (r#"{"limits": {"runSeconds": -1}}"#, "/limits/runSeconds"),
            (r#"{"limit": {"runSeconds": 1}}"#, "/limit"),
        ] {
            let told = TaskDocuments.patch(&document, patch).unwrap_err();
            assert!(told.contains(why), "{patch}: {told}");
        }
        let long = format!(
            r#"{{"labels": {{"a": "{}"}}}}"#,
            "x".repeat(MOST_PATCH_BYTES)
        );
        let told = TaskDocuments.patch(&document, &long).unwrap_err();
        assert!(told.contains("at most"), "{told}");
    }
}
