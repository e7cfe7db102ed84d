//! What a task may use and as whom it runs: enforced, told, answered back, and refused where it
//! cannot be. Asked of commands beside the daemon and inside a main container alike.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskwright_tests::containerd::busybox;
use taskwright_tests::main_container::VARIABLE;
use taskwright_tests::task::{exit_code, message, reason, shell};
use taskwright_tests::{Daemon, Home, MainContainer, Options, SOON, binary, eventually, processes};

/// Where commands run.
#[derive(Clone, Copy, Debug)]
enum Where {
    Process,
    Sidecar,
}

/// A daemon and where its commands run.
struct Place {
    daemon: Daemon,
    main: Option<MainContainer>,
    scratch: PathBuf,
}

impl Place {
    /// `None` where this machine cannot have it; that is said.
    fn start(place: Where) -> Option<Self> {
        if !is_root() {
            taskwright_tests::skip("limits and users need root");
            return None;
        }
        let home = Home::new();
        let mut options = Options::new();
        let mut main = None;
        let mut scratch = home.path().join("scratch");
        if let Where::Sidecar = place {
            let name = home.path().file_name()?.to_str()?.to_owned();
            let container = MainContainer::start(&name)?;
            options = options
                .flag("--enable-sidecar-mode")
                .flag(&format!("--main-container-name={name}"));
            scratch = container.root().join("scratch");
            main = Some(container);
        } else {
            // Else nobody but root gets to the folder.
            fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(&scratch).unwrap();
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o777)).unwrap();
        let daemon = options.start_in(home);
        Some(Self {
            daemon,
            main,
            scratch,
        })
    }

    /// A folder that everybody may write, as tasks call it.
    fn scratch(&self) -> String {
        match self.main {
            Some(_) => "/scratch".to_owned(),
            None => self.scratch.display().to_string(),
        }
    }

    fn read(&self, task: &str, stream: &str) -> String {
        let file = self.daemon.task_file(task, &format!("{stream}.log"));
        fs::read_to_string(file).unwrap_or_default()
    }

    /// Runs a task and answers with it and all that it printed.
    fn run(&self, task: &Value) -> (Value, String) {
        let ended = self.daemon.client().run(task);
        let name = taskwright_tests::task::name(&ended);
        let said = self.read(name, "stdout") + &self.read(name, "stderr");
        (ended, said)
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Every case as a test of its own for both places.
macro_rules! everywhere {
    ($($case:ident),+ $(,)?) => {
        mod process { $(#[test] fn $case() { super::check(super::Where::Process, super::$case); })+ }
        mod sidecar { $(#[test] fn $case() { super::check(super::Where::Sidecar, super::$case); })+ }
    };
}

everywhere!(
    memory_beyond_its_limit_ends_it_and_that_is_told,
    processor_time_is_what_was_given,
    no_more_processes_are_made_than_allowed,
    files_are_limited_in_number_and_size,
    a_task_runs_as_its_user,
    a_number_alone_is_a_user,
    nothing_gains_privileges,
    paths_are_read_only,
    all_of_it_is_answered_back_and_kept,
    limits_go_on_after_the_daemon_was_killed,
);

fn check(place: Where, case: fn(&mut Place)) {
    let Some(mut place) = Place::start(place) else {
        return;
    };
    case(&mut place);
    check_nothing_is_left(&mut place);
}

fn check_nothing_is_left(place: &mut Place) {
    // Whatever was made for it goes with it.
    let client = place.daemon.client();
    client.post("/setTasks", &json!([])).expect(200);
    eventually(SOON, "nothing of any task is left", || {
        client.get("/getTasks").json() == json!([]) && groups(&place.daemon).is_empty()
    });
}

/// The groups that limit tasks of this daemon.
fn groups(daemon: &Daemon) -> Vec<PathBuf> {
    crate::limited_groups(daemon)
}

fn with(mut task: Value, field: &str, value: Value) -> Value {
    task[field] = value;
    task
}

/// What is enforced, without by what.
fn enforced(task: &Value) -> Vec<&str> {
    let enforced = task["attempts"][0]["enforced"].as_object();
    enforced
        .into_iter()
        .flat_map(|told| told.keys())
        .map(String::as_str)
        .collect()
}

/// What was left out, and why.
fn left_out(task: &Value) -> Vec<(&str, &str)> {
    let told = task["attempts"][0]["notEnforced"].as_array();
    told.into_iter()
        .flatten()
        .map(|one| {
            (
                one["restriction"].as_str().unwrap(),
                one["why"].as_str().unwrap(),
            )
        })
        .collect()
}

fn memory_beyond_its_limit_ends_it_and_that_is_told(place: &mut Place) {
    let limit = json!({"memory": "32Mi"});
    // A last line without an end.
    let hog = with(
        shell("hog", "exec tail /dev/zero"),
        "resources",
        limit.clone(),
    );
    let (ended, _) = place.run(&hog);
    assert_eq!(
        ended["outcome"],
        json!({"cause": "out-of-memory", "signal": 9})
    );
    assert_eq!(
        (exit_code(&ended), reason(&ended).as_str()),
        (137, "OOMKilled")
    );
    assert_eq!(enforced(&ended), ["memory"], "{ended:#}");
    let by = ended["attempts"][0]["enforced"]["memory"].as_str().unwrap();
    assert!(by.starts_with("cgroup"), "{by}");
    // Killed by somebody else it is not.
    let killed = with(
        shell("killed", "kill -9 $$; sleep 60"),
        "resources",
        limit.clone(),
    );
    let (ended, _) = place.run(&killed);
    assert_eq!(ended["outcome"], json!({"cause": "signal", "signal": 9}));
    // And who keeps to it is left alone.
    let (ended, _) = place.run(&with(shell("small", "exit 4"), "resources", limit));
    assert_eq!(ended["outcome"], json!({"cause": "exit", "exitCode": 4}));
}

fn processor_time_is_what_was_given(place: &mut Place) {
    const SHARE: f64 = 0.2;
    // Together they would take two cores.
    let script = "while :; do :; done & echo up; while :; do :; done";
    let body = with(shell("busy", script), "resources", json!({"cpu": "200m"}));
    let client = place.daemon.client();
    client.submit(&body);
    eventually(SOON, "it is up", || place.read("busy", "stdout") == "up\n");
    let task = client.until_state("busy", "running", SOON);
    assert_eq!(enforced(&task), ["cpu"]);
    let main = task["attempts"][0]["pid"].as_u64().unwrap();
    let main = u32::try_from(main).unwrap();
    let mut all = processes::living();
    all.retain(|one| one.pid == main || one.parent == main);
    assert_eq!(all.len(), 2);
    let used = || all.iter().map(|one| ticks(one.pid)).sum::<u32>();
    let (begun, before) = (Instant::now(), used());
    eventually(SOON, "it had a fair time", || {
        begun.elapsed() > Duration::from_secs(2)
    });
    let share = f64::from(used() - before) / 100.0 / begun.elapsed().as_secs_f64();
    assert!(
        (SHARE * 0.2..SHARE * 1.5).contains(&share),
        "it took {share} of a core"
    );
    client
        .post("/tasks/busy/stop?grace=0s", &json!({}))
        .expect(200);
    client.until_ended("busy", SOON);
}

/// Processor time of a process, in hundredths of a second.
fn ticks(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, tail) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    [11, 12]
        .map(|field: usize| fields[field].parse::<u32>().unwrap())
        .iter()
        .sum()
}

fn no_more_processes_are_made_than_allowed(place: &mut Place) {
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo all";
    let body = with(shell("many", script), "resources", json!({"pids": 8}));
    let (ended, said) = place.run(&body);
    assert_ne!(exit_code(&ended), 0, "{said}");
    assert!(said.contains("fork") && !said.contains("all"), "{said}");
    assert_eq!(enforced(&ended), ["pids"]);
    // A neighbour may have as many as it likes.
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1 & done; wait; echo all";
    let (ended, said) = place.run(&shell("free", script));
    assert_eq!((exit_code(&ended), said.as_str()), (0, "all\n"));
    assert_eq!(enforced(&ended), [""; 0]);
}

fn files_are_limited_in_number_and_size(place: &mut Place) {
    const SIGXFSZ: i64 = 25;
    let limits = json!({"openFiles": 64, "fileSize": "8Ki"});
    let body = with(
        shell("files", "ulimit -n; ulimit -Hn"),
        "resources",
        limits.clone(),
    );
    let (ended, said) = place.run(&body);
    assert_eq!(said, "64\n64\n");
    assert_eq!(
        ended["attempts"][0]["enforced"],
        json!({"fileSize": "rlimit", "openFiles": "rlimit"})
    );
    let large = format!("{}/large", place.scratch());
    let script = format!("exec dd if=/dev/zero of={large} bs=4096 count=10");
    let (ended, _) = place.run(&with(shell("large", &script), "resources", limits));
    assert_eq!(
        ended["outcome"],
        json!({"cause": "signal", "signal": SIGXFSZ})
    );
    let written = fs::metadata(place.scratch.join("large")).unwrap().len();
    assert_eq!(written, 8192);
}

fn a_task_runs_as_its_user(place: &mut Place) {
    let script = format!(
        "id -u; id -g; id -G; grep CapEff /proc/self/status | tr -d '\\t'; touch {}/mine; \
         touch /etc/theirs",
        place.scratch()
    );
    let user = json!({"uid": 1234, "gid": 2345, "groups": [7, 9]});
    let (ended, said) = place.run(&with(shell("user", &script), "user", user));
    let expected = "1234\n2345\n2345 7 9\nCapEff:0000000000000000\n";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
    assert_eq!(
        ended["attempts"][0]["enforced"],
        json!({"user": "credentials"})
    );
    use std::os::unix::fs::MetadataExt as _;
    let mine = fs::metadata(place.scratch.join("mine")).unwrap();
    assert_eq!((mine.uid(), mine.gid()), (1234, 2345));
}

fn a_number_alone_is_a_user(place: &mut Place) {
    for (name, user, expected) in [
        ("number", json!(1234), "1234\n1234\n"),
        ("text", json!("1234"), "1234\n1234\n"),
        ("pair", json!("1234:99"), "1234\n99\n"),
    ] {
        let (_, said) = place.run(&with(shell(name, "id -u; id -g"), "user", user));
        assert_eq!(said, expected);
    }
}

fn nothing_gains_privileges(place: &mut Place) {
    let script = "grep NoNewPrivs /proc/self/status | tr -d '\\t'";
    let body = with(shell("bound", script), "noNewPrivileges", json!(true));
    let (ended, said) = place.run(&body);
    assert_eq!(said, "NoNewPrivs:1\n");
    assert_eq!(
        ended["attempts"][0]["enforced"],
        json!({"noNewPrivileges": "prctl"})
    );
    let (_, said) = place.run(&shell("free", script));
    assert_eq!(said, "NoNewPrivs:0\n");
    let Some(busybox) = busybox() else { return };
    // What it is for: a program of root that everybody may become.
    let program = place.scratch.join("busybox");
    fs::copy(busybox, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let script = format!("{}/busybox grep Uid: /proc/self/status", place.scratch());
    let user = |task| with(task, "user", json!(1234));
    // Without the word it may gain them, unless `nosuid` or busybox itself is against it.
    let body = with(user(shell("kept", &script)), "noNewPrivileges", json!(true));
    let (_, said) = place.run(&body);
    assert_eq!(said.trim(), "Uid:\t1234\t1234\t1234\t1234");
}

fn paths_are_read_only(place: &mut Place) {
    let scratch = place.scratch();
    fs::create_dir(place.scratch.join("kept")).unwrap();
    fs::create_dir(place.scratch.join("free")).unwrap();
    let script = format!(
        "touch {scratch}/kept/a; touch {scratch}/free/b && echo free; \
         mount -o remount,bind,rw {scratch}/kept; umount {scratch}/kept; touch {scratch}/kept/c; \
         mv {scratch}/kept {scratch}/moved; touch {scratch}/moved/d"
    );
    let paths = json!([format!("{scratch}/kept")]);
    let (ended, said) = place.run(&with(shell("reads", &script), "readOnlyPaths", paths));
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(said.contains("free\n"), "{said}");
    assert_eq!(fs::read_dir(place.scratch.join("kept")).unwrap().count(), 0);
    assert_eq!(
        ended["attempts"][0]["enforced"],
        json!({"readOnlyPaths": "mount-namespace"})
    );
    // Everybody else writes as before.
    let (ended, _) = place.run(&shell("writes", &format!("touch {scratch}/kept/e")));
    assert_eq!(exit_code(&ended), 0);
    let absent = with(
        shell("absent", "true"),
        "readOnlyPaths",
        json!(["/no/such/path"]),
    );
    let (ended, _) = place.run(&absent);
    // As a working directory that is not there.
    assert_eq!(ended["outcome"]["cause"], "exit", "{ended:#}");
    assert_eq!(exit_code(&ended), 126, "{ended:#}");
    assert!(message(&ended).contains("/no/such/path"), "{ended:#}");
    let lenient = with(
        with(absent, "bestEffort", json!(true)),
        "name",
        json!("lenient"),
    );
    let (ended, _) = place.run(&lenient);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    let [("readOnlyPaths", why)] = left_out(&ended)[..] else {
        panic!("{ended:#}");
    };
    assert!(why.contains("/no/such/path"), "{why}");
}

/// Everything at once, as it is answered.
fn everything(scratch: &str) -> Value {
    json!({
        "resources": {
            "cpu": "500m", "memory": "64Mi", "pids": 50, "openFiles": 100, "fileSize": "1Mi"
        },
        "user": {"uid": 1234, "gid": 2345, "groups": [7]},
        "noNewPrivileges": true,
        "readOnlyPaths": [format!("{scratch}/kept")],
    })
}

const ALL: [&str; 8] = [
    "cpu",
    "fileSize",
    "memory",
    "noNewPrivileges",
    "openFiles",
    "pids",
    "readOnlyPaths",
    "user",
];

fn all_of_it_is_answered_back_and_kept(place: &mut Place) {
    fs::create_dir(place.scratch.join("kept")).unwrap();
    let wanted = everything(&place.scratch());
    let mut body = shell("all", "id -u; ulimit -n; exit 3");
    for (field, value) in wanted.as_object().unwrap() {
        body[field] = value.clone();
    }
    let (ended, said) = place.run(&body);
    assert_eq!((exit_code(&ended), said.as_str()), (3, "1234\n100\n"));
    assert_eq!(enforced(&ended), ALL);
    let resources = &ended["resources"];
    assert_eq!(resources["pids"], 50, "{ended:#}");
    assert_eq!(resources["openFiles"], 100);
    for field in ["user", "noNewPrivileges", "readOnlyPaths"] {
        assert_eq!(ended[field], wanted[field], "{field}: {ended:#}");
    }
    // What is answered may be sent again, and means the same.
    let mut again = shell("again", "id -u; ulimit -n; exit 3");
    for field in wanted.as_object().unwrap().keys() {
        again[field] = ended[field].clone();
    }
    let (repeated, _) = place.run(&again);
    assert_eq!(repeated["resources"], ended["resources"]);
    assert_eq!(enforced(&repeated), ALL);
    place.daemon.kill();
    place.daemon.start_again();
    assert_eq!(place.daemon.client().task("all"), ended);
}

fn limits_go_on_after_the_daemon_was_killed(place: &mut Place) {
    let client = place.daemon.client();
    let gate = format!("{}/gate", place.scratch());
    let script =
        format!("echo up; while [ ! -e {gate} ]; do sleep 0.05; done; exec tail /dev/zero");
    let body = with(
        shell("hog", &script),
        "resources",
        json!({"memory": "32Mi"}),
    );
    client.submit(&body);
    eventually(SOON, "it is up", || place.read("hog", "stdout") == "up\n");
    client.until_state("hog", "running", SOON);
    assert!(!groups(&place.daemon).is_empty());
    let supervisor = place.daemon.supervisor();
    place.daemon.kill();
    taskwright_tests::reaper::kill(&supervisor);
    place.daemon.start_again();
    let task = client.until_state("hog", "running", SOON);
    assert_eq!(enforced(&task), ["memory"]);
    fs::write(place.scratch.join("gate"), "").unwrap();
    let ended = client.until_ended("hog", SOON);
    assert_eq!(ended["outcome"]["cause"], "out-of-memory", "{ended:#}");
    assert_eq!(enforced(&ended), ["memory"]);
}

#[test]
fn a_limit_that_is_not_known_or_cannot_be_meant_is_refused_with_its_field() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for (field, value, named) in [
        ("resources", json!({"gpu": 1}), "/resources/gpu"),
        ("resources", json!({"cpu": 0}), "/resources/cpu"),
        ("resources", json!({"memory": "1Ki"}), "/resources/memory"),
        ("resources", json!({"memory": "much"}), "/resources/memory"),
        ("resources", json!({"pids": 0}), "/resources/pids"),
        (
            "resources",
            json!({"openFiles": -1}),
            "/resources/openFiles",
        ),
        ("user", json!("root"), "/user"),
        ("user", json!({"gid": 1}), "/user/uid"),
        ("readOnlyPaths", json!(["etc"]), "/readOnlyPaths/0"),
        ("noNewPrivileges", json!("yes"), "/noNewPrivileges"),
    ] {
        let body = with(shell("bad", "true"), field, value);
        let refused = client.post("/tasks", &body).expect(400).json();
        assert_eq!(refused["details"][0]["field"], named, "{refused:#}");
    }
    assert_eq!(client.get("/getTasks").json(), json!([]), "nothing is kept");
}

/// A daemon on a machine that can enforce hardly anything: it sees no cgroups and lacks the
/// privileges for users and mounts.
fn powerless() -> Option<Daemon> {
    if !is_root() {
        taskwright_tests::skip("a daemon without cgroups is made by root");
        return None;
    }
    let home = Home::new();
    let program = home.file(
        "powerless",
        format!(
            "#!/bin/sh\nexec unshare --mount sh -c 'umount -R -l /sys/fs/cgroup && exec setpriv \
             --bounding-set=-sys_admin,-setuid,-setgid \"$@\"' powerless {} \"$@\"\n",
            binary::taskwright().display()
        ),
    );
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Some(Options::new().program(&program).start_in(home))
}

#[test]
fn what_cannot_be_enforced_is_refused_or_left_out_and_told() {
    let Some(mut daemon) = powerless() else {
        return;
    };
    let client = daemon.client();
    let cases = [
        ("resources", json!({"cpu": 1}), "/resources/cpu"),
        ("resources", json!({"memory": "64Mi"}), "/resources/memory"),
        ("resources", json!({"pids": 10}), "/resources/pids"),
        ("user", json!(1234), "/user"),
        ("readOnlyPaths", json!(["/etc"]), "/readOnlyPaths"),
    ];
    for (index, (field, value, named)) in cases.into_iter().enumerate() {
        let name = format!("strict-{index}");
        let body = with(shell(&name, "id -u"), field, value);
        let refused = client.post("/tasks", &body).expect(400).json();
        let detail = &refused["details"][0];
        assert_eq!(detail["field"], named, "{refused:#}");
        let told = detail["message"].as_str().unwrap();
        assert!(told.contains("bestEffort"), "{refused:#}");

        let name = format!("lenient-{index}");
        let body = with(with(body, "bestEffort", json!(true)), "name", json!(name));
        let ended = client.run(&body);
        assert_eq!(exit_code(&ended), 0, "{ended:#}");
        assert_eq!(enforced(&ended), [""; 0], "nothing is claimed: {ended:#}");
        let told = left_out(&ended);
        let wanted = named.rsplit('/').next().unwrap();
        assert_eq!(told.len(), 1, "{ended:#}");
        assert!(told[0].0 == wanted && !told[0].1.is_empty(), "{ended:#}");
        assert_eq!(ended["bestEffort"], true);
        let printed = fs::read_to_string(daemon.task_file(&name, "stdout.log")).unwrap();
        assert_eq!(printed, "0\n");
    }
    // What every kernel does is done there too.
    let limits = json!({"openFiles": 64, "memory": "64Mi"});
    let body = with(shell("some", "ulimit -n"), "resources", limits);
    let ended = client.run(&with(body, "bestEffort", json!(true)));
    assert_eq!(enforced(&ended), ["openFiles"]);
    assert_eq!(left_out(&ended)[0].0, "memory", "{ended:#}");
    // It is kept with the task.
    daemon.kill();
    daemon.start_again();
    assert_eq!(client.task("some"), ended);
    let names = client.get("/getTasks").json();
    assert!(!names.to_string().contains("strict-"), "{names:#}");
}

#[test]
fn a_task_of_root_that_sees_paths_read_only_stays_in_its_groups() {
    let Some(mut place) = Place::start(Where::Process) else {
        return;
    };
    let script = "for procs in $(find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs); do \
                  echo 0 > $procs && echo left $procs; done; umount -l /sys/fs/cgroup; \
                  mount -o remount,rw /sys/fs/cgroup; \
                  find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs | head -1";
    let body = with(
        shell("stays", script),
        "resources",
        json!({"memory": "64Mi"}),
    );
    let (ended, said) = place.run(&with(body, "readOnlyPaths", json!(["/etc"])));
    if !said.contains("cgroup.procs") {
        return taskwright_tests::skip("there are no cgroups below /sys/fs/cgroup");
    }
    assert!(!said.contains("left "), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(enforced(&ended), ["memory", "readOnlyPaths"]);
    check_nothing_is_left(&mut place);
}

#[test]
fn a_target_that_limits_itself_does_not_loosen_what_a_task_asks_for() {
    let Some(place) = Place::start(Where::Sidecar) else {
        return;
    };
    let Some(main) = &place.main else { return };
    assert!(
        processes::environment(main.pid())
            .iter()
            .any(|one| one.starts_with(VARIABLE))
    );
    let body = with(shell("both", "id -u"), "user", json!(1234));
    let body = with(body, "config", json!({"identity": "target"}));
    let (ended, said) = place.run(&body);
    assert_eq!(
        (exit_code(&ended), said.as_str()),
        (0, "1234\n"),
        "the task's word counts"
    );
}
