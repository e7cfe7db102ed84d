//! The command line, as people and scripts use it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};
use taskwright_tests::cli::Running;
use taskwright_tests::client::Target;
use taskwright_tests::reaper::Owned;
use taskwright_tests::task::{exit_code, flat, names, shell};
use taskwright_tests::terminal::OnTerminal;
use taskwright_tests::{Client, Daemon, Home, Options, Request, SOON, binary, cli, eventually};

fn run(daemon: &Daemon, script: &str) -> taskwright_tests::Finished {
    daemon.taskwright(&["run", "--", "sh", "-c", script])
}

#[test]
fn run_ends_with_the_tasks_own_exit_code() {
    let daemon = Daemon::start();
    for code in [0, 1, 7, 42, 124, 125, 255] {
        let finished = run(&daemon, &format!("exit {code}"));
        assert_eq!(finished.code, code, "{finished:?}");
    }
}

#[test]
fn run_is_a_plain_command_in_a_pipe() {
    let daemon = Daemon::start();
    let finished = run(&daemon, "echo to stdout; echo to stderr >&2; exit 3").expect(3);
    assert_eq!(finished.stdout, "to stdout\n");
    assert_eq!(finished.stderr, "to stderr\n", "no progress, no notes");
}

#[test]
fn on_a_terminal_a_line_tells_what_is_waited_for_and_goes_again() {
    let daemon = Options::new().flag("--max-running=1").start();
    let client = daemon.client();
    client.submit(&flat("first", &["sleep", "600"]));
    client.until_state("first", "running", SOON);
    let mut command = daemon.command(&["run", "--name", "second", "--", "sh", "-c", "exit 4"]);
    let mut run = OnTerminal::start(&mut command);
    let line = "task second: pending for ";
    eventually(SOON, "the line is shown", || run.shown().contains(line));
    client.delete("/tasks/first").expect(204);
    assert_eq!(run.process.wait(SOON).code(), Some(4));
    let shown = run.shown();
    let after = shown.rsplit(line).next().unwrap_or_default();
    assert!(
        after.contains("\r\u{1b}[K"),
        "the line is erased: {shown:?}"
    );
}

#[test]
fn run_tells_other_ends_by_their_codes() {
    let daemon = Daemon::start();
    let plain = daemon.home().file("plain", "");
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).unwrap();
    for (words, code) in [
        (&["run", "--timeout", "300ms", "--", "sleep", "60"][..], 124),
        (&["run", "--", plain.to_str().unwrap()], 126),
        (&["run", "--", "no-such-program-anywhere"], 127),
        (&["run", "--", "sh", "-c", "kill -9 $$"], 137),
        (&["run", "--", "sh", "-c", "kill -15 $$"], 143),
    ] {
        let finished = daemon.taskwright(words);
        assert_eq!(finished.code, code, "{words:?}: {finished:?}");
        assert!(!finished.stderr.is_empty(), "{words:?} says why");
    }
}

#[test]
fn run_without_a_daemon_is_our_failure_and_says_what_to_do() {
    let home = Home::new();
    let finished = home
        .taskwright(&["run", "--server", "http://127.0.0.1:9", "--", "true"])
        .expect(125);
    assert!(finished.stderr.contains("error: "), "{finished:?}");
    assert!(finished.stderr.contains("--local"), "{finished:?}");
    assert_eq!(finished.stdout, "");
}

#[test]
fn run_local_needs_no_daemon_and_leaves_nothing() {
    let home = Home::new();
    let finished = home.taskwright(&[
        "run",
        "--local",
        "--",
        "sh",
        "-c",
        "echo hello; echo oops >&2; exit 9",
    ]);
    let finished = finished.expect(9);
    assert_eq!(
        (finished.stdout.as_str(), finished.stderr.as_str()),
        ("hello\n", "oops\n")
    );
    let missing = home.taskwright(&["run", "--local", "--", "no-such-program-anywhere"]);
    assert_eq!(missing.code, 127, "{missing:?}");
    eventually(SOON, "no process is left", || {
        home.own_processes().is_empty()
    });
}

#[test]
fn a_signal_to_run_stops_the_task() {
    let daemon = Daemon::start();
    let mut running = daemon.running(&[
        "run",
        "--name",
        "stopped",
        "--",
        "sh",
        "-c",
        "echo up; sleep 300",
    ]);
    eventually(SOON, "it is up", || running.stdout() == "up\n");
    running.process().signal(Signal::INT);
    let finished = running.finish(SOON);
    assert_eq!(finished.code, 143, "{finished:?}");
    let ended = daemon.client().task("stopped");
    assert_eq!(ended["outcome"]["cause"], "canceled");
}

#[test]
fn a_command_after_two_dashes_keeps_its_own_flags() {
    let daemon = Daemon::start();
    for (words, expected) in [
        (
            &["run", "--", "echo", "--help", "-o", "json"][..],
            "--help -o json\n",
        ),
        (
            &["run", "printf", "%s ", "--version", "-o"],
            "--version -o ",
        ),
        (&["run", "--", "echo", "--", "x"], "-- x\n"),
        (&["run", "--", "printf", "%s|", "a b", "", "*"], "a b||*|"),
    ] {
        assert_eq!(
            daemon.taskwright(words).expect(0).stdout,
            expected,
            "{words:?}"
        );
    }
}

#[test]
fn run_goes_on_across_a_restart_of_the_daemon() {
    let mut daemon = Daemon::start();
    let gate = daemon.home().path().join("gate");
    let script = format!(
        "echo one; while [ ! -e {} ]; do sleep 0.05; done; echo two; exit 8",
        gate.display()
    );
    let running = daemon.running(&["run", "--", "sh", "-c", &script]);
    eventually(SOON, "it runs", || running.stdout() == "one\n");
    daemon.kill();
    daemon.start_again();
    std::fs::write(&gate, "").unwrap();
    let finished = running.finish(SOON).expect(8);
    assert_eq!(
        finished.stdout, "one\ntwo\n",
        "nothing is lost and nothing is shown twice"
    );
}

#[test]
fn tasks_are_submitted_waited_for_shown_and_deleted() {
    let daemon = Daemon::start();
    let submitted = daemon.taskwright(&[
        "submit",
        "--name",
        "job",
        "--label",
        "team=red",
        "-e",
        "A=b",
        "-o",
        "json",
        "--",
        "sh",
        "-c",
        "echo $A; exit 4",
    ]);
    assert_eq!(submitted.expect(0).json()["name"], "job");
    assert_eq!(daemon.taskwright(&["wait", "job"]).code, 4);
    assert_eq!(daemon.taskwright(&["logs", "job"]).expect(0).stdout, "b\n");
    let shown = daemon
        .taskwright(&["get", "job", "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(exit_code(&shown), 4);
    assert_eq!(shown["labels"], json!({"team": "red"}));
    assert_eq!(
        daemon.taskwright(&["list", "-o", "name"]).expect(0).stdout,
        "job\n"
    );
    assert_eq!(
        daemon.taskwright(&["delete", "job"]).expect(0).stdout,
        "job\n"
    );
    daemon.client().until_gone("job", SOON);
    for words in [
        &["get", "job"],
        &["wait", "job"],
        &["logs", "job"],
        &["stop", "job"],
        &["delete", "job"],
    ] {
        let missing = daemon.taskwright(words);
        assert_eq!(missing.code, 125, "{words:?}: {missing:?}");
        assert!(missing.stderr.contains("job"), "{missing:?}");
        assert_eq!(missing.stdout, "");
    }
    assert_eq!(daemon.taskwright(&["delete", "--force", "job"]).code, 0);
}

#[test]
fn data_is_on_stdout_in_the_form_that_was_asked_for() {
    let daemon = Daemon::start();
    daemon.client().run(&flat("one", &["true"]));
    let table = daemon.taskwright(&["list"]).expect(0).stdout;
    assert!(table.lines().next().unwrap().starts_with("NAME"), "{table}");
    assert!(!table.contains('\u{1b}'), "no colours in a pipe");
    let list = daemon.taskwright(&["list", "-o", "json"]).expect(0).json();
    let list = list.get("items").unwrap_or(&list);
    assert_eq!(names(list), ["one"]);
    let yaml = daemon
        .taskwright(&["get", "one", "-o", "yaml"])
        .expect(0)
        .stdout;
    assert!(yaml.lines().any(|line| line == "name: one"), "{yaml}");
}

#[test]
fn logs_follow_until_the_end() {
    let daemon = Daemon::start();
    let gate = daemon.home().path().join("gate");
    let script = format!(
        "echo one; while [ ! -e {} ]; do sleep 0.05; done; echo two; echo err >&2",
        gate.display()
    );
    daemon.client().submit(&shell("live", &script));
    let running = daemon.running(&["logs", "-f", "live"]);
    eventually(SOON, "the first line is shown", || {
        running.stdout() == "one\n"
    });
    std::fs::write(&gate, "").unwrap();
    let finished = running.finish(SOON).expect(0);
    assert_eq!(
        (finished.stdout.as_str(), finished.stderr.as_str()),
        ("one\ntwo\n", "err\n")
    );
    let tail = daemon.taskwright(&["logs", "--tail", "1", "--stdout", "live"]);
    assert_eq!(tail.expect(0).stdout, "two\n");
}

#[test]
fn set_makes_the_tasks_be_those_of_a_file() {
    let daemon = Daemon::start();
    let yaml = "- name: a\n  spec: {process: {command: [sleep, '60']}}\n- name: b\n  spec: {process: {command: ['true']}}\n";
    let file = daemon.home().file("tasks.yaml", yaml);
    let set = daemon.taskwright(&["set", "-f", file.to_str().unwrap(), "-o", "name"]);
    assert_eq!(set.expect(0).stdout, "a\nb\n");
    let mut command = daemon.command(&["set", "-f", "-"]);
    assert_eq!(cli::finish(&mut command, b"[]", SOON).code, 0);
    for name in ["a", "b"] {
        daemon.client().until_gone(name, SOON);
    }
    let bad = daemon.home().file(
        "bad.json",
        r#"[{"name": "bad", "process": {"command": []}}]"#,
    );
    let refused = daemon.taskwright(&["set", "-f", bad.to_str().unwrap()]);
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(refused.stderr.contains("bad"), "{refused:?}");
}

#[test]
fn stop_ends_a_task_and_keeps_it() {
    let daemon = Daemon::start();
    daemon.client().submit(&flat("long", &["sleep", "300"]));
    daemon.client().until_state("long", "running", SOON);
    assert_eq!(daemon.taskwright(&["stop", "long"]).code, 0);
    assert_eq!(daemon.taskwright(&["wait", "long"]).code, 143);
    let timed_out = daemon.taskwright(&["submit", "--name", "more", "--", "sleep", "300"]);
    assert_eq!(timed_out.code, 0);
    let waited = daemon.taskwright(&["wait", "--timeout", "200ms", "more"]);
    assert_eq!(
        waited.code, 125,
        "waiting in vain is no end of the task: {waited:?}"
    );
}

#[test]
fn words_that_make_no_sense_are_a_usage_error() {
    let home = Home::new();
    for words in [
        &["frobnicate"][..],
        &["list", "--frobnicate"],
        &["run"],
        &["get"],
        &["serve", "--no-such-flag"],
        &["run", "--timeout", "soon", "--", "true"],
        &["list", "--state", "gone"],
    ] {
        let refused = home.taskwright(words);
        assert_eq!(refused.code, 2, "{words:?}: {refused:?}");
        assert!(!refused.stderr.is_empty());
        assert_eq!(refused.stdout, "");
    }
}

#[test]
fn config_check_tells_every_problem_with_its_line() {
    let home = Home::new();
    let text = "data-dirr = '/x'\nlisten-addr = '127.0.0.1:1'\n[limits]\nmax-runing = 3\nmax-tasks = 'many'\n";
    let file = home.file("config.toml", text);
    let checked = home.taskwright(&["config", "check", "--config", file.to_str().unwrap()]);
    assert_eq!(checked.code, 1, "{checked:?}");
    let told = checked.stdout + &checked.stderr;
    for word in [
        "config.toml:1",
        "data-dir`",
        "config.toml:4",
        "max-running`",
        "config.toml:5",
    ] {
        assert!(told.contains(word), "{word} is not told:\n{told}");
    }
    let good = home.file("good.toml", "listen-addr = '127.0.0.1:1'\n");
    assert_eq!(
        home.taskwright(&["config", "check", good.to_str().unwrap()])
            .code,
        0
    );
    let refused = home.taskwright(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(
        refused.code, 1,
        "a daemon does not start with it: {refused:?}"
    );
}

#[test]
fn config_show_tells_who_said_it() {
    let home = Home::new();
    let file = home.file("config.toml", "[limits]\nmax-running = 7\n[[auth.tokens]]\nname = 'ci'\nsha256 = '0000000000000000000000000000000000000000000000000000000000000000'\nscope = 'submit'\n");
    let mut command = home.command(binary::taskwright());
    command
        .args([
            "config",
            "show",
            "-o",
            "json",
            "--config",
            file.to_str().unwrap(),
        ])
        .env("LISTEN_ADDR", "127.0.0.1:1");
    let finished = cli::finish(&mut command, b"", SOON).expect(0);
    let shown = finished.json();
    assert_eq!(shown["limits.max-running"]["value"], 7);
    assert_eq!(shown["listen-addr"]["value"], "127.0.0.1:1");
    assert!(
        shown["listen-addr"]["source"]
            .as_str()
            .unwrap()
            .contains("LISTEN_ADDR")
    );
    assert!(
        !finished.stdout.contains(&"0".repeat(16)),
        "digests are secrets too"
    );
}

/// Starts a daemon by a command line of its own and waits until it answers.
fn until_it_serves(
    home: &Home,
    words: &[String],
    variables: &[(&str, String)],
    address: SocketAddr,
) {
    let mut command = home.command(binary::taskwright());
    command
        .args(words)
        .envs(variables.iter().map(|(name, value)| (name, value)));
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut daemon = Owned::spawn(&mut command).unwrap();
    let client = Client::new(Target::Tcp(address));
    eventually(SOON, "it serves", || {
        assert!(daemon.ended().is_none(), "{words:?} ended");
        client
            .try_send(Request::new("GET", "/health"))
            .is_ok_and(|answer| answer.status == 200)
    });
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn the_reference_flags_alone_mean_serve() {
    let home = Home::new();
    let address = free_address();
    let words = [
        "-data-dir".to_owned(),
        home.data().display().to_string(),
        format!("-listen-addr={address}"),
    ];
    until_it_serves(&home, &words, &[], address);
}

#[test]
fn the_reference_variables_are_read() {
    let home = Home::new();
    let address = free_address();
    let variables = [
        ("DATA_DIR", home.data().display().to_string()),
        ("LISTEN_ADDR", address.to_string()),
        ("ENABLE_SIDECAR_MODE", "false".to_owned()),
    ];
    until_it_serves(&home, &["serve".to_owned()], &variables, address);
    assert!(home.data().join(".taskwright").is_dir());
}

#[test]
fn a_token_is_taken_from_the_environment_or_a_file() {
    let home = Home::new();
    let tokens = home.file("tokens", "admin a-token\n");
    let own = home.file("own", "a-token\n");
    let daemon = Options::new()
        .flag(&format!("--token-file={}", tokens.display()))
        .start_in(home);
    assert_eq!(daemon.taskwright(&["list"]).code, 125);
    let mut command = daemon.command(&["list"]);
    command.env("TASKWRIGHT_TOKEN", "a-token");
    assert_eq!(cli::finish(&mut command, b"", SOON).code, 0);
    assert_eq!(
        daemon
            .taskwright(&["list", "--token-file", own.to_str().unwrap()])
            .code,
        0
    );
}

#[test]
fn version_completion_and_plugins_are_told() {
    let daemon = Daemon::start();
    let version = daemon
        .taskwright(&["version", "-o", "json"])
        .expect(0)
        .json();
    assert!(version["version"].is_string());
    for shell in ["bash", "zsh", "fish"] {
        let script = daemon.taskwright(&["completion", shell]).expect(0).stdout;
        assert!(
            script.contains("taskwright") && script.contains("submit"),
            "{shell}"
        );
    }
    let plugins = daemon
        .taskwright(&["plugin", "list", "-o", "name"])
        .expect(0);
    assert_eq!(plugins.stdout, "echo\nprocess\nsidecar\n");
    let inspected = daemon
        .taskwright(&["plugin", "inspect", "process", "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(inspected["name"], "process");
}

#[test]
fn doctor_says_how_trees_are_killed_here() {
    let daemon = Daemon::start();
    let data = format!("--data-dir={}", daemon.home().data().display());
    let told = daemon.taskwright(&["doctor", "-o", "json", &data]);
    assert!([0, 1].contains(&told.code), "{told:?}");
    let report: Value = told.json();
    let text = report.to_string();
    assert!(
        text.contains("cgroup") || text.contains("scan"),
        "{report:#}"
    );
}

/// The lines of a doctor's report about `subject`, each as verdict, finding and remedy.
fn lines(report: &Value, subject: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["check"] == subject)
        .map(|check| {
            format!(
                "{}: {} {}",
                check["verdict"], check["found"], check["remedy"]
            )
        })
        .collect()
}

#[test]
fn doctor_asks_the_daemon_that_runs() {
    let daemon = Daemon::start();
    let data = format!("--data-dir={}", daemon.home().data().display());
    let doctor = |words: &[&str]| {
        let words = [&["doctor", "-o", "json", &data], words].concat();
        daemon.taskwright(&words).json()
    };
    let report = doctor(&[]);
    let runtimes = lines(&report, "daemon's runtimes").concat();
    assert!(runtimes.contains("process, sidecar"), "{report:#}");
    let containers = lines(&report, "containers").concat();
    assert!(containers.contains("--enable-container-mode"), "{report:#}");
    for limit in lines(&report, "limits") {
        assert!(limit.len() < 400, "{limit}");
    }

    // What its remedy names, it takes.
    let socket = "--cri-socket=/nowhere/containerd.sock";
    let report = doctor(&["--enable-container-mode", socket]);
    let containers = lines(&report, "containers").concat();
    assert!(
        containers.contains("fail") && containers.contains("/nowhere"),
        "{report:#}"
    );

    // The configured address counts where nobody answers at the other.
    let configured = format!("--listen-addr={}", daemon.address());
    let nobody = "--server=http://127.0.0.1:1";
    let report = doctor(&[nobody, &configured]);
    let found = lines(&report, "daemon").concat();
    assert!(found.contains(&daemon.address().to_string()), "{report:#}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let daemon = Daemon::start();
    daemon.client().run(&shell("long", "seq 100000"));
    let server = format!("http://{}", daemon.address());
    let pipe = format!(
        "{} logs long --server {server} | head -n 1",
        binary::taskwright().display()
    );
    let mut command = daemon.home().command("sh".as_ref());
    command.args(["-c", &pipe]);
    let finished = Running::start(&mut command, b"").finish(SOON).expect(0);
    assert_eq!(
        (finished.stdout.as_str(), finished.stderr.as_str()),
        ("1\n", "")
    );
}

#[test]
fn a_file_with_nothing_in_it_is_no_wish_to_have_nothing() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&flat("kept", &["sleep", "600"]));
    for (name, text) in [("empty", ""), ("comment", "# tasks\n"), ("null", "null")] {
        let file = daemon.home().file(name, text);
        let refused = daemon.taskwright(&["set", "-f", file.to_str().unwrap()]);
        assert_ne!(refused.code, 0, "{name}: {refused:?}");
        assert!(refused.stderr.contains("[]"), "{refused:?}");
    }
    assert_eq!(names(&client.get("/getTasks").expect(200).json()), ["kept"]);
}

#[test]
fn a_mistyped_flag_is_no_command() {
    let daemon = Daemon::start();
    for words in [
        &["run", "--timout", "1s", "--", "true"][..],
        &["submit", "-x", "true"],
    ] {
        daemon.taskwright(words).expect(2);
    }
    // What follows the command is its own.
    let finished = daemon
        .taskwright(&["run", "echo", "-x", "--timout"])
        .expect(0);
    assert_eq!(finished.stdout, "-x --timout\n");
    assert_eq!(
        names(&daemon.client().get("/getTasks").expect(200).json()).len(),
        1
    );
}

#[test]
fn several_names_are_all_tried() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&flat("there", &["sleep", "600"]));
    let got = daemon.taskwright(&["get", "missing", "there", "-o", "json"]);
    assert_ne!(got.code, 0);
    assert_eq!(got.json()[0]["name"], "there", "{got:?}");
    assert_ne!(daemon.taskwright(&["stop", "missing", "there"]).code, 0);
    client.until_ended("there", SOON);
}

#[test]
fn waiting_on_a_terminal_shows_how_the_task_is() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&flat("long", &["sleep", "600"]));
    let mut wait = OnTerminal::start(&mut daemon.command(&["wait", "long"]));
    let line = "task long: running for ";
    eventually(SOON, "the line is shown", || wait.shown().contains(line));
    client.post("/tasks/long/stop", &json!({})).expect(200);
    wait.process.wait(SOON);
}

#[test]
fn variables_of_the_reference_alone_start_a_daemon() {
    let home = Home::new();
    let mut command = home.command(binary::taskwright());
    command
        .env("DATA_DIR", home.data())
        .env("LISTEN_ADDR", "127.0.0.1:0");
    let mut serving = Running::start(&mut command, b"");
    eventually(SOON, "it serves", || {
        serving.stderr().contains("serving on")
    });
    assert!(
        !serving.stderr().contains("restarted"),
        "{}",
        serving.stderr()
    );
    serving.process().kill();
}
