//! The policy and the observer of `examples/`: built by the very commands that their READMEs tell,
//! in a folder apart from our sources, and dropped into the folder of a daemon that runs.

mod receiver;

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, flat};
use taskwright_tests::{Home, SOON, cli, eventually};

use self::receiver::Receiver;
use crate::lent;
use crate::plugin_new::{BUILD, NOT_FOR_PLUGINS};
use crate::plugins::Folder;

/// What the gatekeeper of the test lets run.
const PROGRAMS: &str = "programs = \"/usr/bin/true\"";
const MOST_MEMORY: u64 = 512 << 20;
/// What begins the secret of the webhook.
const SECRET: &str = "hunter2";

/// An example that is copied anew for each run, always to one place: cargo knows crates by their
/// place and keeps what it made of them.
struct Example {
    name: &'static str,
    folder: PathBuf,
}

impl Example {
    fn copy(name: &'static str) -> Self {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = tmp.join("examples").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        for part in ["", "src", "wit"] {
            fs::create_dir_all(folder.join(part)).unwrap();
            for entry in fs::read_dir(source.join(name).join(part)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    let to = folder.join(part).join(entry.file_name());
                    fs::copy(entry.path(), to).unwrap();
                }
            }
        }
        // Where the build compiled the generator of the bindings already.
        symlink(tmp.with_file_name("guests"), folder.join("target")).unwrap();
        Self { name, folder }
    }

    /// Takes the steps of its README from the tests to the check. What they print.
    fn build(&self) -> String {
        let readme = fs::read_to_string(self.folder.join("README.md")).unwrap();
        let (_, rest) = readme.split_once("## Build and check").unwrap();
        let (section, _) = rest.split_once("\n## ").unwrap();
        let steps = section.lines().filter_map(|line| line.strip_prefix("$ "));
        // The target is there: this very test was compiled with it.
        let ours = |step: &&str| !step.starts_with("rustup");
        let steps: Vec<&str> = steps.filter(ours).collect();
        assert!(steps.len() >= 4, "{steps:?}");
        let taskwright = taskwright_tests::binary::taskwright();
        let mut paths = vec![taskwright.parent().unwrap().to_owned()];
        let found = std::env::var_os("PATH").unwrap_or_default();
        paths.extend(std::env::split_paths(&found));
        let mut shell = Command::new("/bin/sh");
        for name in NOT_FOR_PLUGINS.iter().chain(&["CARGO_TARGET_DIR"]) {
            shell.env_remove(name);
        }
        shell
            .args(["-exc", &steps.join("\n")])
            .current_dir(&self.folder)
            .env("PATH", std::env::join_paths(paths).unwrap());
        let built = cli::finish(&mut shell, b"", BUILD).expect(0);
        built.stdout + &built.stderr
    }

    fn component(&self) -> Vec<u8> {
        fs::read(self.folder.join(self.name).with_extension("wasm")).unwrap()
    }

    /// What lies beside the component, other for this test.
    fn lent(&self, changes: &[(&str, &str)]) -> String {
        let file = self.folder.join(self.name).with_extension("toml");
        let mut text = fs::read_to_string(file).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{from} is not in {text}");
            text = text.replace(from, to);
        }
        text
    }
}

#[test]
fn the_contract_of_each_example_is_ours() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for example in ["gatekeeper", "webhook"] {
        for entry in fs::read_dir(root.join("examples").join(example).join("wit")).unwrap() {
            let entry = entry.unwrap();
            // Each has a world of its own.
            if entry.file_name() != "world.wit" {
                let (theirs, ours) = (entry.path(), root.join("wit").join(entry.file_name()));
                let read = |path: &Path| fs::read_to_string(path).unwrap();
                assert_eq!(read(&theirs), read(&ours), "copy it to {theirs:?}");
            }
        }
    }
}

#[test]
fn a_policy_in_rust_denies_asks_and_caps() {
    let example = Example::copy("gatekeeper");
    let tasks = json!([{
        "name": "a", "process": {"command": ["/usr/bin/make"]}, "user": {"uid": 9, "gid": 9},
    }]);
    fs::write(example.folder.join("tasks.yaml"), tasks.to_string()).unwrap();
    let said = example.build();
    for words in [
        "6 passed",
        "It would be loaded.",
        "+ /resources: {\"memory\":536870912}",
    ] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    assert!(!said.contains("note  "), "{said}");

    let folder = Folder::holding(&[]);
    let programs = "programs = \"/usr/bin/make /usr/bin/env\"";
    folder.put("gatekeeper.toml", example.lent(&[(programs, PROGRAMS)]));
    folder.put("gatekeeper.wasm", example.component());
    folder.until("gatekeeper", |plugin| plugin["roles"] == json!(["policy"]));
    let client = folder.client();
    let wanted = |name: &str, program: &str| {
        let mut task = flat(name, &[program]);
        // What is capped here need not be enforced by every machine.
        task["bestEffort"] = json!(true);
        task
    };
    let denied = client.post("/tasks", &wanted("foreign", "/usr/bin/false"));
    let denied = denied.expect(403).json();
    assert_eq!(denied["details"][0]["field"], "/process/command/0");
    assert!(denied.to_string().contains("/usr/bin/true"), "{denied:#}");

    let held = client.post("/tasks", &wanted("root", "/usr/bin/true"));
    let held = held.expect(201).json();
    assert_eq!(held["review"]["hold"]["reason"], "asked", "{held:#}");
    let told = folder.daemon.taskwright(&["explain", "root"]).expect(0);
    let question = "may root run as root, without a container?";
    assert!(told.stdout.contains(question), "{}", told.stdout);
    folder.daemon.taskwright(&["approve", "root"]).expect(0);
    let ended = client.until_ended("root", SOON);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    assert_eq!(ended["resources"]["memory"], MOST_MEMORY, "{ended:#}");

    if !rustix::process::geteuid().is_root() {
        taskwright_tests::skip("tasks of other users need root");
        return;
    }
    let mut greedy = wanted("greedy", "/usr/bin/true");
    greedy["user"] = json!({"uid": 65534, "gid": 65534});
    greedy["resources"] = json!({"memory": "1Gi"});
    let capped = client.post("/tasks", &greedy).expect(201).json();
    assert_eq!(capped["resources"]["memory"], MOST_MEMORY, "{capped:#}");
    assert!(capped["review"].get("hold").is_none(), "{capped:#}");
}

#[test]
fn a_webhook_hears_of_everything_in_order_whoever_was_away() {
    let example = Example::copy("webhook");
    let said = example.build();
    for words in ["6 passed", "It would be loaded."] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }

    let home = Home::new();
    let key = home.path().join("webhook-key");
    let secret = format!("{SECRET}-webhook");
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(&key).unwrap();
    fs::write(&key, format!("{secret}\n")).unwrap();
    let mut receiver = Receiver::open(secret.as_bytes());
    let hosts = format!("hosts = [\"{}\"], schemes = [\"http\"]", receiver.address());
    let url = format!("http://{}/hook", receiver.address());
    let lent = example.lent(&[
        ("hosts = [\"hooks.example.org\"]", &hosts),
        ("/etc/taskwright/secrets/webhook-key", key.to_str().unwrap()),
        ("https://hooks.example.org/taskwright", &url),
        ("held retrying ended", "submitted running ended"),
    ]);
    let mut folder = Folder::holding_in(home, &[]);
    folder.put("webhook.toml", lent);
    folder.put("webhook.wasm", example.component());
    folder.until("webhook", |plugin| plugin["roles"] == json!(["observer"]));
    let client = folder.client();

    client.run(&flat("first", &["true"]));
    eventually(SOON, "it heard of the first", || {
        receiver.took("ended", "first")
    });

    // It is away for a moment: nobody listens.
    receiver.close();
    client.run(&flat("second", &["true"]));
    let why = format!("{} gave no answer", receiver.address());
    eventually(SOON, "the log says why", || {
        folder.daemon.log().contains(&why)
    });
    receiver.open_again();
    eventually(SOON, "it heard of the second", || {
        receiver.took("ended", "second")
    });

    // It has trouble of its own, and the daemon is killed meanwhile.
    receiver.refuse(true);
    client.run(&flat("third", &["true"]));
    eventually(SOON, "it refused something", || receiver.refusals() > 0);
    folder.daemon.kill();
    receiver.refuse(false);
    folder.daemon.start_again();
    client.run(&flat("fourth", &["true"]));
    eventually(SOON, "it heard of the last", || {
        receiver.took("ended", "third") && receiver.took("ended", "fourth")
    });

    check_what_arrived(&receiver, &folder);
    let log = folder.daemon.log();
    assert!(!log.contains(SECRET), "{log}");
    assert!(!log.contains("/hook"), "{log}");
    assert_eq!(lent::holding(folder.daemon.home().path(), SECRET), [key]);
}

/// Each event of the wanted kinds arrived, in order, and was what the feed says.
fn check_what_arrived(receiver: &Receiver, folder: &Folder) {
    let arrived = receiver.taken();
    let numbers: Vec<u64> = arrived.iter().map(|heard| heard.sequence).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let mut told: Vec<Value> = arrived.into_iter().map(|heard| heard.event).collect();
    // Who may be told twice looks at the numbers.
    told.dedup_by_key(|event| event["sequence"].clone());
    let page = folder.client().get("/events").expect(200).json();
    let wanted = |event: &&Value| {
        let kind = event["event"].as_str().unwrap();
        ["submitted", "running", "ended"].contains(&kind)
    };
    let all = page["items"].as_array().unwrap().iter();
    let all: Vec<Value> = all.filter(wanted).cloned().collect();
    assert_eq!(told, all);
    assert_eq!(all.len(), 12, "{all:#?}");
}
