//! Stopping ends the whole tree, whatever it does to get away.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, shell};
use taskwright_tests::{Daemon, SOON, eventually};

/// A short grace, so that what is deaf to TERM is killed soon.
fn with_grace(mut task: Value, seconds: f64) -> Value {
    task["limits"]["graceSeconds"] = json!(seconds);
    task
}

fn ready_file(daemon: &Daemon) -> PathBuf {
    daemon.home().path().join("ready")
}

fn until_exists(path: PathBuf) {
    eventually(SOON, &format!("{path:?} is there"), || path.exists());
}

fn until_all_dead(daemon: &Daemon) {
    eventually(SOON, "every process of its tasks is dead", || {
        daemon.home().task_processes().is_empty()
    });
}

/// Starts a task of `misbehave`, which makes a file when it is ready.
fn start(daemon: &Daemon, words: &[&str], grace: f64) {
    let ready = ready_file(daemon);
    let mut words = words.to_vec();
    words.push(ready.to_str().unwrap());
    daemon
        .client()
        .submit(&with_grace(crate::misbehave("bad", &words), grace));
}

#[test]
fn what_is_deaf_to_term_is_killed_after_its_grace() {
    let daemon = Daemon::start();
    let client = daemon.client();
    start(&daemon, &["ignore-term"], 1.0);
    until_exists(ready_file(&daemon));
    let begun = Instant::now();
    client.post("/tasks/bad/stop", &json!({})).expect(200);
    let ended = client.until_ended("bad", SOON);
    assert!(
        begun.elapsed() >= Duration::from_millis(900),
        "it had its grace"
    );
    assert_eq!(ended["outcome"], json!({"cause": "canceled", "signal": 9}));
    assert_eq!(exit_code(&ended), 137);
    until_all_dead(&daemon);
}

#[test]
fn a_stop_may_bring_its_own_grace() {
    let daemon = Daemon::start();
    let client = daemon.client();
    start(&daemon, &["ignore-term"], 3600.0);
    until_exists(ready_file(&daemon));
    client.post("/tasks/bad/stop", &json!({})).expect(200);
    // The second thought is a shorter one.
    client
        .post("/tasks/bad/stop?grace=200ms", &json!({}))
        .expect(200);
    let ended = client.until_ended("bad", SOON);
    assert_eq!(ended["outcome"]["signal"], 9);
}

#[test]
fn term_reaches_every_process_of_the_tree() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let script = "sh -c 'trap \"echo inner; exit 0\" TERM; echo up; while :; do sleep 0.05; done'; echo outer; exit 1";
    client.submit(&with_grace(shell("tree", script), 30.0));
    let log = daemon.task_file("tree", "stdout.log");
    let printed = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually(SOON, "it is up", || printed() == "up\n");
    client.post("/tasks/tree/stop", &json!({})).expect(200);
    let ended = client.until_ended("tree", SOON);
    assert_eq!(ended["outcome"], json!({"cause": "canceled", "signal": 15}));
    eventually(SOON, "the inner shell had its TERM", || {
        printed().contains("inner")
    });
    until_all_dead(&daemon);
}

#[test]
fn a_stop_kills_children_in_sessions_of_their_own() {
    let daemon = Daemon::start();
    let client = daemon.client();
    start(&daemon, &["family"], 0.5);
    for name in ["ready", "ready.child", "ready.grandchild"] {
        until_exists(daemon.home().path().join(name));
    }
    assert_eq!(daemon.home().task_processes().len(), 3);
    client.post("/tasks/bad/stop", &json!({})).expect(200);
    client.until_ended("bad", SOON);
    until_all_dead(&daemon);
}

#[test]
fn a_timeout_kills_children_in_sessions_of_their_own() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let ready = ready_file(&daemon);
    let mut body = crate::misbehave("bad", &["family", ready.to_str().unwrap()]);
    body["limits"] = json!({"runSeconds": 2, "graceSeconds": 0.5});
    client.submit(&body);
    for name in ["ready", "ready.child", "ready.grandchild"] {
        until_exists(daemon.home().path().join(name));
    }
    let ended = client.until_ended("bad", SOON);
    assert_eq!(
        ended["outcome"],
        json!({"cause": "timeout", "limit": "run", "signal": 9})
    );
    until_all_dead(&daemon);
}

#[test]
fn what_daemonised_survives_a_normal_end_and_dies_with_the_task() {
    let daemon = Daemon::start();
    let client = daemon.client();
    start(&daemon, &["double-fork"], 0.5);
    let ended = client.until_ended("bad", SOON);
    assert_eq!(exit_code(&ended), 0);
    until_exists(ready_file(&daemon));
    assert_eq!(
        daemon.home().task_processes().len(),
        1,
        "the grandchild lives on"
    );
    client.delete("/tasks/bad").expect(204);
    client.until_gone("bad", SOON);
    until_all_dead(&daemon);
}

#[test]
fn a_fork_bomb_is_wholly_killed() {
    const SIZE: u32 = 150;
    let daemon = Daemon::start();
    let client = daemon.client();
    start(&daemon, &["fork-bomb", &SIZE.to_string()], 0.2);
    eventually(SOON, "the bomb has gone off", || {
        daemon.home().task_processes().len() >= SIZE as usize
    });
    client.delete("/tasks/bad").expect(204);
    client.until_gone("bad", SOON);
    until_all_dead(&daemon);
}

/// A group of the pids controller (version 1), removed when dropped.
struct PidsLimit(PathBuf);

impl PidsLimit {
    fn new(most: u32) -> std::io::Result<Self> {
        let name = format!("taskwright-test-{}-bomb", std::process::id());
        let group = PathBuf::from("/sys/fs/cgroup/pids").join(name);
        std::fs::create_dir(&group)?;
        let limit = Self(group);
        std::fs::write(limit.0.join("pids.max"), most.to_string())?;
        Ok(limit)
    }
}

impl Drop for PidsLimit {
    fn drop(&mut self) {
        let _still_in_use = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_fork_bomb_within_a_pids_limit_hurts_nobody_else_and_is_wholly_killed() {
    let limit = match PidsLimit::new(120) {
        Ok(limit) => limit,
        Err(error) => {
            return taskwright_tests::skip(&format!("no group with a pids limit: {error}"));
        }
    };
    let daemon = Daemon::start();
    let client = daemon.client();
    let group = limit.0.display();
    // Never stops trying: what cannot fork ends, and makes room for the next.
    let script = format!(
        "trap '' TERM; echo $$ > {group}/cgroup.procs; b() {{ b & b & sleep 60; }}; while :; do b; done"
    );
    client.submit(&with_grace(shell("bomb", &script), 0.2));
    let refused = || std::fs::read_to_string(limit.0.join("pids.events")).unwrap_or_default();
    eventually(SOON, "the bomb meets its limit", || {
        !refused().contains("max 0")
    });
    client.submit(&shell("neighbour", "exit 7"));
    assert_eq!(exit_code(&client.until_ended("neighbour", SOON)), 7);
    client.delete("/tasks/bomb").expect(204);
    client.until_gone("bomb", SOON);
    until_all_dead(&daemon);
}

#[test]
fn a_tree_that_grows_while_it_is_killed_is_wholly_killed() {
    let daemon = Daemon::start();
    let client = daemon.client();
    // Bounded: at most a few processes at a time, but always new ones, in new sessions too.
    let script =
        "trap '' TERM; echo up; for i in $(seq 3000); do setsid sleep 2 & sleep 0.02; done";
    client.submit(&with_grace(shell("hydra", script), 0.3));
    eventually(SOON, "it grows", || {
        daemon.home().task_processes().len() > 10
    });
    client.delete("/tasks/hydra").expect(204);
    client.until_gone("hydra", SOON);
    until_all_dead(&daemon);
}

#[test]
fn one_task_is_stopped_and_its_neighbour_is_not() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("left", "sleep 300 & sleep 300"));
    client.submit(&shell("right", "sleep 300 & sleep 300"));
    eventually(SOON, "both run", || {
        daemon.home().task_processes().len() == 6
    });
    client.delete("/tasks/left").expect(204);
    client.until_gone("left", SOON);
    eventually(SOON, "only one is left", || {
        daemon.home().task_processes().len() == 3
    });
    let right = client.task("right");
    assert!(!right["processStatus"]["running"].is_null(), "{right:#}");
}

#[test]
fn tasks_after_a_killed_one_are_unharmed() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for round in 0..3 {
        start(&daemon, &["ignore-term"], 0.1);
        until_exists(ready_file(&daemon));
        client.delete("/tasks/bad").expect(204);
        client.until_gone("bad", SOON);
        std::fs::remove_file(ready_file(&daemon)).unwrap();
        // What was killed as a whole may leave something behind that kills newcomers.
        for index in 0..3 {
            let ended = client.run(&shell(&format!("next-{round}-{index}"), "exit 12"));
            assert_eq!(ended["outcome"], json!({"cause": "exit", "exitCode": 12}));
        }
    }
}
