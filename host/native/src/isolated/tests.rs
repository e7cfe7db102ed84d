#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::Instant;

use super::*;
use crate::spawn::{Begun, Command, Limit, Resource, Restriction, SpawnFault};
use crate::{Exit, Progress, exit, target};

const PATIENCE: Duration = Duration::from_secs(10);

fn texts(list: &[&str]) -> Vec<CString> {
    list.iter()
        .map(|text| CString::new(*text).unwrap())
        .collect()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        writeln!(io::stderr(), "skipped: needs root").unwrap();
    }
    root
}

fn alone() -> Isolation<'static> {
    Isolation {
        enter: None,
        read_only: &[],
        user: None,
        capabilities: None,
        patience: PATIENCE,
    }
}

/// What a test says beside its isolation.
#[derive(Clone, Copy)]
struct More<'a> {
    working_dir: &'a CStr,
    join: &'a [OwnedFd],
    limits: &'a [Limit],
    no_new_privileges: bool,
}

const PLAIN: More<'static> = More {
    working_dir: c"/",
    join: &[],
    limits: &[],
    no_new_privileges: false,
};

/// What the shell prints and how it ends.
fn shell_with(
    script: &str,
    isolation: &Isolation<'_>,
    more: More<'_>,
) -> Result<(String, Exit), SpawnFault> {
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let (output, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let argv = texts(&["sh", "-c", script]);
    let child = spawn::spawn(&Command {
        argv: &argv,
        env: &[],
        working_dir: more.working_dir,
        stdio: [null.as_fd(), theirs.as_fd(), theirs.as_fd()],
        cgroup: None,
        join: more.join,
        open_files: None,
        oom_score: None,
        limits: more.limits,
        no_new_privileges: more.no_new_privileges,
        isolation: Some(isolation),
    })?;
    drop(theirs);
    let mut printed = String::new();
    File::from(output).read_to_string(&mut printed).unwrap();
    let ended = exit::reap_within(&child.pidfd, PATIENCE).unwrap().unwrap();
    Ok((printed.trim().to_owned(), ended.exit))
}

fn shell(script: &str, isolation: &Isolation<'_>) -> Result<(String, Exit), SpawnFault> {
    shell_with(script, isolation, PLAIN)
}

#[test]
fn a_child_with_memory_of_its_own_ends_and_fails_as_others() {
    let (printed, exit) = shell("echo hello; exit 7", &alone()).unwrap();
    assert_eq!((printed.as_str(), exit), ("hello", Exit::Code(7)));
    let nowhere = More {
        working_dir: c"/no/such",
        ..PLAIN
    };
    let missing = shell_with("", &alone(), nowhere);
    assert!(matches!(missing, Err(SpawnFault::WorkingDirectory { .. })));
    let argv = texts(&["/no/such/program"]);
    let null = File::open("/dev/null").unwrap();
    let fault = spawn::spawn(&Command {
        argv: &argv,
        env: &[],
        working_dir: c"/",
        stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
        cgroup: None,
        join: &[],
        open_files: None,
        oom_score: None,
        limits: &[],
        no_new_privileges: false,
        isolation: Some(&alone()),
    });
    assert!(
        matches!(fault, Err(SpawnFault::NotFound { .. })),
        "{fault:?}"
    );
}

#[test]
fn nothing_of_ours_is_open_in_the_child() {
    // Neither close-on-exec nor anything else protects this one but the child's own closing.
    let file = File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let (printed, _) = shell("ls /proc/self/fd | tr '\\n' ' '", &alone()).unwrap();
    // 3 is what `ls` reads.
    assert_eq!(printed, "0 1 2 3");
}

/// A pipe that nobody reads and that is full: whoever writes to it never comes back.
struct FullPipe {
    write: [OwnedFd; 1],
    read: OwnedFd,
}

impl FullPipe {
    fn new() -> Self {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&write, true).unwrap();
        while rustix::io::write(&write, &[0; 4096]).is_ok() {}
        while rustix::io::write(&write, &[0]).is_ok() {}
        rustix::io::ioctl_fionbio(&write, false).unwrap();
        let write = [write];
        Self { write, read }
    }

    /// Lets the writer come back.
    fn empty(&self) {
        rustix::io::ioctl_fionbio(&self.read, true).unwrap();
        while rustix::io::read(&self.read, &mut [0; 65_536]).is_ok() {}
    }
}

#[test]
fn a_child_that_is_held_before_its_program_is_killed_in_time() {
    // It joins a group by a write.
    let full = FullPipe::new();
    let isolation = Isolation {
        patience: Duration::from_millis(200),
        ..alone()
    };
    let begun = Instant::now();
    let more = More {
        join: &full.write,
        ..PLAIN
    };
    let held = shell_with("", &isolation, more);
    assert!(matches!(held, Err(SpawnFault::Held { .. })), "{held:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

fn begin_joining(argv: &[CString], full: &FullPipe) -> Newborn {
    let null = File::open("/dev/null").unwrap();
    let begun = spawn::begin(&Command {
        argv,
        env: &[],
        working_dir: c"/",
        stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
        cgroup: None,
        join: &full.write,
        open_files: None,
        oom_score: None,
        limits: &[],
        no_new_privileges: false,
        isolation: Some(&alone()),
    });
    let Ok(Begun::OnItsWay(newborn)) = begun else {
        unreachable!("{begun:?}");
    };
    newborn
}

/// What is seen once there is something to see.
fn seen(newborn: &mut Newborn) -> Progress {
    let until = Instant::now() + PATIENCE;
    loop {
        match newborn.look() {
            Progress::OnItsWay => assert!(Instant::now() < until, "nothing to see in time"),
            other => return other,
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_child_that_is_held_is_looked_at_without_waiting_and_goes_on() {
    let full = FullPipe::new();
    let argv = texts(&["sh", "-c", "exit 7"]);
    let mut newborn = begin_joining(&argv, &full);
    for _ in 0..100 {
        let progress = newborn.look();
        assert!(matches!(progress, Progress::OnItsWay), "{progress:?}");
    }
    full.empty();
    let progress = seen(&mut newborn);
    assert!(matches!(progress, Progress::Executing), "{progress:?}");
    let child = newborn.into_child();
    let ended = exit::reap_within(&child.pidfd, PATIENCE).unwrap().unwrap();
    assert_eq!(ended.exit, Exit::Code(7));
}

#[test]
fn what_failed_on_the_way_is_told_by_a_later_look() {
    let full = FullPipe::new();
    let mut newborn = begin_joining(&texts(&["/no/such/program"]), &full);
    full.empty();
    let progress = seen(&mut newborn);
    assert!(
        matches!(progress, Progress::Failed(SpawnFault::NotFound { .. })),
        "{progress:?}"
    );
    let _dead = exit::reap_within(&newborn.into_child().pidfd, PATIENCE).unwrap();
}

#[test]
fn a_child_that_is_given_up_is_dead_and_one_that_died_is_told() {
    let full = FullPipe::new();
    let argv = texts(&["true"]);
    let child = begin_joining(&argv, &full).give_up();
    let ended = exit::reap_within(&child.pidfd, PATIENCE).unwrap().unwrap();
    assert_eq!(ended.exit, Exit::Signal(9));

    let mut newborn = begin_joining(&argv, &full);
    let pid = rustix::process::Pid::from_raw(newborn.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let progress = seen(&mut newborn);
    assert!(
        matches!(progress, Progress::Failed(SpawnFault::Held { .. })),
        "{progress:?}"
    );
    let _dead = exit::reap_within(&newborn.into_child().pidfd, PATIENCE).unwrap();
}

#[test]
fn limits_and_no_new_privileges_are_set() {
    let limits = [
        Limit {
            resource: Resource::OpenFiles,
            most: 99,
        },
        Limit {
            resource: Resource::FileSize,
            most: 4096,
        },
    ];
    let script = "ulimit -n; ulimit -Hn; ulimit -f; grep NoNewPrivs /proc/self/status";
    let more = More {
        limits: &limits,
        no_new_privileges: true,
        ..PLAIN
    };
    let (printed, _) = shell_with(script, &alone(), more).unwrap();
    assert_eq!(printed, "99\n99\n8\nNoNewPrivs:\t1");
}

#[test]
fn a_limit_beyond_what_is_permitted_is_told() {
    if target::own_identity().unwrap().capabilities.effective >> 24 & 1 == 1 {
        writeln!(
            io::stderr(),
            "skipped: CAP_SYS_RESOURCE may raise every limit"
        )
        .unwrap();
        return;
    }
    let limits = [Limit {
        resource: Resource::OpenFiles,
        most: u64::from(u32::MAX),
    }];
    let more = More {
        limits: &limits,
        ..PLAIN
    };
    let refused = shell_with("", &alone(), more);
    let Err(SpawnFault::Restriction { restriction, .. }) = refused else {
        unreachable!("{refused:?}");
    };
    assert_eq!(restriction, Restriction::Limit);
}

#[test]
fn users_groups_and_capabilities_are_taken_on() {
    if !is_root() {
        return;
    }
    let ids = Ids {
        uid: 1234,
        gid: 2345,
        groups: vec![7, 8],
    };
    let plain = Isolation {
        user: Some(&ids),
        ..alone()
    };
    let script =
        "grep -E '^(Uid|Gid|Groups|CapPrm|CapEff|CapAmb)' /proc/self/status | tr '\\t\\n' '  '";
    let (printed, _) = shell(script, &plain).unwrap();
    let none = "0000000000000000";
    let expected = format!(
        "Uid: 1234 1234 1234 1234 Gid: 2345 2345 2345 2345 Groups: 7 8  CapPrm: {none} CapEff: {none} CapAmb: {none}"
    );
    assert_eq!(printed, expected);

    let service = 1 << 10;
    let few = Isolation {
        capabilities: Some(Capabilities {
            bounding: service | 1,
            permitted: service,
            effective: service,
            inheritable: service,
            ambient: service,
        }),
        ..plain
    };
    let (printed, _) = shell("grep Cap /proc/self/status | cut -f2 | tr '\\n' ' '", &few).unwrap();
    let set = "0000000000000400";
    assert_eq!(printed, format!("{set} {set} {set} 0000000000000401 {set}"));
}

#[test]
fn paths_are_read_only_by_whatever_name_and_nowhere_else() {
    if !is_root() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("read-only-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("kept/below")).unwrap();
    std::fs::create_dir_all(dir.join("free")).unwrap();
    std::os::unix::fs::symlink(dir.join("kept"), dir.join("link")).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    for given in [
        path("kept"),
        path("free/../kept"),
        path("link"),
        path("link/."),
    ] {
        let read_only = texts(&[given.as_str()]);
        let isolation = Isolation {
            read_only: &read_only,
            ..alone()
        };
        let script = format!(
            "cd {}; touch kept/a; touch link/b; touch kept/below/c; touch free/d; find . -type f",
            dir.display()
        );
        let (printed, _) = shell(&script, &isolation).unwrap();
        assert_eq!(
            printed.matches("Read-only file system").count(),
            3,
            "{given}: {printed}"
        );
        assert!(printed.ends_with("./free/d"), "{printed}");
        std::fs::remove_file(dir.join("free/d")).unwrap();
    }
    // Here it can be written.
    std::fs::write(dir.join("kept/ours"), "").unwrap();

    let root = texts(&["/"]);
    let isolation = Isolation {
        read_only: &root,
        ..alone()
    };
    let (printed, _) = shell(&format!("touch {}", path("free/e")), &isolation).unwrap();
    assert!(printed.contains("Read-only file system"), "{printed}");

    let missing = texts(&["/tmp", "/no/such/path"]);
    let isolation = Isolation {
        read_only: &missing,
        ..alone()
    };
    let refused = shell("", &isolation);
    assert!(
        matches!(
            refused,
            Err(SpawnFault::Restriction {
                restriction: Restriction::ReadOnlyPath,
                index: 1,
                ..
            })
        ),
        "{refused:?}"
    );
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_read_only_view_cannot_be_opened_for_writing() {
    if !is_root() {
        return;
    }
    let path = std::env::temp_dir().join(format!("view-{}", std::process::id()));
    std::fs::write(&path, "kept").unwrap();
    let text = CString::new(path.display().to_string()).unwrap();
    let view = match read_only_view(&text) {
        Ok(view) => view,
        Err(error) => {
            writeln!(io::stderr(), "skipped: no views here: {error}").unwrap();
            return;
        }
    };
    let again = format!("/proc/self/fd/{}", view.as_raw_fd());
    assert_eq!(std::fs::read_to_string(&again).unwrap(), "kept");
    let written = File::options().write(true).open(&again);
    assert!(written.is_err_and(|error| error.raw_os_error() == Some(libc::EROFS)));
    std::fs::remove_file(path).unwrap();
}
