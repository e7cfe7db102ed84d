//! Strategies and machines that do not do their part.

use taskwright_model::{ExitStatus, Outcome};

use super::support::*;
use crate::port::StrategyError;

fn trap() -> StrategyError {
    StrategyError::Plugin {
        runtime: "process".into(),
        message: "unreachable".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_trap_is_the_plugins_fault_and_leaves_nothing_running() {
    let world = world().await;
    script(&world, "a", on_start(OnStart::RunAndFail(trap())));
    let task = world.submit("a", spec()).await.unwrap();
    let ended = world.until_state("a", "ended").await;
    assert_eq!(ending(&ended), "plugin-fault");
    settle().await;
    assert_eq!(world.units.alive(), 0);
    let kill = Order::Terminate(task.id, FIRST);
    assert_eq!(world.units.orders()[0], kill);
}

#[tokio::test(start_paused = true)]
async fn a_kill_that_fails_is_tried_again_before_the_end_is_told() {
    let world = world().await;
    script(&world, "a", on_start(OnStart::RunAndFail(trap())));
    world.units.fail_next(2);
    world.submit("a", spec()).await.unwrap();
    world.until_state("a", "ended").await;
    assert_eq!(world.units.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_fails_is_never_the_tasks_failure() {
    let world = world().await;
    let away = StrategyError::Host {
        message: "the supervisor is away".into(),
    };
    script(&world, "a", on_start(OnStart::Fail(away)));
    world.submit("a", spec()).await.unwrap();
    let ended = world.until_state("a", "ended").await;
    assert!(matches!(
        ended.outcome(),
        Some(Outcome::Infrastructure { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn an_end_is_offered_again_while_the_machine_fails() {
    let world = world().await;
    let flaky = Script {
        host_failures: 3,
        ..Script::default()
    };
    script(&world, "a", flaky);
    let task = running(&world, "a", spec()).await;
    world.exit(task.id, 7);
    let ended = world.until_state("a", "ended").await;
    assert_eq!(ending(&ended), "exit 7");
}

#[tokio::test(start_paused = true)]
async fn a_strategy_that_is_done_at_once_ends_its_task() {
    let world = world().await;
    let outcome = Outcome::Exited {
        code: 4,
        message: None,
    };
    script(&world, "a", on_start(OnStart::Done(outcome)));
    world.submit("a", spec()).await.unwrap();
    assert_eq!(end_of(&world, "a").await, "exit 4");
}

#[tokio::test(start_paused = true)]
async fn a_wish_to_be_woken_at_once_makes_no_busy_loop() {
    let world = world().await;
    script(&world, "a", on_start(OnStart::Wait(Some(seconds(0)))));
    running(&world, "a", spec()).await;
    settle().await;
    // The wake itself asked for no other.
    assert_eq!(world.strategies.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_stops_and_ends_during_a_hung_start_lose_nothing() {
    let world = world().await;
    script(&world, "a", on_start(OnStart::Block));
    let task = world.submit("a", spec()).await.unwrap();
    world.until_state("a", "starting").await;
    for grace in (1..200).rev() {
        let grace = std::time::Duration::from_millis(grace * 40);
        world
            .control
            .stop(task_key("a"), Some(grace))
            .await
            .unwrap();
    }
    world.units.spawn(task.id, FIRST);
    world.units.end(task.id, FIRST, Some(ExitStatus::Code(3)));
    world.strategies.unblock(&task.key.name);
    assert_eq!(end_of(&world, "a").await, "canceled 3");
}

#[tokio::test(start_paused = true)]
async fn when_the_loop_is_gone_everybody_is_told() {
    let mut world = world().await;
    running(&world, "a", spec()).await;
    let (control, key) = (world.control.clone(), task_key("a"));
    let waiting = tokio::spawn(async move { control.wait(&key, seconds(600)).await });
    settle().await;
    world.kill().await;
    let closed = |error: crate::ControlError| matches!(error, crate::ControlError::Closed);
    assert!(closed(waiting.await.unwrap().unwrap_err()));
    assert!(closed(
        world.control.stop(task_key("a"), None).await.unwrap_err()
    ));
}
