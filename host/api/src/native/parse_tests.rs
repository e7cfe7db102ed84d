//! Every rule about the fields of a task, one line each.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::time::Duration;

use serde_json::{Value, json};
use taskwright_model::{ProcessSpec, TaskSpec, Work};

use super::field::Path;
use super::parse::{MOST_COMMAND_BYTES, Wanted, task};

#[track_caller]
fn read(body: &Value) -> Wanted {
    match task(body, &Path::ROOT) {
        Ok(wanted) => wanted,
        Err(unreadable) => panic!("{body} was refused: {:?}", unreadable.problems),
    }
}

#[track_caller]
fn spec(body: &Value) -> TaskSpec {
    read(body).spec
}

#[track_caller]
fn process(body: &Value) -> ProcessSpec {
    match spec(body).work {
        Work::Process(process) => process,
        other => panic!("{other:?} is no process"),
    }
}

/// `body` is refused because of `field`, with `words` in the message.
#[track_caller]
fn refused(body: &Value, field: &str, words: &str) {
    let unreadable = task(body, &Path::ROOT).unwrap_err();
    let found = unreadable
        .problems
        .iter()
        .any(|problem| problem.field == field && problem.message.contains(words));
    let shown: String = body.to_string().chars().take(200).collect();
    assert!(found, "{shown}: {:?}", unreadable.problems);
}

/// A good task with some fields of its process set.
fn with_process(fields: Value) -> Value {
    let mut process = json!({"command": ["true"]});
    for (key, value) in fields.as_object().unwrap() {
        process[key] = value.clone();
    }
    json!({"name": "x", "process": process})
}

/// A good task with some fields at the top set.
fn with(fields: Value) -> Value {
    let mut body = with_process(json!({}));
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[test]
fn both_forms_say_the_same() {
    let full = json!({"command": ["sh", "-c"], "args": ["echo $A"],
        "env": [{"name": "A", "value": "1"}], "workingDir": "/tmp"});
    let seed = json!({"name": "x", "spec": {"process": full}});
    let flat = json!({"name": "x", "process": full});
    let union = json!({"name": "x", "spec": {"process": full}, "process": full});
    assert_eq!(read(&seed), read(&flat));
    assert_eq!(read(&union), read(&flat));
    let found = process(&seed);
    assert_eq!(found.command, ["sh", "-c"]);
    assert_eq!(found.args, ["echo $A"]);
    assert_eq!(found.working_dir.as_deref(), Some("/tmp"));
    assert_eq!(
        (found.env[0].name.as_str(), found.env[0].value.as_str()),
        ("A", "1")
    );
}

#[test]
fn contradictions_are_refused_and_name_both() {
    let body = json!({"name": "x", "spec": {"process": {"command": ["a"]}}, "process": {"command": ["b"]}});
    refused(&body, "/process", "contradicts /spec/process");
    let body = json!({"name": "x", "spec": {"process": {"command": ["a"]}, "timeoutSeconds": 1},
        "process": {"command": ["a"], "timeoutSeconds": 2}});
    refused(
        &body,
        "",
        "/spec/timeoutSeconds and /process/timeoutSeconds contradict",
    );
    let body = with(json!({"labels": {"a": "1"}, "spec": {"labels": {"a": "2"}}}));
    refused(&body, "/labels", "contradicts /spec/labels");
    let body = json!({"name": "x", "process": {"command": ["a"]}, "podTemplateSpec": {}});
    refused(&body, "", "exclude each other");
}

#[test]
fn work_of_other_kinds_is_kept_for_its_runtime() {
    let body = json!({"name": "x", "runtime": "echo",
        "spec": {"document": {"kind": "echo", "content": ["echo hi"]}}});
    let Work::Document { kind, json } = read(&body).spec.work else {
        panic!("a document");
    };
    assert_eq!((kind.as_str(), json.as_str()), ("echo", r#"["echo hi"]"#));
    let of_kind = |kind: Value| json!({"name": "x", "spec": {"document": {"kind": kind}}});
    refused(&of_kind(json!("a b")), "/spec/document/kind", "letters");
    refused(&of_kind(Value::Null), "/spec/document/kind", "letters");
    refused(
        &of_kind(json!("process")),
        "/spec/document/kind",
        "a place of its own",
    );
}

#[test]
fn what_clients_send_beside_is_ignored() {
    let body = with(
        json!({"status": {"state": {}, "lastState": {}}, "deletionTimestamp": null,
        "podTemplateSpec": null, "spec": {"container": null, "x": 1}, "unknown": [1, 2]}),
    );
    read(&body);
    read(&with_process(
        json!({"args": null, "env": null, "workingDir": null, "timeoutSeconds": null}),
    ));
}

#[test]
fn what_is_almost_a_field_is_not_ignored() {
    refused(
        &with(json!({"graceSeconds": 5})),
        "/graceSeconds",
        "did you mean `limits.graceSeconds`?",
    );
    refused(
        &with(json!({"resource": {"memory": "1Gi"}})),
        "/resource",
        "`resources`",
    );
    refused(&with(json!({"timeout": 5})), "/timeout", "`timeoutSeconds`");
    let body = with(json!({"spec": {"label": {"a": "b"}}}));
    refused(&body, "/spec/label", "`labels`");
    let body = with(json!({"limits": {"grace": 5}}));
    refused(&body, "/limits/grace", "`limits.graceSeconds`");
    let body = with(json!({"retry": {"max_attempt": 5}}));
    refused(&body, "/retry/max_attempt", "`retry.maxAttempts`");
    let body = with_process(json!({"arg": ["a"]}));
    refused(&body, "/process/arg", "`process.args`");
    // What is null is not said, and what is far from ours is somebody else's.
    read(&with(json!({"timeout": null, "resource": null})));
    let others = json!({"metadata": {}, "kind": "Task", "apiVersion": "v1", "image": "x"});
    read(&with(others));
    let mut many = with(json!({}));
    for number in 0..10_000 {
        many[format!("unknown-{number}")] = json!(1);
    }
    read(&many);
}

#[test]
fn what_answers_hold_may_be_sent_back() {
    read(&with(json!({
        "id": "x", "namespace": "x", "state": "running", "outcome": {}, "attempts": [1],
        "createdAt": "x", "problem": {}, "status": {"state": {}, "lastState": {}},
        "processStatus": {"running": {}}, "podStatus": {"phase": "Running"},
        "deletionTimestamp": "x", "limits": {"graceSeconds": 10.0},
    })));
}

#[test]
fn names_are_checked() {
    refused(
        &json!({"process": {"command": ["a"]}}),
        "/name",
        "needs a name",
    );
    refused(&with(json!({"name": null})), "/name", "needs a name");
    refused(&with(json!({"name": ""})), "/name", "must not be empty");
    refused(
        &with(json!({"name": 7})),
        "/name",
        "must be a text, not a number",
    );
    for bad in [".", "..", "a/b", "a b", "-x", "a\u{0}b", "a\nb"] {
        refused(&with(json!({"name": bad})), "/name", "");
    }
    refused(
        &with(json!({"name": "x".repeat(300)})),
        "/name",
        "200 bytes",
    );
    for good in ["a", "build-7", "größe", "任务", "a.b_c@d:e+f=g~h", "0"] {
        assert_eq!(read(&with(json!({"name": good}))).name.as_str(), good);
    }
}

#[test]
fn something_must_be_run() {
    refused(&json!({"name": "x"}), "", "nothing to run");
    refused(&json!({"name": "x", "spec": {}}), "", "nothing to run");
    let image = json!({"image": "a"});
    refused(
        &json!({"name": "x", "container": image}),
        "/container",
        "nothing to run: a container belongs under spec",
    );
    refused(
        &json!({"name": "x", "spec": {"podTemplateSpec": {"spec": {"containers": [image]}}}}),
        "/spec/podTemplateSpec",
        "nothing to run: podTemplateSpec belongs at the top level",
    );
    refused(
        &json!({"name": "x", "command": ["ls"]}),
        "/command",
        "did you mean `process.command`?",
    );
    refused(&json!({"name": "x", "spec": 7}), "/spec", "an object");
    refused(
        &json!({"name": "x", "process": "ls"}),
        "/process",
        "an object",
    );
    refused(
        &json!({"name": "x", "process": {}}),
        "/process/command",
        "name a program",
    );
    refused(
        &with_process(json!({"command": null})),
        "/process/command",
        "name a program",
    );
    refused(
        &with_process(json!({"command": []})),
        "/process/command",
        "name a program",
    );
    refused(
        &with_process(json!({"command": [""]})),
        "/process/command/0",
        "empty",
    );
    refused(
        &with_process(json!({"command": "ls"})),
        "/process/command",
        "a list, not a text",
    );
    refused(
        &with_process(json!({"command": ["ls", 7]})),
        "/process/command/1",
        "a text",
    );
    refused(
        &with_process(json!({"command": ["a\u{0}"]})),
        "/process/command/0",
        "NUL",
    );
    refused(
        &with_process(json!({"args": ["a\u{0}"]})),
        "/process/args/0",
        "NUL",
    );
    refused(
        &with_process(json!({"workingDir": "a\u{0}"})),
        "/process/workingDir",
        "NUL",
    );
    refused(
        &json!({"name": "x", "spec": {"process": {"command": []}}}),
        "/spec/process/command",
        "",
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let body = json!({"name": "a/b", "process": {"command": [], "args": 7}, "priority": "high"});
    let problems = task(&body, &Path::ROOT).unwrap_err().problems;
    let fields: Vec<&str> = problems
        .iter()
        .map(|problem| problem.field.as_str())
        .collect();
    assert_eq!(
        fields,
        ["/name", "/process/command", "/process/args", "/priority"]
    );
}

#[test]
fn commands_are_bounded() {
    let word = "x".repeat(200_000);
    refused(
        &with_process(json!({"args": [word]})),
        "/process/args/0",
        "131071",
    );
    let many = vec!["x".repeat(100_000); MOST_COMMAND_BYTES / 100_000 + 1];
    refused(
        &with_process(json!({"args": many})),
        "/process",
        "fewer than 1048576",
    );
    read(&with_process(
        json!({"args": vec!["x".repeat(100_000); 10]}),
    ));
}

#[test]
fn variables_are_checked_and_nameless_ones_skipped() {
    let env = |list: Value| with_process(json!({"env": list}));
    let found = process(&env(
        json!([{"name": "", "value": "x"}, {"name": "A"}, {"name": "B", "value": null}]),
    ));
    let pairs: Vec<(&str, &str)> = found
        .env
        .iter()
        .map(|one| (one.name.as_str(), one.value.as_str()))
        .collect();
    assert_eq!(pairs, [("A", ""), ("B", "")]);
    refused(
        &env(json!([{"name": "A=B"}])),
        "/process/env/0/name",
        "= or NUL",
    );
    refused(
        &env(json!([{"name": "A\u{0}"}])),
        "/process/env/0/name",
        "= or NUL",
    );
    refused(
        &env(json!([{"name": "A", "value": "\u{0}"}])),
        "/process/env/0/value",
        "NUL",
    );
    refused(
        &env(json!([{"name": "A", "value": 1}])),
        "/process/env/0/value",
        "a text",
    );
    refused(&env(json!(["A=B"])), "/process/env/0", "an object");
    refused(&env(json!({"A": "B"})), "/process/env", "a list");
    let from = json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]);
    refused(
        &env(from),
        "/process/env/0/valueFrom",
        "not silently taken as empty",
    );
    read(&env(
        json!([{"name": "A", "value": "1", "valueFrom": null}]),
    ));
}

#[test]
fn a_secret_is_in_no_problem() {
    let body = with_process(json!({"env": [{"name": "A=B", "value": "s3cret"}], "args": 7}));
    let problems = task(&body, &Path::ROOT).unwrap_err().problems;
    assert!(!format!("{problems:?}").contains("s3cret"));
}

#[test]
fn the_timeout_is_the_run_limit_wherever_it_stands() {
    let run = |body: &Value| spec(body).limits.run;
    let five = Some(Duration::from_secs(5));
    assert_eq!(run(&with(json!({}))), None);
    assert_eq!(run(&with_process(json!({"timeoutSeconds": 5}))), five);
    assert_eq!(run(&with(json!({"spec": {"timeoutSeconds": 5}}))), five);
    assert_eq!(run(&with(json!({"limits": {"runSeconds": 5}}))), five);
    let nested = json!({"name": "x", "spec": {"process": {"command": ["a"], "timeoutSeconds": 5}}});
    assert_eq!(run(&nested), five);
    let agreed = json!({"name": "x", "process": {"command": ["a"], "timeoutSeconds": 5},
        "spec": {"timeoutSeconds": 5}, "limits": {"runSeconds": 5.0}});
    assert_eq!(run(&agreed), five);
    for bad in [json!(0), json!(-1), json!(i64::MIN)] {
        refused(
            &with_process(json!({"timeoutSeconds": bad})),
            "/process/timeoutSeconds",
            "leave it out for no limit",
        );
    }
    refused(
        &with_process(json!({"timeoutSeconds": i64::MAX})),
        "/process/timeoutSeconds",
        "ten years",
    );
    refused(
        &with_process(json!({"timeoutSeconds": 1.5})),
        "/process/timeoutSeconds",
        "whole number",
    );
    refused(
        &with_process(json!({"timeoutSeconds": "5"})),
        "/process/timeoutSeconds",
        "not a text",
    );
    refused(
        &with(json!({"spec": {"timeoutSeconds": 0}})),
        "/spec/timeoutSeconds",
        "1 or more",
    );
}

#[test]
fn limits_are_seconds_with_fractions() {
    let body = with(
        json!({"limits": {"queueSeconds": 0.25, "startSeconds": 2, "idleSeconds": 3, "graceSeconds": 0}}),
    );
    let limits = spec(&body).limits;
    assert_eq!(limits.queue, Some(Duration::from_millis(250)));
    assert_eq!(limits.start, Some(Duration::from_secs(2)));
    assert_eq!(limits.idle, Some(Duration::from_secs(3)));
    assert_eq!(limits.run, None);
    assert_eq!(limits.grace, Duration::ZERO);
    assert_eq!(spec(&with(json!({}))).limits.grace, Duration::from_secs(10));
    assert_eq!(
        spec(&with(json!({"spec": {"limits": {"idleSeconds": 3}}})))
            .limits
            .idle,
        limits.idle
    );
    refused(
        &with(json!({"limits": {"idleSeconds": 0}})),
        "/limits/idleSeconds",
        "above 0",
    );
    refused(
        &with(json!({"limits": {"graceSeconds": -1}})),
        "/limits/graceSeconds",
        "negative",
    );
    refused(
        &with(json!({"limits": {"queueSeconds": 1e12}})),
        "/limits/queueSeconds",
        "ten years",
    );
    refused(&with(json!({"limits": 7})), "/limits", "an object");
}

#[test]
fn retries_are_bounded() {
    let body = with(
        json!({"retry": {"maxAttempts": 3, "backoffSeconds": 0.5, "maxBackoffSeconds": 4, "on": ["exit"]}}),
    );
    let retry = spec(&body).retry;
    assert_eq!(
        (retry.max_attempts, retry.on.as_slice()),
        (3, &["exit".to_owned()][..])
    );
    assert_eq!(retry.backoff, Duration::from_millis(500));
    assert_eq!(retry.max_backoff, Duration::from_secs(4));
    assert_eq!(spec(&with(json!({}))).retry.max_attempts, 1);
    assert_eq!(
        spec(&with(json!({"retry": {"maxAttempts": 2}})))
            .retry
            .on
            .len(),
        11
    );
    for bad in [0, -1, 101] {
        refused(
            &with(json!({"retry": {"maxAttempts": bad}})),
            "/retry/maxAttempts",
            "between 1 and 100",
        );
    }
    refused(
        &with(json!({"retry": {"on": ["canceled"]}})),
        "/retry/on/0",
        "cannot be retried",
    );
}

#[test]
fn labels_priority_and_runtime_are_ours() {
    let body = with(
        json!({"labels": {"team": "red", "note": "a, b"}, "priority": -5, "runtime": "process"}),
    );
    let found = spec(&body);
    assert_eq!(found.labels["team"], "red");
    assert_eq!(found.priority, -5);
    assert_eq!(found.runtime.unwrap().as_str(), "process");
    refused(&with(json!({"labels": {"a": 1}})), "/labels/a", "a text");
    refused(
        &with(json!({"labels": {"a,b": "1"}})),
        "/labels/a,b",
        "no comma",
    );
    refused(&with(json!({"labels": {"": "1"}})), "/labels/", "1 to 256");
    refused(
        &with(json!({"labels": {"a": "x".repeat(1025)}})),
        "/labels/a",
        "1024",
    );
    let many: serde_json::Map<String, Value> =
        (0..65).map(|n| (n.to_string(), json!("x"))).collect();
    refused(&with(json!({"labels": many})), "/labels", "64 are allowed");
    refused(
        &with(json!({"priority": 1_i64 << 40})),
        "/priority",
        "between",
    );
    refused(&with(json!({"priority": 0.5})), "/priority", "whole number");
    refused(&with(json!({"runtime": "No Such"})), "/runtime", "");
}

#[test]
fn documents_are_kept_as_they_are() {
    let container = json!({"image": "ubuntu:latest", "command": null, "args": ["x"], "volumeMounts": [{"name": "a"}]});
    let found = spec(&json!({"name": "x", "spec": {"container": container}}));
    let Work::Document { kind, json } = found.work else {
        panic!("not a document")
    };
    assert_eq!(kind, "container");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), container);
    refused(
        &json!({"name": "x", "spec": {"container": {"image": ""}}}),
        "/spec/container/image",
        "name an image",
    );
    refused(
        &json!({"name": "x", "spec": {"container": {"image": "a", "command": "ls"}}}),
        "/spec/container/command",
        "a list",
    );
    let pod = json!({"name": "x", "podTemplateSpec": {"spec": {"containers": [{"name": "main"}]}}});
    assert_eq!(spec(&pod).work.kind(), "podTemplateSpec");
    refused(
        &json!({"name": "x", "podTemplateSpec": {}}),
        "/podTemplateSpec/spec/containers",
        "at least one",
    );
}

#[test]
fn a_confinement_is_read_from_both_places() {
    let body = with(json!({
        "resources": {"cpu": "1500m", "memory": "64Mi", "pids": 20, "openFiles": 100, "fileSize": "1k"},
        "user": {"uid": 7, "groups": [8, 9]},
        "noNewPrivileges": true,
        "readOnlyPaths": ["/usr"],
        "spec": {"bestEffort": true},
    }));
    let confinement = spec(&body).confinement;
    assert_eq!(confinement.cpu_millis, Some(1500));
    assert_eq!(confinement.memory_bytes, Some(64 << 20));
    assert_eq!(confinement.pids, Some(20));
    assert_eq!(confinement.open_files, Some(100));
    assert_eq!(confinement.file_size_bytes, Some(1000));
    let user = confinement.user.as_ref().unwrap();
    assert_eq!(
        (user.uid, user.gid, user.groups.as_slice()),
        (7, 7, &[8, 9][..])
    );
    assert!(confinement.no_new_privileges && confinement.best_effort);
    assert_eq!(confinement.read_only_paths, ["/usr"]);
    assert!(spec(&with(json!({}))).confinement.is_empty());
    for (written, uid, gid) in [(json!(5), 5, 5), (json!("5"), 5, 5), (json!("5:6"), 5, 6)] {
        let user = spec(&with(json!({"user": written}))).confinement.user;
        assert_eq!(user.map(|user| (user.uid, user.gid)), Some((uid, gid)));
    }
}

#[test]
fn a_confinement_that_means_nothing_is_refused() {
    let resources = |value: Value| with(json!({"resources": value}));
    refused(&resources(json!({"cpu": 0})), "/resources/cpu", "above 0");
    refused(
        &resources(json!({"cpu": "many"})),
        "/resources/cpu",
        "an amount",
    );
    refused(
        &resources(json!({"cpu": 5000})),
        "/resources/cpu",
        "a thousand cores",
    );
    refused(
        &resources(json!({"memory": "5k"})),
        "/resources/memory",
        "at least 1Mi",
    );
    refused(
        &resources(json!({"pids": 0})),
        "/resources/pids",
        "between 1",
    );
    refused(
        &resources(json!({"gpu": 1})),
        "/resources/gpu",
        "no resource that can be limited",
    );
    refused(&with(json!({"user": "root"})), "/user", "not looked up");
    refused(
        &with(json!({"user": 4_294_967_295_u32})),
        "/user",
        "a number",
    );
    refused(&with(json!({"user": {"gid": 1}})), "/user/uid", "missing");
    refused(
        &with(json!({"noNewPrivileges": "yes"})),
        "/noNewPrivileges",
        "true or false",
    );
    refused(
        &with(json!({"readOnlyPaths": ["usr"]})),
        "/readOnlyPaths/0",
        "absolute",
    );
    refused(
        &with(json!({"user": 1, "spec": {"user": 2}})),
        "/user",
        "contradicts",
    );
}

#[test]
fn what_only_the_runtime_understands_is_kept_as_it_is() {
    let body = with(json!({"config": {"target": {"pid": 7}}}));
    assert_eq!(spec(&body).config, r#"{"target":{"pid":7}}"#);
    refused(&with(json!({"config": "text"})), "/config", "an object");
    let long = "x".repeat(70_000);
    refused(
        &with(json!({"config": {"a": long}})),
        "/config",
        "are allowed",
    );
}

#[test]
fn a_pod_says_its_limits_in_its_own_words() {
    let pod = |limits: Value| {
        let template = json!({"spec": {"containers": [{"name": "main", "image": "a"}],
            "activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 3}});
        spec(&json!({"name": "x", "podTemplateSpec": template, "limits": limits})).limits
    };
    assert_eq!(pod(Value::Null).run, Some(Duration::from_secs(60)));
    assert_eq!(pod(Value::Null).grace, Duration::from_secs(3));
    let own = pod(json!({"runSeconds": 5, "graceSeconds": 1}));
    assert_eq!(
        (own.run, own.grace),
        (Some(Duration::from_secs(5)), Duration::from_secs(1))
    );
    let valued = json!({"name": "x", "spec": {"container": {"image": "a", "env": [{"name": "A", "valueFrom": {}}]}}});
    // Its runtime resolves it, or refuses it.
    assert_eq!(spec(&valued).work.kind(), "container");
}

#[test]
fn a_timeout_beside_the_name_counts_and_must_agree() {
    let run = |body: Value| spec(&with(body)).limits.run;
    assert_eq!(
        run(json!({"timeoutSeconds": 6})),
        Some(Duration::from_secs(6))
    );
    refused(
        &with(json!({"timeoutSeconds": 5, "spec": {"timeoutSeconds": 9}})),
        "",
        "contradict each other",
    );
    refused(
        &with(json!({"timeoutSeconds": 0})),
        "/timeoutSeconds",
        "1 or more",
    );
}
