//! Containers and pods over HTTP, against a real containerd.
//!
//! Every test has a daemon of its own and sees what containerd has of it by the daemon's label,
//! so that it never meets another test. Nothing of a test is left at containerd.

mod exec;
mod faults;
mod output;
mod own_runtime;
mod pods;
mod single;
mod survival;
mod tenants;

use serde_json::{Value, json};
use taskwright_tests::containerd::Object;
use taskwright_tests::{Client, Containerd, Daemon, Options, SOON, eventually};

/// By this a daemon knows its containers.
const INSTANCE: &str = "taskwright.dev/instance";

/// A daemon in container mode.
struct Contained {
    daemon: Daemon,
    containerd: &'static Containerd,
}

impl Contained {
    /// One as a user starts it; `None` where there is no containerd.
    fn start() -> Option<Self> {
        Self::with(|options| options)
    }

    /// One with further options.
    fn with(more: impl FnOnce(Options) -> Options) -> Option<Self> {
        let containerd = Containerd::get()?;
        Some(Self {
            daemon: more(options(containerd)).start(),
            containerd,
        })
    }

    fn client(&self) -> Client {
        self.daemon.client()
    }

    /// A container by itself that runs a script.
    fn shell(&self, name: &str, script: &str) -> Value {
        self.container(name, json!({"command": ["/bin/sh", "-c", script]}))
    }

    /// A container by itself, with these fields beside its image.
    fn container(&self, name: &str, mut fields: Value) -> Value {
        if fields.get("image").is_none() {
            fields["image"] = json!(self.containerd.image());
        }
        json!({"name": name, "spec": {"container": fields}})
    }

    /// A pod whose containers run scripts, with these fields of its spec beside.
    fn pod(&self, name: &str, containers: &[(&str, &str)], mut spec: Value) -> Value {
        let containers = containers.iter();
        let containers = containers.map(|(name, script)| self.in_pod(name, script));
        spec["containers"] = containers.collect();
        json!({"name": name, "podTemplateSpec": {"spec": spec}})
    }

    /// A container of a pod.
    fn in_pod(&self, name: &str, script: &str) -> Value {
        let image = self.containerd.image();
        json!({"name": name, "image": image, "command": ["/bin/sh", "-c", script]})
    }

    /// How the daemon is known at containerd.
    fn instance(&self) -> String {
        let file = self.daemon.home().data().join(".taskwright/instance");
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// What containerd has of this daemon: containers and pods.
    fn ids(&self) -> Vec<String> {
        let filter = format!("labels.\"{INSTANCE}\"=={}", self.instance());
        let ids = self
            .containerd
            .ctr(&["containers", "ls", "--quiet", &filter]);
        ids.lines().map(str::to_owned).collect()
    }

    /// The same, with all that is known of each.
    fn objects(&self) -> Vec<Object> {
        self.containerd.labelled(INSTANCE, &self.instance())
    }

    /// The containers of a daemon that has one attempt under way, without their pod.
    fn containers(&self) -> Vec<Object> {
        let mut found = self.objects();
        found.retain(|object| !object.is_pod());
        found
    }

    /// Lets a script in a container go on that waits for the file `/tmp/go`.
    fn open_gate(&self, container: &str) {
        let gate = ["--exec-id", "gate", container, "touch", "/tmp/go"];
        let _silent = self
            .containerd
            .ctr(&[&["tasks", "exec"], &gate[..]].concat());
    }

    /// Waits until containerd has nothing of this daemon.
    fn until_nothing_is_left(&self) {
        eventually(SOON, "containerd has nothing of it", || {
            self.ids().is_empty()
        });
    }

    /// What a task printed to both streams.
    fn printed(&self, name: &str) -> String {
        let path = format!("/tasks/{name}/logs");
        self.client().get(&path).expect(200).text()
    }

    /// Waits until a task printed this.
    fn until_printed(&self, name: &str, text: &str) {
        eventually(SOON, &format!("{name} prints {text:?}"), || {
            self.printed(name).contains(text)
        });
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        let client = self.client();
        let clear = taskwright_tests::Request::new("POST", "/setTasks").json(&json!([]));
        let cleared = client.try_send(clear);
        if !std::thread::panicking() {
            assert!(
                cleared.is_ok(),
                "the daemon of a test does not run at its end"
            );
            return self.until_nothing_is_left();
        }
        // A failed test must not fail twice, but other tests should not meet its containers.
        let begun = std::time::Instant::now();
        while cleared.is_ok()
            && begun.elapsed() < SOON
            && client
                .try_send(taskwright_tests::Request::new("GET", "/getTasks"))
                .is_ok_and(|answer| answer.body.len() > 4)
        {
            std::thread::yield_now();
        }
    }
}

/// A daemon in container mode over this containerd.
pub(crate) fn options(containerd: &Containerd) -> Options {
    let group = format!("--container-cgroup-parent={}", containerd.cgroup());
    let flags = containerd.flags();
    let flags = flags.iter().chain([&group]);
    flags.fold(Options::new(), |options, flag| options.flag(flag))
}

fn cause(task: &Value) -> &str {
    task["outcome"]["cause"].as_str().unwrap_or_default()
}

/// What is told of an outcome for people.
fn told(task: &Value) -> &str {
    task["outcome"]["message"].as_str().unwrap_or_default()
}

/// The fields that a refusal names.
fn fields(refused: &Value) -> Vec<&str> {
    let details = refused["details"].as_array().into_iter().flatten();
    details
        .map(|detail| detail["field"].as_str().unwrap())
        .collect()
}

/// Every cgroup whose name holds `part`, in every hierarchy.
fn groups(containerd: &Containerd, part: &str) -> Vec<std::path::PathBuf> {
    let parent = containerd.cgroup();
    let parent = parent.trim_start_matches('/');
    let root = std::path::Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    let parents = hierarchies.map(|entry| entry.path().join(parent));
    let parents = parents.chain([root.join(parent)]);
    parents
        .flat_map(|parent| std::fs::read_dir(parent).into_iter().flatten().flatten())
        .filter(|group| group.file_name().to_string_lossy().contains(part))
        .map(|group| group.path())
        .collect()
}
