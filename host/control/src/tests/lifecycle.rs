//! From submission to the end, stops, retries and removal.

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_task_runs_and_its_exit_is_told() {
    let world = world().await;
    let task = running(&world, "a", spec()).await;
    world.exit(task.id, 7);
    let ended = world.control.wait(&task_key("a"), seconds(60)).await;
    assert_eq!(ending(&ended.unwrap().unwrap()), "exit 7");
    settle().await;
    assert_eq!(world.units.orders(), [Order::Release(task.id, FIRST)]);
    assert_eq!(world.strategies.starts(), [(task.id, FIRST)]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_start_was_told_of_needs_no_event() {
    let world = world().await;
    script(&world, "a", on_start(OnStart::RunToEnd(7)));
    let task = world.submit("a", spec()).await.unwrap();
    let ended = world.until_state("a", "ended").await;
    assert_eq!(ending(&ended), "exit 7");
    assert!(ended.attempt().unwrap().started_at.is_some());
    settle().await;
    assert_eq!(world.strategies.events(), []);
    assert_eq!(world.units.orders(), [Order::Release(task.id, FIRST)]);
}

#[tokio::test(start_paused = true)]
async fn a_strategy_that_waits_is_told_again_what_the_start_was_told() {
    let world = world().await;
    script(&world, "a", on_start(OnStart::RunPastEnd(7)));
    let task = world.submit("a", spec()).await.unwrap();
    assert_eq!(end_of(&world, "a").await, "exit 7");
    world.units.report(task.id, FIRST);
    settle().await;
    assert_eq!(world.strategies.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_unknown_task_answers_so() {
    let world = world().await;
    let answer = world.control.wait(&task_key("a"), seconds(60)).await;
    assert!(answer.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_short_answers_with_the_task_as_it_is() {
    let world = world().await;
    running(&world, "a", spec()).await;
    let answer = world.control.wait(&task_key("a"), seconds(1)).await;
    assert_eq!(answer.unwrap().unwrap().state.as_str(), "running");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_runs_in_order_of_priority_then_submission() {
    let world = world_with(|config| config.max_active = 1).await;
    let first = running(&world, "first", spec()).await;
    for (name, priority) in [("low", -1), ("b", 0), ("c", 0), ("high", 5)] {
        let mut spec = spec();
        spec.priority = priority;
        world.submit(name, spec).await.unwrap();
    }
    let mut present = first;
    for name in ["high", "b", "c", "low"] {
        world.exit(present.id, 0);
        present = world.until_state(name, "running").await;
        assert_eq!(world.units.alive(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_what_runs_and_keeps_the_exit() {
    let world = world().await;
    running(&world, "a", spec()).await;
    let answer = world.control.stop(task_key("a"), None).await;
    assert_eq!(answer.unwrap().unwrap().state.as_str(), "stopping");
    let ended = world.until_state("a", "ended").await;
    assert_eq!(ending(&ended), "canceled 143");
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_what_waits_ends_it_unstarted() {
    let world = world_with(|config| config.max_active = 1).await;
    running(&world, "a", spec()).await;
    let waiting = world.submit("b", spec()).await.unwrap();
    let stopped = world.control.stop(task_key("b"), None).await;
    assert_eq!(ending(&stopped.unwrap().unwrap()), "canceled");
    assert!(!world.strategies.starts().contains(&(waiting.id, FIRST)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_starting_is_told_once_after_the_start() {
    let world = world().await;
    script(&world, "a", on_start(OnStart::Block));
    let task = world.submit("a", spec()).await.unwrap();
    world.until_state("a", "starting").await;
    world.control.stop(task_key("a"), None).await.unwrap();
    assert_eq!(world.strategies.stops(task.id), 0);
    world.strategies.unblock(&task.key.name);
    let ended = world.until_state("a", "ended").await;
    assert_eq!(ending(&ended), "canceled 143");
    assert_eq!(world.strategies.stops(task.id), 1);
}

#[tokio::test(start_paused = true)]
async fn asking_twice_to_stop_tells_the_strategy_once() {
    let world = world().await;
    script(&world, "a", on_stop(OnStop::EndsAfterGrace));
    let task = running(&world, "a", spec()).await;
    for _ in 0..3 {
        world.control.stop(task_key("a"), None).await.unwrap();
    }
    settle().await;
    assert_eq!(world.strategies.stops(task.id), 1);
    let sooner = Some(seconds(1));
    world.control.stop(task_key("a"), sooner).await.unwrap();
    settle().await;
    assert_eq!(world.strategies.stops(task.id), 2);
}

#[tokio::test(start_paused = true)]
async fn retries_back_off_and_every_attempt_is_kept() {
    let world = world().await;
    let task = running(&world, "a", retried(3, seconds(4))).await;
    world.exit(task.id, 1);
    let waiting = world.until_state("a", "pending").await;
    assert_eq!(waiting.attempts.len(), 1);
    let again = world.until_state("a", "running").await;
    let former = again.attempts[0].ended_at.unwrap();
    let pause = again.attempts[1].launched_at.since(former);
    assert!((seconds(4)..seconds(5)).contains(&pause), "{pause:?}");
    world.exit(task.id, 0);
    let ended = world.until_state("a", "ended").await;
    assert_eq!(ending(&ended), "exit 0");
    let kept: Vec<_> = ended
        .attempts
        .iter()
        .map(|one| one.outcome.as_ref().unwrap().exit().unwrap().shell_code())
        .collect();
    assert_eq!(kept, [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_without_pause_starts_only_after_the_former_attempt_was_killed() {
    let world = world().await;
    let task = running(&world, "a", retried(2, seconds(0))).await;
    // The kill of what the first attempt left behind takes three tries.
    world.units.fail_next(2);
    world.exit(task.id, 1);
    world
        .until("the second start", |world| {
            world.strategies.starts().len() == 2
        })
        .await;
    let orders = world.units.orders();
    let killed = orders
        .iter()
        .filter(|order| **order == Order::Terminate(task.id, FIRST))
        .count();
    assert_eq!(killed, 3);
    assert_eq!(orders.last(), Some(&Order::Release(task.id, FIRST)));
}

#[tokio::test(start_paused = true)]
async fn deleting_an_ended_task_removes_it_and_frees_its_name() {
    let world = world().await;
    let task = running(&world, "a", spec()).await;
    world.exit(task.id, 0);
    world.until_state("a", "ended").await;
    world.control.delete(task_key("a")).await.unwrap();
    world
        .until("it is gone", |world| world.get("a").is_none())
        .await;
    assert_eq!(world.units.count(Order::Remove(task.id)), 1);
    assert!(world.journal.tasks().is_empty());
    let anew = world.submit("a", spec()).await.unwrap();
    assert_ne!(anew.id, task.id);
}

#[tokio::test(start_paused = true)]
async fn deleting_a_running_task_stops_it_first() {
    let world = world().await;
    script(&world, "a", on_stop(OnStop::EndsAfterGrace));
    let task = running(&world, "a", spec()).await;
    let answer = world.control.delete(task_key("a")).await.unwrap().unwrap();
    assert_eq!(answer.state.as_str(), "stopping");
    assert!(answer.deleting_since.is_some());
    assert_eq!(world.units.count(Order::Remove(task.id)), 0);
    world
        .until("it is gone", |world| world.get("a").is_none())
        .await;
    assert_eq!(world.units.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn deleting_a_waiting_task_removes_it() {
    let world = world_with(|config| config.max_active = 1).await;
    running(&world, "a", spec()).await;
    world.submit("b", spec()).await.unwrap();
    world.control.delete(task_key("b")).await.unwrap();
    world
        .until("it is gone", |world| world.get("b").is_none())
        .await;
    assert!(world.get("a").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_record_stays_until_the_removal_succeeded() {
    let world = world().await;
    let task = running(&world, "a", spec()).await;
    world.exit(task.id, 0);
    world.until_state("a", "ended").await;
    settle().await;
    world.units.fail_next(3);
    world.control.delete(task_key("a")).await.unwrap();
    settle().await;
    assert!(world.get("a").unwrap().deleting_since.is_some());
    world
        .until("it is gone", |world| world.get("a").is_none())
        .await;
    assert_eq!(world.units.count(Order::Remove(task.id)), 4);
}

#[tokio::test(start_paused = true)]
async fn stopping_or_deleting_what_is_not_there_answers_so() {
    let world = world().await;
    let stopped = world.control.stop(task_key("a"), None).await;
    assert!(stopped.unwrap().is_none());
    let deleted = world.control.delete(task_key("a")).await;
    assert!(deleted.unwrap().is_none());
    assert_eq!(world.journal.asked(), 0);
}
