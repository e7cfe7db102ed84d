//! A containerd that goes away, dies and comes back. Each test has one of its own for that.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use taskwright_test_containerd::process::Identity;
use taskwright_test_containerd::{Place, Suite, environment, images, probe, service};
use taskwright_tests::reaper::Owned;
use taskwright_tests::task::{exit_code, message, state};
use taskwright_tests::{Containerd, Daemon, Options, SOON, cli, eventually, processes};

use super::{cause, told};

/// A containerd with a daemon, and nobody else at it.
struct Own {
    daemon: Daemon,
    runtime: Runtime,
}

/// A containerd that may be killed.
struct Runtime {
    place: Place,
    command: Vec<String>,
    environment: Vec<String>,
    again: Option<Owned>,
    _folder: tempfile::TempDir,
}

impl Runtime {
    /// With the programs and images of the run's own.
    fn start() -> Option<Self> {
        let _there_is_one = Containerd::get()?;
        let of_the_run = Place::new(std::env::var_os(environment::DIR)?).unwrap();
        let folder = tempfile::Builder::new()
            .prefix("tw-cri-")
            .tempdir()
            .unwrap();
        let place = Place::new(folder.path()).unwrap();
        copy(&of_the_run.programs(), &place.programs());
        copy(&of_the_run.images(), &place.images());
        apart("start", &place);
        let pid = Identity::read(&place.pid_file()).unwrap().pid;
        Some(Self {
            command: processes::command_line(pid),
            environment: processes::environment(pid),
            place,
            again: None,
            _folder: folder,
        })
    }

    /// `kill -9`, containers and their shims live on.
    fn kill(&mut self) {
        if let Some(mut again) = self.again.take() {
            again.kill();
            return;
        }
        let process = Identity::read(&self.place.pid_file()).unwrap();
        process.signal(Signal::KILL);
        assert!(process.is_dead_within(SOON));
    }

    /// The same again, as an init system does it.
    fn start_again(&mut self) {
        let log = std::fs::File::options()
            .append(true)
            .open(self.place.log())
            .unwrap();
        let mut command = Command::new(&self.command[0]);
        let variables = self
            .environment
            .iter()
            .filter_map(|one| one.split_once('='));
        command
            .args(&self.command[1..])
            .env_clear()
            .envs(variables)
            .current_dir(self.place.dir())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let process = Owned::spawn(&mut command).unwrap();
        let identity = Identity::of(process.pid()).unwrap();
        std::fs::write(self.place.pid_file(), identity.written()).unwrap();
        self.again = Some(process);
        let socket = self.place.socket();
        eventually(SOON, "containerd answers again", || {
            probe::version(&socket).is_ok()
        });
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        apart("wipe", &self.place);
    }
}

/// In which folder a process of this very program does something to a containerd.
const FOLDER: &str = "TASKWRIGHT_TEST_APART";

/// Does it in a process of its own: it waits for programs that it runs, and this process takes
/// every child away that is nobody's.
fn apart(verb: &str, place: &Place) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = format!("{}::{verb}_one_for_another_test", module_path!());
    let (_crate, name) = name.split_once("::").unwrap();
    command
        .args(["--ignored", "--exact", name])
        .env(FOLDER, place.dir());
    let done = cli::finish(&mut command, b"", Duration::from_secs(60));
    let failed = done.code != 0 || !done.stdout.contains("1 passed");
    assert!(std::thread::panicking() || !failed, "{verb}: {done:?}");
}

fn asked_for() -> Option<Place> {
    std::env::var_os(FOLDER).map(|folder| Place::new(folder).unwrap())
}

#[test]
#[ignore = "others run it, in a process of its own"]
fn start_one_for_another_test() {
    let Some(place) = asked_for() else { return };
    service::start(&place, &Suite::Best).unwrap();
}

#[test]
#[ignore = "others run it, in a process of its own"]
fn wipe_one_for_another_test() {
    let Some(place) = asked_for() else { return };
    service::wipe(&place).unwrap();
}

impl Own {
    fn with(more: impl FnOnce(Options) -> Options) -> Option<Self> {
        let runtime = Runtime::start()?;
        let options = Options::new()
            .flag("--enable-container-mode")
            .flag(&format!(
                "--cri-socket={}",
                runtime.place.socket().display()
            ))
            .flag(&format!(
                "--container-cgroup-parent=/{}",
                runtime.place.cgroup()
            ));
        Some(Self {
            daemon: more(options).start(),
            runtime,
        })
    }

    fn ctr(&self, words: &[&str]) -> cli::Finished {
        let mut command = service::ctr_command(&self.runtime.place, words);
        cli::finish(&mut command, b"", SOON)
    }

    /// Everything at the containerd, which is all of this daemon.
    fn ids(&self) -> Vec<String> {
        let ids = self.ctr(&["containers", "ls", "--quiet"]).expect(0).stdout;
        ids.lines().map(str::to_owned).collect()
    }
}

/// A tree as it is: programs by another name of the same file, so that their path tells whose
/// they are.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&source, &target);
        } else if kind.is_symlink() {
            let link = std::fs::read_link(&source).unwrap();
            std::os::unix::fs::symlink(link, &target).unwrap();
        } else if std::fs::hard_link(&source, &target).is_err() {
            std::fs::copy(&source, &target).unwrap();
        }
    }
}

fn shell(name: &str, script: &str) -> serde_json::Value {
    json!({"name": name, "spec": {"container": {
        "image": images::BUSYBOX, "command": ["/bin/sh", "-c", script]}}})
}

fn until_printed(daemon: &Daemon, name: &str, text: &str) {
    let path = format!("/tasks/{name}/logs");
    eventually(SOON, &format!("{name} prints {text}"), || {
        daemon.client().get(&path).text().contains(text)
    });
}

#[test]
fn a_runtime_that_is_away_is_waited_for_told_and_given_up() {
    let Some(mut it) = Own::with(|options| options.flag("--container-wait=2s")) else {
        return;
    };
    let client = it.daemon.client();
    let gate = |name: &str, code: u8| {
        shell(
            name,
            &format!("echo ready; until [ -e /tmp/go ]; do sleep 0.05; done; exit {code}"),
        )
    };
    client.submit(&gate("through", 7));
    client.submit(&shell("meanwhile", "echo ready; sleep 2; exit 8"));
    for name in ["through", "meanwhile"] {
        until_printed(&it.daemon, name, "ready");
        client.until_state(name, "running", SOON);
    }
    it.runtime.kill();

    // The work that runs goes on; what waits says for what.
    client.submit(&shell("given-up", "true"));
    eventually(SOON, "it says that the runtime is away", || {
        message(&client.task("given-up")).contains("container runtime")
    });
    let ended = client.until_ended("given-up", SOON);
    assert_eq!(cause(&ended), "runtime-unavailable", "{ended:#}");
    assert_eq!(exit_code(&ended), 125);
    assert!(told(&ended).contains("containerd.sock"), "{ended:#}");
    assert_eq!(state(&client.task("through")), "running");
    let ready = client.get("/readyz").expect(503).text();
    assert!(ready.contains("plugin:container"), "{ready}");
    let plugins = client.get("/plugins").expect(200).json();
    let plugins = plugins["items"].as_array().unwrap().clone();
    let plugin = plugins
        .iter()
        .find(|plugin| plugin["name"] == "container")
        .unwrap();
    assert_eq!(plugin["healthy"], false, "{plugin:#}");
    assert!(
        plugin["trouble"]
            .as_str()
            .unwrap()
            .contains("containerd.sock")
    );
    client.get("/livez").expect(200);
    assert_eq!(
        exit_code(&client.run(&taskwright_tests::task::flat("process", &["true"]))),
        0
    );

    client.submit(&shell("in-time", "echo ran"));
    eventually(SOON, "it waits", || {
        message(&client.task("in-time")).contains("container runtime")
    });
    it.runtime.start_again();
    let ended = client.until_ended("in-time", SOON);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    client.get("/readyz");
    eventually(SOON, "it is ready again", || {
        client.get("/readyz").status == 200
    });
    // Its shim kept what nobody was there to hear.
    let ended = client.until_ended("meanwhile", SOON);
    match cause(&ended) {
        "exit" => assert_eq!(exit_code(&ended), 8, "{ended:#}"),
        other => assert_eq!(other, "lost", "{ended:#}"),
    }
    // And whoever ran through it is as reachable as before.
    assert_eq!(state(&client.task("through")), "running");
    for id in it.ids() {
        let _pods_may_have_none = it.ctr(&[
            "tasks",
            "exec",
            "--exec-id",
            "gate",
            &id,
            "touch",
            "/tmp/go",
        ]);
    }
    let ended = client.until_ended("through", SOON);
    assert_eq!((cause(&ended), exit_code(&ended)), ("exit", 7), "{ended:#}");
    // Nothing of any of them is left.
    eventually(SOON, "containerd has nothing of it", || it.ids().is_empty());
}

#[test]
fn a_daemon_that_finds_no_runtime_takes_up_its_containers_later() {
    let Some(mut it) = Own::with(|options| options) else {
        return;
    };
    let client = it.daemon.client();
    client.submit(&shell("long", "echo ready; sleep 3; echo done; exit 6"));
    client.submit(&shell(
        "stopped",
        "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done",
    ));
    client.submit(&shell("deleted", "echo ready; exec sleep 600"));
    for name in ["long", "stopped", "deleted"] {
        until_printed(&it.daemon, name, "ready");
        client.until_state(name, "running", SOON);
    }
    it.daemon.kill();
    it.runtime.kill();
    it.daemon.spawn();
    eventually(SOON, "it serves without a runtime", || {
        let answer = client.try_send(taskwright_tests::Request::new("GET", "/tasks/long"));
        answer.is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(
        state(&client.task("long")),
        "running",
        "nobody knows better"
    );
    client.post("/tasks/stopped/stop", &json!({})).expect(200);
    client.delete("/tasks/deleted").expect(204);
    it.runtime.start_again();
    let ended = client.until_ended("long", SOON);
    match cause(&ended) {
        "exit" => assert_eq!(exit_code(&ended), 6, "{ended:#}"),
        other => assert_eq!(other, "lost", "{ended:#}"),
    }
    until_printed(&it.daemon, "long", "done");
    let ended = client.until_ended("stopped", 2 * SOON);
    assert_eq!(cause(&ended), "canceled", "{ended:#}");
    client.until_gone("deleted", 2 * SOON);
    it.daemon.wait_ready();
    eventually(2 * SOON, "containerd has nothing of it", || {
        it.ids().is_empty()
    });
}

#[test]
fn no_network_is_had_where_the_operator_set_it_up() {
    let handlers = |options: Options| options.flag("--container-loopback-handler=runc-loopback");
    let Some(mut it) = Own::with(handlers) else {
        return;
    };
    let networks = it.runtime.place.config().join("loopback");
    std::fs::create_dir_all(&networks).unwrap();
    let network = json!({"cniVersion": "0.4.0", "name": "loopback-only", "plugins": [{
        "type": "static",
        "ipam": {"type": "static", "addresses": [{"address": "127.0.0.1/8"}]}}]});
    std::fs::write(networks.join("10-loopback.conflist"), network.to_string()).unwrap();
    let file = it.runtime.place.config().join("config.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let dir = it.runtime.place.dir().display();
    let handler = format!(
        r#"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc-loopback]
  runtime_type = "io.containerd.runc.v2"
  cni_conf_dir = "{}"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc-loopback.options]
    BinaryName = "{dir}/rt/usr/sbin/runc"
    Root = "{dir}/run/runc"
    SystemdCgroup = false
"#,
        networks.display()
    );
    std::fs::write(&file, config + &handler).unwrap();
    it.runtime.kill();
    it.runtime.start_again();
    eventually(SOON, "it is ready", || {
        it.daemon.client().get("/readyz").status == 200
    });
    let mut body = shell(
        "alone",
        "ls /sys/class/net; ping -c 1 -W 1 10.0.0.1 || echo nobody",
    );
    body["spec"]["container"]["network"] = json!("none");
    let ended = it.daemon.client().run(&body);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    let printed = it.daemon.client().get("/tasks/alone/logs").text();
    assert!(
        printed.contains("lo\n") && printed.contains("nobody"),
        "{printed}"
    );
    assert!(!printed.contains("eth0"), "{printed}");
}
