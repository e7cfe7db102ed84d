//! The plugin folder: what is dropped in serves, and what is wrong with it costs nobody else.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use taskwright_test_guests::{MISBEHAVE, RELAY};
use taskwright_tests::task::{exit_code, flat};
use taskwright_tests::{Client, Daemon, Home, Options, Request, SOON, eventually_some, processes};

pub(crate) const LENT: &str = "[grants]\nprocess = true\n";

/// A daemon with a plugin folder.
pub(crate) struct Folder {
    pub(crate) daemon: Daemon,
    pub(crate) path: PathBuf,
}

impl Folder {
    /// One that holds these files when the daemon starts.
    pub(crate) fn holding(files: &[(&str, &[u8])]) -> Self {
        Self::holding_in(Home::new(), files)
    }

    pub(crate) fn holding_in(home: Home, files: &[(&str, &[u8])]) -> Self {
        let path = home.path().join("plugins");
        std::fs::create_dir(&path).unwrap();
        for (name, content) in files {
            std::fs::write(path.join(name), content).unwrap();
        }
        let flag = format!("--plugin-dir={}", path.display());
        let daemon = Options::new().flag(&flag).start_in(home);
        Self { daemon, path }
    }

    pub(crate) fn client(&self) -> Client {
        self.daemon.client()
    }

    /// Puts a file in as a careful operator does: whole, or not at all.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, content).unwrap();
        std::fs::rename(&beside, self.path.join(name)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path.join(name)).unwrap();
    }

    /// Waits until a plugin is told of and is so.
    pub(crate) fn until(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let client = self.client();
        eventually_some(SOON, &format!("the plugin {name} is so"), || {
            let answer = client.get(&format!("/plugins/{name}"));
            let plugin = (answer.status == 200).then(|| answer.json())?;
            is_so(&plugin).then_some(plugin)
        })
    }

    pub(crate) fn until_serving(&self, name: &str, version: &str) {
        self.until(name, |plugin| {
            plugin["version"] == version && plugin.get("refused").is_none()
        });
    }
}

/// A command for a runtime.
pub(crate) fn on(runtime: &str, name: &str, script: &str) -> Value {
    let mut task = flat(name, &["/bin/sh", "-c", script]);
    task["runtime"] = json!(runtime);
    task
}

pub(crate) fn printed(client: &Client, name: &str) -> String {
    client
        .get(&format!("/tasks/{name}/logs"))
        .expect(200)
        .text()
}

fn lent_with(settings: &str) -> String {
    format!("{LENT}[settings]\n{settings}\n")
}

/// The same component with other bytes: sections that nobody knows mean nothing.
pub(crate) fn padded(component: &[u8], byte: u8) -> Vec<u8> {
    let mut padded = component.to_vec();
    // Section 0 of 3 bytes: a name of one letter, and one byte.
    padded.extend([0, 3, 1, b'p', byte]);
    padded
}

/// The same component with another text inside, and thereby another component.
fn rebuilt(build: u32) -> Vec<u8> {
    const BUILD: &[u8] = b"relay-build-0000";
    let at = RELAY.windows(BUILD.len()).position(|text| text == BUILD);
    let at = at.unwrap();
    let mut bytes = RELAY.to_vec();
    let text = format!("relay-build-{build:04}");
    bytes[at..at + BUILD.len()].copy_from_slice(text.as_bytes());
    bytes
}

#[test]
fn a_file_that_is_dropped_in_is_a_runtime() {
    let folder = Folder::holding(&[]);
    let client = folder.client();
    let refused = client
        .post("/tasks", &on("relay", "early", "true"))
        .expect(400);
    assert!(refused.text().contains("there is no runtime relay"));
    folder.put("relay.toml", LENT);
    folder.put("relay.wasm", RELAY);
    folder.until_serving("relay", "1");
    let ended = client.run(&on("relay", "first", "echo v$RELAY_VERSION; exit 3"));
    assert_eq!(exit_code(&ended), 3);
    assert_eq!(printed(&client, "first"), "v1\n");
    let listed = folder
        .daemon
        .taskwright(&["plugin", "list"])
        .expect(0)
        .stdout;
    assert!(
        listed.contains("relay") && listed.contains("relay.wasm"),
        "{listed}"
    );
}

#[test]
fn what_lies_there_at_the_start_serves_tasks_that_run_already() {
    let mut folder = Folder::holding(&[("relay.wasm", RELAY), ("relay.toml", LENT.as_bytes())]);
    let client = folder.client();
    client.submit(&on(
        "relay",
        "long",
        "until [ -e go ]; do sleep 0.05; done; exit 4",
    ));
    client.until_state("long", "running", SOON);
    folder.daemon.kill();
    folder.daemon.start_again();
    std::fs::write(folder.daemon.task_file("long", "go"), "").unwrap();
    assert_eq!(exit_code(&client.until_ended("long", SOON)), 4);
}

#[test]
fn without_a_grant_it_is_refused_with_the_line_to_add() {
    let folder = Folder::holding(&[("relay.wasm", RELAY)]);
    let plugin = folder.until("relay", |plugin| plugin.get("refused").is_some());
    let why = plugin["refused"].as_str().unwrap();
    let line = "add `process = true` under `[grants]` in relay.toml beside it to lend it";
    assert!(why.contains(line), "{why}");
    assert_eq!(plugin["healthy"], false);
    let file = folder.path.join("relay.wasm");
    let file = file.to_str().unwrap();
    let checked = folder
        .daemon
        .taskwright(&["plugin", "check", file])
        .expect(1);
    assert!(checked.stdout.contains(line), "{}", checked.stdout);
    folder.put("relay.toml", LENT);
    folder.until_serving("relay", "1");
    let checked = folder
        .daemon
        .taskwright(&["plugin", "check", file])
        .expect(0);
    assert!(
        checked.stdout.contains("It would be loaded."),
        "{}",
        checked.stdout
    );
}

#[test]
fn only_programs_that_were_lent_are_started() {
    let lent = "[grants]\nprocess = { programs = [\"/bin/sh\"] }\n";
    let folder = Folder::holding(&[("relay.wasm", RELAY), ("relay.toml", lent.as_bytes())]);
    let client = folder.client();
    let ended = client.run(&on("relay", "allowed", "exit 5"));
    assert_eq!(exit_code(&ended), 5);
    let mut other = flat("other", &["/bin/echo", "no"]);
    other["runtime"] = json!("relay");
    let ended = client.run(&other);
    let told = ended["outcome"]["message"].as_str().unwrap_or_default();
    assert!(
        told.contains("/bin/echo") && told.contains("relay.toml"),
        "{ended:#}"
    );
    // The built-in runtime is another plugin with other grants.
    assert_eq!(exit_code(&client.run(&flat("built-in", &["/bin/echo"]))), 0);
}

#[test]
fn its_configuration_is_held_against_its_schema_before_anything_is_stored() {
    let folder = Folder::holding(&[("relay.wasm", RELAY), ("relay.toml", LENT.as_bytes())]);
    let client = folder.client();
    let mut task = on("relay", "configured", "echo $RELAY_CONFIG");
    task["config"] = json!({"greeting": 7, "loud": true});
    let refused = client.post("/tasks", &task).expect(400).json();
    let mut fields: Vec<&str> = refused["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|detail| detail["field"].as_str().unwrap())
        .collect();
    fields.sort_unstable();
    assert_eq!(fields, ["/config", "/config/greeting"], "{refused:#}");
    client.get("/tasks/configured").expect(404);
    task["config"] = json!({"greeting": "hello"});
    client.run(&task);
    assert_eq!(printed(&client, "configured"), "{\"greeting\":\"hello\"}\n");
}

#[test]
fn a_changed_file_serves_and_a_bad_one_leaves_the_old_serving() {
    let folder = Folder::holding(&[("relay.wasm", RELAY), ("relay.toml", LENT.as_bytes())]);
    let client = folder.client();
    folder.put("relay.toml", lent_with("version = 2"));
    folder.until_serving("relay", "2");
    for (bad, why) in [
        (&b"no component at all"[..], "not a WebAssembly component"),
        (&RELAY[..RELAY.len() / 2], "not a WebAssembly component"),
        (MISBEHAVE, "may not use"),
        (b"", "not a WebAssembly component"),
    ] {
        folder.put("relay.wasm", bad);
        let plugin = folder.until("relay", |plugin| {
            let refused = plugin["refused"].as_str();
            refused.is_some_and(|refused| refused.contains(why))
        });
        assert_eq!(plugin["version"], "2", "the old one serves");
        let ended = client.run(&on("relay", &format!("after-{}", bad.len()), "exit 6"));
        assert_eq!(exit_code(&ended), 6);
    }
    folder.put("relay.toml", "grants = 3");
    folder.until("relay", |plugin| {
        let refused = plugin["refused"].as_str();
        refused.is_some_and(|refused| refused.contains("relay.toml"))
    });
    folder.put("relay.toml", lent_with("version = 3"));
    folder.put("relay.wasm", RELAY);
    folder.until_serving("relay", "3");
}

#[test]
fn huge_files_and_those_that_anybody_may_write_are_not_read() {
    let folder = Folder::holding(&[]);
    let huge = folder.path.join("huge.wasm");
    std::fs::File::create(&huge)
        .unwrap()
        .set_len(200 << 20)
        .unwrap();
    let plugin = folder.until("huge", |plugin| plugin.get("refused").is_some());
    assert!(
        plugin["refused"]
            .as_str()
            .unwrap()
            .contains("209715200 bytes"),
        "{plugin:#}"
    );
    let open = folder.path.join("relay.wasm");
    std::fs::write(&open, RELAY).unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o666)).unwrap();
    folder.until("relay", |plugin| {
        let refused = plugin["refused"].as_str();
        refused.is_some_and(|refused| refused.contains("chmod o-w"))
    });
    folder.remove("huge.wasm");
    let client = folder.client();
    eventually_some(SOON, "what is gone is not told of", || {
        (client.get("/plugins/huge").status == 404).then_some(())
    });
}

#[test]
fn files_that_are_made_to_hurt_their_reader_cost_the_daemon_nothing() {
    let folder = Folder::holding(&[]);
    let before = processes::peak(folder.daemon.pid());
    // A section of 4 GiB, by its own account.
    folder.put("liar.wasm", b"\0asm\x0d\0\x01\0\x07\xff\xff\xff\xff\x0f");
    // A section of 8 Mi types, each of them `list<u8>`.
    let mut types = b"\0asm\x0d\0\x01\0\x07\x84\x80\x80\x08\x80\x80\x80\x04".to_vec();
    types.extend([0x70, 0x7d].repeat(8 << 20));
    folder.put("types.wasm", types);
    for (name, why) in [
        ("liar", "unexpected end-of-file"),
        ("types", "1048576 bytes"),
    ] {
        folder.until(name, |plugin| {
            let refused = plugin["refused"].as_str();
            refused.is_some_and(|refused| refused.contains(why))
        });
    }
    let grown = processes::peak(folder.daemon.pid()) - before;
    assert!(grown < 200 << 20, "{grown} bytes");
    assert_eq!(
        exit_code(&folder.client().run(&flat("other", &["true"]))),
        0
    );
}

#[test]
fn a_plugin_whose_file_is_gone_ends_what_it_began() {
    let folder = Folder::holding(&[("relay.wasm", RELAY), ("relay.toml", LENT.as_bytes())]);
    let client = folder.client();
    client.submit(&on(
        "relay",
        "long",
        "until [ -e go ]; do sleep 0.05; done; exit 8",
    ));
    client.until_state("long", "running", SOON);
    folder.remove("relay.wasm");
    eventually_some(SOON, "it takes no further task", || {
        let answer = client.post("/tasks", &on("relay", "late", "true"));
        if answer.status == 201 {
            client.delete("/tasks/late");
            client.until_gone("late", SOON);
        }
        (answer.status == 400).then_some(())
    });
    std::fs::write(folder.daemon.task_file("long", "go"), "").unwrap();
    assert_eq!(exit_code(&client.until_ended("long", SOON)), 8);
}

#[test]
fn a_plugin_that_only_fails_rests_and_its_tasks_wait_for_a_better_one() {
    let lent = lent_with("trap = true");
    let folder = Folder::holding(&[("relay.wasm", RELAY), ("relay.toml", lent.as_bytes())]);
    let client = folder.client();
    for round in 0..5 {
        let ended = client.run(&on("relay", &format!("fault-{round}"), "true"));
        assert_eq!(ended["outcome"]["cause"], "plugin-fault", "{ended:#}");
    }
    let refused = client
        .post("/tasks", &on("relay", "refused", "true"))
        .expect(503);
    assert!(
        refused.text().contains("it rests for"),
        "{}",
        refused.text()
    );
    let plugin = folder.until("relay", |plugin| plugin["healthy"] == false);
    assert!(
        plugin["trouble"].as_str().unwrap().contains("told to trap"),
        "{plugin:#}"
    );
    // Nobody else notices.
    assert_eq!(exit_code(&client.run(&flat("other", &["true"]))), 0);
    folder.put("relay.toml", lent_with("version = 2"));
    folder.until_serving("relay", "2");
    assert_eq!(exit_code(&client.run(&on("relay", "good", "true"))), 0);
}

/// Every start looks at its version twice, with a wait for the host in between.
#[expect(
    clippy::print_stdout,
    reason = "captured, and the figures of a nightly run"
)]
#[test]
fn no_start_fails_while_the_file_changes_all_the_time() {
    let nightly = taskwright_tests::random::nightly();
    let (changes, workers) = if nightly { (100, 16) } else { (20, 4) };
    let version = |change: u32| 100 + change;
    let settings = |change: u32| lent_with(&format!("twice = true\nversion = {}", version(change)));
    let folder = Folder::holding(&[
        ("relay.wasm", &rebuilt(0)),
        ("relay.toml", settings(0).as_bytes()),
    ]);
    folder.until_serving("relay", &version(0).to_string());
    // Fails if what the start saw first is not what it saw last.
    let script = "set -- $RELAY_SEEN; [ -n \"$1\" ] && [ \"$1\" = \"$2\" ] || exit 8; exit 9";
    let over = AtomicBool::new(false);
    let number = AtomicUsize::new(0);
    let begun = Instant::now();
    let started = std::thread::scope(|threads| {
        let work = || {
            let client = folder.client();
            let mut ran = 0;
            while !over.load(Ordering::Relaxed) {
                let name = format!("t-{}", number.fetch_add(1, Ordering::Relaxed));
                let ended = client.run(&on("relay", &name, script));
                assert_eq!(exit_code(&ended), 9, "{ended:#}");
                ran += 1;
            }
            ran
        };
        let workers: Vec<_> = (0..workers).map(|_| threads.spawn(work)).collect();
        let _stop_however_it_ends = Stop(&over);
        for change in 1..=changes {
            if change % 10 == 0 {
                // What cannot be loaded leaves the one before.
                folder.put("relay.wasm", &RELAY[..RELAY.len() / 2]);
                let plugin = folder.until("relay", |plugin| plugin.get("refused").is_some());
                assert_eq!(plugin["version"], version(change - 1).to_string());
            }
            // Two components that are compiled already, in turn, each a version of its own.
            folder.put("relay.toml", settings(change));
            folder.put("relay.wasm", rebuilt(change % 2));
            folder.until_serving("relay", &version(change).to_string());
        }
        drop(_stop_however_it_ends);
        let ran = workers.into_iter().map(|worker| worker.join().unwrap());
        ran.sum::<usize>()
    });
    let took = begun.elapsed();
    println!(
        "{changes} changes and {started} starts in {took:.1?}: {:.0} starts a second, none failed",
        started as f64 / took.as_secs_f64()
    );
    assert!(started > 20, "{started}");
    let metrics = folder.client().send(Request::new("GET", "/metrics")).text();
    assert!(
        metrics.contains("taskwright_plugin_loads_total{plugin=\"relay\",result=\"ok\"}"),
        "{metrics}"
    );
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_file_that_takes_the_place_of_a_built_in_plugin_gives_it_back() {
    let folder = Folder::holding(&[]);
    let client = folder.client();
    folder.put("process.wasm", MISBEHAVE);
    folder.until("process", |plugin| plugin.get("refused").is_some());
    assert_eq!(exit_code(&client.run(&flat("still", &["true"]))), 0);
    folder.remove("process.wasm");
    folder.until("process", |plugin| plugin.get("refused").is_none());
    assert_eq!(exit_code(&client.run(&flat("again", &["true"]))), 0);
    let source = folder.until("process", |_| true)["source"].clone();
    assert_eq!(source, "built-in");
}

#[test]
fn a_folder_that_is_not_there_is_told_at_the_start() {
    let home = Home::new();
    let flag = format!("--plugin-dir={}", home.path().join("nowhere").display());
    let ended = Options::new().flag(&flag).refused_in(&home);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("nowhere"), "{}", ended.stderr);
    assert!(ended.stderr.contains("make it"), "{}", ended.stderr);
}
