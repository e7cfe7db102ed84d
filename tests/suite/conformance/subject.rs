//! One of the three runtimes, and how its tasks are seen from here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use taskwright_tests::containerd::Object;
use taskwright_tests::processes::Process;
use taskwright_tests::{
    Client, Containerd, Daemon, Home, MainContainer, Options, SOON, eventually,
};

/// Which runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Process,
    Sidecar,
    Container,
}

/// A daemon whose tasks run by one runtime.
pub(super) struct Subject {
    pub(super) kind: Kind,
    // Before what its tasks run in.
    pub(super) daemon: Daemon,
    main: Option<MainContainer>,
    containerd: Option<&'static Containerd>,
    shared: PathBuf,
}

impl Subject {
    /// `None` where this machine cannot have it; that is said.
    pub(super) fn start(kind: Kind) -> Option<Self> {
        let home = Home::new();
        let shared = home.path().join("shared");
        let mut options = Options::new();
        let (mut main, mut containerd) = (None, None);
        match kind {
            Kind::Process => {}
            Kind::Sidecar => {
                // Every test has a main container of its own, found by a name of its own.
                let name = home.path().file_name()?.to_str()?.to_owned();
                main = Some(MainContainer::start(&name)?);
                options = options
                    .flag("--enable-sidecar-mode")
                    .flag(&format!("--main-container-name={name}"));
            }
            Kind::Container => {
                let found = Containerd::get()?;
                for flag in found.flags() {
                    options = options.flag(&flag);
                }
                options = options
                    .flag(&format!("--container-cgroup-parent={}", found.cgroup()))
                    .flag(&format!("--container-host-paths={}", shared.display()));
                containerd = Some(found);
            }
        }
        let shared = main
            .as_ref()
            .map_or(shared, |main| main.root().join("shared"));
        std::fs::create_dir_all(&shared).unwrap();
        Some(Self {
            kind,
            daemon: options.start_in(home),
            main,
            containerd,
            shared,
        })
    }

    pub(super) fn client(&self) -> Client {
        self.daemon.client()
    }

    /// A folder that tasks see, as it is called out here.
    pub(super) fn shared(&self) -> &Path {
        &self.shared
    }

    /// The same, as tasks call it.
    pub(super) fn shared_inside(&self) -> String {
        match self.kind {
            Kind::Process => self.shared.display().to_string(),
            Kind::Sidecar | Kind::Container => "/shared".to_owned(),
        }
    }

    /// A task of this runtime that runs a shell script.
    pub(super) fn shell(&self, name: &str, script: &str) -> Value {
        self.command(name, &["/bin/sh", "-c", script])
    }

    /// A task of this runtime that runs a command.
    pub(super) fn command(&self, name: &str, words: &[&str]) -> Value {
        let mark = self.daemon.home().mark();
        let (variable, value) = mark.split_once('=').unwrap();
        let env = json!([{"name": variable, "value": value}]);
        let Some(containerd) = self.containerd else {
            return json!({"name": name, "process": {"command": words, "env": env}});
        };
        json!({"name": name, "spec": {"container": {
            "image": containerd.image(), "command": words, "env": env,
            "volumes": [{"name": "shared", "hostPath": {"path": self.shared}}],
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
        }}})
    }

    /// The living processes of its tasks, wherever they hide.
    pub(super) fn processes(&self) -> Vec<Process> {
        self.daemon.home().task_processes()
    }

    pub(super) fn until_no_process_lives(&self) {
        eventually(SOON, "no process of a task is left", || {
            self.processes().is_empty()
        });
    }

    /// What a task printed so far.
    pub(super) fn printed(&self, task: &str) -> String {
        let file = self.daemon.task_file(task, "stdout.log");
        std::fs::read_to_string(file).unwrap_or_default()
    }

    /// Its command has begun, and the daemon says so.
    pub(super) fn until_started(&self, name: &str) {
        eventually(SOON, &format!("{name} has started"), || {
            self.printed(name).contains("started")
        });
        self.client().until_state(name, "running", SOON);
    }

    /// How the death of the main process by a signal is told. The runtime of containers knows
    /// exit codes only.
    pub(super) fn died_by(&self, signal: i32) -> Value {
        match self.kind {
            Kind::Process | Kind::Sidecar => json!({"signal": signal}),
            Kind::Container => json!({"exitCode": 128 + signal}),
        }
    }

    /// What the container runtime has of this daemon.
    pub(super) fn objects(&self) -> Vec<Object> {
        let Some(containerd) = self.containerd else {
            return Vec::new();
        };
        let instance = self.daemon.home().data().join(".taskwright/instance");
        let instance = std::fs::read_to_string(instance).unwrap();
        containerd.labelled("taskwright.dev/instance", &instance)
    }

    /// What is left of tasks: directories, processes, containers, cgroups.
    pub(super) fn remains(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(self.daemon.home().data()).unwrap() {
            let name = entry.unwrap().file_name().display().to_string();
            if !name.starts_with('.') {
                found.insert(format!("directory {name}"));
            }
        }
        for process in self.processes() {
            found.insert(format!("process {} {}", process.pid, process.name));
        }
        for object in self.objects() {
            found.insert(format!("container {}", object.id));
        }
        for group in crate::limited_groups(&self.daemon) {
            found.insert(format!("cgroup {}", group.display()));
        }
        found
    }

    /// Deletes every task; whatever happened before, nothing of any is left.
    pub(super) fn ends_clean(self) {
        self.client().post("/setTasks", &json!([])).expect(200);
        let begun = Instant::now();
        eventually(2 * SOON, "nothing of any task is left", || {
            let left = self.remains();
            assert!(begun.elapsed() < SOON, "left behind: {left:#?}");
            left.is_empty() && self.client().get("/getTasks").json() == json!([])
        });
        if let Some(main) = &self.main {
            let lives = taskwright_tests::processes::is_alive(main.pid());
            assert!(lives, "its main container is unharmed");
        }
    }
}
