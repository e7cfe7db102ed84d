//! Runtimes in other languages than Rust: what `plugin new` writes is built by the very commands
//! that it tells, tested by its own tests, checked, and dropped into the folder of a daemon.
//!
//! All projects are the same runtime, so one list of claims holds each of them to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use taskwright_tests::languages::toolchain;
use taskwright_tests::task::{exit_code, flat};
use taskwright_tests::{Client, Home, Options, SOON, cli, eventually_some};

/// Other than the examples', so that what is renamed is built, too.
const NAME: &str = "greeter-2";
/// All steps of a project together, on a machine that is busy with other tests.
const BUILD: Duration = Duration::from_secs(500);
/// An interpreter is compiled in some seconds by an idle machine.
const COMPILED: Duration = Duration::from_secs(200);

/// A project in a language, and what is to be in the environment of its toolchain.
struct Project {
    folder: PathBuf,
    /// The steps that are told, but those that install a toolchain.
    steps: Vec<String>,
}

impl Project {
    fn write(home: &Home, lang: &str, installs: &[&str]) -> Self {
        let mut new = home.command(taskwright_tests::binary::taskwright());
        new.args(["plugin", "new", "--lang", lang, NAME]);
        let told = cli::finish(new.current_dir(home.path()), b"", SOON).expect(0);
        let steps = told
            .stdout
            .lines()
            .filter_map(|line| line.strip_prefix("  "));
        let ours = |step: &&str| !installs.iter().any(|install| step.starts_with(install));
        Self {
            folder: home.path().join(NAME),
            steps: steps.skip(1).filter(ours).map(str::to_owned).collect(),
        }
    }

    /// Takes all steps, with `variables` set. What they print.
    fn build(&self, home: &Home, tools: &[PathBuf], variables: &[(&str, &Path)]) -> String {
        let ours = taskwright_tests::binary::taskwright();
        let mut paths = [tools, &[ours.parent().unwrap().to_owned()]].concat();
        let found = std::env::var_os("PATH").unwrap_or_default();
        paths.extend(std::env::split_paths(&found));
        let mut shell = home.command(Path::new("/bin/sh"));
        shell
            .args(["-exc", &self.steps.join("\n")])
            .current_dir(&self.folder)
            .env("PATH", std::env::join_paths(paths).unwrap())
            .envs(variables.iter().copied());
        let built = cli::finish(&mut shell, b"", BUILD).expect(0);
        built.stdout + &built.stderr
    }

    /// Drops it in and holds it to what every one of them is to do.
    fn check_that_it_serves(&self, home: Home, end: &str) {
        let plugins = home.path().join("plugins");
        fs::create_dir(&plugins).unwrap();
        let flag = format!("--plugin-dir={}", plugins.display());
        let mut daemon = Options::new().flag(&flag).start_in(home);
        let client = daemon.client();
        for end in ["toml", end] {
            let name = Path::new(NAME).with_extension(end);
            fs::copy(self.folder.join(&name), plugins.join(&name)).unwrap();
        }
        let serving = || {
            eventually_some(COMPILED, "it serves", || {
                let answer = client.get(&format!("/plugins/{NAME}"));
                (answer.status == 200 && answer.json().get("refused").is_none()).then_some(())
            });
        };
        serving();
        let ended = run(&client, "greeted", &["sh", "-c", "echo $GREETING; exit 7"]);
        assert_eq!(exit_code(&ended), 7, "{ended:#}");
        let printed = client.get("/tasks/greeted/logs").expect(200).text();
        assert_eq!(printed, "good morning\n");
        let late = run(&client, "late", &["sh", "-c", "sleep 0.2; exit 8"]);
        assert_eq!(exit_code(&late), 8, "{late:#}");
        let missing = run(&client, "missing", &["no-such-program"]);
        assert_eq!(exit_code(&missing), 127, "{missing:#}");
        let mut configured = task("configured", &["true"]);
        configured["config"] = json!({"greeting": "hi"});
        let refused = client.post("/tasks", &configured).expect(400);
        assert!(refused.text().contains("/config"), "{}", refused.text());

        for name in ["stopped", "found"] {
            let wait = "until [ -e go ]; do sleep 0.05; done; exit 4";
            client.submit(&task(name, &["sh", "-c", wait]));
            client.until_state(name, "running", SOON);
        }
        client.post("/tasks/stopped/stop", &json!({})).expect(200);
        let ended = client.until_ended("stopped", SOON);
        assert_eq!(ended["outcome"]["cause"], "canceled", "{ended:#}");
        daemon.kill();
        daemon.start_again();
        // What was compiled is found again.
        serving();
        fs::write(daemon.task_file("found", "go"), "").unwrap();
        let ended = daemon.client().until_ended("found", SOON);
        assert_eq!(exit_code(&ended), 4, "{ended:#}");
        let told = client.get(&format!("/plugins/{NAME}")).expect(200).json();
        assert_eq!(told["faults"], 0, "{told:#}");
    }
}

fn task(name: &str, words: &[&str]) -> serde_json::Value {
    let mut task = flat(name, words);
    task["runtime"] = json!(NAME);
    task
}

fn run(client: &Client, name: &str, words: &[&str]) -> serde_json::Value {
    client.run(&task(name, words))
}

#[track_caller]
fn check_that_it_said(said: &str, wanted: &[&str]) {
    for words in wanted {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    assert!(!said.contains("and it does not use it"), "{said}");
}

#[test]
fn a_runtime_in_python_is_built_as_told_and_serves() {
    let Some(toolchain) = toolchain("python") else {
        return;
    };
    let home = Home::new();
    let project = Project::write(&home, "python", &["python3 -m venv", "pip install"]);
    let said = project.build(&home, &[toolchain.join("venv/bin")], &[]);
    let wanted = ["Ran 6 tests", "It would be loaded.", "16 claims, 0 failed"];
    check_that_it_said(&said, &wanted);
    project.check_that_it_serves(home, "wasm");
}

#[test]
fn a_runtime_in_javascript_is_built_as_told_and_serves() {
    let Some(toolchain) = toolchain("javascript") else {
        return;
    };
    let home = Home::new();
    let project = Project::write(&home, "javascript", &[]);
    let cache = toolchain.join("cache");
    // A cache that was filled needs no network.
    let variables = [
        ("npm_config_cache", &*cache),
        ("npm_config_prefer_offline", Path::new("true")),
    ];
    let said = project.build(&home, &[], &variables);
    let wanted = ["# pass 6", "It would be loaded.", "16 claims, 0 failed"];
    check_that_it_said(&said, &wanted);
    project.check_that_it_serves(home, "wasm");
}

#[test]
fn a_runtime_in_c_is_built_as_told_and_serves() {
    let Some(toolchain) = toolchain("c") else {
        return;
    };
    let home = Home::new();
    let project = Project::write(&home, "c", &["apt-get install", "xargs cargo install"]);
    let said = project.build(&home, &[toolchain.join("bin")], &[]);
    let wanted = [
        "all claims hold",
        "It would be loaded.",
        "16 claims, 0 failed",
    ];
    check_that_it_said(&said, &wanted);
    project.check_that_it_serves(home, "wasm");
}

#[test]
fn a_runtime_in_go_is_built_as_told_and_serves() {
    let Some(toolchain) = toolchain("go") else {
        return;
    };
    let home = Home::new();
    let project = Project::write(&home, "go", &["xargs cargo install", "go mod tidy"]);
    let adapter = "wasi_snapshot_preview1.reactor.wasm";
    fs::copy(toolchain.join("adapter.wasm"), project.folder.join(adapter)).unwrap();
    // In the place of `go mod tidy`, which asks the proxy of modules.
    let module = toolchain.join("pkg").canonicalize().unwrap();
    let work = format!(
        "go 1.27.1\nuse ./{NAME}\nreplace go.bytecodealliance.org/pkg => {}\n",
        module.display()
    );
    let _beside = home.file("go.work", work);
    let cache = toolchain.join("cache");
    let variables = [
        ("GOCACHE", &*cache),
        ("GOFLAGS", Path::new("-modcacherw")),
        ("GOPROXY", Path::new("off")),
        ("GOTOOLCHAIN", Path::new("local")),
    ];
    let tools = [toolchain.join("venv/bin"), toolchain.join("bin")];
    let said = project.build(&home, &tools, &variables);
    let wanted = [
        "ok  \twit_component/decide",
        "It would be loaded.",
        "16 claims, 0 failed",
    ];
    check_that_it_said(&said, &wanted);
    project.check_that_it_serves(home, "wasm");
}

#[test]
fn a_runtime_as_a_script_is_checked_as_told_and_serves() {
    let home = Home::new();
    let project = Project::write(&home, "script", &[]);
    let said = project.build(&home, &[], &[]);
    let wanted = [
        "engine   the built-in one",
        "It would be loaded.",
        "16 claims, 0 failed",
    ];
    check_that_it_said(&said, &wanted);
    project.check_that_it_serves(home, "rhai");
}
