//! Variables and references to them.

use super::*;

#[test]
fn values_come_from_fields_and_limits() {
    let document = json!({
        "metadata": {"labels": {"app": "web"}, "annotations": {"a.b/c": "note"}},
        "spec": {"containers": [
            {"name": "one", "image": "a", "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}},
             "env": [
                {"name": "NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                {"name": "SPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                {"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "TEAM", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}},
                {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['a.b/c']"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "MILLIS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                {"name": "MIB", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "BYTES", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "0"}}},
                {"name": "URL", "value": "http://$(IP)/$(APP)"},
                {"name": "EMPTY"},
            ]},
            {"name": "two", "image": "a", "env": [
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"containerName": "one", "resource": "limits.cpu"}}},
            ]},
        ]},
    });
    let plan = pod(&document);
    let pairs = env_of(&plan, 0, Some("10.0.0.7"));
    let expected = [
        ("NAME", "build"),
        ("SPACE", "default"),
        ("UID", "0198b0e5-0000-7000-8000-000000000001"),
        ("APP", "web"),
        ("TEAM", "blue"),
        ("NOTE", "note"),
        ("IP", "10.0.0.7"),
        ("CPU", "2"),
        ("MILLIS", "1500"),
        ("MIB", "1024"),
        ("BYTES", "1073741824"),
        ("URL", "http://10.0.0.7/web"),
        ("EMPTY", ""),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(pairs, expected);
    assert_eq!(env_of(&plan, 1, None), [("CPU".to_owned(), "2".to_owned())]);
    let sentence = plan.containers[0].request(None).unwrap_err();
    assert!(sentence.contains("IP wants status.podIP"), "{sentence}");
}

#[test]
fn references_reach_what_stands_above_and_no_further() {
    let plan = pod(&json!({"spec": {"containers": [{
        "name": "one",
        "image": "a",
        "command": ["echo", "$(A)", "$$(A)", "$(NOWHERE)", "$(date)"],
        "args": ["$(B)"],
        "env": [
            {"name": "B", "value": "<$(A)>"},
            {"name": "A", "value": "1"},
            {"name": "C", "value": "$(A)$(B)"},
            {"name": "A", "value": "$(A)2"},
            {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}},
        ],
    }]}}));
    let request = plan.containers[0].request(None).unwrap();
    assert_eq!(
        request.command,
        ["echo", "12", "$(A)", "$(NOWHERE)", "$(date)"]
    );
    assert_eq!(request.args, ["<$(A)>"]);
    let values: Vec<_> = request.env.iter().map(|it| it.value.as_str()).collect();
    assert_eq!(values, ["<$(A)>", "1", "1<$(A)>", "12", "blue"]);
}

#[test]
fn the_words_of_a_container_that_is_no_pod_are_passed_on_as_they_are() {
    let plan = container(&json!({
        "image": "a",
        "command": ["sh", "-c", "kill -9 $$; echo $(A)"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)"}],
    }));
    let request = plan.containers[0].request(None).unwrap();
    assert_eq!(request.command, ["sh", "-c", "kill -9 $$; echo $(A)"]);
    assert_eq!(request.env[1].value, "$(A)");
}

#[test]
fn what_cannot_be_resolved_is_refused_by_name() {
    for (source, place, text) in [
        (
            json!({"secretKeyRef": {"name": "s", "key": "k"}}),
            "/valueFrom/secretKeyRef",
            "secretKeyRef",
        ),
        (
            json!({"configMapKeyRef": {"name": "s", "key": "k"}}),
            "/valueFrom/configMapKeyRef",
            "configMapKeyRef",
        ),
        (
            json!({"fileKeyRef": {}}),
            "/valueFrom/fileKeyRef",
            "fileKeyRef",
        ),
        (json!({}), "/valueFrom", "one source"),
        (
            json!({"fieldRef": {}, "secretKeyRef": {}}),
            "/valueFrom",
            "one source",
        ),
        (
            json!({"fieldRef": {}}),
            "/valueFrom/fieldRef/fieldPath",
            "name a field",
        ),
        (
            json!({"fieldRef": {"fieldPath": "spec.nodeName"}}),
            "/valueFrom/fieldRef/fieldPath",
            "spec.nodeName",
        ),
        (
            json!({"fieldRef": {"fieldPath": "status.hostIP"}}),
            "/valueFrom/fieldRef/fieldPath",
            "status.hostIP",
        ),
        (
            json!({"fieldRef": {"fieldPath": "metadata.labels['nope']"}}),
            "/valueFrom/fieldRef/fieldPath",
            "no such key",
        ),
        (
            json!({"fieldRef": {"fieldPath": "metadata.labels"}}),
            "/valueFrom/fieldRef/fieldPath",
            "metadata.labels",
        ),
        (
            json!({"resourceFieldRef": {"resource": "limits.cpu"}}),
            "/valueFrom/resourceFieldRef/resource",
            "not limited",
        ),
        (
            json!({"resourceFieldRef": {"resource": "requests.cpu"}}),
            "/valueFrom/resourceFieldRef/resource",
            "requests.cpu",
        ),
        (
            json!({"resourceFieldRef": {"resource": "limits.cpu", "containerName": "x"}}),
            "/valueFrom/resourceFieldRef/containerName",
            "no container",
        ),
        (
            json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "x"}}),
            "/valueFrom/resourceFieldRef/divisor",
            "quantity",
        ),
    ] {
        let env = json!([{"name": "A", "valueFrom": source}]);
        let document = pod_of(json!({"env": env}));
        let place = format!("/podTemplateSpec/spec/containers/0/env/0{place}");
        refused(POD, &document, &place, text);
    }
    let both = json!({"name": "A", "value": "x", "valueFrom": {"fieldRef": {}}});
    let document = json!({"image": "a", "env": [both, {"name": "A=B", "value": ""}]});
    let found = places(CONTAINER, &document);
    assert_eq!(
        found,
        ["/container/env/0/valueFrom", "/container/env/1/name"]
    );
    let address = json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    let document = json!({"image": "a", "network": "host", "env": address});
    refused(
        CONTAINER,
        &document,
        "/container/env/0/valueFrom/fieldRef/fieldPath",
        "network",
    );
}

#[test]
fn names_and_values_that_no_process_can_have_are_refused() {
    for (entry, field, text) in [
        (json!({"name": ""}), "name", "must name"),
        (json!({"value": "x"}), "name", "must name"),
        (json!({"name": null, "value": "x"}), "name", "must name"),
        (json!({"name": "A=B", "value": "x"}), "name", "="),
        (json!({"name": "A\0B", "value": "x"}), "name", "NUL"),
        (json!({"name": "A", "value": "x\0y"}), "value", "NUL"),
    ] {
        let env = json!([{"name": "BEFORE", "value": ""}, entry]);
        let place = format!("/container/env/1/{field}");
        let document = json!({"image": "a", "env": env});
        refused(CONTAINER, &document, &place, text);
        let place = format!("/podTemplateSpec/spec/containers/0/env/1/{field}");
        refused(POD, &pod_of(json!({"env": env})), &place, text);
    }
}

#[test]
fn references_to_references_do_not_fill_the_memory() {
    let mut env = vec![json!({"name": "A0", "value": "x".repeat(100)})];
    for number in 1..12 {
        let value = format!("$(A{})", number - 1).repeat(10);
        env.push(json!({"name": format!("A{number}"), "value": value}));
    }
    let with = |env: &[serde_json::Value], words: &str| {
        pod(&json!({"spec": {"containers": [
            {"name": "one", "image": "a", "env": env, "command": ["echo", words]},
        ]}}))
    };
    let sentence = with(&env, "").containers[0].request(None).unwrap_err();
    assert!(sentence.contains("up to A4"), "{sentence}");
    let many = "$(A3)".repeat(10_000);
    let sentence = with(&env[..4], &many).containers[0]
        .request(None)
        .unwrap_err();
    assert!(sentence.contains("command and args"), "{sentence}");
    assert!(with(&env[..3], "$(A2)").containers[0].request(None).is_ok());
}
