//! Problems, what is started, what comes of an end; and the program itself, by a real shell.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::io::{BufRead, BufReader};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use taskwright_plugin_sdk::UnitExit;

use super::*;

fn task(script: Value) -> Task {
    Task {
        id: "0198b0e5-0000-7000-8000-000000000001".to_owned(),
        namespace: "tessia".to_owned(),
        name: "0000aaaa".to_owned(),
        attempt: 1,
        kind: KIND.to_owned(),
        process: None,
        document: script.to_string(),
        labels: Vec::new(),
        config: String::new(),
        extra: Vec::new(),
    }
}

#[test]
fn problems_have_their_place() {
    assert_eq!(problems(&task(json!("echo hi"))), []);
    let found = problems(&task(json!(["echo hi", "shout"])));
    let [only] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(only.field, "/document/content/1");
    let other = Task {
        kind: "process".to_owned(),
        config: "{}".to_owned(),
        ..task(json!(null))
    };
    assert_eq!(problems(&other).len(), 2);
    assert!(spawn_request(&task(json!("shout"))).is_err());
}

#[test]
fn a_script_that_raises_is_told_from_one_that_returns() {
    let end = |script: &str, code: u8| {
        let end = End {
            status: ExitStatus::Code(code),
            out_of_memory: false,
        };
        let exit = UnitExit {
            unit: command::MAIN.to_owned(),
            end,
        };
        hear(&task(json!(script)), Event::Exited(exit)).unwrap()
    };
    let raised = |line: u32| {
        let sentence = format!("RAISE in line {line} of the script");
        Step::Done(Outcome::ExitedBecause((RAISED, sentence)))
    };
    let returned = |code| Step::Done(Outcome::Exited(code));
    assert_eq!(end("raise", RAISED), raised(1));
    assert_eq!(end("echo a\nraise\nreturn 1", RAISED), raised(2));
    assert_eq!(end("return -3\nraise", RAISED), returned(RAISED));
    assert_eq!(end("return 0\ncleanup\nraise", RAISED), raised(3));
    assert_eq!(end("return 253\ncleanup\nraise", RAISED), returned(RAISED));
    assert_eq!(end("cleanup\nreturn 1\nraise", RAISED), returned(RAISED));
    assert_eq!(end("raise", 255), returned(255), "it was stopped");
}

/// The process that a script becomes.
fn process(script: &str) -> Process {
    let request = spawn_request(&task(json!(script))).unwrap();
    let (program, words) = request.argv.split_first().unwrap();
    let mut process = Process::new(program);
    process.args(words).stdin(Stdio::null());
    process
}

/// Its code, and what it printed.
fn played(script: &str) -> (i32, String, String) {
    let output = process(script).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_program_does_what_the_script_says() {
    let (code, out, err) = played("echo -n  $HOME `id` \"'\\\nsleep 0.01\nreturn 7\necho never");
    assert_eq!((code, &*out, &*err), (7, "-n $HOME `id` \"'\\\n", ""));
    assert_eq!(played("").0, 0);
    assert_eq!(
        played("raise\necho never"),
        (253, String::new(), String::new())
    );
    let (code, out, _) = played("return 300\ncleanup\necho a\nreturn 9\necho never");
    assert_eq!((code, &*out), (44, "a\n"));
    assert_eq!(played("cleanup\nraise").0, 253);
    assert_eq!(played("return 4\ncleanup\nraise").0, 4);
    let (_, _, log) = played("echo x\nlog warning Important  message");
    let (time, rest) = log.split_once("] ").unwrap();
    assert_eq!(rest, "WARNING [echo.script:2] Important message\n");
    assert_eq!(time.len(), "[2026-01-01 00:00:00".len(), "{log}");
}

#[test]
fn a_stop_goes_to_the_cleanup_and_nothing_is_told_of_the_sleep() {
    // Who hears of it first is left to chance.
    for _ in 0..20 {
        let script = "echo up\nsleep 300\necho never\ncleanup\nsleep 0.01\necho clean";
        let mut child = process(script)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        let pid = child.id();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let begun = Instant::now();
        let sleep = loop {
            let found = std::fs::read_to_string(&children).unwrap();
            // Before it is the program, it is a copy of the shell, which hears of nothing.
            let name = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/comm"));
            if let Some(sleep) = found.split_whitespace().next()
                && name(sleep).is_ok_and(|name| name.trim() == "sleep")
            {
                break sleep.to_owned();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "it sleeps");
        };
        let mut kill = Process::new("kill");
        kill.args(["-TERM", &sleep, &pid.to_string()]);
        assert!(kill.status().unwrap().success());
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        assert_eq!(rest, ["clean"]);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(255));
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    }
}
