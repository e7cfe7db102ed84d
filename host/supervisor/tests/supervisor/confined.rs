//! What a unit may use: set as asked for, told truly, and nothing left of it.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use taskwright_capability::{ProcessHost as _, SpawnError, Spawned, UnitEnd};
use taskwright_model::{Confinement, ExitStatus, Mechanism, Restriction, User};
use taskwright_native::cgroup::{self, Version};
use taskwright_supervisor::TreeLevel;

use crate::container::{Container, is_root};
use crate::harness::{Host, Running, eventually, kill};

impl Host {
    async fn try_confined(
        &mut self,
        argv: &[&str],
        confinement: &Confinement,
    ) -> Result<Running, SpawnError> {
        let mut request = self.request(argv);
        request.confinement = confinement.clone();
        let spawned = self.client.spawn(request.clone()).await?;
        let spawned = self.answered(&request.unit, spawned);
        Ok(Running { request, spawned })
    }

    async fn confined(&mut self, script: &str, confinement: &Confinement) -> Running {
        let started = self.try_confined(&["sh", "-c", script], confinement).await;
        started.unwrap()
    }

    async fn ended(&mut self, running: &Running) -> (UnitEnd, String) {
        let end = self.end_of(&running.request.unit).await;
        let read = |name| std::fs::read_to_string(running.file(name)).unwrap();
        (end, read("stdout.log") + &read("stderr.log"))
    }

    /// Whether this machine enforces it; says so where it does not.
    async fn can(&self, restriction: Restriction) -> bool {
        let table = self.client.enforceable().await.unwrap();
        let (_, answer) = table.iter().find(|(it, _)| *it == restriction).unwrap();
        if let Err(why) = answer {
            eprintln!("skipped: {}: {why}", restriction.as_str());
        }
        answer.is_ok()
    }
}

fn told(spawned: &Spawned) -> Vec<Restriction> {
    spawned.enforced.iter().map(|(it, _)| it).collect()
}

/// The directories in which this host's groups are made.
fn bases(host: &Host) -> Vec<PathBuf> {
    ["cpu", "memory", "pids"]
        .into_iter()
        .filter_map(|controller| cgroup::own_group(Version::One(controller)).ok())
        .map(|own| own.join(host.nickname()))
        .collect()
}

fn groups_in(bases: &[PathBuf]) -> usize {
    let entries = bases.iter().filter_map(|base| std::fs::read_dir(base).ok());
    entries
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_its_limit_is_an_end_by_the_out_of_memory_killer() {
    for level in [TreeLevel::Cgroup2, TreeLevel::Cgroup1, TreeLevel::Scan] {
        let mut host = Host::at_level(level).await;
        if host.can(Restriction::Memory).await {
            let confinement = Confinement {
                memory_bytes: Some(32 << 20),
                ..Confinement::default()
            };
            // A last line without an end.
            let hog = ["tail", "/dev/zero"];
            let running = host.try_confined(&hog, &confinement).await.unwrap();
            assert_eq!(told(&running.spawned), [Restriction::Memory]);
            let (end, _) = host.ended(&running).await;
            assert_eq!(end.status, Some(ExitStatus::Signal(9)));
            assert!(end.out_of_memory);
            // By somebody else it is not.
            let running = host.confined("kill -9 $$", &confinement).await;
            let (end, _) = host.ended(&running).await;
            assert!(!end.out_of_memory);
        }
        host.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_processes_than_its_limit_are_made() {
    let mut host = Host::start().await;
    if host.can(Restriction::Pids).await {
        let confinement = Confinement {
            pids: Some(8),
            ..Confinement::default()
        };
        let script = "for n in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo all";
        let running = host.confined(script, &confinement).await;
        assert_eq!(told(&running.spawned), [Restriction::Pids]);
        let (end, said) = host.ended(&running).await;
        assert_ne!(end.status, Some(ExitStatus::Code(0)), "{said}");
        assert!(said.contains("fork"), "{said}");
    }
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_is_what_was_given() {
    let mut host = Host::start().await;
    if host.can(Restriction::Cpu).await {
        let confinement = Confinement {
            cpu_millis: Some(200),
            ..Confinement::default()
        };
        // Two that would take two cores.
        let script = "while :; do :; done & while :; do :; done";
        let running = host.confined(script, &confinement).await;
        assert_eq!(told(&running.spawned), [Restriction::Cpu]);
        let main = running.spawned.process.pid;
        let begun = (Instant::now(), used(main));
        tokio::time::sleep(Duration::from_secs(2)).await;
        // One of the two is looked at; both together have a fifth of a core.
        let share = (used(main) - begun.1).as_secs_f64() / begun.0.elapsed().as_secs_f64();
        assert!((0.01..0.25).contains(&share), "it took {share} of a core");
        let unit = running.request.unit.clone();
        host.client.stop(unit, Duration::ZERO).await.unwrap();
    }
    host.finish().await;
}

/// Processor time of a process.
fn used(pid: u32) -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u32 = [11, 12]
        .map(|field: usize| fields[field].parse::<u32>().unwrap())
        .iter()
        .sum();
    TICK * ticks
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_limited_in_number_and_size() {
    let mut host = Host::start().await;
    let confinement = Confinement {
        open_files: Some(64),
        file_size_bytes: Some(8192),
        ..Confinement::default()
    };
    let both = [Restriction::OpenFiles, Restriction::FileSize];
    let running = host.confined("ulimit -n; ulimit -Hn", &confinement).await;
    assert_eq!(told(&running.spawned), both);
    let by = running.spawned.enforced.get(Restriction::OpenFiles);
    assert_eq!(by, Some(Mechanism::Rlimit));
    let (_, said) = host.ended(&running).await;
    assert_eq!(said, "64\n64\n");
    let argv = ["dd", "if=/dev/zero", "of=large", "bs=4096", "count=10"];
    let running = host.try_confined(&argv, &confinement).await.unwrap();
    let (end, _) = host.ended(&running).await;
    const SIGXFSZ: i32 = 25;
    assert_eq!(end.status, Some(ExitStatus::Signal(SIGXFSZ)));
    assert_eq!(running.file("large").metadata().unwrap().len(), 8192);
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_runs_as_the_user_it_is_told_to() {
    let mut host = Host::start().await;
    if host.can(Restriction::User).await {
        let confinement = Confinement {
            user: Some(User {
                uid: 1234,
                gid: 2345,
                groups: vec![7, 9],
            }),
            no_new_privileges: true,
            ..Confinement::default()
        };
        let script = "id -u; id -g; id -G; pwd; grep -E 'NoNewPrivs|CapEff' /proc/self/status; \
                      echo $$ > /proc/self/oom_score_adj || true";
        let running = host.confined(script, &confinement).await;
        let both = [Restriction::User, Restriction::NoNewPrivileges];
        assert_eq!(told(&running.spawned), both);
        let (end, said) = host.ended(&running).await;
        assert_eq!(end.status, Some(ExitStatus::Code(0)), "{said}");
        let expected = "1234\n2345\n2345 7 9\n/\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n";
        assert!(said.starts_with(expected), "{said}");
        // Its output is the supervisor's file all the same.
        assert_eq!(running.file("stdout.log").metadata().unwrap().uid(), 0);

        let mut request = host.request(&["true"]);
        request.confinement = confinement;
        request.working_dir = Some(request.directory.clone());
        let refused = host.client.spawn(request).await;
        assert!(
            matches!(refused, Err(SpawnError::WorkingDirectory { .. })),
            "{refused:?}"
        );
    }
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_read_only_for_it_by_every_name() {
    let mut host = Host::start().await;
    if host.can(Restriction::ReadOnlyPaths).await {
        let kept = host.data.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::os::unix::fs::symlink(&kept, host.data.path().join("link")).unwrap();
        let path = |name: &str| host.data.path().join(name).display().to_string();
        let confinement = Confinement {
            read_only_paths: vec![path("link/../link")],
            ..Confinement::default()
        };
        let script = format!(
            "touch {0}/a {1}/b {0}/../kept/c; touch mine; \
             mount -o remount,bind,rw {0}; umount {0}; touch {0}/d; \
             touch /proc/1/root{0}/e; ls {0} | wc -l; ls mine",
            path("kept"),
            path("link")
        );
        let running = host.confined(&script, &confinement).await;
        assert_eq!(told(&running.spawned), [Restriction::ReadOnlyPaths]);
        let (_, said) = host.ended(&running).await;
        assert!(said.starts_with("0\nmine\n"), "{said}");
        assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 0, "{said}");
        std::fs::write(kept.join("ours"), "").unwrap();
    }
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_a_container_all_of_it_holds_as_well() {
    let Some(container) = Container::full() else {
        return;
    };
    let mut host = Host::start().await;
    let mut request = host.request(&[
        "sh",
        "-c",
        "id -u; ulimit -n; touch /tmp/a /only-inside/b; grep NoNewPrivs /proc/self/status",
    ]);
    request.inside = Some(container.inside());
    request.confinement = Confinement {
        open_files: Some(77),
        user: Some(User {
            uid: 4321,
            gid: 4321,
            groups: vec![],
        }),
        no_new_privileges: true,
        read_only_paths: vec!["/tmp".to_owned()],
        ..Confinement::default()
    };
    let spawned = host.client.spawn(request.clone()).await.unwrap();
    let spawned = host.answered(&request.unit, spawned);
    let running = Running { request, spawned };
    let (_, said) = host.ended(&running).await;
    assert!(said.starts_with("4321\n77\nNoNewPrivs:\t1\n"), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
    // There it can be written by everybody else.
    std::fs::write(container.path("tmp/theirs"), "").unwrap();
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_enforced_is_refused_or_left_out_and_told() {
    let mut host = Host::start().await;
    let confinement = Confinement {
        open_files: Some(99),
        read_only_paths: vec!["/no/such/path".to_owned()],
        ..Confinement::default()
    };
    let refused = host.try_confined(&["true"], &confinement).await;
    match refused.map(|_| ()) {
        // Whoever asked for it is to blame, not the machine.
        Err(SpawnError::ReadOnlyPath { path, .. }) => assert_eq!(path, "/no/such/path"),
        Err(SpawnError::NotEnforceable { restriction, .. }) if !is_root() => {
            assert_eq!(restriction, Restriction::ReadOnlyPaths);
        }
        other => panic!("{other:?}"),
    }
    let less = Confinement {
        best_effort: true,
        ..confinement
    };
    let running = host.confined("ulimit -n", &less).await;
    assert_eq!(told(&running.spawned), [Restriction::OpenFiles]);
    let left_out: Vec<_> = running.spawned.enforced.left_out().collect();
    let [(Restriction::ReadOnlyPaths, why)] = left_out[..] else {
        panic!("{left_out:?}");
    };
    if is_root() {
        assert!(why.starts_with("/no/such/path: "), "{why}");
    }
    let (_, said) = host.ended(&running).await;
    assert_eq!(said, "99\n");
    let relative = Confinement {
        read_only_paths: vec!["tmp".to_owned()],
        ..Confinement::default()
    };
    let refused = host.try_confined(&["true"], &relative).await;
    assert!(matches!(
        refused.map(|_| ()),
        Err(SpawnError::BadCommand { .. })
    ));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_found_again_and_none_is_left() {
    let mut host = Host::start().await;
    let bases = bases(&host);
    let confinement = Confinement {
        cpu_millis: Some(500),
        memory_bytes: Some(64 << 20),
        pids: Some(50),
        best_effort: true,
        ..Confinement::default()
    };
    let running = host.confined("sleep 1000", &confinement).await;
    let short = host.confined("exit 3", &confinement).await;
    let (end, _) = host.ended(&short).await;
    assert_eq!(end.status, Some(ExitStatus::Code(3)));
    let enforced = running.spawned.enforced.clone();
    // Of v1, the only ones that are apart from the trees.
    let apart = enforced
        .iter()
        .filter(|(_, by)| *by == Mechanism::Cgroup1)
        .count();
    eventually("the group of the ended one is gone", || {
        (groups_in(&bases) == apart).then_some(())
    });
    // What an earlier one made and did not get to write down.
    for base in bases.iter().take(apart) {
        std::fs::create_dir(base.join("r999")).unwrap();
    }
    let (_, supervisor) = host.pids().await;
    kill(supervisor);
    host.reconnect().await;
    let again = host.client.spawn(running.request.clone()).await.unwrap();
    assert_eq!(again.enforced, enforced, "told again, from the log");
    assert_eq!(groups_in(&bases), apart);
    let unit = running.request.unit.clone();
    host.client.stop(unit, Duration::ZERO).await.unwrap();
    eventually("all groups are gone", || {
        (groups_in(&bases) == 0).then_some(())
    });
    host.finish().await;
    eventually("and where they were", || {
        bases.iter().all(|base| !base.exists()).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_enforced_is_told_with_a_reason_for_each_no() {
    let host = Host::start().await;
    let table = host.client.enforceable().await.unwrap();
    let told: Vec<Restriction> = table.iter().map(|(restriction, _)| *restriction).collect();
    assert_eq!(told, Restriction::ALL);
    for (restriction, answer) in &table {
        if let Err(why) = answer {
            assert!(!why.is_empty(), "{restriction:?}");
        }
    }
    let of = |wanted| {
        table
            .iter()
            .find(|(it, _)| *it == wanted)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(of(Restriction::NoNewPrivileges), Ok(Mechanism::Prctl));
    if is_root() {
        assert_eq!(of(Restriction::User), Ok(Mechanism::Credentials));
    }
    host.finish().await;
}
