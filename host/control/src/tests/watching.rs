//! The numbered feed, waiters, and reports of units.

use taskwright_model::ExitStatus;

use super::support::*;
use crate::feed::MOST_IN_MEMORY;
use crate::port::{FeedEntry, UnitEnded, UnitReport};
use crate::request::ControlError;

fn words(lines: &[FeedEntry]) -> Vec<&'static str> {
    lines.iter().map(|line| line.happening.as_str()).collect()
}

fn numbers_have_no_gaps(lines: &[FeedEntry]) {
    for (expected, line) in (1..).zip(lines) {
        assert_eq!(line.sequence, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_feed_tells_a_life_in_order() {
    let world = world().await;
    let task = running(&world, "a", spec()).await;
    world.control.delete(task_key("a")).await.unwrap();
    world
        .until("it is gone", |world| world.get("a").is_none())
        .await;
    let lines = world.control.feed(0, Some(task.id), 100).await.unwrap();
    assert_eq!(
        words(&lines),
        [
            "submitted",
            "launched",
            "running",
            "deleting",
            "stopping",
            "ended",
            "removed"
        ]
    );
    numbers_have_no_gaps(&lines);
}

#[tokio::test(start_paused = true)]
async fn commits_that_failed_leave_no_gap() {
    let mut world = world().await;
    for round in 0..10 {
        world.journal.fail_next(round % 3);
        let _ = world.submit(&format!("t{round}"), spec()).await;
    }
    settle().await;
    world.restart(crate::Config::default()).await;
    world.submit("last", spec()).await.unwrap();
    settle().await;
    let lines = world.control.feed(0, None, 1000).await.unwrap();
    numbers_have_no_gaps(&lines);
    assert_eq!(lines, world.journal.feed());
    assert_eq!(
        lines.last().unwrap().sequence,
        *world.control.feed_position().borrow()
    );
}

#[tokio::test(start_paused = true)]
async fn a_reader_goes_on_from_the_last_number_it_saw() {
    let world = world().await;
    for name in ["a", "b", "c"] {
        running(&world, name, spec()).await;
    }
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let lines = world.control.feed(after, None, 2).await.unwrap();
        let Some(last) = lines.last() else { break };
        after = last.sequence;
        seen.extend(lines);
    }
    assert_eq!(seen, world.journal.feed());
    assert_eq!(world.history.reads(), 0, "new lines are in memory");
    let beyond = world.control.feed(u64::MAX, None, 2).await.unwrap();
    assert!(beyond.is_empty());
}

#[tokio::test(start_paused = true)]
async fn old_lines_come_from_the_store_and_memory_is_bounded() {
    let world = world_with(|config| config.max_active = 1).await;
    let most = MOST_IN_MEMORY + 10;
    let names: Vec<String> = (0..most).map(|number| format!("t{number}")).collect();
    for name in &names {
        world.submit(name, spec()).await.unwrap();
    }
    let newest = *world.control.feed_position().borrow();
    let oldest = newest - MOST_IN_MEMORY as u64;
    let lines = world.control.feed(oldest, None, 5).await.unwrap();
    assert_eq!((lines[0].sequence, world.history.reads()), (oldest + 1, 0));
    let lines = world.control.feed(oldest - 1, None, 5).await.unwrap();
    assert_eq!((lines[0].sequence, world.history.reads()), (oldest, 1));
}

#[tokio::test(start_paused = true)]
async fn waiters_are_bounded_and_those_who_gave_up_make_room() {
    let world = world_with(|config| config.max_waiters = 2).await;
    running(&world, "a", spec()).await;
    let key = task_key("a");
    let long = seconds(600);
    let (one, two, three) = (
        tokio::spawn({
            let (c, k) = (world.control.clone(), key.clone());
            async move { c.wait(&k, long).await }
        }),
        tokio::spawn({
            let (c, k) = (world.control.clone(), key.clone());
            async move { c.wait(&k, long).await }
        }),
        async {
            settle().await;
            world.control.wait(&key, long).await
        },
    );
    assert!(matches!(three.await, Err(ControlError::Busy)));
    one.abort();
    let _ = one.await;
    let task = world.get("a").unwrap();
    let fourth = world.control.wait(&key, long);
    let exit = async {
        settle().await;
        world.exit(task.id, 3);
    };
    let (answer, ()) = tokio::join!(fourth, exit);
    assert_eq!(ending(&answer.unwrap().unwrap()), "exit 3");
    assert_eq!(ending(&two.await.unwrap().unwrap().unwrap()), "exit 3");
}

#[tokio::test(start_paused = true)]
async fn an_end_reported_twice_is_told_once() {
    let world = world().await;
    script(&world, "a", on_start(OnStart::Block));
    let task = world.submit("a", spec()).await.unwrap();
    world.until_state("a", "starting").await;
    world.units.spawn(task.id, FIRST);
    world.units.end(task.id, FIRST, Some(ExitStatus::Code(3)));
    for _ in 0..200 {
        world.units.report(task.id, FIRST);
    }
    world.strategies.unblock(&task.key.name);
    let ended = world.until_state("a", "ended").await;
    assert_eq!(ending(&ended), "exit 3");
    assert_eq!(world.strategies.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_unit_nobody_waits_for_is_released() {
    let world = world().await;
    let task = running(&world, "a", spec()).await;
    world.exit(task.id, 0);
    world.until_state("a", "ended").await;
    settle().await;
    let stranger = taskwright_model::TaskId::from_u128(77);
    for (task, attempt) in [(task.id, FIRST), (stranger, FIRST), (task.id, SECOND)] {
        let before = world.units.count(Order::Release(task, attempt));
        world.control.report(UnitReport {
            task,
            attempt,
            unit: taskwright_model::UnitName::parse("other").unwrap(),
            ended: UnitEnded {
                status: None,
                out_of_memory: false,
            },
        });
        settle().await;
        assert_eq!(world.units.count(Order::Release(task, attempt)), before + 1);
    }
}
