//! Daemons and runtimes that come and go.

use std::time::Duration;

use taskwright_capability::container::ContainerState;
use taskwright_capability::{ContainerError, ContainerHost as _, UnitState};
use taskwright_cri::{CriConfig, CriHost};

use super::scene::{further, wait_until, with_runtime};

#[test]
fn ends_are_reported_again_until_released() {
    with_runtime(|scene| async move {
        let ended = scene.run("echo one; exit 5").await;
        let running = scene.run("echo two; sleep 1000").await;
        assert_eq!(scene.exit(&ended).await, Some(5));
        let end = scene.end(&ended).await;
        let scene = scene.restart_daemon().await;
        assert_eq!(scene.end(&ended).await, end);
        let mut listed = scene.host.list().await.unwrap();
        listed.sort_by(|one, other| one.0.cmp(&other.0));
        assert!(matches!(
            listed.as_slice(),
            [(one, UnitState::Ended(_)), (two, UnitState::Running(spawned))]
                if *one == ended && *two == running && spawned.process.pid > 0
        ));
        scene.host.release(ended.task, ended.attempt).await.unwrap();
        assert_eq!(scene.host.inspect(ended.clone()).await.unwrap(), None);
        assert_eq!(scene.stdout(&ended), "one\n");
        let scene = scene.restart_daemon().await;
        assert_eq!(scene.host.list().await.unwrap().len(), 1);
        scene
            .host
            .terminate(running.task, running.attempt)
            .await
            .unwrap();
        assert_eq!(scene.exit(&running).await, Some(137));
        assert_eq!(scene.stdout(&running), "two\n");
        scene.clean().await;
    });
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    with_runtime(|scene| async move {
        let (host, _reports) = CriHost::new(CriConfig {
            socket: "/no/such/socket".into(),
            ..scene.config.clone()
        });
        let error = host.check().await.unwrap_err();
        println!("{error}");
        assert!(matches!(&error, ContainerError::Unavailable { detail }
            if detail.contains("/no/such/socket") && detail.contains("start the container runtime")));
        let stopped = host.stop(scene.unit(), Duration::ZERO).await;
        assert!(stopped.is_err(), "a container may be there");
    });
}

/// One test, since the runtime is everybody's: to be run alone where restarts are offered.
#[test]
#[ignore = "restarts the runtime under all tests: run it alone"]
fn a_runtime_that_is_killed_and_comes_back_is_found_again() {
    with_runtime(|scene| async move {
        let (Some(restart), Some(pid_file)) = (
            further("TASKWRIGHT_TEST_CRI_RESTART"),
            further("TASKWRIGHT_TEST_CRI_PID_FILE"),
        ) else {
            return;
        };
        let long = scene
            .run("i=0; while [ ! -e /tmp/stop ]; do echo $i; i=$((i+1)); sleep 0.02; done; echo $i last")
            .await;
        let short = scene.run("sleep 1; exit 4").await;
        wait_until("it prints", || async { scene.stdout(&long).len() > 20 }).await;
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let kill = std::process::Command::new("kill")
            .args(["-KILL", pid.trim()])
            .status();
        assert!(kill.unwrap().success());
        wait_until("it is seen to be gone", || async {
            matches!(
                scene.host.check().await,
                Err(ContainerError::Unavailable { .. })
            )
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let started = std::process::Command::new("sh")
            .args(["-c", &restart])
            .status();
        assert!(started.unwrap().success());
        wait_until("it is back", || async { scene.host.check().await.is_ok() }).await;
        let state = scene.host.inspect(long.clone()).await.unwrap();
        assert!(
            matches!(state, Some(ContainerState::Running { .. })),
            "{state:?}"
        );
        let end = scene.end(&short).await;
        println!("ended while the runtime was away: {end:?}");
        assert!(
            end.status.is_none_or(|status| status.shell_code() == 4),
            "never guessed"
        );
        let argv = ["touch", "/tmp/stop"].map(str::to_owned).to_vec();
        scene
            .host
            .exec(long.clone(), argv, Duration::from_secs(10))
            .await
            .unwrap();
        assert_eq!(scene.exit(&long).await, Some(0));
        let printed = scene.stdout(&long);
        let last = printed.lines().last().unwrap();
        let count: u32 = last.strip_suffix(" last").unwrap().parse().unwrap();
        let expected: String = (0..count).map(|number| format!("{number}\n")).collect();
        assert_eq!(printed, format!("{expected}{last}\n"));
        scene.clean().await;
    });
}
