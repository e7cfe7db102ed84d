//! What is enforced, and what is refused.

use std::os::unix::fs::MetadataExt as _;

use taskwright_capability::container::{Mount, MountSource};
use taskwright_capability::{ContainerError, ContainerHost as _, OutputStream};
use taskwright_model::{Confinement, Restriction, User};

use super::scene::with_runtime;

#[test]
fn memory_beyond_the_limit_is_an_end_for_want_of_memory() {
    with_runtime(|scene| async move {
        let unit = scene.unit();
        let script = "x=; while :; do x=$x$(head -c 1000000 /dev/zero | tr '\\0' x); done";
        let mut request = scene.request(&unit, &["sh", "-c", script]);
        request.confinement.memory_bytes = Some(24 << 20);
        scene.run_request(request).await.unwrap();
        let end = scene.end(&unit).await;
        println!("{end:?}");
        assert!(end.out_of_memory);
        assert_eq!(
            end.status.map(taskwright_model::ExitStatus::shell_code),
            Some(137)
        );
        scene.clean().await;
    });
}

#[test]
fn processes_are_counted() {
    with_runtime(|scene| async move {
        let unit = scene.unit();
        let script = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; wait";
        let mut request = scene.request(&unit, &["sh", "-c", script]);
        request.confinement.pids = Some(24);
        scene.sandbox(&unit).await.unwrap();
        let enforced = scene.host.create(request).await.unwrap();
        println!("{enforced:?}");
        assert!(enforced.get(Restriction::Pids).is_some());
        scene.host.start(unit.clone()).await.unwrap();
        let code = scene.exit(&unit).await;
        assert_ne!(code, Some(0));
        let told = scene.bytes(&unit, OutputStream::Stderr);
        assert!(String::from_utf8_lossy(&told).contains("fork"), "{code:?}");

        let unit = scene.unit();
        let mut request = scene.request(&unit, &["true"]);
        request.confinement.pids = Some(2);
        let refused = scene.run_request(request).await.unwrap_err();
        println!("{refused}");
        assert!(refused.to_string().contains("to start it"));
        scene.clean().await;
    });
}

#[test]
fn what_cannot_be_enforced_is_refused_or_told() {
    with_runtime(|scene| async move {
        let unit = scene.unit();
        scene.sandbox(&unit).await.unwrap();
        let mut request = scene.request(&unit, &["true"]);
        request.confinement.open_files = Some(64);
        let refused = scene.host.create(request.clone()).await;
        assert!(
            matches!(refused, Err(ContainerError::Refused { detail }) if detail.contains("openFiles"))
        );
        request.confinement.best_effort = true;
        request.confinement.cpu_millis = Some(100);
        let enforced = scene.host.create(request).await.unwrap();
        assert_eq!(enforced.get(Restriction::OpenFiles), None);
        assert!(enforced.get(Restriction::Cpu).is_some());
        scene.clean().await;
    });
}

#[test]
fn user_paths_and_directories_are_as_asked_for() {
    with_runtime(|scene| async move {
        let unit = scene.unit();
        let outside = scene.data.path().join("outside");
        std::fs::write(&outside, "from outside\n").unwrap();
        let script = "id -u; id -g; id -G; cat /in; echo x > /in; echo mine > /box/file; \
                      touch /var/tmp/x; grep NoNewPrivs /proc/self/status; cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
        let mut request = scene.request(&unit, &["sh", "-c", script]);
        request.mounts = vec![
            Mount {
                source: MountSource::HostPath(outside.clone()),
                path: "/in".to_owned(),
                read_only: true,
            },
            Mount {
                source: MountSource::EmptyDir("box".to_owned()),
                path: "/box".to_owned(),
                read_only: false,
            },
        ];
        request.confinement = Confinement {
            user: Some(User {
                uid: 1000,
                gid: 1001,
                groups: vec![1002],
            }),
            cpu_millis: Some(500),
            no_new_privileges: true,
            read_only_paths: vec!["/var/tmp".to_owned()],
            ..Confinement::default()
        };
        scene.run_request(request).await.unwrap();
        let _exit = scene.exit(&unit).await;
        let printed = scene.stdout(&unit);
        assert!(
            printed.starts_with("1000\n1001\n1001 1002\nfrom outside\n"),
            "{printed}"
        );
        assert!(printed.contains("NoNewPrivs:\t1"), "{printed}");
        assert!(
            !std::path::Path::new("/sys/fs/cgroup/cpu").exists() || printed.ends_with("50000\n"),
            "{printed}"
        );
        let told = String::from_utf8(scene.bytes(&unit, OutputStream::Stderr)).unwrap();
        assert_eq!(told.matches("Read-only file system").count(), 2, "{told}");
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "from outside\n");
        let place = scene.config.state_dir.join(unit.task.to_string()).join("1");
        assert_eq!(place.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(
            std::fs::read_to_string(place.join("dirs/box/file")).unwrap(),
            "mine\n"
        );
        scene.host.release(unit.task, unit.attempt).await.unwrap();
        assert!(!place.exists());
        scene.clean().await;
    });
}

#[test]
fn privileges_are_given_only_where_both_say_so() {
    with_runtime(|scene| async move {
        let unit = scene.unit();
        scene.sandbox(&unit).await.unwrap();
        let mut request = scene.request(&unit, &["true"]);
        request.privileged = true;
        let refused = scene.host.create(request).await;
        assert!(matches!(refused, Err(ContainerError::Refused { .. })));

        let unit = scene.unit();
        let mut sandbox = scene.sandbox_request(&unit);
        sandbox.privileged = true;
        scene.host.run_sandbox(sandbox).await.unwrap();
        let script =
            "grep Seccomp: /proc/self/status; test -w /proc/sys/kernel/domainname && echo free";
        let mut request = scene.request(&unit, &["sh", "-c", script]);
        request.privileged = true;
        scene.host.create(request).await.unwrap();
        scene.host.start(unit.clone()).await.unwrap();
        assert_eq!(scene.exit(&unit).await, Some(0));
        println!("{}", scene.stdout(&unit));
        let plain = scene
            .run("grep Seccomp: /proc/self/status; grep CapEff /proc/self/status")
            .await;
        assert_eq!(scene.exit(&plain).await, Some(0));
        println!("{}", scene.stdout(&plain));
        scene.clean().await;
    });
}
