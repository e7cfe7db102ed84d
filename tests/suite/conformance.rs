//! What every runtime promises alike, asked of each: a command beside the daemon, one inside a
//! main container, one in a container of its own. Whoever changes the runtime of a task must not
//! have to learn anything new.
//!
//! Every case ends by deleting its tasks, after which nothing of them may be left.

mod subject;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, message, reason, state};
use taskwright_tests::{SOON, eventually, reaper};

use subject::{Kind, Subject};

/// Every case as a test of its own for each runtime, so that they run side by side and a failure
/// names both.
macro_rules! conformance {
    ($($case:ident),+ $(,)?) => {
        mod process { $(#[test] fn $case() { super::check(super::Kind::Process, super::$case); })+ }
        mod sidecar { $(#[test] fn $case() { super::check(super::Kind::Sidecar, super::$case); })+ }
        mod container { $(#[test] fn $case() { super::check(super::Kind::Container, super::$case); })+ }
    };
}

conformance!(
    an_exit_code_is_told_as_it_was,
    a_program_that_cannot_be_had_ends_with_126_or_127,
    output_is_kept_byte_for_byte,
    a_death_by_signal_is_told,
    a_stop_leaves_time_to_end_and_tells_the_true_code,
    what_is_deaf_to_term_is_killed_after_its_grace,
    a_stop_ends_the_whole_tree,
    a_timeout_stays_one,
    a_task_runs_on_while_the_daemon_is_killed,
    an_end_while_the_daemon_was_down_is_told,
    a_stop_goes_on_where_a_killed_daemon_left_it,
    a_deleted_task_leaves_nothing,
    a_command_sees_its_environment_and_directory,
);

fn check(kind: Kind, case: fn(&mut Subject)) {
    let Some(mut subject) = Subject::start(kind) else {
        return;
    };
    case(&mut subject);
    subject.ends_clean();
}

fn with(mut task: Value, field: &str, value: Value) -> Value {
    task[field] = value;
    task
}

/// A script that says that it has begun, waits for a file and then does `then`.
fn gated(subject: &Subject, then: &str) -> String {
    let gate = format!("{}/gate", subject.shared_inside());
    format!("echo started; while [ ! -e {gate} ]; do sleep 0.05; done; {then}")
}

fn open_gate(subject: &Subject) {
    fs::write(subject.shared().join("gate"), "").unwrap();
}

/// The outcome of a task that was stopped or ran out of time, without how it really ended.
fn ended_as(mut outcome: Value, how: Value) -> Value {
    if let (Some(outcome), Value::Object(how)) = (outcome.as_object_mut(), how) {
        outcome.extend(how);
    }
    outcome
}

fn an_exit_code_is_told_as_it_was(subject: &mut Subject) {
    let client = subject.client();
    let codes = [0, 1, 3, 255];
    for code in codes {
        client.submit(&subject.shell(&format!("exit-{code}"), &format!("exit {code}")));
    }
    for code in codes {
        let ended = client.until_ended(&format!("exit-{code}"), SOON);
        assert_eq!(
            ended["outcome"],
            json!({"cause": "exit", "exitCode": code}),
            "{ended:#}"
        );
        assert_eq!(exit_code(&ended), code);
        let (expected, told) = match code {
            0 => ("Succeeded", "Task completed successfully".to_owned()),
            code => ("Failed", format!("the command ended with exit code {code}")),
        };
        assert_eq!((reason(&ended).as_str(), message(&ended)), (expected, told));
        assert_eq!(ended["attempts"].as_array().unwrap().len(), 1);
    }
}

fn a_program_that_cannot_be_had_ends_with_126_or_127(subject: &mut Subject) {
    let client = subject.client();
    let plain = subject.shared().join("plain");
    fs::write(&plain, "no program").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let plain = format!("{}/plain", subject.shared_inside());
    for (name, program, code) in [
        ("not-there", "/no/such/program", 127),
        ("not-on-the-path", "no-such-program", 127),
        ("not-executable", plain.as_str(), 126),
        ("a-directory", "/bin", 126),
    ] {
        client.submit(&subject.command(name, &[program, "word"]));
        let ended = client.until_ended(name, SOON);
        assert_eq!(ended["outcome"]["cause"], "exit", "{ended:#}");
        assert_eq!(exit_code(&ended), code, "{ended:#}");
        assert!(
            message(&ended).contains(program),
            "the program is named: {ended:#}"
        );
    }
}

fn output_is_kept_byte_for_byte(subject: &mut Subject) {
    const LONG: usize = 300_000;
    let client = subject.client();
    let octal: String = (0..=255_u8).map(|byte| format!("\\{byte:03o}")).collect();
    let script = format!(
        "head -c {LONG} /dev/zero | tr '\\0' x; echo; printf '{octal}'; printf 'first\\n\\nend'; \
         printf 'other\\n\\377end' >&2"
    );
    client.submit(&subject.shell("prints", &script));
    let ended = client.until_ended("prints", SOON);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");

    let mut stdout = vec![b'x'; LONG];
    stdout.push(b'\n');
    stdout.extend(0..=255_u8);
    stdout.extend(b"first\n\nend");
    let stderr = b"other\n\xffend".to_vec();
    for (stream, expected) in [("stdout", stdout), ("stderr", stderr)] {
        let file = fs::read(subject.daemon.task_file("prints", &format!("{stream}.log"))).unwrap();
        assert_same(&file, &expected, stream);
        let path = format!("/tasks/prints/logs?stream={stream}");
        let answered = client.get(&path).expect(200).body;
        assert_same(&answered, &expected, &path);
    }
}

/// Without printing hundreds of kilobytes.
fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    let differs = found
        .iter()
        .zip(expected)
        .position(|(one, other)| one != other);
    let lengths = (found.len(), expected.len());
    assert!(
        found == expected,
        "{what}: lengths {lengths:?}, first difference {differs:?}"
    );
}

fn a_death_by_signal_is_told(subject: &mut Subject) {
    let client = subject.client();
    for signal in [9, 15] {
        let name = format!("by-its-child-{signal}");
        // A first process of a container cannot kill itself: its child can, and a shell says so.
        let script = format!("sh -c 'kill -{signal} $$; sleep 60'; exit $?");
        client.submit(&subject.shell(&name, &script));
        let ended = client.until_ended(&name, SOON);
        let expected = json!({"cause": "exit", "exitCode": 128 + signal});
        assert_eq!(ended["outcome"], expected);
    }
    if subject.kind != Kind::Container {
        for signal in [9, 15] {
            let name = format!("by-itself-{signal}");
            client.submit(&subject.shell(&name, &format!("kill -{signal} $$; sleep 60")));
            let ended = client.until_ended(&name, SOON);
            assert_eq!(
                ended["outcome"],
                json!({"cause": "signal", "signal": signal})
            );
            assert_eq!(exit_code(&ended), 128 + signal);
        }
    }
    // By somebody else, from outside.
    client.submit(&subject.shell("killed", "echo started; exec sleep 300"));
    subject.until_started("killed");
    eventually(SOON, "there is one process", || {
        let processes = subject.processes();
        processes.iter().filter(|one| one.name == "sleep").count() == 1
    });
    for process in subject.processes() {
        reaper::send(process.pid, Signal::KILL);
    }
    let ended = client.until_ended("killed", SOON);
    assert_eq!(exit_code(&ended), 137, "{ended:#}");
    assert_eq!(reason(&ended), "Failed");
}

fn a_stop_leaves_time_to_end_and_tells_the_true_code(subject: &mut Subject) {
    let client = subject.client();
    let script = "trap 'echo ending; sleep 0.3; exit 7' TERM; echo started; \
                  while :; do sleep 0.05; done";
    let body = with(
        subject.shell("polite", script),
        "limits",
        json!({"graceSeconds": 15}),
    );
    client.submit(&body);
    subject.until_started("polite");
    let begun = Instant::now();
    client.post("/tasks/polite/stop", &json!({})).expect(200);
    let ended = client.until_ended("polite", SOON);
    assert!(begun.elapsed() < Duration::from_secs(10), "no whole grace");
    assert_eq!(
        ended["outcome"],
        json!({"cause": "canceled", "exitCode": 7})
    );
    assert_eq!(
        (exit_code(&ended), reason(&ended).as_str()),
        (7, "Canceled")
    );
    assert_eq!(subject.printed("polite"), "started\nending\n");
    subject.until_no_process_lives();
}

/// Deaf to TERM, for ever.
const DEAF: &str = "trap '' TERM; echo started; while :; do sleep 0.05; done";

fn what_is_deaf_to_term_is_killed_after_its_grace(subject: &mut Subject) {
    let client = subject.client();
    let limits = json!({"graceSeconds": 1});
    client.submit(&with(subject.shell("deaf", DEAF), "limits", limits));
    subject.until_started("deaf");
    let begun = Instant::now();
    client.post("/tasks/deaf/stop", &json!({})).expect(200);
    let ended = client.until_ended("deaf", SOON);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "it had its grace");
    assert!(took < Duration::from_secs(9), "and no more: {took:?}");
    let expected = ended_as(json!({"cause": "canceled"}), subject.died_by(9));
    assert_eq!(ended["outcome"], expected);
    assert_eq!(exit_code(&ended), 137);
    subject.until_no_process_lives();
}

fn a_stop_ends_the_whole_tree(subject: &mut Subject) {
    let client = subject.client();
    let script = "sleep 300 & setsid sleep 300 & \
                  (setsid sh -c 'trap \"\" TERM; sleep 300 & wait; sleep 300' &); \
                  echo started; sleep 300";
    let limits = json!({"graceSeconds": 0.5});
    client.submit(&with(subject.shell("tree", script), "limits", limits));
    subject.until_started("tree");
    eventually(SOON, "the tree is up", || {
        let processes = subject.processes();
        processes.iter().filter(|one| one.name == "sleep").count() == 4
    });
    client.post("/tasks/tree/stop", &json!({})).expect(200);
    let ended = client.until_ended("tree", SOON);
    assert_eq!(ended["outcome"]["cause"], "canceled");
    subject.until_no_process_lives();
}

fn a_timeout_stays_one(subject: &mut Subject) {
    let client = subject.client();
    let script = "trap 'exit 5' TERM; echo started; while :; do sleep 0.05; done";
    let limits = json!({"runSeconds": 1, "graceSeconds": 10});
    client.submit(&with(subject.shell("slow", script), "limits", limits));
    let ended = client.until_ended("slow", SOON);
    assert_eq!(
        ended["outcome"],
        json!({"cause": "timeout", "limit": "run", "exitCode": 5})
    );
    assert_eq!(
        (exit_code(&ended), reason(&ended).as_str()),
        (137, "TaskTimeout")
    );
    assert!(message(&ended).contains("1 seconds"), "{ended:#}");
    subject.until_no_process_lives();
    assert_eq!(client.task("slow"), ended, "and stays so");
}

fn a_task_runs_on_while_the_daemon_is_killed(subject: &mut Subject) {
    let client = subject.client();
    client.submit(&subject.shell("on", &gated(subject, "echo more; exit 17")));
    subject.until_started("on");
    let before = client.task("on");
    subject.daemon.kill();
    subject.daemon.start_again();
    let after = client.task("on");
    assert_eq!(state(&after), "running");
    assert_eq!(after["id"], before["id"]);
    assert_eq!(after["attempts"][0]["number"], 1);
    assert_eq!(after["attempts"].as_array().unwrap().len(), 1);
    open_gate(subject);
    let ended = client.until_ended("on", SOON);
    assert_eq!(ended["outcome"], json!({"cause": "exit", "exitCode": 17}));
    assert_eq!(subject.printed("on"), "started\nmore\n", "each byte once");
}

fn an_end_while_the_daemon_was_down_is_told(subject: &mut Subject) {
    let client = subject.client();
    let scripts = [("zero", "echo late; exit 0"), ("failed", "exit 41")];
    for (name, then) in scripts {
        client.submit(&subject.shell(name, &gated(subject, then)));
        subject.until_started(name);
    }
    subject.daemon.kill();
    open_gate(subject);
    subject.until_no_process_lives();
    subject.daemon.start_again();
    let ended = client.until_ended("zero", SOON);
    assert_eq!(ended["outcome"], json!({"cause": "exit", "exitCode": 0}));
    assert_eq!(subject.printed("zero"), "started\nlate\n");
    let ended = client.until_ended("failed", SOON);
    assert_eq!(ended["outcome"], json!({"cause": "exit", "exitCode": 41}));
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1);
}

fn a_stop_goes_on_where_a_killed_daemon_left_it(subject: &mut Subject) {
    let client = subject.client();
    let limits = json!({"graceSeconds": 3});
    client.submit(&with(subject.shell("deaf", DEAF), "limits", limits));
    subject.until_started("deaf");
    let begun = Instant::now();
    client.post("/tasks/deaf/stop", &json!({})).expect(200);
    subject.daemon.kill();
    subject.daemon.start_again();
    let ended = client.until_ended("deaf", SOON);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
    let expected = ended_as(json!({"cause": "canceled"}), subject.died_by(9));
    assert_eq!(ended["outcome"], expected);
    subject.until_no_process_lives();
}

fn a_deleted_task_leaves_nothing(subject: &mut Subject) {
    let client = subject.client();
    client.submit(&subject.shell("ended", "echo some; exit 3"));
    client.until_ended("ended", SOON);
    client.submit(&subject.shell("running", "echo started; setsid sleep 300 & sleep 300"));
    subject.until_started("running");
    let data = subject.daemon.home().data();
    let directory = |name: &str| data.join(name);
    assert!(directory("ended").is_dir() && directory("running").is_dir());
    if subject.kind == Kind::Container {
        assert!(!subject.objects().is_empty());
    }
    for name in ["ended", "running"] {
        client
            .delete(&format!("/tasks/{name}?grace=200ms"))
            .expect(204);
        client.until_gone(name, SOON);
    }
    // Gone from the list means gone: none of this may come later.
    let left = subject.remains();
    assert!(left.is_empty(), "{left:#?}");
}

fn a_command_sees_its_environment_and_directory(subject: &mut Subject) {
    let client = subject.client();
    let mut body = subject.shell("sees", "echo \"$A|$TASKWRIGHT_TASK_NAME|$PWD\"; pwd");
    let place = match subject.kind {
        Kind::Container => &mut body["spec"]["container"],
        Kind::Process | Kind::Sidecar => &mut body["process"],
    };
    let variable = json!({"name": "A", "value": "b = 'c' \"d\" $HOME"});
    place["env"].as_array_mut().unwrap().push(variable);
    place["workingDir"] = json!(subject.shared_inside());
    client.submit(&body);
    let ended = client.until_ended("sees", SOON);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    let directory = subject.shared_inside();
    let directory = Path::new(&directory).display();
    assert_eq!(
        subject.printed("sees"),
        format!("b = 'c' \"d\" $HOME|sees|{directory}\n{directory}\n")
    );
}
