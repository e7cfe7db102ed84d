//! Starts, refusals, ends, reports.

use std::time::Duration;

use taskwright_capability::{ProcessHost as _, SpawnError, StopError, UnitState};
use taskwright_model::{ExitStatus, TaskId};

use crate::harness::Host;

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_true() {
    let mut host = Host::start().await;
    for code in [0, 1, 2, 7, 126, 127, 128, 255] {
        let running = host.shell(&format!("exit {code}")).await;
        assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(code)));
    }
    for signal in [1, 6, 9, 15, 34] {
        let running = host.shell(&format!("kill -{signal} $$")).await;
        let status = host.status_of(&running).await;
        assert_eq!(status, Some(ExitStatus::Signal(signal)));
    }
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_finds_the_first() {
    let mut host = Host::start().await;
    let running = host.shell("echo started; exec sleep 1000").await;
    let printed = || std::fs::read_to_string(running.file("stdout.log")).unwrap();
    crate::harness::eventually("it has printed", || (!printed().is_empty()).then_some(()));
    let again = host.client.spawn(running.request.clone()).await.unwrap();
    assert_eq!(again, running.spawned);
    let unit = running.request.unit.clone();
    host.client.stop(unit, Duration::ZERO).await.unwrap();
    host.status_of(&running).await;
    let ended = host.client.spawn(running.request.clone()).await.unwrap();
    assert_eq!(ended.process, running.spawned.process);
    assert_eq!(ended.exit.unwrap().status, Some(ExitStatus::Signal(9)));
    assert_eq!(printed(), "started\n");
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_says_why() {
    let mut host = Host::start().await;
    let (_, missing) = host.try_run(&["no-such-program"]).await;
    assert!(
        matches!(missing, Err(SpawnError::NotFound { .. })),
        "{missing:?}"
    );
    let (_, refused) = host.try_run(&["/etc/passwd"]).await;
    assert!(
        matches!(refused, Err(SpawnError::NotExecutable { .. })),
        "{refused:?}"
    );
    let (_, empty) = host.try_run(&[]).await;
    assert!(
        matches!(empty, Err(SpawnError::BadCommand { .. })),
        "{empty:?}"
    );
    let (_, nul) = host.try_run(&["echo", "a\0b"]).await;
    assert!(matches!(nul, Err(SpawnError::BadCommand { .. })), "{nul:?}");
    let mut request = host.request(&["true"]);
    request.working_dir = Some("/no/such/place".into());
    let nowhere = host.client.spawn(request.clone()).await;
    assert!(
        matches!(nowhere, Err(SpawnError::WorkingDirectory { .. })),
        "{nowhere:?}"
    );
    // A failed start leaves the key free.
    request.working_dir = None;
    let spawned = host.client.spawn(request.clone()).await.unwrap();
    host.answered(&request.unit, spawned);
    let end = host.end_of(&request.unit).await;
    assert_eq!(end.status, Some(ExitStatus::Code(0)));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_without_shebang_is_run_by_the_shell() {
    let mut host = Host::start().await;
    let script = host.data.path().join("script");
    crate::harness::make_program(&script, "exit $1\n");
    let running = host.run(&[script.to_str().unwrap(), "9"]).await;
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(9)));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_command_is_told_once_and_a_long_one_is_answered_soon() {
    let mut host = Host::start().await;
    // How fast a machine is today nobody knows; that of so many none ends in time is no accident.
    let mut told = 0;
    for code in 0..50 {
        let short = host.shell(&format!("exit {code}")).await;
        told += usize::from(short.spawned.exit.is_some());
        assert_eq!(host.status_of(&short).await, Some(ExitStatus::Code(code)));
    }
    assert!(told > 0, "no answer brought an end");
    // Every end is told of by now, once each: what comes next is the end of the last one.
    let last = host.shell("sleep 0.05; exit 77").await;
    assert_eq!(last.spawned.exit, None, "it was answered before its end");
    let report = host.reports.recv().await.unwrap();
    assert_eq!(report.unit, last.request.unit);
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_reported_again_until_it_is_released() {
    let mut host = Host::start().await;
    let running = host.shell("exit 3").await;
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(3)));
    host.reconnect().await;
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(3)));
    let unit = running.request.unit.clone();
    host.client.release(unit.clone()).await.unwrap();
    assert_eq!(host.client.inspect(unit).await.unwrap(), None);
    assert!(host.client.list().await.unwrap().is_empty());
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_while_no_daemon_was_there_is_told_to_the_next() {
    let mut host = Host::start().await;
    let running = host.shell("read line < gate; exit 5").await;
    let gate = running.file("gate");
    let _was_read_too_early = std::fs::remove_file(&gate);
    host.reconnect().await;
    let second = host.shell("sleep 0.2; exit 6").await;
    // The old connection is gone, the new one is not asked before both ended.
    tokio::time::sleep(Duration::from_millis(400)).await;
    host.reconnect().await;
    assert_eq!(host.status_of(&second).await, Some(ExitStatus::Code(6)));
    assert!(host.status_of(&running).await.is_some());
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_goes_to_the_main_process_only() {
    let mut host = Host::start().await;
    let running = host
        .shell("trap 'exit 44' USR1; echo ready > ready; while :; do sleep 0.01; done")
        .await;
    crate::harness::eventually("the trap is set", || {
        std::fs::read_to_string(running.file("ready"))
            .ok()
            .filter(|text| !text.is_empty())
    });
    let unit = running.request.unit.clone();
    host.client.signal(unit.clone(), 10).await.unwrap();
    assert_eq!(host.status_of(&running).await, Some(ExitStatus::Code(44)));
    let late = host.client.signal(unit.clone(), 10).await;
    assert_eq!(late, Err(StopError::NotRunning { unit }));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_never_was_is_unknown_and_stopping_it_is_fine() {
    let mut host = Host::start().await;
    let request = host.request(&["true"]);
    let unit = request.unit;
    assert_eq!(host.client.inspect(unit.clone()).await.unwrap(), None);
    host.client
        .stop(unit.clone(), Duration::ZERO)
        .await
        .unwrap();
    host.client.release(unit).await.unwrap();
    host.client.purge(TaskId::from_u128(404)).await.unwrap();
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_all_end_truly() {
    let mut host = Host::start().await;
    let mut waiting = Vec::new();
    for number in 0..200_u8 {
        let request = host.request(&["sh", "-c", &format!("exit {number}")]);
        let client = host.client.clone();
        let unit = request.unit.clone();
        let spawned = tokio::spawn(async move { client.spawn(request).await });
        waiting.push((unit, number, spawned));
    }
    for (unit, number, spawned) in waiting {
        host.answered(&unit, spawned.await.unwrap().unwrap());
        let end = host.end_of(&unit).await;
        assert_eq!(end.status, Some(ExitStatus::Code(number)));
        let state = host.client.inspect(unit).await.unwrap();
        assert_eq!(state, Some(UnitState::Ended(end)));
    }
    assert_eq!(host.client.list().await.unwrap().len(), 200);
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_meets_the_end_of_the_supervisor_is_done_by_the_next() {
    let mut host = Host::start().await;
    for _ in 0..20 {
        let request = host.request(&["sh", "-c", "exit 8"]);
        let unit = request.unit.clone();
        let (ended, spawned) =
            tokio::join!(host.client.shutdown_if_idle(), host.client.spawn(request));
        host.answered(&unit, spawned.unwrap());
        let end = host.end_of(&unit).await;
        assert_eq!(end.status, Some(ExitStatus::Code(8)), "{ended:?}");
        host.client.purge(unit.task).await.unwrap();
    }
    host.finish().await;
}
