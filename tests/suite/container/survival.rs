//! Containers outlive the daemon; what it was doing when it died is taken up or taken away.

use std::time::Duration;

use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, state};
use taskwright_tests::{Client, SOON, eventually};

use super::{Contained, cause};

/// Half of these moments, in milliseconds; all of them, several times, in a nightly run.
fn moments(all: &[u64]) -> impl Iterator<Item = (usize, u64)> {
    let is_nightly = taskwright_tests::random::nightly();
    let count = if is_nightly {
        4 * all.len()
    } else {
        all.len() / 2
    };
    all.iter().copied().cycle().take(count).enumerate()
}

#[test]
fn a_container_runs_on_without_its_daemon() {
    let Some(mut it) = Contained::start() else {
        return;
    };
    let client = it.client();
    client.submit(&it.shell(
        "on",
        "echo before; until [ -e /tmp/go ]; do sleep 0.05; done; \
                                   echo after; exit 7",
    ));
    client.submit(&it.pod("pod", &[("a", "sleep 600"), ("b", "exit 3")], json!({})));
    it.until_printed("on", "before");
    client.until_state("pod", "running", SOON);
    eventually(SOON, "b has ended", || {
        let status = &client.task("pod")["podStatus"]["containerStatuses"][1];
        status["state"]["terminated"]["exitCode"] == 3
    });
    let before = client.task("on");
    it.daemon.kill();
    it.daemon.start_again();
    let after = client.task("on");
    assert_eq!(state(&after), "running");
    assert_eq!(after["processStatus"], before["processStatus"]);
    let status = &client.task("pod")["podStatus"]["containerStatuses"];
    assert_eq!(status[0]["ready"], true, "{status:#}");
    assert_eq!(
        status[1]["state"]["terminated"]["exitCode"], 3,
        "{status:#}"
    );
    let label = "taskwright.dev/task";
    let id = before["id"].as_str().unwrap();
    let container = it
        .containers()
        .into_iter()
        .find(|one| one.label(label) == id)
        .unwrap();
    it.open_gate(&container.id);
    let ended = client.until_ended("on", SOON);
    assert_eq!((cause(&ended), exit_code(&ended)), ("exit", 7), "{ended:#}");
    assert_eq!(it.printed("on"), "before\nafter\n");
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1);
}

#[test]
fn an_end_that_no_daemon_saw_is_told_by_the_next() {
    let Some(mut it) = Contained::start() else {
        return;
    };
    let client = it.client();
    let script = "echo before; until [ -e /tmp/go ]; do sleep 0.05; done; \
                  head -c 300000 /dev/zero | tr '\\0' x; echo last; exit 7";
    client.submit(&it.shell("away", script));
    it.until_printed("away", "before");
    let container = it.containers().remove(0);
    it.daemon.kill();
    it.open_gate(&container.id);
    eventually(SOON, "it has ended", || {
        let shown = it.containerd.ctr(&["tasks", "ls"]);
        !shown
            .lines()
            .any(|line| line.starts_with(&container.id) && line.contains("RUNNING"))
    });
    it.daemon.start_again();
    let ended = client.until_ended("away", SOON);
    assert_eq!((cause(&ended), exit_code(&ended)), ("exit", 7), "{ended:#}");
    let printed = it.printed("away");
    assert_eq!(
        printed.len(),
        7 + 300_000 + 5,
        "nothing is lost, nothing is told twice"
    );
    assert!(printed.ends_with("xlast\n"));
    it.until_nothing_is_left();
}

#[test]
fn a_daemon_killed_anywhere_in_a_start_starts_once_or_says_that_nobody_knows() {
    let Some(mut it) = Contained::start() else {
        return;
    };
    let client = it.client();
    let mut rounds = 0;
    let mut lost = 0;
    // Of a start that takes some 200 ms; a busy machine spreads them further.
    for (round, delay_ms) in moments(&[0, 45, 95, 150, 220, 20, 70, 120, 180, 280]) {
        rounds += 1;
        let name = format!("round-{round}");
        let mut body = it.shell(&name, "echo once >> /w/times; cat /w/times; exec sleep 600");
        body["spec"]["container"]["volumeMounts"] = json!([{"name": "w", "mountPath": "/w"}]);
        body["limits"] = json!({"graceSeconds": 0});
        let id = client.submit(&body)["id"].clone();
        // The moment is the point: there is nothing to wait for.
        std::thread::sleep(Duration::from_millis(delay_ms));
        it.daemon.kill();
        it.daemon.start_again();
        let task = until_settled(&client, &name);
        assert_eq!(task["id"], id);
        if task["outcome"]["cause"] == "lost" {
            // The runtime gave the start up when the program may have begun, and says so.
            lost += 1;
            assert!(["", "once\n"].contains(&&*it.printed(&name)));
            client.delete(&format!("/tasks/{name}")).expect(204);
            client.until_gone(&name, SOON);
            continue;
        }
        if task["outcome"]["cause"] == "runtime-unavailable" {
            // The runtime kept the name of a container that it never made, for as long as it is
            // waited for: then nothing has begun, and that is said.
            lost += 1;
            assert_eq!(it.printed(&name), "", "round {round}: {task:#}");
            client.delete(&format!("/tasks/{name}")).expect(204);
            client.until_gone(&name, SOON);
            continue;
        }
        assert_eq!(state(&task), "running", "round {round}: {task:#}");
        it.until_printed(&name, "once");
        let attempts = task["attempts"].as_array().unwrap().len();
        let mut objects = it.objects();
        objects.retain(|one| one.label("taskwright.dev/task") == id.as_str().unwrap());
        assert_eq!(
            objects.len(),
            2,
            "round {round}: one pod, one container: {objects:#?}"
        );
        if attempts == 1 {
            assert_eq!(it.printed(&name), "once\n", "round {round}");
        }
        assert_eq!(attempts, 1, "round {round}: {task:#}");
        client.delete(&format!("/tasks/{name}")).expect(204);
        client.until_gone(&name, SOON);
        assert_eq!(it.ids(), Vec::<String>::new(), "round {round}");
    }
    assert!(lost <= rounds / 3, "{lost} of {rounds} starts were lost");
}

/// A task once it runs, or has ended: at the latest when its runtime was waited for as long as it is.
fn until_settled(client: &Client, name: &str) -> Value {
    const WAIT_FOR_RUNTIME: Duration = Duration::from_secs(30);
    let begun = std::time::Instant::now();
    loop {
        let task = client.task(name);
        if state(&task) != "waiting" {
            return task;
        }
        let deadline = SOON + WAIT_FOR_RUNTIME;
        assert!(begun.elapsed() < deadline, "it does not settle: {task:#}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_daemon_killed_anywhere_in_a_delete_leaves_nothing() {
    let Some(mut it) = Contained::start() else {
        return;
    };
    let client = it.client();
    for (round, delay_ms) in moments(&[0, 30, 90, 15, 60, 140]) {
        let name = format!("round-{round}");
        let mut body = it.shell(&name, "echo ready; exec sleep 600");
        body["limits"] = json!({"graceSeconds": 0});
        client.submit(&body);
        it.until_printed(&name, "ready");
        client.delete(&format!("/tasks/{name}")).expect(204);
        std::thread::sleep(Duration::from_millis(delay_ms));
        it.daemon.kill();
        it.daemon.start_again();
        client.until_gone(&name, SOON);
        it.until_nothing_is_left();
        let state_dir = it.daemon.home().data().join(".taskwright/containers");
        eventually(SOON, "no directory is left", || {
            std::fs::read_dir(&state_dir).unwrap().count() == 0
        });
    }
}

#[test]
fn what_a_forgotten_start_left_is_swept() {
    let Some(mut it) = Contained::start() else {
        return;
    };
    let client = it.client();
    client.submit(&it.shell("forgotten", "echo ready; exec sleep 600"));
    it.until_printed("forgotten", "ready");
    assert_eq!(it.ids().len(), 2);
    it.daemon.kill();
    // The journal is lost, as on a disk that was restored; the daemon's identity is not.
    let own = it.daemon.home().data().join(".taskwright");
    let kept = ["instance"];
    for entry in std::fs::read_dir(&own).unwrap().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_journal = ["journal", "store", "state", "db"]
            .iter()
            .any(|part| name.contains(part));
        if !kept.contains(&&*name) && is_journal {
            let path = entry.path();
            let _is_one_of_both = std::fs::remove_file(&path);
            let _is_one_of_both = std::fs::remove_dir_all(&path);
        }
    }
    it.daemon.start_again();
    it.until_nothing_is_left();
}

#[test]
fn a_daemon_that_left_container_mode_says_how_to_return() {
    let Some(mut it) = Contained::start() else {
        return;
    };
    let client = it.client();
    client.submit(&it.shell(
        "on",
        "echo ready; until [ -e /tmp/go ]; do sleep 0.05; done; exit 7",
    ));
    it.until_printed("on", "ready");
    client.until_state("on", "running", SOON);
    it.daemon.kill();
    it.daemon.start_again_with("--enable-container-mode=false");
    eventually(SOON, "the log says what is missing", || {
        let log = it.daemon.log();
        log.contains("container tasks are on record") && log.contains("--enable-container-mode")
    });
    let refused = it.daemon.taskwright(&["exec", "on", "--", "true"]);
    assert_eq!(refused.code, 125, "{refused:?}");
    it.daemon.kill();
    it.daemon.start_again_with("--enable-container-mode=true");
    assert_eq!(state(&client.task("on")), "running");
    let gate = ["exec", "on", "--", "touch", "/tmp/go"];
    let _silent = it.daemon.taskwright(&gate).expect(0);
    assert_eq!(exit_code(&client.until_ended("on", SOON)), 7);
    let repeated = it.daemon.log();
    let repeated = repeated.matches("an event is offered again").count();
    assert!(repeated <= 1, "{repeated} times");
}
