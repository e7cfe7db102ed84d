//! The daemon may die at any moment: tasks run on, and their ends are told truthfully.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, flat, reason, shell, state};
use taskwright_tests::{Daemon, Options, SOON, binary, eventually, reaper};

/// A script that waits for a file and then exits with a code.
fn gated(daemon: &Daemon, code: u8) -> String {
    format!("{}; exit {code}", gated_start(daemon))
}

/// Its first half.
fn gated_start(daemon: &Daemon) -> String {
    let gate = gate(daemon);
    format!("echo started; while [ ! -e {gate} ]; do sleep 0.05; done")
}

fn gate(daemon: &Daemon) -> String {
    daemon.home().path().join("gate").display().to_string()
}

fn open_gate(daemon: &Daemon) {
    std::fs::write(gate(daemon), "").unwrap();
}

/// Its command has begun, and the daemon says so.
fn until_started(daemon: &Daemon, name: &str) {
    let log = daemon.task_file(name, "stdout.log");
    eventually(SOON, &format!("{name} has started"), || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("started"))
    });
    daemon.client().until_state(name, "running", SOON);
}

fn until_no_tasks_run(daemon: &Daemon) {
    eventually(SOON, "no process of a task is left", || {
        daemon.home().task_processes().is_empty()
    });
}

#[test]
fn an_end_while_the_daemon_was_down_is_told_truthfully() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    for code in [0, 41] {
        client.submit(&shell(&format!("down-{code}"), &gated(&daemon, code)));
        until_started(&daemon, &format!("down-{code}"));
    }
    client.submit(&shell(
        "down-signal",
        &format!("{}; kill -11 $$", gated_start(&daemon)),
    ));
    until_started(&daemon, "down-signal");
    daemon.kill();
    open_gate(&daemon);
    until_no_tasks_run(&daemon);
    daemon.start_again();
    for code in [0, 41] {
        let ended = client.until_ended(&format!("down-{code}"), SOON);
        assert_eq!(exit_code(&ended), i64::from(code), "{ended:#}");
        assert_eq!(ended["attempts"].as_array().unwrap().len(), 1);
        let log = std::fs::read_to_string(daemon.task_file(&format!("down-{code}"), "stdout.log"));
        assert_eq!(log.unwrap(), "started\n", "its output is kept");
    }
    let ended = client.until_ended("down-signal", SOON);
    assert_eq!(ended["outcome"], json!({"cause": "signal", "signal": 11}));
}

#[test]
fn a_task_runs_on_while_the_daemon_is_killed_and_started() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("on", &gated(&daemon, 17)));
    until_started(&daemon, "on");
    let before = client.until_state("on", "running", SOON);
    let supervisor = daemon.supervisor();
    for _ in 0..3 {
        daemon.kill();
        daemon.start_again();
        let after = client.task("on");
        assert_eq!(state(&after), "running");
        assert_eq!(
            after["attempts"], before["attempts"],
            "it is the same attempt"
        );
        assert_eq!(after["id"], before["id"]);
    }
    assert_eq!(daemon.supervisor(), supervisor, "and the same supervisor");
    open_gate(&daemon);
    assert_eq!(exit_code(&client.until_ended("on", SOON)), 17);
}

#[test]
fn the_death_of_the_supervisor_alone_loses_nothing() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("kept", &gated(&daemon, 23)));
    until_started(&daemon, "kept");
    reaper::kill(&daemon.supervisor());
    assert_eq!(state(&client.task("kept")), "running");
    // New tasks start, and may be stopped.
    assert_eq!(exit_code(&client.run(&shell("new", "exit 5"))), 5);
    open_gate(&daemon);
    let ended = client.until_ended("kept", SOON);
    assert_eq!(ended["outcome"], json!({"cause": "exit", "exitCode": 23}));
}

#[test]
fn a_task_can_be_stopped_after_the_death_of_its_supervisor() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell(
        "tree",
        "echo started; sleep 300 & setsid sleep 300 & sleep 300",
    ));
    until_started(&daemon, "tree");
    eventually(SOON, "the tree is up", || {
        daemon.home().task_processes().len() == 4
    });
    reaper::kill(&daemon.supervisor());
    client.delete("/tasks/tree").expect(204);
    client.until_gone("tree", SOON);
    until_no_tasks_run(&daemon);
}

#[test]
fn daemon_and_supervisor_one_after_the_other_lose_nothing() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("kept", &gated(&daemon, 29)));
    until_started(&daemon, "kept");
    reaper::kill(&daemon.supervisor());
    // A new one has taken over before the daemon goes.
    assert_eq!(exit_code(&client.run(&shell("between", "exit 6"))), 6);
    let _taken_over = daemon.supervisor();
    daemon.kill();
    daemon.start_again();
    open_gate(&daemon);
    let ended = client.until_ended("kept", SOON);
    assert_never_wrong(&ended, 29);
}

/// An end nobody could see is `lost`; it is never made up.
fn assert_never_wrong(ended: &Value, code: i64) {
    match ended["outcome"]["cause"].as_str().unwrap() {
        "exit" => assert_eq!(ended["outcome"]["exitCode"], code, "{ended:#}"),
        "lost" => assert_eq!((exit_code(ended), reason(ended).as_str()), (125, "Lost")),
        other => panic!("{other} is wrong: {ended:#}"),
    }
}

#[test]
fn the_death_of_the_guardian_alone_loses_nothing() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("kept", &gated(&daemon, 19)));
    until_started(&daemon, "kept");
    reaper::kill(&daemon.guardian());
    assert_eq!(exit_code(&client.run(&shell("new", "exit 5"))), 5);
    daemon.kill();
    daemon.start_again();
    open_gate(&daemon);
    let ended = client.until_ended("kept", SOON);
    assert_never_wrong(&ended, 19);
}

#[test]
fn daemon_and_supervisor_killed_at_once_lose_nothing() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("kept", &gated(&daemon, 43)));
    until_started(&daemon, "kept");
    let supervisor = daemon.supervisor();
    reaper::send(supervisor.pid, Signal::KILL);
    daemon.kill();
    reaper::kill(&supervisor);
    daemon.start_again();
    open_gate(&daemon);
    // The guardian was there to see it.
    let ended = client.until_ended("kept", SOON);
    assert_eq!(ended["outcome"], json!({"cause": "exit", "exitCode": 43}));
}

#[test]
fn all_killed_at_once_is_lost_or_true_and_never_wrong() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("running", &gated(&daemon, 31)));
    client.submit(&shell("ending", &gated(&daemon, 0)));
    let ended_before = client.run(&shell("before", "exit 37"));
    until_started(&daemon, "running");
    until_started(&daemon, "ending");
    daemon.kill_everything();
    // What had its end told before keeps it.
    daemon.start_again();
    assert_eq!(client.task("before"), ended_before);
    open_gate(&daemon);
    assert_never_wrong(&client.until_ended("running", SOON), 31);
    assert_never_wrong(&client.until_ended("ending", SOON), 0);
    assert_eq!(exit_code(&client.run(&shell("after", "exit 3"))), 3);
}

#[test]
fn term_ends_the_daemon_and_leaves_tasks_running() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("on", &gated(&daemon, 11)));
    until_started(&daemon, "on");
    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    assert!(
        !daemon.home().task_processes().is_empty(),
        "the task runs on"
    );
    open_gate(&daemon);
    until_no_tasks_run(&daemon);
    daemon.start_again();
    assert_eq!(exit_code(&client.until_ended("on", SOON)), 11);
}

#[test]
fn an_upgraded_binary_goes_on_with_running_tasks() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("on", &gated(&daemon, 13)));
    until_started(&daemon, "on");
    daemon.terminate();
    let newer = daemon.home().path().join("taskwright-newer");
    std::fs::copy(binary::taskwright(), &newer).unwrap();
    daemon.start_again_from(&newer);
    assert_eq!(exit_code(&client.run(&shell("new", "exit 4"))), 4);
    open_gate(&daemon);
    assert_eq!(exit_code(&client.until_ended("on", SOON)), 13);
}

#[test]
fn what_waits_in_the_queue_survives_and_keeps_its_turn() {
    let mut daemon = Options::new().flag("--max-running=1").start();
    let client = daemon.client();
    let runs = daemon.home().path().join("runs");
    client.submit(&shell("first", &gated(&daemon, 0)));
    until_started(&daemon, "first");
    for index in 0..5 {
        let script = format!("echo {index} >> {}; exit {index}", runs.display());
        client.submit(&shell(&format!("queued-{index}"), &script));
    }
    daemon.kill();
    daemon.start_again();
    assert_eq!(state(&client.task("queued-0")), "waiting");
    open_gate(&daemon);
    for index in 0..5 {
        let ended = client.until_ended(&format!("queued-{index}"), SOON);
        assert_eq!(exit_code(&ended), index);
    }
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), "0\n1\n2\n3\n4\n");
}

#[test]
fn a_task_acknowledged_just_before_the_kill_runs_once() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    let runs = daemon.home().path().join("runs");
    for round in 0..5 {
        let name = format!("once-{round}");
        client.submit(&shell(
            &name,
            &format!("echo {name} >> {}; exit 9", runs.display()),
        ));
        daemon.kill();
        daemon.start_again();
        assert_eq!(exit_code(&client.until_ended(&name, SOON)), 9);
    }
    let expected: String = (0..5).map(|round| format!("once-{round}\n")).collect();
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), expected);
}

#[test]
fn a_delete_that_was_answered_is_carried_out_after_a_kill() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell(
        "doomed",
        "trap '' TERM; echo started; sleep 300 & while :; do sleep 0.1; done",
    ));
    until_started(&daemon, "doomed");
    client.delete("/tasks/doomed").expect(204);
    daemon.kill();
    daemon.start_again();
    // Its grace of ten seconds goes on where it was.
    client.until_gone("doomed", Duration::from_secs(30));
    until_no_tasks_run(&daemon);
    assert!(!daemon.home().data().join("doomed").exists());
}

#[test]
fn a_time_limit_holds_across_a_restart() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    let mut body = shell("limited", "echo started; sleep 300");
    body["limits"] = json!({"runSeconds": 3});
    client.submit(&body);
    until_started(&daemon, "limited");
    daemon.kill();
    daemon.start_again();
    let ended = client.until_ended("limited", SOON);
    assert_eq!(ended["outcome"]["cause"], "timeout");
    assert_eq!(ended["outcome"]["limit"], "run");
}

#[test]
fn ends_and_their_order_survive_many_restarts() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    for index in 0..20 {
        client.submit(&shell(&format!("t-{index}"), &format!("exit {index}")));
    }
    for index in 0..20 {
        client.until_ended(&format!("t-{index}"), SOON);
    }
    let before = client.get("/getTasks").json();
    let events = client.get("/events?limit=1000").expect(200).json();
    for _ in 0..3 {
        daemon.kill();
        daemon.start_again();
        assert_eq!(client.get("/getTasks").json(), before);
        assert_eq!(client.get("/events?limit=1000").expect(200).json(), events);
    }
}

#[test]
fn a_second_start_of_an_ended_task_never_happens() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    let runs = daemon.home().path().join("runs");
    let wanted = shell("once", &format!("echo run >> {}; exit 3", runs.display()));
    client.post("/setTasks", &json!([wanted])).expect(200);
    client.until_ended("once", SOON);
    for _ in 0..3 {
        daemon.kill();
        daemon.start_again();
        // What the reference executor got wrong: it forgot failed tasks and ran them again.
        client.post("/setTasks", &json!([wanted])).expect(200);
        assert_eq!(exit_code(&client.task("once")), 3);
    }
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), "run\n");
    assert_eq!(exit_code(&client.run(&flat("other", &["true"]))), 0);
}
