//! A store that fails, is slow, and comes back.

use super::support::*;
use crate::request::{ControlError, SubmitError};

fn is_full(error: &ControlError) -> bool {
    matches!(
        error,
        ControlError::Store {
            disk_full: true,
            ..
        }
    )
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_changes_and_publishes_nothing() {
    let world = world().await;
    world.journal.fill_disk();
    let refused = world.submit("a", spec()).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Control(error) if is_full(&error)));
    assert!(world.get("a").is_none());
    assert!(world.strategies.starts().is_empty());
    assert_eq!(*world.control.feed_position().borrow(), 0);
    assert!(world.control.health().store.is_some());
    world.journal.mend();
    running(&world, "a", spec()).await;
    assert!(world.control.health().store.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_end_that_could_not_be_kept_is_kept_later() {
    let world = world().await;
    let task = running(&world, "a", spec()).await;
    world.journal.fill_disk();
    world.exit(task.id, 7);
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(world.get("a").unwrap().state.as_str(), "running");
    assert!(
        world.units.orders().is_empty(),
        "released before it was durable"
    );
    world.journal.mend();
    let ended = world.until_state("a", "ended").await;
    assert_eq!(ending(&ended), "exit 7");
    settle().await;
    assert_eq!(world.units.orders(), [Order::Release(task.id, FIRST)]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_asked_a_few_times_a_second_and_no_more() {
    let world = world().await;
    let task = running(&world, "a", spec()).await;
    world.journal.fill_disk();
    let before = world.journal.asked();
    world.exit(task.id, 7);
    tokio::time::sleep(seconds(60)).await;
    let asked = world.journal.asked() - before;
    assert!(
        (60..=300).contains(&asked),
        "asked {asked} times in a minute"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_loop_asks_the_store_nothing() {
    let world = world().await;
    running(&world, "a", spec()).await;
    let before = world.journal.asked();
    tokio::time::sleep(seconds(3600)).await;
    assert_eq!(world.journal.asked(), before);
}

#[tokio::test(start_paused = true)]
async fn stops_and_deletes_are_refused_and_undone() {
    let world = world().await;
    running(&world, "a", spec()).await;
    world.journal.fail_next(1);
    assert!(world.control.stop(task_key("a"), None).await.is_err());
    world.journal.fail_next(1);
    assert!(world.control.delete(task_key("a")).await.is_err());
    settle().await;
    let task = world.get("a").unwrap();
    assert_eq!(task.state.as_str(), "running");
    assert!(task.deleting_since.is_none());
    assert_eq!(world.strategies.stops(task.id), 0);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_could_not_be_kept_is_made_later_and_once() {
    let world = world_with(|config| config.max_active = 1).await;
    let first = running(&world, "a", spec()).await;
    let second = world.submit("b", spec()).await.unwrap();
    world.journal.fail_next(5);
    world.exit(first.id, 0);
    world.until_state("b", "running").await;
    assert_eq!(
        world.strategies.starts(),
        [(first.id, FIRST), (second.id, FIRST)]
    );
}

#[tokio::test(start_paused = true)]
async fn requests_that_arrive_during_a_commit_share_the_next_one() {
    let world = world_with(|config| config.max_active = 1).await;
    running(&world, "busy", spec()).await;
    world.journal.set_delay(seconds(1));
    let before = world.journal.commits();
    let names: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
    let submits = names.iter().map(|name| world.submit(name, spec()));
    for answer in futures::future::join_all(submits).await {
        answer.unwrap();
    }
    assert!(world.journal.commits() - before <= 2);
}

#[tokio::test(start_paused = true)]
async fn two_submissions_of_one_name_in_a_turn_that_fails_both_hear_of_the_store() {
    let world = world().await;
    world.journal.fail_next(1);
    let (a, b) = tokio::join!(world.submit("a", spec()), world.submit("a", spec()));
    for answer in [a, b] {
        assert!(matches!(
            answer,
            Err(SubmitError::Control(ControlError::Store { .. }))
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_could_not_be_kept_is_kept_later() {
    let world = world().await;
    let task = running(&world, "a", spec()).await;
    world.exit(task.id, 0);
    world.until_state("a", "ended").await;
    world.control.delete(task_key("a")).await.unwrap();
    world.journal.fail_next(3);
    world
        .until("it is gone", |world| world.get("a").is_none())
        .await;
    assert!(world.journal.tasks().is_empty());
    assert_eq!(world.units.count(Order::Remove(task.id)), 1);
}
