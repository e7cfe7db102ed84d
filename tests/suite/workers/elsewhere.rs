//! Templates whose work is not beside its worker: in a container, in a pod, in a main container.

use serde_json::{Value, json};
use taskwright_tests::{Client, Containerd, MainContainer, Options, SOON, eventually};

use super::{ended, submit, with_template_options};
use crate::container;

/// Adds up two parameters: one from the environment, one from the file, and tells of both.
const ADDS_UP: &str = r#"
b=$(sed 's/.*"b":\([0-9]*\).*/\1/' "$TASKWRIGHT_PARAMETERS")
echo "[WARNING] $TASKWRIGHT_PARAM_A and $b"
echo "{\"sum\": $((TASKWRIGHT_PARAM_A + b))}" > "$TASKWRIGHT_RESULT"
"#;

fn adds_up(client: &Client, problem: &str) {
    let id = submit(client, problem, &json!({"a": 40, "b": 2}));
    let done = ended(client, &id);
    assert_eq!(done["status"], "completed", "{done:#}");
    assert_eq!(done["result"], json!({"sum": 42}));
    let path = format!("/api/v1/tasks/{id}/logs?level=warning&limit=1000");
    let logs = client.get(&path).expect(200).json();
    let logs = logs.as_array().unwrap();
    let said = logs.iter().any(|line| told(line, "40 and 2"));
    assert!(said, "{logs:#?}");
}

fn told(line: &Value, text: &str) -> bool {
    line["message"].as_str().unwrap().contains(text)
}

#[test]
fn a_template_runs_in_a_container_and_in_a_pod() {
    let Some(containerd) = Containerd::get() else {
        return;
    };
    let image = containerd.image();
    let text = format!(
        r#"
[[queue.templates]]
problems = ["alone"]
task.spec.container = {{ image = "{image}", command = ["/bin/sh", "-c", '''{ADDS_UP}'''] }}
[[queue.templates]]
problems = ["pod"]
[[queue.templates.task.podTemplateSpec.spec.containers]]
name = "work"
image = "{image}"
command = ["/bin/sh", "-c", '''{ADDS_UP}''']
"#
    );
    let daemon = with_template_options(&text, container::options(containerd));
    let client = daemon.client();
    adds_up(&client, "alone");
    adds_up(&client, "pod");
    let work = daemon.home().data().join(".taskwright-work");
    eventually(SOON, "the folders are removed", || {
        std::fs::read_dir(&work).map_or(0, Iterator::count) == 0
    });
}

#[test]
fn a_template_runs_in_a_main_container() {
    let name = format!("main-of-workers-{}", std::process::id());
    let Some(main) = MainContainer::start(&name) else {
        return;
    };
    let shared = main.root().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let text = format!(
        r#"
[[queue.templates]]
problems = ["sees-it"]
task.runtime = "sidecar"
task.spec.process.command = ["sh", "-c", '''{ADDS_UP}''']
work-dir = "{}"
work-dir-inside = "/shared"
[[queue.templates]]
problems = ["sees-none"]
task.runtime = "sidecar"
task.spec.process.command = ["sh", "-c", "[ -z \"$TASKWRIGHT_RESULT\" ] && [ $TASKWRIGHT_PARAM_A = 40 ]"]
"#,
        shared.display()
    );
    let options = Options::new()
        .flag("--enable-sidecar-mode")
        .flag(&format!("--main-container-name={name}"));
    let daemon = with_template_options(&text, options);
    let client = daemon.client();
    adds_up(&client, "sees-it");
    eventually(SOON, "its folder is removed", || {
        std::fs::read_dir(&shared).unwrap().count() == 0
    });
    let id = submit(&client, "sees-none", &json!({"a": 40}));
    let done = ended(&client, &id);
    assert_eq!(
        done["result"],
        json!({"success": true, "exit_code": 0}),
        "{done:#}"
    );
}
