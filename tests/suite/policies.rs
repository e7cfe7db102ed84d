//! Policies and observers in the plugin folder: what they say counts, is told, and outlives the
//! daemon; what they break blames no task.

use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, flat};
use taskwright_tests::{Finished, Home, SOON, eventually};

use crate::plugins::Folder;
use crate::scripts::holding;

const GUARDRAILS: &str = include_str!("../../examples/scripts/guardrails.rhai");

/// A policy script whose review is this expression.
fn review(expression: &str) -> String {
    format!("fn review(request) {{\n    {expression}\n}}\n")
}

fn with_policies(files: &[(&str, &str)]) -> Folder {
    let bytes: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, text)| (*name, text.as_bytes()))
        .collect();
    let folder = holding(&bytes);
    for (name, _) in files {
        if let Some(name) = name.strip_suffix(".rhai") {
            folder.until(name, |plugin| plugin["healthy"] == true);
        }
    }
    folder
}

/// What `explain` prints about a task.
fn explained(folder: &Folder, task: &str) -> String {
    let told = folder.daemon.taskwright(&["explain", task]);
    told.expect(0).stdout
}

#[test]
fn guardrails_that_are_dropped_in_cap_time_and_forbid_images() {
    let folder = holding(&[]);
    let client = folder.client();
    folder.put(
        "guardrails.toml",
        "[settings]\nmost-seconds = 60\nimages = \"quay.io/ours/\"\n",
    );
    folder.put("guardrails.rhai", GUARDRAILS);
    folder.until("guardrails", |plugin| plugin["roles"] == json!(["policy"]));
    let ended = client.run(&flat("capped", &["true"]));
    assert_eq!(ended["limits"]["runSeconds"], 60.0, "{ended:#}");
    let told = explained(&folder, "capped");
    assert!(told.contains("+ /limits/runSeconds: 60"), "{told}");
    assert!(told.contains("at most 60 s"), "{told}");
    let image = json!({
        "name": "foreign", "spec": {"container": {"image": "evil/x", "command": ["true"]}},
    });
    let status = client.post("/tasks", &image).status;
    assert!(
        status == 400 || status == 403,
        "without container mode it is refused before"
    );
    client.get("/tasks/foreign").expect(404);
    let listed = folder.daemon.taskwright(&["policy", "list"]).expect(0);
    assert!(listed.stdout.contains("guardrails"), "{}", listed.stdout);
    folder.remove("guardrails.rhai");
    eventually(SOON, "it is gone", || {
        let name = "free";
        client.delete(&format!("/tasks/{name}"));
        let answer = client.post("/tasks", &flat(name, &["true"]));
        answer.status == 201 && answer.json()["limits"].get("runSeconds").is_none()
    });
}

#[test]
fn policies_are_asked_in_order_and_each_sees_what_those_before_it_made() {
    let folder = with_policies(&[
        (
            "b-first.rhai",
            &review("#{ change: #{ labels: #{ seen: \"b\" } } }"),
        ),
        ("b-first.toml", "[policy]\norder = -1\n"),
        (
            "a-second.rhai",
            &review("if request.task.labels.seen != \"b\" { #{ deny: \"nobody was here\" } }"),
        ),
        (
            "c-warns.rhai",
            &review("#{ deny: \"never\", field: \"/process\" }"),
        ),
        ("c-warns.toml", "[policy]\nmode = \"warn\"\norder = 5\n"),
    ]);
    let client = folder.client();
    let ended = client.run(&flat("a", &["true"]));
    assert_eq!(exit_code(&ended), 0);
    let verdicts: Vec<String> = ended["review"]["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let word = |key: &str| one[key].as_str().unwrap().to_owned();
            [word("stage"), word("policy"), word("mode"), word("verdict")].join(" ")
        })
        .collect();
    let wanted = [
        "submit b-first enforce change",
        "submit a-second enforce allow",
        "submit c-warns warn deny",
        "launch b-first enforce allow",
        "launch a-second enforce allow",
        "launch c-warns warn deny",
    ];
    assert_eq!(verdicts, wanted);
    folder.put("c-warns.toml", "[policy]\norder = 5\n");
    folder.until("c-warns", |plugin| plugin["policy"]["mode"] == "enforce");
    let denied = client.post("/tasks", &flat("b", &["true"])).expect(403);
    let told = denied.json();
    assert_eq!(told["details"][0]["field"], "/process", "{told:#}");
    let metrics = client.get("/metrics").text();
    let counted =
        "taskwright_policy_decisions_total{policy=\"c-warns\",verdict=\"deny\",mode=\"warn\"}";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn a_question_outlives_the_daemon_and_is_answered_from_the_command_line() {
    let mut folder = with_policies(&[(
        "careful.rhai",
        &review("if !request.approved { #{ ask: `may ${request.name} run?` } }"),
    )]);
    let client = folder.client();
    for name in ["yes", "no"] {
        let held = client.post("/tasks", &flat(name, &["true"])).expect(201);
        assert_eq!(held.json()["review"]["hold"]["reason"], "asked");
    }
    let listed = folder.daemon.taskwright(&["list"]).expect(0).stdout;
    assert!(listed.contains("held"), "{listed}");
    let words = ["submit", "--name", "told", "--", "true"];
    let told = folder.daemon.taskwright(&words).expect(0).stderr;
    assert!(told.contains("taskwright approve told"), "{told}");
    folder.daemon.kill();
    folder.daemon.start_again();
    let told = explained(&folder, "yes");
    assert!(told.contains("may yes run?"), "{told}");
    assert!(told.contains("taskwright approve"), "{told}");
    let words = ["approve", "yes", "--reason", "it is harmless"];
    folder.daemon.taskwright(&words).expect(0);
    folder.daemon.taskwright(&["deny", "no"]).expect(0);
    let ended = client.until_ended("yes", SOON);
    assert_eq!(exit_code(&ended), 0);
    assert!(explained(&folder, "yes").contains("it is harmless"));
    let ended = client.until_ended("no", SOON);
    assert_eq!(ended["outcome"]["cause"], "denied", "{ended:#}");
    let again: Finished = folder.daemon.taskwright(&["approve", "no"]);
    assert!(again.stderr.contains("no policy asks"), "{}", again.stderr);
}

#[test]
fn a_broken_policy_holds_tasks_until_it_is_mended_and_blames_none() {
    let folder = with_policies(&[
        ("broken.rhai", &review("request.task.nothing.deeper")),
        ("broken.toml", "[policy]\nlabels = [\"held\"]\n"),
        ("open.rhai", &review("throw 1")),
        ("open.toml", "[policy]\non-error = \"open\"\n"),
    ]);
    let client = folder.client();
    let mut task = flat("held", &["true"]);
    task["labels"] = json!({"held": ""});
    let held = client.post("/tasks", &task).expect(201).json();
    let hold = &held["review"]["hold"];
    assert_eq!(hold["reason"], "policy-error", "{held:#}");
    let message = hold["message"].as_str().unwrap();
    assert!(message.contains("broken.rhai:2:"), "{message}");
    assert_eq!(exit_code(&client.run(&flat("free", &["true"]))), 0);
    folder.put("broken.rhai", review("()"));
    let ended = client.until_ended("held", SOON);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
}

#[test]
fn an_observer_is_told_of_everything_once_it_is_there_also_after_a_kill() {
    let noticing =
        "fn notice(event) { print(`saw ${event.sequence} ${event.kind} ${event.name}`); }\n";
    let mut folder = with_policies(&[("watcher.rhai", noticing)]);
    let client = folder.client();
    client.run(&flat("first", &["true"]));
    let saw = |folder: &Folder, kind: &str, name: &str| {
        let log = folder.daemon.log();
        let wanted = format!(" {kind} {name}");
        log.lines()
            .any(|line| line.contains("saw ") && line.contains(&wanted))
    };
    eventually(SOON, "it saw the first", || saw(&folder, "ended", "first"));
    folder.daemon.kill();
    folder.daemon.start_again();
    client.run(&flat("second", &["true"]));
    eventually(SOON, "it saw the second", || {
        saw(&folder, "ended", "second")
    });
    for kind in ["submitted", "launched", "running", "ended"] {
        for name in ["first", "second"] {
            assert!(
                saw(&folder, kind, name),
                "{kind} {name}: {}",
                folder.daemon.log()
            );
        }
    }
}

#[test]
fn policy_test_tells_what_would_happen_and_submits_nothing() {
    let folder = holding(&[]);
    let home = folder.daemon.home();
    let put = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let guardrails = put("guardrails.rhai", GUARDRAILS);
    put("guardrails.toml", "[settings]\nmost-seconds = 60\n");
    let tasks = json!([
        flat("a", &["true"]),
        {"name": "b", "process": {"command": ["true"]}, "limits": {"runSeconds": 30}},
        {"name": "c", "proces": {}},
    ]);
    let file = put("tasks.json", &tasks.to_string());
    let words = ["policy", "test", &guardrails, "-f", &file];
    let told = folder.daemon.taskwright(&words).expect(1);
    let text = &told.stdout;
    assert!(text.contains("a would be changed"), "{text}");
    assert!(text.contains("+ /limits/runSeconds: 60"), "{text}");
    assert!(text.contains("no task"), "{text}");
    let client = folder.client();
    client.get("/tasks/a").expect(404);
    let mut elsewhere = flat("elsewhere", &["true"]);
    elsewhere["runtime"] = json!("tell");
    folder.put("tell.toml", crate::plugins::LENT);
    folder.put(
        "tell.rhai",
        "fn describe() { #{ version: \"1\" } }\nfn start(task) { #{ argv: task.command } }\n",
    );
    folder.until_serving("tell", "1");
    client.run(&flat("old", &["true"]));
    client.run(&elsewhere);
    let words = ["policy", "test", &guardrails, "--history", "-o", "json"];
    let told = folder.daemon.taskwright(&words).expect(0);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["items"][0]["name"], "old");
    for item in told["items"].as_array().unwrap() {
        assert_eq!(item["result"], "change", "{item:#}");
    }
    let words = ["policy", "test", "no-such.rhai", "--history"];
    let told = folder.daemon.taskwright(&words);
    assert!(told.stderr.contains("no-such.rhai"), "{}", told.stderr);
}

#[test]
fn policy_test_plays_on_with_every_question_answered_by_yes() {
    let home = Home::new();
    let put = |name: &str, text: &str| home.file(name, text).display().to_string();
    let asks = "if request.task.labels.team == () {
            return #{ change: #{ labels: #{ team: \"none\" } } };
        }
        if !request.approved { return #{ ask: \"may it?\" }; }
        if request.name == \"never\" { return #{ deny: \"not even so\" }; }";
    let policy = put("careful.rhai", &review(asks));
    let file = put(
        "tasks.json",
        &json!([
            {"name": "fine", "labels": {"team": "a"}, "process": {"command": ["true"]}},
            flat("plain", &["true"]),
            {"name": "never", "labels": {"team": "a"}, "process": {"command": ["true"]}},
        ])
        .to_string(),
    );
    let words = ["policy", "test", &policy, "-f", &file];
    let told = home.taskwright(&words).expect(1).stdout;
    let rows: Vec<String> = told
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(rows[0], "fine ask careful: may it?", "{told}");
    assert_eq!(rows[1], "once approved allow", "{told}");
    assert!(
        rows.contains(&"once approved deny careful: not even so".to_owned()),
        "{told}"
    );
    assert!(!told.contains("fine would be changed"), "{told}");
    assert!(told.contains("plain would be"), "{told}");
    let words = ["policy", "test", &policy, "-f", &file, "-o", "json"];
    let told = home.taskwright(&words).expect(1).json();
    assert_eq!(told["items"][0]["result"], "ask");
    assert_eq!(told["items"][0]["approved"]["result"], "allow", "{told:#}");
    assert_eq!(told["items"][2]["approved"]["result"], "deny", "{told:#}");
}

#[test]
fn a_policy_that_cannot_be_loaded_lets_nothing_pass() {
    let folder = holding(&[
        ("gate.rhai", b"fn review(request) {"),
        ("gate.toml", b"[policy]\nlabels = [\"gated\"]\n"),
    ]);
    let client = folder.client();
    let mut task = flat("gated", &["true"]);
    task["labels"] = json!({"gated": ""});
    let held = client.post("/tasks", &task).expect(201).json();
    let hold = &held["review"]["hold"];
    assert_eq!(hold["reason"], "policy-error", "{held:#}");
    assert_eq!(exit_code(&client.run(&flat("free", &["true"]))), 0);
    let listed = folder
        .daemon
        .taskwright(&["policy", "list"])
        .expect(0)
        .stdout;
    for part in [
        "gate",
        "labels: gated",
        "trouble",
        "gate: it is not loaded",
        "gate.rhai:1:",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    folder.put("gate.rhai", review("()"));
    let ended = client.until_ended("gated", SOON);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
}

#[test]
fn what_is_said_of_a_policy_and_cannot_be_read_lets_nothing_pass() {
    let mut folder = holding(&[
        ("deny.rhai", review("#{ deny: \"no\" }").as_bytes()),
        ("deny.toml", b"[policy]\norder = 10\n"),
    ]);
    let task = flat("first", &["true"]);
    assert_eq!(folder.client().post("/tasks", &task).status, 403);
    // Damaged while nobody looks: after a restart it is not known what it says, and it holds.
    folder.put("deny.toml", "x = [");
    folder.daemon.kill();
    folder.daemon.start_again();
    let client = folder.client();
    let held = client
        .post("/tasks", &flat("second", &["true"]))
        .expect(201)
        .json();
    assert_eq!(held["review"]["hold"]["reason"], "policy-error", "{held:#}");
    let listed = folder
        .daemon
        .taskwright(&["policy", "list"])
        .expect(0)
        .stdout;
    assert!(listed.contains("deny: it is not loaded"), "{listed}");
}

#[test]
fn a_folder_that_cannot_be_seen_retires_nothing() {
    let folder = holding(&[("deny.rhai", review("#{ deny: \"no\" }").as_bytes())]);
    let client = folder.client();
    assert_eq!(client.post("/tasks", &flat("first", &["true"])).status, 403);
    let away = folder.path.with_extension("away");
    std::fs::rename(&folder.path, &away).unwrap();
    eventually(
        SOON,
        "the daemon tells that it cannot see the folder",
        || folder.daemon.log().contains("all plugins stay as they are"),
    );
    assert_eq!(
        client.post("/tasks", &flat("second", &["true"])).status,
        403
    );
    std::fs::rename(&away, &folder.path).unwrap();
    assert_eq!(client.post("/tasks", &flat("third", &["true"])).status, 403);
}
