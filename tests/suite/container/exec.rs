//! Commands inside containers, from the command line.

use serde_json::{Value, json};
use taskwright_tests::SOON;

use super::Contained;

/// A daemon with a container named `box` that sleeps.
fn with_box() -> Option<Contained> {
    let it = Contained::start()?;
    it.client()
        .submit(&it.shell("box", "echo ready; exec sleep 600"));
    it.until_printed("box", "ready");
    it.client().until_state("box", "running", SOON);
    Some(it)
}

/// `taskwright exec` with these words ends with `code` and says these words.
fn check(it: &Contained, words: &[&str], code: i32, says: &str) {
    let words = [&["exec", "box"], words].concat();
    let told = it.daemon.taskwright(&words).expect(code);
    assert!(told.stderr.contains(says), "{words:?}: {}", told.stderr);
    let quoted = told.stderr.contains("\\\"") || told.stderr.contains("\\n");
    assert!(!quoted, "{words:?}: {}", told.stderr);
}

#[test]
fn a_command_ends_with_its_own_code_or_with_that_of_its_failure() {
    let Some(it) = with_box() else { return };
    check(&it, &["--", "sh", "-c", "exit 0"], 0, "");
    check(&it, &["--", "sh", "-c", "exit 3"], 3, "");
    check(
        &it,
        &["--timeout", "1s", "--", "sleep", "30"],
        124,
        "longer",
    );
    check(&it, &["--", "/etc/passwd"], 126, "cannot be executed");
    check(&it, &["--", "no-such-program"], 127, "not found");
    check(&it, &["-c", "nobody", "--", "true"], 125, "no container");
    let nowhere = ["exec", "nowhere", "--", "true"];
    let told = it.daemon.taskwright(&nowhere).expect(125);
    assert!(told.stderr.contains("nowhere"), "{}", told.stderr);
}

#[test]
fn programs_are_told_why_by_a_word() {
    let Some(it) = with_box() else { return };
    for (command, seconds, status, cause) in [
        (json!(["no-such-program"]), 15, 400, "not-found"),
        (json!(["/etc/passwd"]), 15, 400, "not-executable"),
        (json!(["sleep", "30"]), 1, 504, "timeout"),
    ] {
        let body = json!({"command": command, "timeoutSeconds": seconds});
        let answer = it.client().post("/tasks/box/exec", &body).expect(status);
        let problem: Value = answer.json();
        assert_eq!(problem["cause"], cause, "{problem:#}");
    }
}
