//! Pods, as live controllers send them and read them.

use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, reason, state};
use taskwright_tests::{SOON, eventually};

use super::{Contained, cause, fields, told};

fn condition<'a>(task: &'a Value, kind: &str) -> &'a str {
    let conditions = task["podStatus"]["conditions"].as_array().unwrap();
    let mut found = conditions.iter().filter(|one| one["type"] == kind);
    let only = found.next().unwrap();
    assert!(found.next().is_none(), "{kind} is told twice: {task:#}");
    only["status"].as_str().unwrap()
}

fn container_state<'a>(task: &'a Value, name: &str) -> &'a Value {
    let statuses = task["podStatus"]["containerStatuses"].as_array().unwrap();
    let mut found = statuses.iter().filter(|one| one["name"] == name);
    &found.next().unwrap()["state"]
}

/// What a controller reads of a pod: phase, both conditions, whether each container is ready.
fn seen(task: &Value) -> (&str, &str, &str, Vec<bool>) {
    let statuses = task["podStatus"]["containerStatuses"].as_array().unwrap();
    (
        task["podStatus"]["phase"].as_str().unwrap(),
        condition(task, "Ready"),
        condition(task, "ContainersReady"),
        statuses.iter().map(|one| one["ready"] == true).collect(),
    )
}

#[test]
fn a_pod_is_told_as_controllers_read_it() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let wait = "until [ -e /gate/open ]; do sleep 0.05; done";
    let mut body = it.pod(
        "batch-0",
        &[("main", wait), ("side", &format!("{wait}; exit 3"))],
        json!({
            "volumes": [{"name": "gate", "emptyDir": {}}],
            "restartPolicy": "Never", "nodeSelector": {"a": "b"},
            "tolerations": [{"operator": "Exists"}], "serviceAccountName": "default",
        }),
    );
    for container in body["podTemplateSpec"]["spec"]["containers"]
        .as_array_mut()
        .unwrap()
    {
        container["volumeMounts"] = json!([{"name": "gate", "mountPath": "/gate"}]);
    }
    let created = &client.post("/setTasks", &json!([body])).expect(200).json()[0];
    assert_eq!(
        created["podTemplateSpec"], body["podTemplateSpec"],
        "told as it was sent"
    );
    assert_eq!(created["process"], Value::Null);
    let (phase, ..) = seen(created);
    assert!(["Pending", "Running"].contains(&phase), "{created:#}");

    let mut last = Value::Null;
    eventually(SOON, "both containers are ready", || {
        last = client.get("/getTasks").json()[0].clone();
        seen(&last) == ("Running", "True", "True", vec![true, true])
    });
    assert_eq!(state(&last), "running");
    let names: Vec<&Value> = last["podStatus"]["containerStatuses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["main", "side"], "in their order");
    for name in ["main", "side"] {
        let state = container_state(&last, name).as_object().unwrap();
        assert_eq!(state.len(), 1, "exactly one state: {last:#}");
        assert!(state["running"]["startedAt"].is_string(), "{last:#}");
    }
    let changed = &last["podStatus"]["conditions"][0]["lastTransitionTime"];
    assert!(
        changed.as_str().is_some_and(|time| time.len() == 20),
        "{last:#}"
    );

    let rootfs = it.daemon.home().data().join(".taskwright/containers");
    let id = last["id"].as_str().unwrap();
    std::fs::write(rootfs.join(id).join("1/dirs/gate/open"), "").unwrap();
    let ended = client.until_ended("batch-0", SOON);
    assert_eq!(
        seen(&ended),
        ("Failed", "False", "False", vec![false, false])
    );
    assert_eq!(exit_code(&ended), 3, "the first that did not end with 0");
    assert!(told(&ended).contains("side"), "{ended:#}");
    for (name, code, word) in [("main", 0, "Succeeded"), ("side", 3, "Failed")] {
        let end = &container_state(&ended, name)["terminated"];
        assert_eq!(
            (&end["exitCode"], &end["reason"]),
            (&json!(code), &json!(word))
        );
        assert!(end["startedAt"].is_string() && end["finishedAt"].is_string());
    }
}

#[test]
fn a_pod_that_succeeds_and_one_that_never_can() {
    let Some(it) = Contained::start() else { return };
    let ended = it
        .client()
        .run(&it.pod("good", &[("a", "true"), ("b", "true")], json!({})));
    assert_eq!(
        seen(&ended),
        ("Succeeded", "False", "False", vec![false, false])
    );
    assert_eq!(
        (exit_code(&ended), reason(&ended).as_str()),
        (0, "Succeeded")
    );

    let mut body = it.pod("absent", &[("a", "true"), ("b", "true")], json!({}));
    body["podTemplateSpec"]["spec"]["containers"][1]["image"] = json!(it.containerd.absent_image());
    let ended = it.client().run(&body);
    assert_eq!(cause(&ended), "image-unavailable", "{ended:#}");
    assert_eq!(ended["podStatus"]["phase"], "Failed");
}

#[test]
fn containers_of_initialization_run_first_and_in_order() {
    let Some(it) = Contained::start() else { return };
    let mount = json!([{"name": "work", "mountPath": "/box"}]);
    let mounted = |name: &str, script: &str| {
        let mut container = it.in_pod(name, script);
        container["volumeMounts"] = mount.clone();
        container
    };
    let pod = |name: &str, init: Vec<Value>, main: Value| {
        json!({"name": name, "podTemplateSpec": {"spec": {
            "volumes": [{"name": "work", "emptyDir": {}}],
            "initContainers": init, "containers": [main],
        }}})
    };
    let body = pod(
        "ordered",
        vec![
            mounted("first", "echo first >> /box/order"),
            mounted("second", "echo second >> /box/order"),
        ],
        mounted("main", "echo main >> /box/order; cat /box/order"),
    );
    let ended = it.client().run(&body);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    assert_eq!(it.printed("ordered"), "first\nsecond\nmain\n");
    assert_eq!(
        ended["podStatus"]["containerStatuses"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let body = pod(
        "failing",
        vec![
            mounted("good", "true"),
            mounted("bad", "echo why >&2; exit 4"),
            mounted("never", "echo never"),
        ],
        mounted("main", "echo main"),
    );
    let ended = it.client().run(&body);
    assert_eq!(exit_code(&ended), 4, "{ended:#}");
    assert!(told(&ended).contains("init container bad"), "{ended:#}");
    assert_eq!(it.printed("failing"), "");
    let logs = it.client().get("/tasks/failing/logs?stream=stderr").text();
    assert_eq!(logs, "why\n");
    assert_eq!(ended["podStatus"]["phase"], "Failed");
    let main = container_state(&ended, "main");
    assert_eq!(main["waiting"]["reason"], "PodInitializing", "{ended:#}");
    assert_eq!(main["terminated"], Value::Null, "{ended:#}");

    let slow = pod(
        "slow",
        vec![mounted("slow-one", "sleep 600")],
        mounted("main", "true"),
    );
    it.client().submit(&slow);
    eventually(SOON, "its init container is told", || {
        let task = it.client().task("slow");
        state(&task) == "waiting"
            && task["attempts"][0]["note"]
                .as_str()
                .is_some_and(|note| note.contains("slow-one"))
    });
    let task = it.client().task("slow");
    assert_eq!(
        seen(&task),
        ("Pending", "False", "False", vec![false]),
        "{task:#}"
    );
    assert_eq!(
        container_state(&task, "main")["waiting"]["reason"],
        "PodInitializing"
    );
    it.client().post("/tasks/slow/stop", &json!({})).expect(200);
    let ended = it.client().until_ended("slow", SOON);
    assert_eq!(cause(&ended), "canceled", "{ended:#}");
}

#[test]
fn variables_from_elsewhere_are_resolved() {
    let Some(it) = Contained::start() else { return };
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let script = "echo $NAME; echo $LABEL; echo $NOTE; echo $CPU $MEMORY; echo $UID_OF; \
                  echo $IP; grep -o \"$IP\\b\" /proc/net/fib_trie | head -n 1";
    let mut container = it.in_pod("main", script);
    container["resources"] = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
    container["env"] = json!([
        field("NAME", "metadata.name"),
        field("LABEL", "metadata.labels['app']"),
        field("NOTE", "metadata.annotations['note']"),
        field("UID_OF", "metadata.uid"),
        field("IP", "status.podIP"),
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]);
    let body = json!({"name": "vars", "podTemplateSpec": {
        "metadata": {"name": "pod-7", "labels": {"app": "web"}, "annotations": {"note": "n"}},
        "spec": {"containers": [container]},
    }});
    let ended = it.client().run(&body);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    let printed = it.printed("vars");
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines.get(..4).unwrap(),
        ["pod-7", "web", "n", "500 64"],
        "{printed}"
    );
    assert_eq!(lines[4], ended["id"].as_str().unwrap());
    assert!(
        lines[5].starts_with("10.") && lines[5] == lines[6].trim(),
        "{printed}"
    );
}

#[test]
fn what_would_be_silently_wrong_is_refused_at_its_field() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let base = "/podTemplateSpec/spec";
    let env = |from: Value| json!({"env": [{"name": "A", "valueFrom": from}]});
    for (spec, container, field) in [
        (
            json!({"restartPolicy": "Always"}),
            json!({}),
            "restartPolicy",
        ),
        (json!({"hostPID": true}), json!({}), "hostPID"),
        (
            json!({"runtimeClassName": "gvisor"}),
            json!({}),
            "runtimeClassName",
        ),
        (
            json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}),
            json!({}),
            "volumes/0/configMap",
        ),
        (
            json!({}),
            env(json!({"secretKeyRef": {"name": "s", "key": "k"}})),
            "containers/0/env/0/valueFrom/secretKeyRef",
        ),
        (
            json!({}),
            env(json!({"fieldRef": {"fieldPath": "spec.nodeName"}})),
            "containers/0/env/0/valueFrom/fieldRef/fieldPath",
        ),
        (
            json!({"hostNetwork": true}),
            env(json!({"fieldRef": {"fieldPath": "status.podIP"}})),
            "containers/0/env/0/valueFrom/fieldRef/fieldPath",
        ),
        (
            json!({}),
            json!({"livenessProbe": {"exec": {"command": ["true"]}}}),
            "containers/0/livenessProbe",
        ),
        (
            json!({}),
            json!({"volumeMounts": [{"name": "unlisted", "mountPath": "/x"}]}),
            "containers/0/volumeMounts/0/name",
        ),
        (
            json!({}),
            json!({"envFrom": [{"secretRef": {"name": "s"}}]}),
            "containers/0/envFrom",
        ),
        (
            json!({}),
            json!({"name": "Not A Label"}),
            "containers/0/name",
        ),
    ] {
        let mut body = it.pod("wrong", &[("main", "true")], spec);
        let first = &mut body["podTemplateSpec"]["spec"]["containers"][0];
        for (key, value) in container.as_object().unwrap() {
            first[key] = value.clone();
        }
        let refused = client.post("/tasks", &body).expect(400).json();
        assert_eq!(fields(&refused), [format!("{base}/{field}")], "{refused:#}");
        // A controller's way of asking is answered with 200 and the failure in its place.
        let set = client.post("/setTasks", &json!([body])).expect(200).json();
        let message = set[0]["problem"]["message"].as_str().unwrap();
        assert!(message.contains(field), "{set:#}");
        assert_eq!(state(&set[0]), "terminated", "{set:#}");
    }
    assert_eq!(client.get("/getTasks").json(), json!([]));
}

#[test]
fn graces_and_deadlines_of_a_pod_hold() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let body = it.pod(
        "deaf",
        &[("main", deaf)],
        json!({"terminationGracePeriodSeconds": 1}),
    );
    let created = client.submit(&body);
    assert_eq!(created["limits"]["graceSeconds"], 1.0, "{created:#}");
    it.until_printed("deaf", "ready");
    let begun = std::time::Instant::now();
    client.post("/tasks/deaf/stop", &json!({})).expect(200);
    let ended = client.until_ended("deaf", SOON);
    let took = begun.elapsed().as_secs_f64();
    assert!((0.9..9.0).contains(&took), "{took}");
    assert_eq!(ended["podStatus"]["phase"], "Failed");

    let body = it.pod(
        "late",
        &[("main", "sleep 600")],
        json!({"activeDeadlineSeconds": 1}),
    );
    client.submit(&body);
    let ended = client.until_ended("late", SOON);
    assert_eq!(
        (cause(&ended), &ended["outcome"]["limit"]),
        ("timeout", &json!("run"))
    );
    assert_eq!(
        (exit_code(&ended), reason(&ended).as_str()),
        (137, "TaskTimeout")
    );
    assert_eq!(seen(&ended), ("Failed", "False", "False", vec![false]));
}

#[test]
fn pods_reach_each_other_by_their_addresses() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let ip = json!([{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    let mut server = it.pod(
        "server",
        // Two containers of a pod share its network: one serves, the other says where.
        &[
            (
                "www",
                "mkdir /tmp/w; echo hello > /tmp/w/index; httpd -f -p 8080 -h /tmp/w",
            ),
            (
                "who",
                "until wget -q -O - http://127.0.0.1:8080/index; do sleep 0.1; done; \
                   echo at=$IP; sleep 600",
            ),
        ],
        json!({}),
    );
    server["podTemplateSpec"]["spec"]["containers"][1]["env"] = ip;
    client.submit(&server);
    it.until_printed("server", "at=");
    let printed = it.printed("server");
    assert!(printed.contains("hello"), "{printed}");
    let address = printed
        .lines()
        .find_map(|line| line.strip_prefix("at="))
        .unwrap()
        .to_owned();
    let asking = format!("printf 'GET /index HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 8080");
    let ended = client.run(&it.shell("client", &asking));
    assert!(it.printed("client").ends_with("hello\n"), "{ended:#}");
}

#[test]
fn a_pod_may_share_its_processes_and_what_it_may_is_said_per_container() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let body = it.pod(
        "shared",
        &[
            ("a", "exec sleep 601"),
            (
                "b",
                "until ps | grep -q 'sleep 601'; do sleep 0.1; done; \
                                          kill $(pidof sleep); exit 5",
            ),
        ],
        json!({"shareProcessNamespace": true}),
    );
    client.submit(&body);
    let ended = client.until_ended("shared", SOON);
    let b = &container_state(&ended, "b")["terminated"];
    assert_eq!(b["exitCode"], 5, "{ended:#}");
    let mut body = it.pod(
        "context",
        &[("a", "id -u; touch /x || echo kept")],
        json!({"securityContext": {"runAsUser": 1000}}),
    );
    body["podTemplateSpec"]["spec"]["containers"][0]["securityContext"] =
        json!({"runAsUser": 0, "readOnlyRootFilesystem": true});
    let ended = client.run(&body);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    assert_eq!(it.printed("context"), "0\nkept\n");
    body["name"] = json!("more");
    body["podTemplateSpec"]["spec"]["containers"][0]["securityContext"] =
        json!({"privileged": true});
    let answer = client.post("/tasks", &body).expect(400);
    assert!(answer.text().contains("privileged"), "{}", answer.text());
}
