//! Commands inside a main container: where they are, what they take of it, and what becomes of
//! them when it is not there, goes or comes back.

mod survival;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskwright_tests::main_container::{NAMESPACES, VARIABLE, namespace, namespaces};
use taskwright_tests::task::{exit_code, flat, message, reason, shell, state};
use taskwright_tests::{
    Client, Containerd, Daemon, MainContainer, MainOptions, Options, SOON, eventually,
    eventually_some, processes, reaper,
};

/// A name that no other main container on this machine has.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("main-{}-{number}", std::process::id())
}

/// A daemon in sidecar mode for the main container of this name.
fn mode(name: &str) -> Options {
    Options::new()
        .flag("--enable-sidecar-mode")
        .flag(&format!("--main-container-name={name}"))
}

/// A main container, and a daemon whose commands run in there.
fn both() -> Option<(Daemon, MainContainer)> {
    let name = unique();
    let main = MainContainer::start(&name)?;
    Some((mode(&name).start(), main))
}

fn with(mut task: Value, field: &str, value: Value) -> Value {
    task[field] = value;
    task
}

/// A task of the sidecar runtime with this `config`.
fn configured(name: &str, script: &str, config: Value) -> Value {
    with(
        with(shell(name, script), "runtime", json!("sidecar")),
        "config",
        config,
    )
}

/// Runs a task, which must end with 0, and answers with what it printed.
fn printed(daemon: &Daemon, task: &Value) -> String {
    let ended = daemon.client().run(task);
    let name = taskwright_tests::task::name(&ended);
    let read = |stream: &str| {
        let file = daemon.task_file(name, &format!("{stream}.log"));
        fs::read_to_string(file).unwrap_or_default()
    };
    assert_eq!(exit_code(&ended), 0, "{ended:#}\n{}", read("stderr"));
    read("stdout")
}

fn until_printed(daemon: &Daemon, task: &str, wanted: &str) {
    let file = daemon.task_file(task, "stdout.log");
    eventually(SOON, &format!("{task} printed {wanted:?}"), || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains(wanted))
    });
}

/// Prints which namespaces it is in.
const WHERE: &str = "for kind in pid mnt net uts ipc user; do readlink /proc/self/ns/$kind; done";

fn assert_inside(seen: &str, main: &MainContainer, daemon: &Daemon) {
    let theirs = namespaces(main.pid());
    let ours = namespaces(daemon.pid());
    let mut lines = seen.lines();
    for kind in NAMESPACES {
        let line = lines.next().unwrap();
        assert_eq!(line, theirs[kind], "{kind}: {seen}");
        assert_ne!(line, ours[kind], "{kind}");
    }
    // Nobody asked for its user namespace.
    assert_eq!(lines.next(), namespace(daemon.pid(), "user").as_deref());
}

/// Waits in there for a file, then ends with a code.
fn gated(code: u8) -> String {
    format!("echo up; while [ ! -e /gate ]; do sleep 0.05; done; exit {code}")
}

fn until_true(client: &Client, name: &str, code: u8) {
    let ended = client.until_ended(name, SOON);
    assert_eq!(
        ended["outcome"],
        json!({"cause": "exit", "exitCode": code}),
        "{ended:#}"
    );
}

#[test]
fn a_command_is_in_every_namespace_of_the_main_container() {
    let Some((daemon, main)) = both() else { return };
    assert_inside(&printed(&daemon, &shell("where", WHERE)), &main, &daemon);
}

#[test]
fn the_guides_scenario_works_as_written() {
    let name = unique();
    let Some(main) = MainContainer::start(&name) else {
        return;
    };
    let daemon = Options::new()
        .variable("ENABLE_SIDECAR_MODE", "true")
        .variable("MAIN_CONTAINER_NAME", &name)
        .start();
    let body = json!({
        "name": "inspect",
        "spec": {"process": {"command": ["ls", "-l"], "args": ["/proc/self/ns"]}}
    });
    let seen = printed(&daemon, &body);
    for (kind, namespace) in namespaces(main.pid()) {
        assert!(seen.contains(&format!("{kind} -> {namespace}")), "{seen}");
    }
}

#[test]
fn a_command_sees_the_main_containers_files_and_name_and_no_others() {
    let name = unique();
    let Some(main) = MainContainer::start(&name) else {
        return;
    };
    let daemon = mode(&name).start();
    fs::write(main.root().join("theirs"), "a file of its own").unwrap();
    let script = format!(
        "cat /theirs; echo; hostname; [ -e {} ] || echo hidden; pwd; ls /proc/1/exe; tr '\\0' '\\n' \
         < /proc/1/environ | grep {VARIABLE}",
        daemon.home().path().display()
    );
    let seen = printed(&daemon, &shell("sees", &script));
    assert_eq!(
        seen,
        format!("a file of its own\n{name}\nhidden\n/\n/proc/1/exe\n{VARIABLE}={name}\n")
    );
}

#[test]
fn the_mode_is_about_tasks_that_name_no_runtime() {
    let Some((daemon, main)) = both() else { return };
    let here = with(shell("here", WHERE), "runtime", json!("process"));
    let seen = printed(&daemon, &here);
    let ours = namespaces(daemon.pid());
    let expected: Vec<&str> = NAMESPACES.map(|kind| ours[kind].as_str()).into();
    assert_eq!(seen.lines().take(5).collect::<Vec<_>>(), expected);
    let there = with(shell("there", WHERE), "runtime", json!("sidecar"));
    assert_inside(&printed(&daemon, &there), &main, &daemon);
    assert_eq!(daemon.client().task("here")["runtime"], "process");
    assert_eq!(daemon.client().task("there")["runtime"], "sidecar");
}

#[test]
fn a_task_that_names_the_runtime_needs_no_mode() {
    let name = unique();
    let Some(main) = MainContainer::start(&name) else {
        return;
    };
    let daemon = Daemon::start();
    let config = json!({"target": {"mainContainer": name}});
    let seen = printed(&daemon, &configured("there", WHERE, config));
    assert_inside(&seen, &main, &daemon);
    let seen = printed(&daemon, &shell("here", "readlink /proc/self/ns/mnt"));
    assert_eq!(seen.trim(), namespaces(daemon.pid())["mnt"]);
}

#[test]
fn a_working_directory_is_one_in_there() {
    let Some((daemon, main)) = both() else { return };
    fs::create_dir_all(main.root().join("only/there")).unwrap();
    let mut body = shell("there", "pwd; cd ..; pwd");
    body["process"]["workingDir"] = json!("/only/there");
    assert_eq!(printed(&daemon, &body), "/only/there\n/only\n");
    // One that is here and not there.
    let here = daemon.home().path().display().to_string();
    let mut body = shell("here", "pwd");
    body["process"]["workingDir"] = json!(here);
    let ended = daemon.client().run(&body);
    assert_eq!(exit_code(&ended), 126, "{ended:#}");
    assert!(message(&ended).contains(&here), "{ended:#}");
}

#[test]
fn a_main_container_needs_no_shell() {
    let name = unique();
    let Some(main) = MainOptions::new(&name).distroless().start() else {
        return;
    };
    let daemon = mode(&name).start();
    let body = flat("bare", &["/busybox", "readlink", "/proc/self/ns/mnt"]);
    assert_eq!(
        printed(&daemon, &body).trim(),
        namespaces(main.pid())["mnt"]
    );
    let ended = daemon.client().run(&shell("none", "true"));
    assert_eq!(exit_code(&ended), 127, "{ended:#}");
    assert!(message(&ended).contains("/bin/sh"), "{ended:#}");
}

#[test]
fn its_environment_is_the_base_and_the_tasks_word_counts() {
    let name = unique();
    let main = MainOptions::new(&name)
        .variable("THEIRS", "kept = it")
        .variable("BOTH", "theirs");
    let Some(_main) = main.start() else { return };
    let daemon = mode(&name).variable("DAEMONS", "secret").start();
    let mut body = shell("env", "env");
    body["process"]["env"] = json!([{"name": "BOTH", "value": "ours"}]);
    let seen = printed(&daemon, &body);
    let lines: BTreeSet<&str> = seen.lines().collect();
    let marker = format!("{VARIABLE}={name}");
    for wanted in [
        "THEIRS=kept = it",
        "BOTH=ours",
        "PATH=/bin",
        &marker,
        "TASKWRIGHT_TASK_NAME=env",
        "TASKWRIGHT_ATTEMPT=1",
    ] {
        assert!(lines.contains(wanted), "{wanted}: {seen}");
    }
    let here = daemon.home().path().display().to_string();
    assert!(!seen.contains("DAEMONS") && !seen.contains(&here), "{seen}");
}

const WHO: &str = "id -u; id -g; grep CapEff /proc/self/status | tr -d '\\t'; \
                   [ -w /etc ] && echo root || true";

#[test]
fn its_user_is_taken_on_request_of_task_or_operator() {
    let name = unique();
    let Some(_main) = MainOptions::new(&name).user(4321).start() else {
        return;
    };
    let theirs = "4321\n4321\nCapEff:0000000000000000\n";
    let daemon = mode(&name).start();
    let seen = printed(&daemon, &shell("default", WHO));
    assert!(
        seen.starts_with("0\n0\n"),
        "as the reference has it: {seen}"
    );
    let asked = configured("asked", WHO, json!({"identity": "target"}));
    assert_eq!(printed(&daemon, &asked), theirs);

    let daemon = mode(&name).flag("--sidecar-identity=target").start();
    assert_eq!(printed(&daemon, &shell("default", WHO)), theirs);
    let asked = configured("asked", WHO, json!({"identity": "daemon"}));
    let seen = printed(&daemon, &asked);
    assert!(seen.starts_with("0\n0\n"), "{seen}");
}

/// A group of a controller of version 1 with one process, removed when dropped.
struct Group(PathBuf);

impl Group {
    fn limiting(controller: &str, pid: u32, file: &str, most: &str) -> Result<Self, String> {
        let name = unique().replace("main", "taskwright-test");
        let group = Path::new("/sys/fs/cgroup").join(controller).join(name);
        let made = fs::create_dir(&group)
            .and_then(|()| fs::write(group.join(file), most))
            .and_then(|()| fs::write(group.join("cgroup.procs"), pid.to_string()));
        made.map_err(|error| format!("no group of the {controller} controller: {error}"))?;
        Ok(Self(group))
    }

    fn path(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _still_in_use = fs::remove_dir(&self.0);
    }
}

#[test]
fn its_limits_are_taken_on_request_and_its_group_describes_it() {
    let name = unique();
    let Some(mut main) = MainContainer::start(&name) else {
        return;
    };
    let group = match Group::limiting("pids", main.pid(), "pids.max", "100") {
        Ok(group) => group,
        Err(reason) => return taskwright_tests::skip(&reason),
    };
    let daemon = mode(&name).start();
    let where_limited = "grep pids: /proc/self/cgroup";
    let seen = printed(&daemon, &shell("own", where_limited));
    assert!(!seen.contains(&group.path()), "{seen}");
    let asked = configured("asked", where_limited, json!({"cgroup": "target"}));
    let seen = printed(&daemon, &asked);
    assert!(seen.trim_end().ends_with(&group.path()), "{seen}");

    let by_group = json!({"target": {"cgroup": group.path()}});
    let seen = printed(&daemon, &configured("by-group", WHERE, by_group));
    assert_inside(&seen, &main, &daemon);
    let operators = mode(&name).flag("--sidecar-cgroup=target").start();
    let seen = printed(&operators, &shell("operators", where_limited));
    assert!(seen.trim_end().ends_with(&group.path()), "{seen}");
    main.kill();
}

#[test]
fn the_oldest_of_several_is_entered_and_tasks_never_are() {
    let name = unique();
    let daemon = mode(&name).start();
    let client = daemon.client();
    // Older than every main container, and looks like one.
    let mut decoy = with(
        flat("decoy", &["sleep", "300"]),
        "runtime",
        json!("process"),
    );
    decoy["process"]["env"] = json!([{"name": VARIABLE, "value": name}]);
    client.submit(&decoy);
    client.until_state("decoy", "running", SOON);
    let Some(mut first) = MainContainer::start(&name) else {
        return;
    };
    let Some(second) = MainContainer::start(&name) else {
        return;
    };
    client.submit(&shell("earlier", "echo up; sleep 300"));
    until_printed(&daemon, "earlier", "up");
    let seen = printed(&daemon, &shell("in-first", WHERE));
    assert_inside(&seen, &first, &daemon);
    let told = format!("the oldest, {}, is entered", first.pid());
    assert!(daemon.log().contains(&told), "{}", daemon.log());
    first.kill();
    let seen = printed(&daemon, &shell("in-second", WHERE));
    assert_inside(&seen, &second, &daemon);
}

#[test]
fn a_main_container_that_is_not_there_yet_is_waited_for() {
    let name = unique();
    let daemon = mode(&name).start();
    let client = daemon.client();
    client.submit(&shell("early", "echo arrived; exit 6"));
    let note = format!("waits for a process with {VARIABLE}={name} in its environment");
    let mut last = Value::Null;
    eventually(SOON, "it says what it waits for", || {
        last = client.task("early");
        assert_eq!(state(&last), "waiting");
        last["attempts"][0]["note"] == note.as_str()
    });
    assert!(message(&last).contains(&note), "{last:#}");
    let Some(_main) = MainContainer::start(&name) else {
        return;
    };
    let ended = client.until_ended("early", SOON);
    assert_eq!(ended["outcome"], json!({"cause": "exit", "exitCode": 6}));
    assert!(ended["attempts"][0]["note"].is_null(), "{ended:#}");
}

#[test]
fn a_main_container_that_never_comes_is_a_lost_target() {
    let name = unique();
    let daemon = mode(&name).flag("--sidecar-wait=300ms").start();
    let client = daemon.client();
    let begun = Instant::now();
    let ended = client.run(&shell("alone", "true"));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(ended["outcome"]["cause"], "target-lost", "{ended:#}");
    assert_eq!(
        (exit_code(&ended), reason(&ended).as_str()),
        (125, "TargetLost")
    );
    let sentence = format!(
        "there is no process with {VARIABLE}={name} in its environment, and none came within 0.3 s"
    );
    assert_eq!(message(&ended), sentence);
    // Who has a number some day is not who was meant by it: that is not waited for.
    let config = json!({"target": {"pid": 4_000_000_000_u32}, "targetWaitSeconds": 600});
    let ended = client.run(&configured("nobody", "true", config));
    assert_eq!(ended["outcome"]["cause"], "target-lost", "{ended:#}");
    let sentence = "there is no process 4000000000 to enter";
    assert!(message(&ended).contains(sentence), "{ended:#}");
    // And may be stopped while it waits.
    client.submit(&configured(
        "stopped",
        "true",
        json!({"targetWaitSeconds": 600}),
    ));
    eventually(SOON, "it waits", || {
        !client.task("stopped")["attempts"][0]["note"].is_null()
    });
    client.post("/tasks/stopped/stop", &json!({})).expect(200);
    let ended = client.until_ended("stopped", SOON);
    assert_eq!(ended["outcome"]["cause"], "canceled", "{ended:#}");
}

#[test]
fn what_a_task_leaves_without_a_mark_is_never_entered() {
    let name = unique();
    let daemon = mode(&name).start();
    // Out of its session and its groups, and with nothing in its environment that shows where it
    // came from: older than every main container, and called as one.
    let script = format!(
        "for procs in $(find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs); do \
         echo 0 > $procs; done 2>/dev/null; \
         setsid env -i {VARIABLE}={name} /bin/sh -c 'echo $$; exec sleep 300' & sleep 0.1"
    );
    let body = with(shell("decoy", &script), "runtime", json!("process"));
    let pid: u32 = printed(&daemon, &body).trim().parse().unwrap();
    assert!(processes::is_alive(pid));
    assert!(
        !processes::environment(pid)
            .iter()
            .any(|one| one.starts_with("TASKWRIGHT_UNIT"))
    );
    if let Some(main) = MainContainer::start(&name) {
        assert_inside(&printed(&daemon, &shell("inside", WHERE)), &main, &daemon);
    }
    let config = json!({"target": {"pid": pid}});
    let ended = daemon.client().run(&configured("decoys", "true", config));
    assert_eq!(ended["outcome"]["cause"], "target-lost", "{ended:#}");
    let mut all = processes::living();
    all.retain(|one| one.pid == pid);
    for decoy in &all {
        reaper::kill(decoy);
    }
}

#[test]
fn a_main_container_that_dies_takes_the_command_with_it_and_that_is_told_soon() {
    let Some((daemon, mut main)) = both() else {
        return;
    };
    let client = daemon.client();
    // More than once: the kernel ends the command before it has done with the main container.
    for round in 0..5 {
        let name = format!("inside-{round}");
        client.submit(&shell(&name, "echo up; sleep 300"));
        until_printed(&daemon, &name, "up");
        let pid = main.pid();
        let begun = Instant::now();
        main.restart();
        let ended = client.until_ended(&name, SOON);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(ended["outcome"]["cause"], "target-lost", "{ended:#}");
        assert_eq!(reason(&ended), "TargetLost");
        assert_eq!(
            message(&ended),
            format!("the main container's process {pid} ended, and the command with it")
        );
    }
}

#[test]
fn a_main_container_that_was_restarted_is_found_again() {
    let Some((daemon, mut main)) = both() else {
        return;
    };
    assert_inside(&printed(&daemon, &shell("before", WHERE)), &main, &daemon);
    main.restart();
    assert_inside(&printed(&daemon, &shell("after", WHERE)), &main, &daemon);
    // And an attempt that was lost with it is made again, if that is wanted.
    let retry = json!({"maxAttempts": 2, "backoffSeconds": 0.05, "on": ["target-lost"]});
    let script = "echo up; [ $TASKWRIGHT_ATTEMPT = 2 ] && exit 8; sleep 300";
    daemon
        .client()
        .submit(&with(shell("again", script), "retry", retry));
    until_printed(&daemon, "again", "up");
    main.restart();
    let ended = daemon.client().until_ended("again", SOON);
    assert_eq!(exit_code(&ended), 8, "{ended:#}");
    assert_eq!(ended["attempts"][0]["outcome"]["cause"], "target-lost");
}

#[test]
fn a_target_is_described_by_its_number_or_any_variable() {
    let name = unique();
    let main = MainOptions::new(&name).variable("WHO", &name);
    let Some(main) = main.start() else { return };
    let daemon = Daemon::start();
    for (task, target) in [
        ("by-pid", json!({"pid": main.pid()})),
        ("by-name", json!({"mainContainer": name})),
        (
            "by-variable",
            json!({"variable": {"name": "WHO", "value": name}}),
        ),
    ] {
        let seen = printed(&daemon, &configured(task, WHERE, json!({"target": target})));
        assert_inside(&seen, &main, &daemon);
    }
}

/// A container that nobody of ours made.
struct Foreign(&'static Containerd, String);

impl Drop for Foreign {
    fn drop(&mut self) {
        let Self(containerd, id) = self;
        let _may_be_gone = containerd.try_ctr(&["tasks", "delete", "--force", id]);
        let _may_be_gone = containerd.try_ctr(&["containers", "delete", id]);
    }
}

#[test]
fn a_target_is_described_by_its_containers_id() {
    let Some(containerd) = Containerd::get() else {
        return;
    };
    let id = unique().replace('-', "0") + "0123456789abcdef";
    let group = format!("{}/{id}", containerd.cgroup());
    let made = containerd.try_ctr(&[
        "run",
        "--detach",
        "--cgroup",
        &group,
        containerd.image(),
        &id,
        "sleep",
        "300",
    ]);
    let container = Foreign(containerd, id.clone());
    made.expect(0);
    let mut objects = containerd.objects();
    objects.retain(|object| object.id == id);
    let pid = objects[0].pid.unwrap();
    let daemon = Daemon::start();
    let address = format!("containerd://{id}");
    for (task, wanted) in [
        ("whole", &*id),
        ("part", id.get(..20).unwrap()),
        ("address", &address),
    ] {
        let config = json!({"target": {"containerId": wanted}, "targetWaitSeconds": 0});
        let seen = printed(&daemon, &configured(task, WHERE, config));
        let theirs = namespaces(pid);
        assert_eq!(seen.lines().next(), Some(&*theirs["pid"]), "{task}");
    }
    drop(container);
}

#[test]
fn a_user_namespace_is_entered_only_where_that_was_granted() {
    let name = unique();
    let Some(main) = MainOptions::new(&name).user_namespace().start() else {
        return;
    };
    let script = "readlink /proc/self/ns/user; id -u";
    let asked = |task: &str| configured(task, script, json!({"userNamespace": true}));
    let daemon = mode(&name).start();
    let refused = daemon.client().post("/tasks", &asked("refused"));
    let detail = refused.expect(400).json()["details"][0].clone();
    assert_eq!(detail["field"], "/config/userNamespace", "{detail:#}");
    let told = detail["message"].as_str().unwrap();
    assert!(told.contains("user-namespace"), "{detail:#}");

    let daemon = mode(&name).flag("--sidecar-namespaces=user").start();
    let seen = printed(&daemon, &asked("granted"));
    let theirs = namespace(main.pid(), "user").unwrap();
    assert_eq!(seen, format!("{theirs}\n0\n"));
    let both = json!({"userNamespace": true, "identity": "target"});
    let seen = printed(&daemon, &configured("theirs", script, both));
    assert_eq!(seen, format!("{theirs}\n0\n"));
    // Who does not ask stays in ours.
    let seen = printed(&daemon, &shell("ours", "readlink /proc/self/ns/user"));
    assert_eq!(seen.trim(), namespace(daemon.pid(), "user").unwrap());
}

/// Every file and directory below, by name and time of change.
fn listing(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).unwrap().flatten() {
            let metadata = entry.metadata().unwrap();
            found.insert(format!("{:?} {:?}", entry.path(), metadata.modified()));
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn output_is_kept_on_the_daemons_side_and_nothing_in_there() {
    let Some((daemon, main)) = both() else { return };
    let before = listing(&main.root());
    let script = "echo out; echo err >&2; exit 3";
    let ended = daemon.client().run(&shell("prints", script));
    assert_eq!(exit_code(&ended), 3);
    let read = |file: &str| fs::read_to_string(daemon.task_file("prints", file)).unwrap();
    assert_eq!(
        (read("stdout.log"), read("stderr.log")),
        ("out\n".into(), "err\n".into())
    );
    assert_eq!(listing(&main.root()), before);
}

#[test]
fn a_stop_reaches_only_what_the_task_started() {
    let Some((daemon, main)) = both() else { return };
    let client = daemon.client();
    client.submit(&shell("stopped", "setsid sleep 300 & echo up; sleep 300"));
    client.submit(&shell("beside", "echo up; sleep 300"));
    until_printed(&daemon, "stopped", "up");
    until_printed(&daemon, "beside", "up");
    let sleeping = || {
        let mut found = processes::living();
        let inside = namespace(main.pid(), "pid");
        found.retain(|one| one.name == "sleep" && namespace(one.pid, "pid") == inside);
        found.len()
    };
    eventually(SOON, "all are up", || sleeping() == 3);
    client.delete("/tasks/stopped").expect(204);
    client.until_gone("stopped", SOON);
    eventually(SOON, "one is left", || sleeping() == 1);
    assert!(processes::is_alive(main.pid()));
    client.delete("/tasks/beside").expect(204);
    client.until_gone("beside", SOON);
    eventually(SOON, "none is left", || sleeping() == 0);
    assert!(processes::is_alive(main.pid()));
}

#[test]
fn a_target_that_is_not_the_first_of_its_namespace_takes_nobody_with_it() {
    let name = unique();
    let main = MainOptions::new(&name)
        .command(&["/bin/sh", "-c", "sleep 1000 & cat; wait"])
        .start();
    let Some(main) = main else { return };
    let daemon = Daemon::start();
    let client = daemon.client();
    let child = eventually_some(SOON, "its child is there", || {
        let mut all = processes::living();
        all.retain(|one| one.parent == main.pid() && one.name == "sleep");
        all.pop()
    });
    let config = json!({"target": {"pid": child.pid}});
    client.submit(&configured("inside", &gated(3), config));
    until_printed(&daemon, "inside", "up");
    reaper::kill(&child);
    fs::write(main.root().join("gate"), "").unwrap();
    let ended = client.until_ended("inside", SOON);
    assert_eq!(ended["outcome"]["cause"], "exit", "{ended:#}");
    assert_eq!(exit_code(&ended), 3);
    let told = format!("the main container's process {} ended meanwhile", child.pid);
    assert!(message(&ended).ends_with(&told), "{ended:#}");
}

#[test]
fn many_commands_are_in_there_at_once() {
    const MANY: usize = 30;
    let Some((daemon, main)) = both() else { return };
    let client = daemon.client();
    for index in 0..MANY {
        client.submit(&shell(&format!("t-{index}"), &gated(7)));
    }
    eventually(SOON, "all run", || {
        let list = client.get("/getTasks").json();
        list.as_array()
            .unwrap()
            .iter()
            .all(|one| state(one) == "running")
    });
    fs::write(main.root().join("gate"), "").unwrap();
    for index in 0..MANY {
        until_true(&client, &format!("t-{index}"), 7);
    }
}

#[test]
fn the_main_containers_memory_limit_reaches_the_command_on_request() {
    let Some((daemon, mut main)) = both() else {
        return;
    };
    let group = match Group::limiting("memory", main.pid(), "memory.limit_in_bytes", "64M") {
        Ok(group) => group,
        Err(reason) => return taskwright_tests::skip(&reason),
    };
    let config = json!({"cgroup": "target"});
    let ended = daemon
        .client()
        .run(&configured("hog", "exec tail /dev/zero", config));
    assert_eq!(
        ended["outcome"],
        json!({"cause": "out-of-memory", "signal": 9})
    );
    assert!(processes::is_alive(main.pid()));
    // What was killed in there before is not held against who comes later.
    let config = json!({"cgroup": "target"});
    let ended = daemon
        .client()
        .run(&configured("killed", "kill -9 $$; sleep 60", config));
    assert_eq!(ended["outcome"], json!({"cause": "signal", "signal": 9}));
    main.kill();
    drop(group);
}

#[test]
fn a_config_that_cannot_be_meant_is_refused_with_its_field() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for (config, field) in [
        (json!({"no-such": 1}), "/config"),
        (json!({"target": "main"}), "/config"),
        (
            json!({"target": {"pid": 1, "mainContainer": "x"}}),
            "/config",
        ),
        (json!({"target": {"pid": 0}}), "/config/target/pid"),
        (
            json!({"target": {"mainContainer": ""}}),
            "/config/target/mainContainer",
        ),
        (
            json!({"target": {"containerId": "short"}}),
            "/config/target/containerId",
        ),
        (json!({"target": {"cgroup": "/"}}), "/config/target/cgroup"),
        (
            json!({"target": {"variable": {"name": "A=B", "value": ""}}}),
            "/config/target/variable/name",
        ),
        (
            json!({"targetWaitSeconds": -1}),
            "/config/targetWaitSeconds",
        ),
        (json!({"identity": "root"}), "/config"),
        (json!({"cgroup": "theirs"}), "/config"),
    ] {
        let body = configured("bad", "true", config.clone());
        let refused = client.post("/tasks", &body).expect(400).json();
        let details = refused["details"].as_array().unwrap();
        let fields: Vec<&str> = details
            .iter()
            .map(|detail| detail["field"].as_str().unwrap())
            .collect();
        // The schema that the runtime describes may know the place even better.
        let at_field = |found: &&str| found.starts_with(field);
        assert!(!fields.is_empty(), "{config}: {refused:#}");
        assert!(fields.iter().all(at_field), "{config}: {refused:#}");
    }
    assert_eq!(client.get("/getTasks").json(), json!([]), "nothing is kept");
}
