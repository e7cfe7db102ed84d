//! What a task for this runtime may say.

use taskwright_plugin_sdk::Command;

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
