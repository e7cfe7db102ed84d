#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod container;
mod env;
mod pod;
mod refused;

use serde_json::{Value, json};
use taskwright_plugin_sdk::container::{Mount, MountSource};

use super::*;

fn task(kind: &str, document: &Value) -> Task {
    Task {
        id: "0198b0e5-0000-7000-8000-000000000001".to_owned(),
        namespace: "default".to_owned(),
        name: "build".to_owned(),
        attempt: 1,
        kind: kind.to_owned(),
        process: None,
        document: document.to_string(),
        labels: vec![("team".to_owned(), "blue".to_owned())],
        config: String::new(),
        extra: Vec::new(),
    }
}

fn container(document: &Value) -> Plan {
    parse(&task(CONTAINER, document)).unwrap()
}

fn pod(document: &Value) -> Plan {
    parse(&task(POD, document)).unwrap()
}

/// A pod of one container, with these fields more.
fn pod_of(mut container: Value) -> Value {
    container["name"] = json!("one");
    container["image"] = json!("busybox");
    json!({"spec": {"containers": [container]}})
}

fn places(kind: &str, document: &Value) -> Vec<String> {
    let Err(problems) = parse(&task(kind, document)) else {
        return Vec::new();
    };
    problems.into_iter().map(|problem| problem.field).collect()
}

/// Claims that a document has one problem, at this place, whose message holds this text.
fn refused(kind: &str, document: &Value, place: &str, text: &str) {
    let problems = parse(&task(kind, document)).expect_err(place);
    let found: Vec<_> = problems.iter().map(|one| &one.field).collect();
    assert_eq!(found, [place], "{document}");
    assert!(
        problems[0].message.contains(text),
        "{} does not say {text:?}",
        problems[0].message
    );
}

fn empty_dir(name: &str, path: &str) -> Mount {
    Mount {
        source: MountSource::EmptyDir(name.to_owned()),
        path: path.to_owned(),
        read_only: false,
    }
}

fn env_of(plan: &Plan, index: usize, address: Option<&str>) -> Vec<(String, String)> {
    let env = plan.containers[index].request(address).unwrap().env;
    env.into_iter().map(|it| (it.name, it.value)).collect()
}

#[test]
fn what_is_said_for_another_runtime_is_not_ignored() {
    let mut task = task(CONTAINER, &json!({"image": "a"}));
    task.config = "{\"x\":1}".to_owned();
    let problems = parse(&task).unwrap_err();
    assert_eq!(problems[0].field, "/config");
}

#[test]
fn what_cannot_be_read_at_all_is_a_problem_of_the_whole() {
    for (kind, document, place) in [
        (CONTAINER, "", "/container"),
        (CONTAINER, "[]", "/container"),
        (POD, "null", "/podTemplateSpec"),
        (POD, "{\"spec\":1}", "/podTemplateSpec/spec"),
        (POD, "{}", "/podTemplateSpec/spec"),
        ("vm", "{}", "/vm"),
    ] {
        let mut task = task(kind, &json!({}));
        task.document = document.to_owned();
        let problems = parse(&task).unwrap_err();
        assert_eq!(problems.len(), 1, "{document}");
        assert_eq!(problems[0].field, place, "{document}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let found = places(
        CONTAINER,
        &json!({
            "image": "", "command": [1], "workingDir": 7, "network": "moon", "hostname": "A_B",
            "user": "-x", "resources": {"limits": {"cpu": "much", "memory": 0}},
            "volumeMounts": [{"name": "data", "mountPath": "relative"}],
        }),
    );
    let mut expected = vec![
        "/container/image",
        "/container/command/0",
        "/container/workingDir",
        "/container/network",
        "/container/hostname",
        "/container/user",
        "/container/resources/limits/cpu",
        "/container/resources/limits/memory",
        "/container/volumeMounts/0/mountPath",
    ];
    expected.sort_unstable();
    let mut sorted = found;
    sorted.sort();
    assert_eq!(sorted, expected);
}
