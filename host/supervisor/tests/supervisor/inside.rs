//! Units inside another process's namespaces, and how that process is found.

use std::time::{Duration, Instant};

use taskwright_capability::{
    Inside, NamespaceHost as _, Namespaces, ProcessHost as _, SpawnError, SpawnRequest,
    TargetSelector,
};
use taskwright_model::{Confinement, ExitStatus, ProcessIdentity, User};
use taskwright_native::cgroup::{self, Version};
use taskwright_supervisor::TreeLevel;

use crate::container::{Container, is_root};
use crate::harness::{
    Host, PATIENCE, Running, copy_program, eventually, kill, lives, wait_until_dead,
};

impl Host {
    async fn start_inside(&mut self, argv: &[&str], inside: Inside) -> Running {
        let mut request = self.request(argv);
        request.inside = Some(inside);
        let spawned = self.client.spawn(request.clone()).await;
        let spawned = self.answered(&request.unit, spawned.unwrap());
        Running { request, spawned }
    }

    /// What a unit prints until it ends well.
    async fn printed_by(&mut self, running: &Running) -> String {
        let status = self.status_of(running).await;
        let said = std::fs::read_to_string(running.file("stderr.log")).unwrap();
        assert_eq!(status, Some(ExitStatus::Code(0)), "{said}");
        std::fs::read_to_string(running.file("stdout.log")).unwrap()
    }

    async fn printed_inside(&mut self, script: &str, inside: Inside) -> String {
        let running = self.start_inside(&["sh", "-c", script], inside).await;
        self.printed_by(&running).await
    }

    async fn refused_inside(&mut self, change: impl FnOnce(&mut SpawnRequest)) -> SpawnError {
        let mut request = self.request(&["true"]);
        change(&mut request);
        self.client.spawn(request).await.unwrap_err()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_is_in_the_namespaces_and_the_root_of_its_target() {
    let Some(container) = Container::full() else {
        return;
    };
    let mut host = Host::start().await;
    let script = "for name in mnt pid net uts ipc; do readlink /proc/self/ns/$name; done; \
                  pwd; ls -d /only-inside; ls / | tr '\\n' ' '";
    let printed = host.printed_inside(script, container.inside()).await;
    let lines: Vec<&str> = printed.lines().collect();
    for (number, name) in ["mnt", "pid", "net", "uts", "ipc"].iter().enumerate() {
        assert_eq!(lines[number], container.namespace(name));
    }
    assert_eq!(&lines[5..7], ["/", "/only-inside"]);
    assert!(!lines[7].contains("work"), "{printed}");
    // The supervisor is still at home: so is what it starts.
    let outside = host.shell("readlink /proc/self/ns/pid").await;
    let outside = host.printed_by(&outside).await;
    let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(outside.trim(), own.display().to_string());
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_host_is_open_inside() {
    let Some(container) = Container::full() else {
        return;
    };
    let mut host = Host::start().await;
    let script = "ls /proc/self/fd | tr '\\n' ' '; readlink /proc/self/fd/0";
    let printed = host.printed_inside(script, container.inside()).await;
    // 3 is what `ls` reads.
    assert_eq!(printed, "0 1 2 3 /dev/null\n");
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_the_targets_then_the_requests_then_the_mark() {
    let Some(container) = Container::bare() else {
        return;
    };
    let mut host = Host::start().await;
    // Nothing but the program is needed inside: no shell, no directory.
    let mut request = host.request(&["env"]);
    request.inside = Some(container.inside());
    request.env = vec![("OVERRIDDEN".to_owned(), "yes".to_owned())];
    let spawned = host.client.spawn(request.clone()).await.unwrap();
    let spawned = host.answered(&request.unit, spawned);
    let running = Running { request, spawned };
    let printed = host.printed_by(&running).await;
    let expected = [
        "PATH=/usr/bin:/bin".to_owned(),
        "FROM_TARGET=yes".to_owned(),
        format!("SANDBOX_MAIN_CONTAINER={}", container.name),
        "OVERRIDDEN=yes".to_owned(),
        format!("TASKWRIGHT_UNIT={}", running.request.unit),
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_starts_where_it_is_told_inside() {
    let Some(container) = Container::full() else {
        return;
    };
    let mut host = Host::start().await;
    let mut request = host.request(&["pwd"]);
    request.inside = Some(container.inside());
    request.working_dir = Some("/only-inside".into());
    let spawned = host.client.spawn(request.clone()).await.unwrap();
    let spawned = host.answered(&request.unit, spawned);
    let running = Running { request, spawned };
    assert_eq!(host.printed_by(&running).await, "/only-inside\n");

    let only_outside = host.data.path().to_owned();
    let refused = host
        .refused_inside(|request| {
            request.inside = Some(container.inside());
            request.working_dir = Some(only_outside);
        })
        .await;
    assert!(
        matches!(refused, SpawnError::WorkingDirectory { .. }),
        "{refused:?}"
    );
    let refused = host
        .refused_inside(|request| {
            request.inside = Some(container.inside());
            request.argv = vec!["no-such-program".to_owned()];
        })
        .await;
    let SpawnError::NotFound { detail, .. } = refused else {
        unreachable!("{refused:?}");
    };
    assert_eq!(
        detail,
        "looked at /usr/bin/no-such-program, /bin/no-such-program"
    );
    host.finish().await;
}

const CREDENTIALS: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNew)' /proc/self/status";

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_takes_the_identity_of_its_target() {
    let wrapper = "setpriv --no-new-privs --reuid 1000 --regid 1001 --groups 7,8 \
                   --bounding-set=-all,+net_bind_service,+chown \
                   --inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service";
    let Some(container) = Container::started_by(wrapper) else {
        return;
    };
    let mut host = Host::start().await;
    let identity = Inside {
        identity: true,
        ..container.inside()
    };
    let printed = host.printed_inside(CREDENTIALS, identity).await;
    let status = format!("/proc/{}/status", container.init.pid);
    let theirs = std::fs::read_to_string(status).unwrap();
    let counts = |line: &&str| {
        ["Uid", "Gid", "Groups", "Cap", "NoNew"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    let theirs: Vec<&str> = theirs.lines().filter(counts).collect();
    assert_eq!(printed.lines().collect::<Vec<_>>(), theirs);
    assert!(printed.contains("Uid:\t1000"), "{printed}");

    // Somebody else keeps none of what is the target's, and gets no more.
    let mut request = host.request(&["sh", "-c", CREDENTIALS]);
    request.inside = Some(identity);
    request.confinement.user = Some(User {
        uid: 3000,
        gid: 3001,
        groups: vec![],
    });
    let spawned = host.client.spawn(request.clone()).await.unwrap();
    let spawned = host.answered(&request.unit, spawned);
    let printed = host.printed_by(&Running { request, spawned }).await;
    assert!(printed.contains("Uid:\t3000\t3000"), "{printed}");
    assert!(printed.contains("CapEff:\t0000000000000000"), "{printed}");
    assert!(printed.contains("CapBnd:\t0000000000000401"), "{printed}");

    // Without it a unit is who the supervisor is.
    let printed = host.printed_inside("id -u", container.inside()).await;
    assert_eq!(printed, "0\n");
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_user_namespace_are_those_inside_it() {
    let Some(container) = Container::with_users() else {
        return;
    };
    let mut host = Host::start().await;
    let entering = Inside {
        further: Namespaces {
            user: true,
            cgroup: true,
        },
        ..container.inside()
    };
    for identity in [false, true] {
        let inside = Inside {
            identity,
            ..entering
        };
        let script = "readlink /proc/self/ns/user; id -u; grep CapEff /proc/self/status";
        let printed = host.printed_inside(script, inside).await;
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines[0], container.namespace("user"));
        assert_eq!(lines[1], "0");
    }
    // What the target may do counts in its user namespace only.
    let staying = Inside {
        identity: true,
        ..container.inside()
    };
    let printed = host.printed_inside(CREDENTIALS, staying).await;
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(
            printed.contains(&format!("{set}:\t0000000000000000")),
            "{printed}"
        );
    }
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_gone_or_another_one_is_told() {
    let Some(mut container) = Container::full() else {
        return;
    };
    let mut host = Host::start().await;
    let inside = container.inside();
    let other = Inside {
        target: ProcessIdentity {
            start_ticks: inside.target.start_ticks + 1,
            ..inside.target
        },
        ..inside
    };
    let refused = host.refused_inside(|it| it.inside = Some(other)).await;
    assert!(
        matches!(&refused, SpawnError::TargetGone { detail } if detail.contains("another")),
        "{refused:?}"
    );
    assert!(host.client.is_alive(inside.target).await.unwrap());
    assert!(!host.client.is_alive(other.target).await.unwrap());
    container.end();
    let refused = host.refused_inside(|it| it.inside = Some(inside)).await;
    assert!(
        matches!(refused, SpawnError::TargetGone { .. }),
        "{refused:?}"
    );
    assert!(!host.client.is_alive(inside.target).await.unwrap());
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_inside_is_killed_as_a_whole() {
    for level in [TreeLevel::Cgroup2, TreeLevel::Cgroup1, TreeLevel::Scan] {
        let Some(container) = Container::full() else {
            return;
        };
        let mut host = Host::at_level(level).await;
        let script = "(setsid sh -c 'trap \"\" TERM; echo ready > /tmp/ready; exec sleep 1234' &) & \
                      trap '' TERM; while :; do sleep 0.05; done";
        let running = host
            .start_inside(&["sh", "-c", script], container.inside())
            .await;
        eventually("it has daemonised", || {
            container.path("tmp/ready").exists().then_some(())
        });
        let members = in_pid_namespace(&container.namespace("pid"));
        assert!(members.len() >= 3, "{members:?}");
        let unit = running.request.unit.clone();
        host.client.stop(unit, Duration::ZERO).await.unwrap();
        assert_eq!(host.status_of(&running).await, Some(ExitStatus::Signal(9)));
        let init = (container.init.pid.cast_signed(), container.init.start_ticks);
        for member in members {
            if member != init {
                wait_until_dead(member);
            }
        }
        assert!(lives(init), "the target is not the unit's");
        host.finish().await;
    }
}

fn in_pid_namespace(namespace: &str) -> Vec<(i32, u64)> {
    let all = taskwright_native::process::all().unwrap();
    all.into_iter()
        .filter(|pid| {
            std::fs::read_link(format!("/proc/{pid}/ns/pid"))
                .is_ok_and(|link| link.display().to_string() == namespace)
        })
        .filter_map(|pid| {
            let stat = taskwright_native::process::stat(pid).ok()?;
            Some((pid, stat.start_ticks))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supervisor_dies_and_codes_from_inside_are_true() {
    let Some(container) = Container::full() else {
        return;
    };
    let mut host = Host::start().await;
    let script = "while ! test -e /tmp/go; do sleep 0.01; done; exit 23";
    let running = host
        .start_inside(&["sh", "-c", script], container.inside())
        .await;
    let (_, supervisor) = host.pids().await;
    kill(supervisor);
    std::fs::write(container.path("tmp/go"), "").unwrap();
    host.reconnect().await;
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(23)));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_held_on_its_way_does_not_hold_the_supervisor_for_ever() {
    let Some(container) = Container::full() else {
        return;
    };
    let mut host = Host::with_start_patience(TreeLevel::Cgroup2).await;
    // Frozen at birth, as if somebody inside had stopped it: the first group is foreseeable.
    let own = cgroup::own_group(Version::Two).unwrap_or_default();
    let group = own.join(host.nickname()).join("u1");
    if std::fs::create_dir(&group).is_err() {
        eprintln!("skipped: there are no v2 groups");
        return host.finish().await;
    }
    std::fs::write(group.join("cgroup.freeze"), "1").unwrap();
    let begun = Instant::now();
    let held = host
        .refused_inside(|request| request.inside = Some(container.inside()))
        .await;
    assert!(
        matches!(&held, SpawnError::Unavailable { detail } if detail.contains("in time")),
        "{held:?}"
    );
    assert!(begun.elapsed() < PATIENCE);
    // It is dead, its group is not used again, and everything goes on.
    eventually("the held child is gone", || {
        (!group.exists() || cgroup::members(&group).ok()?.is_empty()).then_some(())
    });
    let printed = host.printed_inside("echo on", container.inside()).await;
    assert_eq!(printed, "on\n");
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_ends_with_the_main_process_of_its_pid_namespace() {
    let Some(mut container) = Container::full() else {
        return;
    };
    let mut host = Host::start().await;
    let running = host
        .start_inside(&["sleep", "1000"], container.inside())
        .await;
    container.end();
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Signal(9)));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_write_the_program_of_the_supervisor() {
    if !is_root() {
        return;
    }
    let Some(container) = Container::full() else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("supervise");
    let mut host = Host::start_with(|config| {
        copy_program(&config.executable, &program);
        config.executable.clone_from(&program);
    })
    .await;
    let before = std::fs::read(&program).unwrap();
    std::os::unix::fs::symlink("/proc/self/exe", container.path("tmp/innocent")).unwrap();
    // A program that turns out to be the supervisor's, and stays for a while.
    let argv = ["/tmp/innocent", "supervise", "--state-dir", "/tmp/state"];
    let running = host.start_inside(&argv, container.inside()).await;
    let namespace = container.namespace("pid");
    let door = eventually("the program runs inside", || {
        in_pid_namespace(&namespace)
            .into_iter()
            .find_map(|(pid, _)| {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
                let exe = format!("/proc/{pid}/exe");
                (name.trim() == "tw-supervisor").then(|| std::fs::File::open(exe).ok())?
            })
    });
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(0)));
    // Nobody executes it any more: only now it could be written.
    host.finish().await;
    drop(container);
    let deadline = Instant::now() + PATIENCE;
    let refused = loop {
        use std::os::fd::AsRawFd as _;
        let again = format!("/proc/self/fd/{}", door.as_raw_fd());
        match std::fs::File::options().write(true).open(again) {
            Ok(_) => panic!("it can be written"),
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                assert!(Instant::now() < deadline, "it is still executed");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(std::fs::read(&program).unwrap(), before);
    // By its own path it can: the refusal was the mount's.
    std::fs::File::options().write(true).open(&program).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_is_in_the_groups_of_its_target_and_below_them_if_limited() {
    let Some(container) = Container::full() else {
        return;
    };
    let Ok(own) = cgroup::own_group(Version::One("pids")) else {
        eprintln!("skipped: there is no v1 pids controller");
        return;
    };
    let theirs = own.join(format!("test-{}", container.name));
    std::fs::create_dir(&theirs).unwrap();
    std::fs::write(theirs.join("cgroup.procs"), container.init.pid.to_string()).unwrap();
    let mut host = Host::start().await;
    let inside = Inside {
        cgroup: true,
        ..container.inside()
    };
    let part = format!("/test-{}", container.name);
    let script = "grep :pids: /proc/self/cgroup; grep ^0: /proc/self/cgroup";
    let printed = host.printed_inside(script, inside).await;
    assert!(
        printed.lines().next().unwrap().ends_with(&part),
        "{printed}"
    );
    // Its own group, by which it is found, is where it always is.
    assert!(
        printed.lines().last().unwrap().contains("/taskwright-"),
        "{printed}"
    );

    let mut request = host.request(&["sh", "-c", script]);
    request.inside = Some(inside);
    request.confinement = Confinement {
        pids: Some(20),
        ..Confinement::default()
    };
    let spawned = host.client.spawn(request.clone()).await.unwrap();
    let spawned = host.answered(&request.unit, spawned);
    let printed = host.printed_by(&Running { request, spawned }).await;
    let line = printed.lines().next().unwrap();
    assert!(line.contains(&format!("{part}/taskwright-")), "{printed}");
    host.finish().await;
    drop(container);
    eventually("nothing of ours is left in the target's group", || {
        std::fs::remove_dir(&theirs).ok()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn where_v2_limits_the_group_of_a_unit_is_below_its_targets() {
    let own = cgroup::own_group(Version::Two);
    let limits = |own: &std::path::PathBuf| {
        std::fs::read_to_string(own.join("cgroup.controllers"))
            .is_ok_and(|text| text.contains("pids"))
    };
    let Some(own) = own.ok().filter(limits) else {
        eprintln!("skipped: there is no v2 pids controller");
        return;
    };
    let Some(container) = Container::full() else {
        return;
    };
    let theirs = own.join(format!("test-{}", container.name));
    std::fs::create_dir(&theirs).unwrap();
    std::fs::write(theirs.join("pids.max"), "8").unwrap();
    std::fs::write(theirs.join("cgroup.procs"), container.init.pid.to_string()).unwrap();
    let mut host = Host::start().await;
    let inside = Inside {
        cgroup: true,
        ..container.inside()
    };
    let script = "grep ^0: /proc/self/cgroup; \
                  for n in 1 2 3 4 5 6 7 8 9 10; do sleep 100 & done; echo all";
    let running = host.start_inside(&["sh", "-c", script], inside).await;
    let status = host.status_of(&running).await;
    let printed = std::fs::read_to_string(running.file("stdout.log")).unwrap();
    assert_ne!(status, Some(ExitStatus::Code(0)), "{printed}");
    let part = format!("/test-{}/taskwright-", container.name);
    assert!(printed.contains(&part), "{printed}");
    // What it left is found, and killed, by that group; also by a later supervisor.
    let left = in_pid_namespace(&container.namespace("pid"));
    assert!(left.len() > 2, "{left:?}");
    kill(host.pids().await.1);
    host.reconnect().await;
    let unit = running.request.unit.clone();
    host.client.stop(unit, Duration::ZERO).await.unwrap();
    let init = (container.init.pid.cast_signed(), container.init.start_ticks);
    for member in left.into_iter().filter(|member| *member != init) {
        wait_until_dead(member);
    }
    assert!(lives(init), "the target is not the unit's");
    host.finish().await;
    drop(container);
    eventually("nothing of ours is left in the target's group", || {
        std::fs::remove_dir(&theirs).ok()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_found_by_variable_pid_and_cgroup_and_no_unit_ever_is() {
    let Some(container) = Container::full() else {
        return;
    };
    let mut host = Host::start().await;
    // As the main container's children it has the variable, and it came from us.
    let child = host
        .start_inside(&["sleep", "1000"], container.inside())
        .await;
    let selector = TargetSelector::Variable {
        name: "SANDBOX_MAIN_CONTAINER".to_owned(),
        value: container.name.clone(),
    };
    let found = host.client.find(selector.clone()).await.unwrap().unwrap();
    assert_eq!(found.process, container.init);
    assert_eq!((found.candidates, found.is_init), (1, true));
    let by_pid = |pid| host.client.find(TargetSelector::Pid(pid));
    let found = by_pid(container.init.pid).await.unwrap().unwrap();
    assert_eq!(found.process, container.init);
    let unit = child.spawned.process.pid;
    assert_eq!(by_pid(unit).await.unwrap(), None);
    let (guardian, supervisor) = host.pids().await;
    for pid in [guardian.cast_unsigned(), supervisor.cast_unsigned(), 2] {
        assert_eq!(by_pid(pid).await.unwrap(), None);
    }
    let nobody = TargetSelector::Variable {
        name: "SANDBOX_MAIN_CONTAINER".to_owned(),
        value: "nobody".to_owned(),
    };
    assert_eq!(host.client.find(nobody).await.unwrap(), None);
    let short = TargetSelector::ContainerId("abc".to_owned());
    assert!(host.client.find(short).await.is_err());
    host.finish().await;
}
