//! Scripts on their engine: what is told of them, and what is kept.

use std::sync::Arc;

use taskwright_capability::{Capability, Directory, Grants};
use taskwright_control::port::{PluginInfo, Strategies as _};
use taskwright_engine::{LoadError, PluginSource, Script};
use taskwright_model::{RuntimeName, Task};

use crate::support::{Bench, command, given, said, script};

const WRAP: &str = r#"
fn describe() { #{ version: "7" } }
fn start(task) { #{ argv: ["nice"] + task.command } }
"#;

fn for_script(argv: &[&str]) -> Task {
    let mut task = command(argv);
    task.runtime = RuntimeName::parse("wrap").unwrap();
    task
}

async fn load(bench: &Bench, text: &str) -> Result<PluginInfo, LoadError> {
    bench.runtimes.load(script(text)).await
}

#[tokio::test]
async fn a_script_is_the_runtime_of_its_files_name() {
    let bench = Bench::new();
    let info = load(&bench, WRAP).await.unwrap();
    assert_eq!((&*info.name, &*info.version), ("wrap", "7"));
    assert!(info.imports.iter().any(|one| one.contains("process")));
    for beyond in ["namespace", "container", "files"] {
        assert!(!info.imports.iter().any(|one| one.contains(beyond)));
    }
    let task = given(for_script(&["true"]));
    assert!(
        bench
            .runtimes
            .validate(task.clone())
            .await
            .unwrap()
            .is_empty()
    );
    let stepped = bench.runtimes.start(task).await.unwrap();
    assert!(stepped.process.is_some());
    let spawned = bench.processes.spawned();
    assert_eq!(spawned.last().unwrap().argv, ["nice", "true"]);
}

#[tokio::test]
async fn another_text_has_another_digest_and_the_same_code() {
    let bench = Bench::new();
    let first = load(&bench, WRAP).await.unwrap();
    let again = load(&bench, WRAP).await.unwrap();
    let other = load(&bench, &WRAP.replace('7', "8")).await.unwrap();
    assert_eq!(first.digest, again.digest);
    assert_ne!(first.digest, other.digest);
    assert_eq!(bench.compiler.runs(), 1);
}

#[tokio::test]
async fn what_is_wrong_is_what_the_script_says_and_nothing_else() {
    let bench = Bench::new();
    let error = load(&bench, "fn start(task) {\n    let a = ;\n}")
        .await
        .unwrap_err();
    let told = said(&error);
    let place = "it could not describe itself: wrap.rhai:2:13: ";
    assert!(
        told.contains(place) && told.ends_with(": `let a = ;`"),
        "{told}"
    );
    let text = "fn describe() { #{ version: \"1\" } }\nfn start(task) { lap(3) }";
    load(&bench, text).await.unwrap();
    let task = given(for_script(&["true"]));
    // Of one task, and so its submitter's to hear, not a fault that counts against the script.
    let told = bench.runtimes.validate(task).await.unwrap();
    let [problem] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(problem.field, "/spec");
    assert!(
        problem
            .message
            .contains("wrap.rhai:2:18: Function not found: lap"),
        "{problem:?}"
    );
    let beside = [Capability::Directories, Capability::Secrets];
    let nothing = PluginSource {
        script: None::<Script>,
        grants: Grants::of(&[[Capability::Process].as_slice(), &beside].concat()),
        component: Arc::clone(&script("").component),
        ..script("")
    };
    let told = said(&bench.runtimes.load(nothing).await.unwrap_err());
    assert!(told.contains("there is no script"), "{told}");
}

#[tokio::test]
async fn a_script_has_what_it_was_lent_and_is_told_the_line_for_the_rest() {
    let bench = Bench::new();
    std::fs::write(bench.folder.path().join("niceness"), "15").unwrap();
    let text = "fn describe() { #{ version: \"1\" } }\n\
                fn start(task) { #{ argv: [\"nice\", WANTED] + task.command } }";
    let lent = |wanted: &str, capabilities: &[Capability]| {
        let mut source = script(&text.replace("WANTED", wanted));
        source.grants.capabilities.extend(capabilities);
        let path = bench.folder.path().to_owned();
        let directory = Directory { path, write: false };
        let directories = &mut source.grants.directories;
        directories.insert("own".to_owned(), directory);
        source
    };
    let file = lent("read_file(\"own\", \"niceness\")", &[]);
    let info = bench.runtimes.load(file).await.unwrap();
    assert_eq!(info.grants, ["process"]);
    bench
        .runtimes
        .start(given(for_script(&["true"])))
        .await
        .unwrap();
    let spawned = bench.processes.spawned();
    assert_eq!(spawned.last().unwrap().argv, ["nice", "15", "true"]);
    for (wanted, line) in [
        (
            "secret(\"key\")",
            "add `key = { file = \"/PATH\" }` under `[secrets]` in wrap.toml",
        ),
        ("now()", "add `clock = true` under `[grants]`"),
    ] {
        bench.runtimes.load(lent(wanted, &[])).await.unwrap();
        let told = bench.runtimes.start(given(for_script(&["true"]))).await;
        let told = told.unwrap_err().to_string();
        assert!(told.contains(line), "{told}");
    }
    let clock = lent("now()", &[Capability::Clock]);
    bench.runtimes.load(clock).await.unwrap();
    bench
        .runtimes
        .start(given(for_script(&["true"])))
        .await
        .unwrap();
}
