//! Scripts in the plugin folder: a text file is a runtime, and what is wrong with it is told
//! with its line.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::json;
use taskwright_tests::task::{exit_code, flat};
use taskwright_tests::{Home, SOON, eventually, program};

use crate::plugins::{Folder, LENT, on, printed};

const POLITE: &str = include_str!("../../examples/scripts/polite.rhai");
const POLITE_LENT: &str = include_str!("../../examples/scripts/polite.toml");
const BWRAP: &str = include_str!("../../examples/scripts/bwrap.rhai");
const BWRAP_LENT: &str = include_str!("../../examples/scripts/bwrap.toml");

/// A daemon with these files in its plugin folder. The engine of scripts is large: it is compiled
/// once, and every daemon finds it compiled.
pub(crate) fn holding(files: &[(&str, &[u8])]) -> Folder {
    static COMPILED: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
    let cache = |home: &Home| home.data().join(".taskwright/cache");
    let compiled = COMPILED.get_or_init(|| {
        let script = telling(1);
        let files = [
            ("tell.rhai", script.as_bytes()),
            ("tell.toml", LENT.as_bytes()),
        ];
        let first = Folder::holding(&files);
        first.until_serving("tell", "1");
        let cache = cache(first.daemon.home());
        let mut kept = Vec::new();
        for version in std::fs::read_dir(&cache).unwrap() {
            for file in std::fs::read_dir(version.unwrap().path()).unwrap() {
                let file = file.unwrap().path();
                let name = file.strip_prefix(&cache).unwrap().to_owned();
                kept.push((name, std::fs::read(file).unwrap()));
            }
        }
        kept
    });
    let home = Home::new();
    for (name, code) in compiled {
        let file = cache(&home).join(name);
        let private = |folder| DirBuilder::new().recursive(true).mode(0o700).create(folder);
        private(file.parent().unwrap()).unwrap();
        std::fs::write(file, code).unwrap();
    }
    Folder::holding_in(home, files)
}

/// A script with this version that starts what an expression says.
fn script(version: u32, start: &str) -> String {
    format!(
        "fn describe() {{ #{{ version: \"{version}\" }} }}\n\nfn start(task) {{\n    {start}\n}}\n"
    )
}

/// One that runs the command and tells it of the version.
fn telling(version: u32) -> String {
    script(
        version,
        &format!("task.env.VERSION = \"{version}\";\n    #{{ argv: task.command, env: task.env }}"),
    )
}

#[test]
fn a_script_that_is_dropped_in_is_a_runtime() {
    let folder = holding(&[]);
    let client = folder.client();
    folder.put("polite.toml", POLITE_LENT);
    folder.put("polite.rhai", POLITE);
    folder.until_serving("polite", "1");
    // The 19th field is the nice level; the name before it holds no space.
    let level = "cut -d' ' -f19 /proc/self/stat; exit 3";
    let ended = client.run(&on("polite", "operators", level));
    assert_eq!(exit_code(&ended), 3, "{ended:#}");
    assert_eq!(printed(&client, "operators"), "10\n");
    let mut own = on("polite", "own", level);
    own["config"] = json!({"nice": 15, "io": "best-effort", "cpus": "0"});
    client.run(&own);
    assert_eq!(printed(&client, "own"), "15\n");
    own["name"] = json!("refused");
    own["config"] = json!({"nice": 20});
    let refused = client.post("/tasks", &own).expect(400).json();
    assert_eq!(
        refused["details"][0]["field"], "/config/nice",
        "{refused:#}"
    );
    client.get("/tasks/refused").expect(404);
    let listed = folder.daemon.taskwright(&["plugin", "list"]).expect(0);
    assert!(listed.stdout.contains("polite.rhai"), "{}", listed.stdout);
    // The engine by itself is no runtime.
    client.get("/plugins/script").expect(404);
}

#[test]
fn a_task_of_a_script_is_stopped_and_found_again_as_any_other() {
    let mut folder = holding(&[
        ("tell.rhai", telling(1).as_bytes()),
        ("tell.toml", LENT.as_bytes()),
    ]);
    let client = folder.client();
    for name in ["stopped", "found"] {
        let wait = "until [ -e go ]; do sleep 0.05; done; exit 4";
        client.submit(&on("tell", name, wait));
        client.until_state(name, "running", SOON);
    }
    client.post("/tasks/stopped/stop", &json!({})).expect(200);
    let ended = client.until_ended("stopped", SOON);
    assert_eq!(ended["outcome"]["cause"], "canceled", "{ended:#}");
    folder.daemon.kill();
    folder.daemon.start_again();
    std::fs::write(folder.daemon.task_file("found", "go"), "").unwrap();
    let ended = client.until_ended("found", SOON);
    assert_eq!(exit_code(&ended), 4);
    let mut missing = flat("missing", &["no-such-program"]);
    missing["runtime"] = json!("tell");
    assert_eq!(exit_code(&client.run(&missing)), 127);
}

#[test]
fn a_changed_script_is_what_runs_and_has_another_digest() {
    let folder = holding(&[
        ("tell.rhai", telling(1).as_bytes()),
        ("tell.toml", LENT.as_bytes()),
    ]);
    let client = folder.client();
    let first = folder.until("tell", |plugin| plugin["version"] == "1");
    client.run(&on("tell", "first", "echo $VERSION"));
    assert_eq!(printed(&client, "first"), "1\n");
    folder.put("tell.rhai", telling(2));
    let second = folder.until("tell", |plugin| plugin["version"] == "2");
    assert_ne!(first["digest"], second["digest"]);
    client.run(&on("tell", "second", "echo $VERSION"));
    assert_eq!(printed(&client, "second"), "2\n");
    folder.remove("tell.rhai");
    eventually(SOON, "it is gone", || {
        client.get("/plugins/tell").status == 404
    });
}

/// From its second call on a script is read before it is called, and the calls are the same.
#[test]
fn a_call_that_finds_its_script_read_is_as_any_other() {
    let lent = Home::new();
    let count = lent.path().join("count");
    std::fs::write(&count, "0").unwrap();
    let grants = format!(
        "[grants]\nprocess = true\ndirectories.own = {{ path = {:?} }}\n",
        lent.path()
    );
    let counting = script(
        1,
        "print(`counts for ${task.name}`);\n    let own = read_file(\"own\", \"count\");\n    \
         #{ argv: [\"sh\", \"-c\", `echo ${own}`] }",
    );
    let folder = holding(&[
        ("count.rhai", counting.as_bytes()),
        ("count.toml", grants.as_bytes()),
    ]);
    folder.until_serving("count", "1");
    let client = folder.client();
    let used = "taskwright_plugin_spares_used_total{plugin=\"count\"}";
    let mut number = 0;
    eventually(SOON, "calls find their script read", || {
        number += 1;
        // What it reads and what it is asked is of its own call, not of when it was made.
        std::fs::write(&count, number.to_string()).unwrap();
        let name = format!("n{number}");
        client.run(&on("count", &name, ""));
        assert_eq!(printed(&client, &name), format!("{number}\n"));
        client.metric(used) >= Some(8.0)
    });
    let log = folder.daemon.log();
    assert!(
        log.contains("counts for n1") && log.contains("counts for n2"),
        "{log}"
    );
}

#[test]
fn a_slip_in_a_script_is_told_with_file_line_and_text_and_the_old_one_serves() {
    let folder = holding(&[
        ("tell.rhai", telling(1).as_bytes()),
        ("tell.toml", LENT.as_bytes()),
    ]);
    let client = folder.client();
    folder.until_serving("tell", "1");
    for (slip, place, line) in [
        (
            "let argv = [\"a\" \"b\"];",
            "tell.rhai:4:",
            "`let argv = [\"a\" \"b\"];`",
        ),
        ("#{ argv: [nam] }", "tell.rhai:4:", "`#{ argv: [nam] }`"),
    ] {
        folder.put("tell.rhai", script(2, slip));
        let told = folder.until("tell", |plugin| {
            let refused = plugin["refused"].as_str();
            refused.is_some_and(|refused| refused.contains(line))
        });
        assert!(
            told["refused"].as_str().unwrap().contains(place),
            "{told:#}"
        );
        assert_eq!(told["version"], "1");
    }
    client.run(&on("tell", "still", "echo $VERSION"));
    assert_eq!(printed(&client, "still"), "1\n");
}

#[test]
fn a_script_that_fails_when_it_is_asked_stores_nothing_and_says_where() {
    let folder = holding(&[
        (
            "odd.rhai",
            script(1, "#{ argv: task.labels.wanted.split() }").as_bytes(),
        ),
        ("odd.toml", LENT.as_bytes()),
        (
            "no.rhai",
            script(1, "throw `${task.name} is not wanted here`;").as_bytes(),
        ),
        ("no.toml", LENT.as_bytes()),
    ]);
    let client = folder.client();
    folder.until_serving("odd", "1");
    // It was read, so this is about the task: no number of them may put the script to rest.
    for _ in 0..10 {
        let failed = client.post("/tasks", &on("odd", "one", "true")).expect(400);
        let told = failed.json()["message"].as_str().unwrap().to_owned();
        assert!(told.contains("odd.rhai:4:"), "{told}");
        assert!(
            told.contains("`#{ argv: task.labels.wanted.split() }`"),
            "{told}"
        );
    }
    let odd = client.get("/plugins/odd").expect(200).json();
    assert_eq!(
        (&odd["healthy"], &odd["faults"]),
        (&json!(true), &json!(0)),
        "{odd:#}"
    );
    let refused = client.post("/tasks", &on("no", "two", "true")).expect(400);
    assert!(
        refused.text().contains("two is not wanted here"),
        "{}",
        refused.text()
    );
    for name in ["one", "two"] {
        client.get(&format!("/tasks/{name}")).expect(404);
    }
}

#[test]
fn a_script_needs_the_grant_of_processes_and_gets_no_other_text() {
    let folder = holding(&[("tell.rhai", telling(1).as_bytes())]);
    let refused = |why: &str| {
        folder.until("tell", |plugin| {
            let refused = plugin["refused"].as_str();
            refused.is_some_and(|refused| refused.contains(why))
        })
    };
    refused("add `process = true` under `[grants]` in tell.toml");
    folder.put("tell.toml", format!("{LENT}[settings]\nscript = \"x\"\n"));
    refused("settings.script");
    folder.put("tell.toml", LENT);
    folder.until_serving("tell", "1");
}

#[test]
fn a_script_is_checked_and_inspected_without_a_daemon() {
    let home = Home::new();
    let file = home.file("tell.rhai", telling(1));
    let lent = home.file("tell.toml", LENT);
    let file = file.to_str().unwrap();
    let checked = home.taskwright(&["plugin", "check", file]).expect(0);
    for line in [
        "engine   the built-in one",
        "says     version 1, takes process",
        "wants    process",
        "It would be loaded.",
    ] {
        assert!(checked.stdout.contains(line), "{}", checked.stdout);
    }
    let words = ["plugin", "inspect", file, "-o", "json"];
    let inspected = home.taskwright(&words).expect(0).json();
    assert_eq!(inspected["kinds"], json!(["process"]), "{inspected:#}");

    // Whatever is wrong is told at once.
    std::fs::remove_file(lent).unwrap();
    let _slip = home.file("tell.rhai", script(1, "let argv = [\"a\" \"b\"];"));
    let words = ["plugin", "check", file, "-o", "json"];
    let refused = home.taskwright(&words).expect(1).json();
    assert_eq!(refused["loads"], false);
    let [slip, lent] = &refused["refusals"].as_array().unwrap()[..] else {
        panic!("{refused:#}");
    };
    assert!(lent.as_str().unwrap().contains("may not use `process`"));
    let slip = slip.as_str().unwrap();
    assert!(slip.starts_with("tell.rhai:4:"), "{slip}");
    assert!(slip.contains("`let argv = [\"a\" \"b\"];`"), "{slip}");
}

#[test]
fn bwrap_runs_a_command_in_a_sandbox() {
    let bwrap = match program::find(program::BUBBLEWRAP) {
        Ok(found) => found.display().to_string(),
        Err(reason) => return taskwright_tests::skip(&reason),
    };
    let here = |text: &str| text.replace("/usr/bin/bwrap", &bwrap);
    let folder = holding(&[
        ("bwrap.rhai", here(BWRAP).as_bytes()),
        ("bwrap.toml", here(BWRAP_LENT).as_bytes()),
    ]);
    folder.until_serving("bwrap", "1");
    let client = folder.client();
    let bare = [&*bwrap, "--unshare-all", "--ro-bind", "/", "/", "true"];
    if exit_code(&client.run(&flat("bare", &bare))) != 0 {
        return taskwright_tests::skip("this machine does not let bubblewrap make namespaces");
    }
    let look = "pwd; echo made > made; ls /; [ -e /root ] || echo no /root; exit 5";
    let ended = client.run(&on("bwrap", "inside", look));
    assert_eq!(exit_code(&ended), 5, "{ended:#}");
    let seen = printed(&client, "inside");
    assert!(seen.starts_with("/work\n"), "{seen}");
    assert!(seen.ends_with("no /root\n"), "{seen}");
    let made = std::fs::read_to_string(folder.daemon.task_file("inside", "made"));
    assert_eq!(made.unwrap(), "made\n");
    let reach = "cat /proc/net/dev | grep -c :";
    let alone = client.run(&on("bwrap", "alone", reach));
    assert_eq!(exit_code(&alone), 0, "{alone:#}");
    assert_eq!(printed(&client, "alone"), "1\n", "a loopback and no more");
}
