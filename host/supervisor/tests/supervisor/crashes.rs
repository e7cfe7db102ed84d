//! `kill -9` of supervisor, guardian and both: tasks go on, codes are true or honestly unknown.

use std::time::Duration;

use taskwright_capability::ProcessHost as _;
use taskwright_model::ExitStatus;
use taskwright_supervisor::TreeLevel;

use crate::harness::{Host, Running, eventually, kill, lives, wait_until_dead};

/// A task that ends with `code` once its file `go` exists.
async fn waiting(host: &mut Host, code: u8) -> Running {
    let script = format!("while ! test -e go; do sleep 0.01; done; exit {code}");
    host.shell(&script).await
}

fn go(running: &Running) {
    std::fs::write(running.file("go"), "").unwrap();
}

fn identity(running: &Running) -> (i32, u64) {
    let process = running.spawned.process;
    (process.pid.cast_signed(), process.start_ticks)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supervisor_dies_and_codes_are_true() {
    let mut host = Host::start().await;
    let during = waiting(&mut host, 21).await;
    let after = waiting(&mut host, 22).await;
    let before = host.shell("exit 20").await;
    host.status_of(&before).await;
    let (_, supervisor) = host.pids().await;
    go(&during);
    kill(supervisor);
    host.reconnect().await;
    assert_ne!(host.pids().await.1, supervisor);
    assert!(lives(identity(&after)));
    go(&after);
    assert_eq!(host.status_of(&before).await, Some(ExitStatus::Code(20)));
    assert_eq!(host.status_of(&during).await, Some(ExitStatus::Code(21)));
    assert_eq!(host.status_of(&after).await, Some(ExitStatus::Code(22)));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deaths_of_the_supervisor_under_load_lose_nothing() {
    let mut host = Host::start().await;
    let mut all = Vec::new();
    for round in 0..10_u8 {
        let (_, supervisor) = host.pids().await;
        let mut starts = Vec::new();
        for number in 0..10_u8 {
            let code = round * 10 + number;
            let request = host.request(&["sh", "-c", &format!("echo x >> runs; exit {code}")]);
            let client = host.client.clone();
            all.push((request.clone(), code));
            let unit = request.unit.clone();
            starts.push((
                unit,
                tokio::spawn(async move { client.spawn(request).await }),
            ));
        }
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 2)).await;
        kill(supervisor);
        for (unit, start) in starts {
            // The connection came back by itself and asked again.
            host.answered(&unit, start.await.unwrap().unwrap());
        }
    }
    for (request, code) in all {
        let end = host.end_of(&request.unit).await;
        assert_eq!(end.status, Some(ExitStatus::Code(code)), "{}", request.unit);
        let runs = std::fs::read_to_string(request.directory.join("runs")).unwrap();
        assert_eq!(runs, "x\n", "started once");
    }
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guardian_dies_and_the_supervisor_goes_on() {
    let mut host = Host::start().await;
    let running = waiting(&mut host, 31).await;
    let (guardian, supervisor) = host.pids().await;
    kill(guardian);
    let second = host.shell("exit 32").await;
    assert_eq!(host.status_of(&second).await, Some(ExitStatus::Code(32)));
    go(&running);
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(31)));
    assert_eq!(host.pids().await, (0, supervisor));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guardian_dies_after_it_adopted_and_codes_are_true() {
    let mut host = Host::start().await;
    let running = waiting(&mut host, 41).await;
    kill(host.pids().await.1);
    host.reconnect().await;
    kill(host.pids().await.0);
    go(&running);
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(41)));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_die_living_tasks_end_truly_and_vanished_ones_are_lost() {
    for level in [TreeLevel::Cgroup2, TreeLevel::Scan] {
        let mut host = Host::at_level(level).await;
        let living = waiting(&mut host, 51).await;
        let zero = waiting(&mut host, 0).await;
        let vanished = waiting(&mut host, 52).await;
        let (guardian, supervisor) = host.pids().await;
        kill(guardian);
        kill(supervisor);
        go(&vanished);
        wait_until_dead(identity(&vanished));
        host.reconnect().await;
        go(&living);
        go(&zero);
        assert_eq!(host.status_of(&living).await, Some(ExitStatus::Code(51)));
        assert_eq!(host.status_of(&zero).await, Some(ExitStatus::Code(0)));
        // The first client may have had a supervisor up before the task ended: then the code
        // is known. Never anything else.
        let status = host.status_of(&vanished).await;
        assert!(
            matches!(status, None | Some(ExitStatus::Code(52))),
            "{status:?}"
        );
        host.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_outlives_the_supervisor() {
    let mut host = Host::start().await;
    let running = host
        .shell("trap '' TERM; echo ready; while :; do sleep 0.05; done")
        .await;
    eventually("the trap is set", || {
        let printed = std::fs::read_to_string(running.file("stdout.log")).ok()?;
        printed.contains("ready").then_some(())
    });
    let unit = running.request.unit.clone();
    host.client
        .stop(unit, Duration::from_millis(500))
        .await
        .unwrap();
    kill(host.pids().await.1);
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Signal(9)));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_told_and_the_rest_kept() {
    let mut host = Host::start().await;
    let running = waiting(&mut host, 61).await;
    let log = host.config.options.state_dir.join("log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.extend_from_slice(b"not a record at all");
    std::fs::write(&log, bytes).unwrap();
    kill(host.pids().await.1);
    go(&running);
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(61)));
    let status = host.client.status().await.unwrap();
    assert!(status.damage.contains("set aside"), "{}", status.damage);
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn term_and_hangup_do_not_end_a_supervisor() {
    let mut host = Host::start().await;
    let (guardian, supervisor) = host.pids().await;
    for pid in [guardian, supervisor] {
        let ticks = taskwright_native::process::stat(pid).unwrap().start_ticks;
        let pidfd = taskwright_native::process::open_if_same(pid, ticks).unwrap();
        for signal in [1, 2, 13, 15] {
            taskwright_native::process::signal(&pidfd, signal).unwrap();
        }
    }
    let running = host.shell("exit 1").await;
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(1)));
    assert_eq!(host.pids().await, (guardian, supervisor));
    host.finish().await;
}
