#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use taskwright_plugin_sdk::{Command, End, ExitStatus, Outcome, Waiting};

use super::*;

fn task(config: &str) -> Task {
    Task {
        id: "0198b0e5-0000-7000-8000-000000000001".to_owned(),
        namespace: "default".to_owned(),
        name: "build".to_owned(),
        attempt: 1,
        kind: command::KIND.to_owned(),
        process: Some(Command {
            command: vec!["true".to_owned()],
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
        }),
        document: String::new(),
        labels: Vec::new(),
        config: config.to_owned(),
        extra: Vec::new(),
    }
}

#[test]
fn what_is_said_for_another_runtime_is_not_ignored() {
    assert!(problems(&task("")).is_empty());
    let found = problems(&task("{\"target\":{\"pid\":1}}"));
    assert!(matches!(found.as_slice(), [one] if one.field == "/config"));
}

#[test]
fn a_unit_that_is_over_already_needs_no_event() {
    let after = |ended| after_spawn(Ok(Spawned { pid: 7, ended })).unwrap();
    assert!(matches!(
        after(None),
        Step::Wait(Waiting { running: true, .. })
    ));
    let ended = End {
        status: ExitStatus::Code(3),
        out_of_memory: false,
    };
    assert!(matches!(after(Some(ended)), Step::Done(Outcome::Exited(3))));
}
