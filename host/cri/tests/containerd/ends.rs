//! How containers end, and how that is told.

use std::time::{Duration, Instant};

use taskwright_capability::container::{ContainerState, Network};
use taskwright_capability::{ContainerError, ContainerHost as _};

use super::scene::{wait_until, with_runtime};

#[test]
fn the_runtime_says_what_it_is() {
    with_runtime(|scene| async move {
        let status = scene.host.check().await.unwrap();
        println!("{status:?}");
        assert_eq!(status.name, "containerd");
        assert_eq!(status.network, Ok(()));
        assert_eq!(status.events, !status.version.starts_with("1.6"));
    });
}

#[test]
fn exit_codes_are_reported() {
    with_runtime(|scene| async move {
        for code in [0, 3, 255] {
            let begun = Instant::now();
            let unit = scene.run(&format!("exit {code}")).await;
            assert_eq!(scene.exit(&unit).await, Some(code));
            println!("exit {code} seen {:?} after the order", begun.elapsed());
            let end = scene.end(&unit).await;
            let seen = scene.host.inspect(unit.clone()).await.unwrap();
            assert_eq!(seen, Some(ContainerState::Ended(end)));
            assert_eq!(
                scene.host.start(unit).await.unwrap(),
                ContainerState::Ended(end)
            );
        }
        scene.clean().await;
    });
}

#[test]
fn a_stop_is_term_and_then_kill() {
    with_runtime(|scene| async move {
        let polite = scene
            .run("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
            .await;
        let stubborn = scene
            .run("trap '' TERM; echo up; while :; do sleep 0.05; done")
            .await;
        for unit in [&polite, &stubborn] {
            wait_until("it has set its trap", || async {
                scene.stdout(unit) == "up\n"
            })
            .await;
        }
        let grace = Duration::from_millis(1500);
        let begun = Instant::now();
        scene.host.stop(polite.clone(), grace).await.unwrap();
        scene.host.stop(stubborn.clone(), grace).await.unwrap();
        assert!(begun.elapsed() < grace, "a stop waits for nobody");
        assert_eq!(scene.exit(&polite).await, Some(7));
        assert_eq!(scene.exit(&stubborn).await, Some(137));
        let took = begun.elapsed();
        println!("killed after {took:?} of {grace:?}");
        assert!(took >= grace && took < grace + Duration::from_secs(5));
        scene.host.stop(polite, grace).await.unwrap();
        scene.host.stop(scene.unit(), grace).await.unwrap();
        scene.clean().await;
    });
}

#[test]
fn a_missing_program_is_not_found_and_no_end() {
    with_runtime(|scene| async move {
        for (command, found) in [
            ("no-such-program", false),
            ("/no/such/program", false),
            ("/etc/passwd", true),
            ("/tmp", true),
        ] {
            let unit = scene.unit();
            let request = scene.request(&unit, &[command]);
            let failed = scene.run_request(request).await.unwrap_err();
            match &failed {
                ContainerError::NotFound { .. } if !found => {}
                ContainerError::NotExecutable { .. } if found => {}
                other => panic!("{command}: {other}"),
            }
            let again = scene.host.start(unit.clone()).await.unwrap_err();
            assert_eq!(
                std::mem::discriminant(&failed),
                std::mem::discriminant(&again)
            );
            let seen = scene.host.inspect(unit).await.unwrap();
            assert_eq!(seen, Some(ContainerState::Created));
        }
        assert_eq!(scene.host.list().await.unwrap(), Vec::new());
        scene.clean().await;
    });
}

#[test]
fn what_somebody_else_removed_is_lost() {
    with_runtime(|scene| async move {
        let unit = scene.run("echo up; sleep 1000").await;
        wait_until("it prints", || async { scene.stdout(&unit) == "up\n" }).await;
        // Another daemon of the same instance stands for somebody with access to the runtime.
        let other = taskwright_cri::CriHost::new(taskwright_cri::CriConfig {
            state_dir: scene.data.path().join("other"),
            cgroup_parent: None,
            ..scene.config.clone()
        });
        other.0.purge(unit.task).await.unwrap();
        let end = scene.end(&unit).await;
        // Killed first and then removed: what was seen in between may be told.
        println!("removed under us: {end:?}");
        assert!(end.status.is_none_or(|status| status.shell_code() == 137));
        assert_eq!(scene.host.inspect(unit).await.unwrap(), None);
        scene.clean().await;
    });
}

#[test]
fn asking_twice_finds_the_first() {
    with_runtime(|scene| async move {
        let unit = scene.unit();
        let request = scene.sandbox_request(&unit);
        let both = tokio::join!(
            scene.host.run_sandbox(request.clone()),
            scene.host.run_sandbox(request)
        );
        assert_eq!(both.0.unwrap().id, both.1.unwrap().id);
        let request = scene.request(&unit, &["sleep", "1000"]);
        let both = tokio::join!(
            scene.host.create(request.clone()),
            scene.host.create(request.clone())
        );
        assert_eq!(both.0.unwrap(), both.1.unwrap());
        let first = scene.host.start(unit.clone()).await.unwrap();
        assert_eq!(scene.host.start(unit.clone()).await.unwrap(), first);
        scene.host.create(request).await.unwrap();
        assert_eq!(scene.host.list().await.unwrap().len(), 1);
        scene.host.terminate(unit.task, unit.attempt).await.unwrap();
        assert_eq!(scene.exit(&unit).await, Some(137));
        scene.clean().await;
    });
}

#[test]
fn networks_are_what_they_say() {
    with_runtime(|scene| async move {
        let unit = scene.unit();
        let mut request = scene.sandbox_request(&unit);
        request.network = Network::Pod;
        request.hostname = Some("named".to_owned());
        let sandbox = scene.host.run_sandbox(request).await.unwrap();
        let ip = sandbox.ip.unwrap();
        let script = "hostname; ip -o -4 addr show eth0";
        let request = scene.request(&unit, &["sh", "-c", script]);
        scene.host.create(request).await.unwrap();
        scene.host.start(unit.clone()).await.unwrap();
        assert_eq!(scene.exit(&unit).await, Some(0));
        let printed = scene.stdout(&unit);
        assert!(
            printed.starts_with("named\n") && printed.contains(&ip),
            "{printed}"
        );

        let unit = scene.unit();
        let mut request = scene.sandbox_request(&unit);
        request.network = Network::None;
        let answer = scene.host.run_sandbox(request).await;
        if scene.config.loopback_handler.is_none() {
            assert!(
                matches!(answer, Err(ContainerError::Refused { .. })),
                "{answer:?}"
            );
        } else {
            answer.unwrap();
            let request = scene.request(&unit, &["ls", "/sys/class/net"]);
            scene.host.create(request).await.unwrap();
            scene.host.start(unit.clone()).await.unwrap();
            assert_eq!(scene.exit(&unit).await, Some(0));
            let interfaces = scene.stdout(&unit);
            assert!(!interfaces.contains("eth"), "{interfaces}");
        }
        scene.clean().await;
    });
}
