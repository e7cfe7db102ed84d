//! Pods as controllers send them.

use taskwright_plugin_sdk::container::Network;

use super::*;

/// What a Go client sends, with what the API server fills in.
fn realistic() -> Value {
    serde_json::from_str(include_str!("pod.json")).unwrap()
}

#[test]
fn a_pod_as_controllers_send_it_is_taken() {
    let plan = pod(&realistic());
    assert!(plan.is_pod);
    assert_eq!(plan.init, 1);
    assert_eq!(plan.sandbox.network, Network::Pod);
    assert_eq!(plan.sandbox.hostname.as_deref(), Some("box"));
    assert!(plan.sandbox.share_pids);
    let names: Vec<_> = plan
        .containers
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["setup", "main", "helper"]);
    // Wanted fresh by one of two.
    let images: Vec<_> = plan
        .images
        .iter()
        .map(|one| (one.name.as_str(), one.policy))
        .collect();
    assert_eq!(
        images,
        [
            ("busybox:1", PullPolicy::Always),
            ("python:3.12", PullPolicy::IfNotPresent)
        ]
    );
    let main = plan.containers[1].request(None).unwrap();
    assert_eq!(main.working_dir.as_deref(), Some("/work"));
    assert_eq!(main.resources.cpu_millis, Some(2000));
    assert_eq!(main.resources.memory_bytes, Some(1 << 30));
    assert_eq!(
        (main.identity.uid, main.identity.gid),
        (Some(1000), Some(1000))
    );
    assert_eq!(main.identity.groups, [10, 20]);
    assert!(main.no_new_privileges && main.read_only_root && !main.privileged);
    assert_eq!(main.drop_capabilities, ["ALL"]);
    assert_eq!(main.add_capabilities, ["NET_BIND_SERVICE"]);
    assert_eq!(main.mounts[0], empty_dir("work", "/work"));
    let helper = plan.containers[2].request(None).unwrap();
    assert_eq!(
        (helper.identity.uid, helper.identity.gid),
        (Some(65534), Some(65534))
    );
    assert!(!helper.no_new_privileges);
}

#[test]
fn the_machines_network_is_asked_for() {
    let plan = pod(&json!({"spec": {"hostNetwork": true, "containers": [
        {"name": "one", "image": "a", "ports": [{"containerPort": 80, "hostPort": 80}]}]}}));
    assert_eq!(plan.sandbox.network, Network::Host);
}

#[test]
fn lists_of_containers_are_checked_as_a_whole() {
    let containers = "/podTemplateSpec/spec/containers";
    refused(
        POD,
        &json!({"spec": {"containers": []}}),
        containers,
        "at least one",
    );
    refused(POD, &json!({"spec": {}}), containers, "at least one");
    refused(
        POD,
        &json!({"spec": {"containers": "x"}}),
        containers,
        "a list",
    );
    let many: Vec<_> = (0..17)
        .map(|n| json!({"name": format!("c{n}"), "image": "a"}))
        .collect();
    refused(
        POD,
        &json!({"spec": {"containers": many}}),
        containers,
        "16",
    );
    let twice = json!({"spec": {
        "initContainers": [{"name": "a", "image": "a"}],
        "containers": [{"name": "a", "image": "a"}],
    }});
    refused(
        POD,
        &twice,
        "/podTemplateSpec/spec/containers/0/name",
        "another",
    );
    for name in [
        json!(""),
        json!("A"),
        json!("a_b"),
        json!("-a"),
        json!("x".repeat(64)),
        Value::Null,
    ] {
        let document = json!({"spec": {"containers": [{"name": name, "image": "a"}]}});
        refused(
            POD,
            &document,
            "/podTemplateSpec/spec/containers/0/name",
            "DNS label",
        );
    }
    let imageless = json!({"spec": {"initContainers": [{"name": "a"}], "containers": [{"name": "b", "image": "b"}]}});
    refused(
        POD,
        &imageless,
        "/podTemplateSpec/spec/initContainers/0/image",
        "an image",
    );
}

#[test]
fn what_could_not_start_is_refused_in_every_list() {
    let bad = json!({
        "name": "a", "image": "A/b c", "workingDir": "tmp",
        "volumeMounts": [{"name": "v", "mountPath": "/proc/x"}],
        "resources": {"limits": {"memory": "5Mi"}},
        "securityContext": {"capabilities": {"drop": ["CAP_NOTHING"]}},
        "env": [{"name": "", "value": "x"}],
    });
    let fields = [
        "env/0/name",
        "image",
        "resources/limits/memory",
        "securityContext/capabilities/drop/0",
        "volumeMounts/0/mountPath",
        "workingDir",
    ];
    for list in ["initContainers", "containers"] {
        let good = json!([{"name": "b", "image": "a"}]);
        let mut spec = json!({"volumes": [{"name": "v"}], "containers": good});
        spec[list] = json!([bad]);
        let mut found = places(POD, &json!({"spec": spec}));
        found.sort();
        let expected = fields.map(|it| format!("/podTemplateSpec/spec/{list}/0/{it}"));
        assert_eq!(found, expected);
    }
}

#[test]
fn a_user_that_must_not_be_root_is_known() {
    let place = "/podTemplateSpec/spec/containers/0/securityContext";
    for (context, text) in [
        (json!({"runAsNonRoot": true, "runAsUser": 0}), "user 0"),
        (json!({"runAsNonRoot": true}), "not known here"),
        (json!({"runAsGroup": 5}), "no user"),
    ] {
        refused(
            POD,
            &pod_of(json!({"securityContext": context})),
            place,
            text,
        );
    }
    let mut document = pod_of(json!({"securityContext": {"runAsNonRoot": false}}));
    document["spec"]["securityContext"] = json!({"runAsNonRoot": true});
    pod(&document);
    document["spec"]["securityContext"] = json!({"runAsUser": -1, "supplementalGroups": ["x"]});
    let expected = ["supplementalGroups/0", "runAsUser"];
    let mut found = places(POD, &document);
    found.sort();
    let mut expected = expected.map(|it| format!("/podTemplateSpec/spec/securityContext/{it}"));
    expected.sort();
    assert_eq!(found, expected);
}
