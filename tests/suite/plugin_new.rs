//! A runtime by somebody who never saw our sources: written by `plugin new`, built by cargo,
//! checked by `plugin check`, dropped into the folder of a daemon that runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use taskwright_test_guests::RELAY;
use taskwright_tests::task::{exit_code, flat};
use taskwright_tests::{Home, Options, SOON, cli, eventually_some};

/// Other than the example's, so that what the generator renames is built, too.
const NAME: &str = "greeter-2";
/// The crates of the bindings' generator may have to be compiled first.
pub(crate) const BUILD: Duration = Duration::from_secs(600);

/// What a build for the host says to cargo, and what a project beside it must not hear.
pub(crate) const NOT_FOR_PLUGINS: [&str; 6] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

/// A project that is made anew for each run, always in one place: cargo knows crates by their
/// place and keeps what it made of them.
struct Project {
    folder: PathBuf,
    target: PathBuf,
}

impl Project {
    fn write(home: &Home) -> Self {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let beside = tmp.join("plugin-new");
        if beside.exists() {
            fs::remove_dir_all(&beside).unwrap();
        }
        fs::create_dir_all(&beside).unwrap();
        let words = ["plugin", "new", "--lang", "rust", NAME];
        let mut new = home.command(taskwright_tests::binary::taskwright());
        let told = cli::finish(new.args(words).current_dir(&beside), b"", SOON).expect(0);
        assert!(told.stdout.contains("plugin check greeter-2.wasm"));
        let again = cli::finish(new.current_dir(&beside), b"", SOON).expect(1);
        assert!(
            again.stderr.contains("is there already"),
            "{}",
            again.stderr
        );
        Self {
            folder: beside.join(NAME),
            // Where the build compiled the generator of the bindings already.
            target: tmp.with_file_name("guests"),
        }
    }

    fn cargo(&self, words: &[&str]) {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        for name in NOT_FOR_PLUGINS {
            command.env_remove(name);
        }
        command
            .env("CARGO_TARGET_DIR", &self.target)
            .current_dir(&self.folder)
            .args(words);
        cli::finish(&mut command, b"", BUILD).expect(0);
    }

    /// The component, beside what it is to be lent.
    fn build(&self) -> PathBuf {
        self.cargo(&[
            "build",
            "--locked",
            "--release",
            "--target",
            "wasm32-wasip2",
        ]);
        let built = self
            .target
            .join("wasm32-wasip2/release/runtime_greeter_2.wasm");
        let component = self.folder.join(NAME).with_extension("wasm");
        fs::copy(built, &component).unwrap();
        component
    }
}

#[test]
fn what_is_written_is_built_tested_checked_and_runs_a_task() {
    let home = Home::new();
    let project = Project::write(&home);
    project.cargo(&["test", "--locked"]);
    let component = project.build();
    let file = component.to_str().unwrap();
    let checked = home.taskwright(&["plugin", "check", file]).expect(0);
    assert!(
        checked.stdout.contains("It would be loaded."),
        "{}",
        checked.stdout
    );
    assert!(!checked.stdout.contains("note"), "{}", checked.stdout);

    let tested = home.taskwright(&["plugin", "test", file]).expect(0);
    assert!(tested.stdout.contains("exit code 255"), "{}", tested.stdout);

    let plugins = home.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    let flag = format!("--plugin-dir={}", plugins.display());
    let daemon = Options::new().flag(&flag).start_in(home);
    let client = daemon.client();
    for end in ["toml", "wasm"] {
        let name = Path::new(NAME).with_extension(end);
        fs::copy(project.folder.join(&name), plugins.join(&name)).unwrap();
    }
    eventually_some(SOON, "it serves", || {
        let answer = client.get(&format!("/plugins/{NAME}"));
        (answer.status == 200 && answer.json().get("refused").is_none()).then_some(())
    });
    let run = |name: &str, words: &[&str]| {
        let mut task = flat(name, words);
        task["runtime"] = json!(NAME);
        client.run(&task)
    };
    let ended = run("greeted", &["sh", "-c", "echo $GREETING; exit 7"]);
    assert_eq!(exit_code(&ended), 7, "{ended:#}");
    let printed = client.get("/tasks/greeted/logs").expect(200).text();
    assert_eq!(printed, "good morning\n");
    let late = run("late", &["sh", "-c", "sleep 0.2; exit 8"]);
    assert_eq!(exit_code(&late), 8, "{late:#}");
    let missing = run("missing", &["no-such-program"]);
    assert_eq!(exit_code(&missing), 127, "{missing:#}");
}

#[test]
fn what_a_runtime_does_wrong_is_told_before_any_daemon_has_it() {
    let home = Home::new();
    let file = home.file("relay.wasm", RELAY);
    let file = file.to_str().unwrap();
    let lend = |settings: &str| {
        let lent = format!("[grants]\nprocess = true\n[settings]\n{settings}\n");
        let _beside = home.file("relay.toml", lent);
    };
    lend("");
    let tested = home.taskwright(&["plugin", "test", file]).expect(0);
    assert!(!tested.stdout.contains("FAILED"), "{}", tested.stdout);
    lend("trap = true");
    let words = ["plugin", "test", file, "-o", "json"];
    let told = home.taskwright(&words).expect(1).json();
    assert_eq!(told["passed"], false);
    let claims = told["claims"].as_array().unwrap();
    let failed = claims.iter().filter(|claim| claim["ok"] == false);
    let why = |claim: &serde_json::Value| claim["why"].as_str().unwrap().to_owned();
    let failed: Vec<String> = failed.map(why).collect();
    assert!(failed.len() > 5 && failed.len() < claims.len(), "{told:#}");
    let by_trap = |why: &String| why.contains("told to trap");
    assert!(failed.iter().all(by_trap), "each is tried: {told:#}");
    lend("");
    let task = home.file("task.json", flat("mine", &["/bin/false", "x"]).to_string());
    let words = ["plugin", "test", file, "--task", task.to_str().unwrap()];
    home.taskwright(&words).expect(0);
    let task = home.file(
        "none.json",
        r#"{"name": "mine", "spec": {"container": {"image": "x"}}}"#,
    );
    let words = ["plugin", "test", file, "--task", task.to_str().unwrap()];
    let refused = home.taskwright(&words).expect(2);
    assert!(
        refused.stderr.contains("only commands"),
        "{}",
        refused.stderr
    );
    // What it is not lent is told as by the check.
    let _beside = home.file("relay.toml", "");
    let refused = home.taskwright(&["plugin", "test", file]).expect(1);
    assert!(refused.stderr.contains("may not use"), "{}", refused.stderr);
}

#[test]
fn what_is_no_runtime_is_tried_otherwise_and_scripts_are_compiled_once() {
    let home = Home::new();
    let cache = home.path().join(".cache/taskwright");
    let kept = || -> Vec<_> {
        let versions = fs::read_dir(&cache).into_iter().flatten().flatten();
        let files = versions.flat_map(|version| fs::read_dir(version.path()).unwrap());
        files
            .map(|file| file.unwrap())
            .map(|file| (file.path(), file.metadata().unwrap().modified().unwrap()))
            .collect()
    };
    for (file, text, way) in [
        (
            "careful.rhai",
            "fn review(request) {}",
            "taskwright policy test",
        ),
        ("watcher.rhai", "fn notice(event) {}", "plugin folder"),
    ] {
        let file = home.file(file, text);
        let words = ["plugin", "test", file.to_str().unwrap()];
        let refused = home.taskwright(&words).expect(2);
        assert!(refused.stderr.contains(way), "{}", refused.stderr);
    }
    let first = kept();
    assert_eq!(first.len(), 1, "{first:?}");
    let mode = fs::metadata(&cache).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    let file = home.path().join("careful.rhai");
    let words = ["plugin", "check", file.to_str().unwrap()];
    home.taskwright(&words).expect(0);
    assert_eq!(kept(), first, "it was not compiled again");
    // A component of somebody's is not kept there, and damage is compiled again.
    let relay = home.file("relay.wasm", RELAY);
    let _beside = home.file("relay.toml", "[grants]\nprocess = true\n");
    home.taskwright(&["plugin", "test", relay.to_str().unwrap()])
        .expect(0);
    assert_eq!(kept(), first);
    fs::write(&first[0].0, "damage").unwrap();
    home.taskwright(&words).expect(0);
    assert!(fs::metadata(&first[0].0).unwrap().len() > 1000);
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    home.taskwright(&words).expect(0);
}

#[test]
fn names_that_are_no_runtimes_and_other_languages_are_refused() {
    let home = Home::new();
    for (words, why) in [
        (&["Upper"][..], "a-z"),
        (&["a/b"], "a-z"),
        (&["process"], "built-in"),
        (&["--lang", "cobol", "mine"], "possible values: rust"),
    ] {
        let words = [&["plugin", "new"], words].concat();
        let refused = home.taskwright(&words).expect(2);
        assert!(
            refused.stderr.contains(why),
            "{words:?}: {}",
            refused.stderr
        );
    }
    assert!(!home.path().join("process").exists());
}
