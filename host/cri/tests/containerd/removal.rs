//! Removal, sweeps, and what belongs to others.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use taskwright_capability::container::ContainerState;
use taskwright_capability::{ContainerError, ContainerHost as _};
use taskwright_model::UnitName;

use super::scene::{Scene, wait_until, with_runtime};

#[test]
fn a_sweep_leaves_what_is_live_or_foreign() {
    with_runtime(|scene| async move {
        let other = Scene::new().unwrap();
        let foreign = other.run("sleep 1000").await;
        let live = scene.run("sleep 1000").await;
        let forgotten = scene.run("sleep 1000").await;
        // Created and never started, as by a daemon that died in between.
        let unfinished = scene.unit();
        scene.sandbox(&unfinished).await.unwrap();
        let request = scene.request(&unfinished, &["sleep", "1000"]);
        scene.host.create(request).await.unwrap();
        let scene = scene.restart_daemon().await;
        scene
            .host
            .sweep(&|task, attempt| (task, attempt) == (live.task, live.attempt))
            .await
            .unwrap();
        let listed = scene.host.list().await.unwrap();
        let names: Vec<_> = listed.into_iter().map(|(unit, _)| unit).collect();
        assert_eq!(names, [live]);
        for gone in [forgotten, unfinished] {
            assert_eq!(scene.host.inspect(gone).await.unwrap(), None);
        }
        scene.host.purge(foreign.task).await.unwrap();
        let state = other.host.inspect(foreign).await.unwrap();
        assert!(matches!(state, Some(ContainerState::Running { .. })));
        scene.clean().await;
        other.clean().await;
    });
}

#[test]
fn the_containers_of_a_sandbox_share_what_it_says() {
    with_runtime(|scene| async move {
        let unit = scene.unit();
        let mut sandbox = scene.sandbox_request(&unit);
        sandbox.share_pids = true;
        scene.host.run_sandbox(sandbox).await.unwrap();
        let mut side = unit.clone();
        side.unit = UnitName::parse("side").unwrap();
        let script = "ps | grep -q 'sleep 10[0]0' && echo seen; sleep 1001";
        for (unit, script) in [(&unit, "echo m; exec sleep 1000"), (&side, script)] {
            let mut request = scene.request(unit, &["sh", "-c", script]);
            request.directory = scene.directory(unit);
            scene.host.create(request).await.unwrap();
            scene.host.start(unit.clone()).await.unwrap();
            let wanted = if *unit == side { "m\nseen\n" } else { "m\n" };
            wait_until("it prints", || async { scene.stdout(unit) == wanted }).await;
        }
        scene.host.terminate(unit.task, unit.attempt).await.unwrap();
        assert_eq!(scene.exit(&unit).await, Some(137));
        assert_eq!(scene.exit(&side).await, Some(137));
        scene.host.release(unit.task, unit.attempt).await.unwrap();
        scene.host.release(unit.task, unit.attempt).await.unwrap();
        scene.clean().await;
    });
}

#[test]
fn a_sweep_leaves_what_begins_meanwhile() {
    with_runtime(|scene| async move {
        let begun = Mutex::new(HashSet::new());
        let is_live = |task, attempt| begun.lock().unwrap().contains(&(task, attempt));
        let over = AtomicBool::new(false);
        let sweeps = async {
            while !over.load(Ordering::Relaxed) {
                scene.host.sweep(&is_live).await.unwrap();
            }
        };
        let starts = async {
            for _ in 0..4 {
                let unit = scene.unit();
                begun.lock().unwrap().insert((unit.task, unit.attempt));
                scene.sandbox(&unit).await.unwrap();
                let request = scene.request(&unit, &["sleep", "1000"]);
                scene.host.create(request).await.unwrap();
                scene.host.start(unit).await.unwrap();
            }
            over.store(true, Ordering::Relaxed);
        };
        futures::join!(sweeps, starts);
        assert_eq!(scene.host.list().await.unwrap().len(), 4);
        scene.clean().await;
    });
}

#[test]
fn what_needs_a_sandbox_says_so() {
    with_runtime(|scene| async move {
        let unit = scene.unit();
        let answer = scene.host.create(scene.request(&unit, &["true"])).await;
        assert!(matches!(answer, Err(ContainerError::NotRunning { .. })));
        let answer = scene.host.start(unit.clone()).await;
        assert!(matches!(answer, Err(ContainerError::NotRunning { .. })));

        let sandbox = scene.sandbox(&unit).await.unwrap();
        scene
            .host
            .create(scene.request(&unit, &["true"]))
            .await
            .unwrap();
        kill_sandbox(&sandbox.id).await;
        let answer = scene.host.start(unit.clone()).await;
        assert!(
            matches!(answer, Err(ContainerError::SandboxLost { .. })),
            "{answer:?}"
        );
        let answer = scene.sandbox(&unit).await;
        assert!(
            matches!(answer, Err(ContainerError::SandboxLost { .. })),
            "{answer:?}"
        );
        scene.clean().await;
    });
}

/// Kills the process that holds a sandbox, found by its cgroup.
async fn kill_sandbox(id: &str) {
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let of_it = pids.filter(|pid| {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
        groups.is_ok_and(|groups| groups.contains(id))
    });
    for pid in of_it {
        let kill = std::process::Command::new("kill")
            .args(["-KILL", &pid])
            .status();
        assert!(kill.unwrap().success());
        wait_until("it is gone", || async {
            !std::path::Path::new(&format!("/proc/{pid}")).exists()
        })
        .await;
    }
}
