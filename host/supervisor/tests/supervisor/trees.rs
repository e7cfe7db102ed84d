//! Stop, kill and purge reach the whole tree, at every level; a normal end does not.

use std::time::{Duration, Instant};

use taskwright_capability::{Lifetime, ProcessHost as _, UnitState};
use taskwright_model::ExitStatus;
use taskwright_supervisor::TreeLevel;

use crate::harness::{Host, eventually, lives, wait_until_dead};

const LEVELS: [TreeLevel; 3] = [TreeLevel::Cgroup2, TreeLevel::Cgroup1, TreeLevel::Scan];

/// A child that leaves session and parent, ignores TERM and writes its process id.
const DAEMONISE: &str =
    "(setsid sh -c 'trap \"\" TERM; echo $$ > child; while :; do sleep 0.05; done' &) &";

/// The host at a level, or `None` where the machine has no such level.
async fn at(level: TreeLevel) -> Option<Host> {
    let host = Host::at_level(level).await;
    let status = host.client.status().await.unwrap();
    if status.tree_level == level.as_str() {
        return Some(host);
    }
    host.finish().await;
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_kills_what_daemonised_after_the_grace() {
    for level in LEVELS {
        let Some(mut host) = at(level).await else {
            continue;
        };
        let running = host
            .shell(&format!(
                "{DAEMONISE} trap '' TERM; while :; do sleep 0.05; done"
            ))
            .await;
        let child = running.pid_in("child");
        let begun = Instant::now();
        let grace = Duration::from_millis(300);
        let unit = running.request.unit.clone();
        host.client.stop(unit, grace).await.unwrap();
        assert_eq!(
            host.status_of(&running).await,
            Some(ExitStatus::Signal(9)),
            "{level}"
        );
        assert!(begun.elapsed() >= grace);
        wait_until_dead(child);
        host.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_heeds_term_ends_before_the_grace_is_over() {
    for level in LEVELS {
        let Some(mut host) = at(level).await else {
            continue;
        };
        let running = host.run(&["sleep", "1000"]).await;
        let unit = running.request.unit.clone();
        host.client
            .stop(unit, Duration::from_secs(1000))
            .await
            .unwrap();
        assert_eq!(
            host.status_of(&running).await,
            Some(ExitStatus::Signal(15)),
            "{level}"
        );
        host.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_normal_end_leaves_daemons_alone_and_purge_does_not() {
    for level in LEVELS {
        let Some(mut host) = at(level).await else {
            continue;
        };
        let running = host
            .shell(&format!(
                "{DAEMONISE} while ! test -s child; do sleep 0.01; done"
            ))
            .await;
        assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(0)));
        let child = running.pid_in("child");
        let unit = running.request.unit.clone();
        host.client.release(unit.clone()).await.unwrap();
        // Another round trip, so that everything due has been done.
        host.client.status().await.unwrap();
        assert!(lives(child), "{level}");
        host.client.purge(unit.task).await.unwrap();
        assert!(!lives(child), "{level}");
        assert_eq!(host.client.inspect(unit).await.unwrap(), None);
        host.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_shall_not_leave_anything_does_not() {
    for level in LEVELS {
        let Some(mut host) = at(level).await else {
            continue;
        };
        let script = format!("{DAEMONISE} while ! test -s child; do sleep 0.01; done; exit 4");
        let mut request = host.request(&["sh", "-c", &script]);
        request.lifetime = Lifetime::KillDescendants;
        let child_file = request.directory.join("child");
        let spawned = host.client.spawn(request.clone()).await.unwrap();
        host.answered(&request.unit, spawned);
        let end = host.end_of(&request.unit).await;
        assert_eq!(end.status, Some(ExitStatus::Code(4)));
        let pid: i32 = std::fs::read_to_string(child_file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        eventually("the daemonised child is dead", || {
            taskwright_native::process::stat(pid)
                .map_or(true, |stat| stat.is_zombie())
                .then_some(())
        });
        host.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_an_ended_unit_kills_what_it_left() {
    let mut host = Host::start().await;
    let running = host
        .shell(&format!(
            "{DAEMONISE} while ! test -s child; do sleep 0.01; done"
        ))
        .await;
    host.status_of(&running).await;
    let child = running.pid_in("child");
    let unit = running.request.unit.clone();
    host.client
        .stop(unit, Duration::from_secs(1000))
        .await
        .unwrap();
    wait_until_dead(child);
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_grace_is_answered_once_the_tree_is_dead() {
    for level in LEVELS {
        let Some(mut host) = at(level).await else {
            continue;
        };
        let running = host
            .shell("setsid sleep 1000 & echo $! > child; exec sleep 1000")
            .await;
        let child = running.pid_in("child");
        let unit = running.request.unit.clone();
        host.client
            .stop(unit.clone(), Duration::ZERO)
            .await
            .unwrap();
        assert!(!lives(child), "{level}");
        let state = host.client.inspect(unit).await.unwrap();
        assert!(matches!(state, Some(UnitState::Ended(_))), "{state:?}");
        host.finish().await;
    }
}
