//! Every function of the host, called with something that it takes.

use crate::request;
use crate::taskwright::plugin::container::{
    self, ContainerRequest, Identity, Network, PullPolicy, Resources, SandboxRequest,
};
use crate::taskwright::plugin::namespace::{self, Entry, Selector, Target};
use crate::taskwright::plugin::{
    directories, files, log, process, secrets, settings, status, units,
};

/// Calls one, as `units.stop`. What it was answered, if that is an error.
pub(crate) fn call(function: &str) -> Result<(), String> {
    match function {
        "process.spawn" => told(process::spawn("main", &request(&["true"]))),
        "units.stop" => told(units::stop("main", 10)),
        "units.signal" => told(units::signal("main", 10)),
        "namespace.find" => told(namespace::find(&Selector::Pid(1))),
        "namespace.is-alive" => told(namespace::is_alive(target())),
        "namespace.may-enter" => told(namespace::may_enter(entry())),
        "namespace.spawn" => told(namespace::spawn(
            "main",
            target(),
            entry(),
            &request(&["true"]),
        )),
        "container.check" => told(container::check()),
        "container.may-run" => told(container::may_run(&sandbox())),
        "container.may-create" => told(container::may_create(&container())),
        "container.image" => told(container::image("image", PullPolicy::Always)),
        "container.run-sandbox" => told(container::run_sandbox(&sandbox())),
        "container.create" => told(container::create("main", &container())),
        "container.start" => told(container::start("main")),
        "container.inspect" => told(container::inspect("main")),
        "container.stats" => told(container::stats("main")),
        "container.exec" => told(container::exec("main", &["true".to_owned()], u64::MAX)),
        "files.read" => told(files::read("note", 0, 10)),
        "files.write" => told(files::write("note", b"note")),
        "files.remove" => told(files::remove("note")),
        "directories.all" => {
            directories::all();
            Ok(())
        }
        "directories.read" => told(directories::read("own", "note", 0, 10)),
        "directories.list" => told(directories::list("own", "", None)),
        "directories.stat" => told(directories::stat("own", "")),
        "directories.write" => told(directories::write("own", "note", b"note")),
        "directories.remove" => told(directories::remove("own", "note")),
        "secrets.get" => told(secrets::get("own")),
        "settings.get" => {
            settings::get(function);
            Ok(())
        }
        "log.write" => {
            log::write(log::Level::Info, "a line");
            Ok(())
        }
        "status.note" => {
            status::note("a note");
            Ok(())
        }
        "status.parts" => {
            status::parts(&[]);
            Ok(())
        }
        other => Err(format!("there is no function {other}")),
    }
}

fn told<T, E: core::fmt::Debug>(answer: Result<T, E>) -> Result<(), String> {
    answer.map(drop).map_err(|error| format!("{error:?}"))
}

fn target() -> Target {
    Target {
        pid: 1,
        start_ticks: 1,
        candidates: 1,
        is_init: false,
    }
}

fn entry() -> Entry {
    Entry {
        user_namespace: false,
        cgroup_namespace: false,
        identity: false,
        cgroup: false,
    }
}

fn sandbox() -> SandboxRequest {
    SandboxRequest {
        network: Network::Pod,
        hostname: None,
        share_pids: false,
        privileged: false,
    }
}

fn container() -> ContainerRequest {
    ContainerRequest {
        image: "image".to_owned(),
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        mounts: Vec::new(),
        identity: Identity {
            uid: None,
            gid: None,
            groups: Vec::new(),
            username: None,
        },
        resources: Resources {
            cpu_millis: None,
            memory_bytes: None,
        },
        no_new_privileges: false,
        read_only_root: false,
        add_capabilities: Vec::new(),
        drop_capabilities: Vec::new(),
        privileged: false,
    }
}
