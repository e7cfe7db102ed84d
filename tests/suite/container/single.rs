//! A container by itself, as the guide describes one: what of its document is carried out.

use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, message, reason, state};
use taskwright_tests::{SOON, eventually};

use super::{Contained, cause, fields, groups, told};

#[test]
fn the_example_of_the_guide_runs() {
    let Some(it) = Contained::start() else { return };
    // The guide lists no volume of that name: it is an empty directory.
    let body = it.container(
        "my-container-task",
        json!({
            "command": ["/bin/sh", "-c"],
            "args": ["echo $http_proxy && echo curl > /data/installed && ls -A /data"],
            "env": [{"name": "http_proxy", "value": "http://myproxy.com:5758"}],
            "volumeMounts": [{"name": "data-volume", "mountPath": "/data"}],
        }),
    );
    let created = it.client().submit(&body);
    assert!(
        ["waiting", "running"].contains(&state(&created)),
        "{created:#}"
    );
    assert_eq!(created["spec"]["container"], body["spec"]["container"]);
    assert_eq!(created["process"], Value::Null);
    assert_eq!(created["podStatus"], Value::Null);
    let ended = it.client().until_ended("my-container-task", SOON);
    assert_eq!(
        (exit_code(&ended), reason(&ended).as_str()),
        (0, "Succeeded"),
        "{ended:#}"
    );
    assert_eq!(ended["runtime"], "container");
    assert_eq!(
        it.printed("my-container-task"),
        "http://myproxy.com:5758\ninstalled\n"
    );
}

#[test]
fn exits_and_signals_are_told_as_of_a_process() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    for code in [0, 1, 42, 255] {
        let body = it.shell(&format!("exit-{code}"), &format!("exit {code}"));
        client.submit(&body);
    }
    // A first process takes no signal that it does not ask for, so another one has it.
    client.submit(&it.shell("killed", "sleep 60 & kill -9 $!; wait $!; exit $?"));
    for code in [0, 1, 42, 255] {
        let ended = client.until_ended(&format!("exit-{code}"), SOON);
        assert_eq!((exit_code(&ended), cause(&ended)), (code, "exit"));
        let times = &ended["processStatus"]["terminated"];
        assert!(
            times["startedAt"].is_string() && times["finishedAt"].is_string(),
            "{times:#}"
        );
    }
    assert_eq!(exit_code(&client.until_ended("killed", SOON)), 137);
}

#[test]
fn a_container_has_its_words_variables_and_directory() {
    let Some(it) = Contained::start() else { return };
    let body = it.container(
        "words",
        json!({
            "command": ["/bin/sh", "-c", "echo $0 $1; pwd; echo $A $B; hostname"],
            "args": ["zero", "$(A)"],
            "workingDir": "/tmp",
            "env": [{"name": "A", "value": "a"}, {"name": "B", "value": "$(A)b"}],
            "hostname": "box",
        }),
    );
    let ended = it.client().run(&body);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    assert_eq!(it.printed("words"), "zero $(A)\n/tmp\na $(A)b\nbox\n");
    // Without a command the image's own begins, with its arguments.
    let own = json!({"image": it.containerd.distroless_image(), "args": ["echo", "own"]});
    let ended = it.client().run(&it.container("own", own));
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    assert_eq!(it.printed("own"), "own\n");
}

#[test]
fn only_paths_that_the_operator_lists_are_mounted() {
    let Some(containerd) = taskwright_tests::Containerd::get() else {
        return;
    };
    let home = taskwright_tests::Home::new();
    let shared = home.path().join("shared");
    std::fs::create_dir_all(shared.join("below")).unwrap();
    std::fs::write(shared.join("file"), "of the machine\n").unwrap();
    let flag = format!("--container-host-paths={}", shared.display());
    let daemon = super::options(containerd).flag(&flag).start_in(home);
    let it = Contained { daemon, containerd };
    let mounting = |name: &str, path: &std::path::Path, read_only: bool, script: &str| {
        it.container(
            name,
            json!({
                "command": ["/bin/sh", "-c", script],
                "volumes": [{"name": "v", "hostPath": {"path": path}}],
                "volumeMounts": [{"name": "v", "mountPath": "/mnt", "readOnly": read_only}],
            }),
        )
    };
    let script = "cat /mnt/file; echo written > /mnt/new";
    let ended = it.client().run(&mounting("write", &shared, false, script));
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    assert_eq!(it.printed("write"), "of the machine\n");
    assert_eq!(
        std::fs::read_to_string(shared.join("new")).unwrap(),
        "written\n"
    );

    let script = "cat /mnt/file; echo written > /mnt/newer";
    let ended = it.client().run(&mounting("read", &shared, true, script));
    assert_ne!(exit_code(&ended), 0, "{ended:#}");
    assert!(it.printed("read").contains("of the machine"));
    assert!(!shared.join("newer").exists());

    // Neither what lies below nor what lies above.
    let above = shared.parent().unwrap().to_owned();
    for (name, path) in [("below", shared.join("below")), ("above", above)] {
        let body = mounting(name, &path, false, "true");
        refused(&it, &body, "/spec/container", "--container-host-paths");
    }
}

#[test]
fn too_much_memory_is_its_own_cause() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let hungry = "x=a; while :; do x=$x$x; done";
    let mut inside = it.shell("inside", hungry);
    inside["spec"]["container"]["resources"] = json!({"limits": {"memory": "24Mi"}});
    let mut short = it.shell("short", hungry);
    short["spec"]["container"]["resources"] = json!({"memory": "24Mi"});
    let mut above = it.shell("above", hungry);
    above["resources"] = json!({"memory": "24Mi"});
    let mut pod = it.pod("pod", &[("only", hungry)], json!({}));
    pod["podTemplateSpec"]["spec"]["containers"][0]["resources"] =
        json!({"limits": {"memory": "24Mi"}});
    for body in [&inside, &short, &above, &pod] {
        client.submit(body);
    }
    for name in ["inside", "short", "above", "pod"] {
        let ended = client.until_ended(name, SOON);
        assert_eq!(cause(&ended), "out-of-memory", "{ended:#}");
        assert_eq!(exit_code(&ended), 137);
        assert_eq!(
            ended["attempts"][0]["enforced"]["memory"],
            "container-runtime"
        );
    }
    let ended = client.task("pod");
    let part = &ended["podStatus"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(part["reason"], "OOMKilled", "{ended:#}");
}

#[test]
fn what_a_task_restricts_holds_in_its_container() {
    let Some(it) = Contained::start() else { return };
    let script = "id -u; id -g; grep NoNewPrivs /proc/self/status; \
                  touch /etc/x || echo refused; touch /tmp/x && echo written; \
                  cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max";
    let mut body = it.shell("restricted", script);
    body["resources"] = json!({"cpu": "500m", "memory": "64Mi", "pids": 32});
    body["user"] = json!({"uid": 0, "gid": 7});
    body["noNewPrivileges"] = json!(true);
    body["readOnlyPaths"] = json!(["/etc"]);
    let ended = it.client().run(&body);
    assert_eq!(
        exit_code(&ended),
        0,
        "{ended:#}\n{}",
        it.printed("restricted")
    );
    let printed = it.printed("restricted");
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines.starts_with(&["0", "7"]), "{printed}");
    assert!(printed.contains("NoNewPrivs:\t1"), "{printed}");
    assert!(
        printed.contains("refused\n") && printed.contains("written\n"),
        "{printed}"
    );
    assert!(printed.contains("50000"), "{printed}");
    let enforced = ended["attempts"][0]["enforced"]
        .as_object()
        .unwrap()
        .clone();
    let words: Vec<&str> = enforced.keys().map(String::as_str).collect();
    assert_eq!(
        words,
        [
            "cpu",
            "memory",
            "noNewPrivileges",
            "pids",
            "readOnlyPaths",
            "user"
        ],
        "{enforced:#?}"
    );
}

#[test]
fn processes_are_counted() {
    let Some(it) = Contained::start() else { return };
    let script = "i=0; while [ $i -lt 60 ]; do sleep 30 & i=$((i+1)); done; echo all";
    let mut body = it.shell("bomb", script);
    body["resources"] = json!({"pids": 20});
    let ended = it.client().run(&body);
    assert!(!it.printed("bomb").contains("all"), "{ended:#}");
    assert_ne!(exit_code(&ended), 0, "{ended:#}");
    assert!(
        ended["attempts"][0]["enforced"]["pids"].is_string(),
        "{ended:#}"
    );
}

#[test]
fn what_a_runtime_cannot_do_is_refused_or_left_out_and_said() {
    let Some(it) = Contained::start() else { return };
    let mut body = it.shell("strict", "true");
    body["resources"] = json!({"openFiles": 64});
    refused(&it, &body, "/resources/openFiles", "CRI");
    body["resources"] = json!({"memory": "2Mi"});
    refused(&it, &body, "/resources/memory", "6Mi");
    let mut body = it.shell("lenient", "true");
    body["resources"] = json!({"openFiles": 64, "cpu": 1});
    body["bestEffort"] = json!(true);
    let ended = it.client().run(&body);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    assert_eq!(
        ended["attempts"][0]["enforced"],
        json!({"cpu": "container-runtime"}),
        "what is left out is not claimed"
    );
}

#[test]
fn a_user_is_a_number_or_a_name_of_the_image() {
    let Some(it) = Contained::start() else { return };
    let script = "id -u; id -g";
    let as_user = |name: &str, user: &str| {
        let fields = json!({"command": ["/bin/sh", "-c", script], "user": user});
        it.container(name, fields)
    };
    for (name, user, expected) in [
        ("number", "1000", "1000\n1000\n"),
        ("both", "1000:50", "1000\n50\n"),
        ("root", "root", "0\n0\n"),
    ] {
        let ended = it.client().run(&as_user(name, user));
        assert_eq!(exit_code(&ended), 0, "{ended:#}");
        assert_eq!(it.printed(name), expected, "{user}");
    }
    let ended = it.client().run(&as_user("nobody-there", "nosuchuser"));
    assert_eq!(exit_code(&ended), 126, "{ended:#}");
    assert!(told(&ended).contains("nosuchuser"), "{ended:#}");
}

#[test]
fn the_machines_own_network_is_the_operators_to_give() {
    let Some(it) = Contained::start() else { return };
    let on_host = |it: &Contained| {
        let script = "ls /sys/class/net; readlink /proc/self/ns/net";
        let fields = json!({"command": ["/bin/sh", "-c", script], "network": "host"});
        it.container("host", fields)
    };
    refused(&it, &on_host(&it), "/spec/container", "host-network");
    let Some(it) = Contained::with(|options| options.flag("--container-host-network")) else {
        return;
    };
    let ended = it.client().run(&on_host(&it));
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(
        it.printed("host").contains(own.to_str().unwrap()),
        "{}",
        it.printed("host")
    );
}

#[test]
fn no_network_is_refused_where_nothing_makes_one() {
    let Some(it) = Contained::start() else { return };
    let fields = json!({"command": ["true"], "network": "none"});
    refused(
        &it,
        &it.container("none", fields),
        "/spec/container",
        "handler",
    );
    let bridge = it.container("bridge", json!({"network": "bridge"}));
    refused(&it, &bridge, "/spec/container/network", "pod");
}

/// A task is refused before anything is stored, at this field and with this word.
fn refused(it: &Contained, body: &serde_json::Value, field: &str, word: &str) {
    let answer = it.client().post("/tasks", body);
    assert_eq!(fields_of(&answer), [field]);
    assert!(answer.text().contains(word), "{}", answer.text());
    let name = body["name"].as_str().unwrap();
    it.client().get(&format!("/tasks/{name}")).expect(404);
}

fn fields_of(refused: &taskwright_tests::Response) -> Vec<String> {
    let refused = refused.clone().expect(400).json();
    fields(&refused).into_iter().map(str::to_owned).collect()
}

#[test]
fn what_is_wrong_with_a_container_is_told_at_its_field() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    for (fields, field) in [
        (json!({"image": ""}), "/spec/container/image"),
        (json!({"command": "true"}), "/spec/container/command"),
        (
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            "/spec/container/env/0/valueFrom/secretKeyRef",
        ),
        (json!({"livenessProbe": {}}), ""),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "relative"}]}),
            "/spec/container/volumeMounts/0/mountPath",
        ),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/proc/x"}]}),
            "/spec/container/volumeMounts/0/mountPath",
        ),
        (json!({"workingDir": "tmp"}), "/spec/container/workingDir"),
        (json!({"image": "upper/Case"}), "/spec/container/image"),
        (
            json!({"env": [{"name": "", "value": "x"}]}),
            "/spec/container/env/0/name",
        ),
        (
            json!({"securityContext": {"capabilities": {"drop": ["FLY"]}}}),
            "/spec/container/securityContext/capabilities/drop/0",
        ),
        (
            json!({"resources": {"limits": {"memory": "5Mi"}}}),
            "/spec/container/resources/limits/memory",
        ),
        (
            json!({"resources": {"limits": {"memory": "lots"}}}),
            "/spec/container/resources/limits/memory",
        ),
        (
            json!({"imagePullPolicy": "Sometimes"}),
            "/spec/container/imagePullPolicy",
        ),
    ] {
        let body = it.container("wrong", fields);
        let answer = client.post("/tasks", &body);
        if field.is_empty() {
            // Empty is the same as absent.
            answer.expect(201);
            client.until_ended("wrong", SOON);
            client.delete("/tasks/wrong").expect(204);
            client.until_gone("wrong", SOON);
            continue;
        }
        assert_eq!(fields_of(&answer), [field], "{body:#}");
    }
    assert_eq!(
        client.get("/getTasks").json(),
        json!([]),
        "nothing of it is kept"
    );
}

#[test]
fn a_container_that_is_told_to_stop_has_its_grace() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let polite = "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    client.submit(&it.shell("polite", polite));
    it.until_printed("polite", "ready");
    client.post("/tasks/polite/stop", &json!({})).expect(200);
    let ended = client.until_ended("polite", SOON);
    assert_eq!(cause(&ended), "canceled", "{ended:#}");
    assert_eq!(ended["outcome"]["exitCode"], 9, "{ended:#}");
    assert!(it.printed("polite").contains("told"));

    let mut deaf = it.shell(
        "deaf",
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
    );
    deaf["limits"] = json!({"graceSeconds": 0.3});
    client.submit(&deaf);
    it.until_printed("deaf", "ready");
    let begun = std::time::Instant::now();
    client.post("/tasks/deaf/stop", &json!({})).expect(200);
    let ended = client.until_ended("deaf", SOON);
    assert_eq!(cause(&ended), "canceled", "{ended:#}");
    let took = begun.elapsed();
    assert!((0.25..8.0).contains(&took.as_secs_f64()), "{took:?}");
}

#[test]
fn time_limits_hold_for_containers() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let mut run = it.shell("run", "sleep 60");
    run["spec"]["timeoutSeconds"] = json!(1);
    run["limits"] = json!({"graceSeconds": 0.1});
    let mut idle = it.shell("idle", "echo once; sleep 60");
    idle["limits"] = json!({"idleSeconds": 0.5, "graceSeconds": 0.1});
    client.submit(&run);
    client.submit(&idle);
    for (name, limit) in [("run", "run"), ("idle", "idle")] {
        let ended = client.until_ended(name, SOON);
        assert_eq!(
            (cause(&ended), &ended["outcome"]["limit"]),
            ("timeout", &json!(limit))
        );
        assert_eq!(
            (exit_code(&ended), reason(&ended).as_str()),
            (137, "TaskTimeout")
        );
    }
}

#[test]
fn deleting_takes_everything_away() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let mut body = it.shell("gone", "echo > /box/file; echo ready; sleep 600");
    body["spec"]["container"]["volumeMounts"] = json!([{"name": "work", "mountPath": "/box"}]);
    body["resources"] = json!({"pids": 20});
    let id = client.submit(&body)["id"].as_str().unwrap().to_owned();
    it.until_printed("gone", "ready");
    assert_eq!(it.ids().len(), 2, "a pod and a container");
    assert!(!groups(it.containerd, &id).is_empty());
    let state_dir = it.daemon.home().data().join(".taskwright/containers");
    let entries = || std::fs::read_dir(&state_dir).unwrap().count();
    assert_eq!(entries(), 1);
    client.delete("/tasks/gone").expect(204);
    client.until_gone("gone", SOON);
    assert_eq!(it.ids(), Vec::<String>::new());
    assert_eq!(entries(), 0, "no directory is left");
    eventually(SOON, "no cgroup is left", || {
        groups(it.containerd, &id).is_empty()
    });
    assert!(!it.daemon.task_file("gone", "stdout.log").exists());
}

#[test]
fn an_ended_task_leaves_nothing_at_the_runtime() {
    let Some(it) = Contained::start() else { return };
    let id = it.client().run(&it.shell("short", "echo hi"))["id"].clone();
    it.until_nothing_is_left();
    let id = id.as_str().unwrap();
    eventually(SOON, "no cgroup is left", || {
        groups(it.containerd, id).is_empty()
    });
    assert_eq!(it.printed("short"), "hi\n");
    assert_eq!(exit_code(&it.client().task("short")), 0);
}

#[test]
fn without_container_mode_a_container_is_refused_with_the_reason() {
    let daemon = taskwright_tests::Daemon::start();
    let client = daemon.client();
    let container = json!({"name": "c", "spec": {"container": {"image": "a"}}});
    let pod = json!({"name": "p", "podTemplateSpec": {"spec": {"containers": [
        {"name": "a", "image": "a"}]}}});
    for body in [container, pod] {
        let answer = client.post("/tasks", &body);
        assert!((400..500).contains(&answer.status), "{}", answer.text());
        assert!(
            answer.text().contains("enable-container-mode"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(client.get("/getTasks").json(), json!([]));
}

#[test]
fn a_repeated_set_of_containers_starts_nothing_twice() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let set = json!([
        it.shell("one", "echo one; sleep 600"),
        it.pod("two", &[("a", "sleep 600")], json!({})),
    ]);
    let first = client.post("/setTasks", &set).expect(200).json();
    client.until_state("one", "running", SOON);
    client.until_state("two", "running", SOON);
    for _ in 0..3 {
        let again = client.post("/setTasks", &set).expect(200).json();
        assert_eq!(again[0]["id"], first[0]["id"]);
        assert_eq!(again[1]["id"], first[1]["id"]);
        assert_eq!(again[0]["problem"], Value::Null, "{again:#}");
    }
    assert_eq!(it.ids().len(), 4);
    assert_eq!(client.task("one")["attempts"].as_array().unwrap().len(), 1);
    // Another document under the same name is told, not carried out.
    let other = json!([it.shell("one", "echo other"), set[1]]);
    let told = client.post("/setTasks", &other).expect(200).json();
    assert!(told[0]["problem"]["message"].is_string(), "{told:#}");
    assert_eq!(state(&client.task("one")), "running");
    client.post("/setTasks", &json!([])).expect(200);
    eventually(SOON, "the list is empty", || {
        client.get("/getTasks").json() == json!([])
    });
    assert_eq!(it.ids(), Vec::<String>::new());
}

#[test]
fn the_words_shown_for_people_name_the_container() {
    let Some(it) = Contained::start() else { return };
    let ended = it
        .client()
        .run(&it.container("missing", json!({"command": ["/no/such"]})));
    assert_eq!(
        (exit_code(&ended), cause(&ended)),
        (127, "exit"),
        "{ended:#}"
    );
    assert!(message(&ended).contains("/no/such"), "{ended:#}");
    let ended = it
        .client()
        .run(&it.container("plain", json!({"command": ["/etc/passwd"]})));
    assert_eq!(exit_code(&ended), 126, "{ended:#}");
    assert!(message(&ended).contains("/etc/passwd"), "{ended:#}");
    let bad = json!({"command": ["true"], "workingDir": "/etc/passwd"});
    let ended = it.client().run(&it.container("directory", bad));
    assert_eq!(exit_code(&ended), 126, "{ended:#}");
}
