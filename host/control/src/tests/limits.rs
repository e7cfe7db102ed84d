//! The four time limits, the grace, and what happens when a stop is ignored.

use taskwright_model::{Limit, Outcome, Task, TimeLimits};

use super::support::*;
use crate::port::Clock;

fn limited(change: impl FnOnce(&mut TimeLimits)) -> taskwright_model::TaskSpec {
    let mut spec = spec();
    change(&mut spec.limits);
    spec
}

fn fired(task: &Task) -> Limit {
    match task.outcome().unwrap() {
        Outcome::TimedOut { limit, .. } => *limit,
        other => panic!("no limit fired: {other:?}"),
    }
}

/// Checks that it ended this many seconds after `from`, to a quarter of a second.
fn ended_after(task: &Task, from: taskwright_model::Timestamp, expected: u64) {
    let taskwright_model::TaskState::Ended { at, .. } = task.state else {
        panic!("it has not ended");
    };
    let took = at.since(from);
    let late = took.saturating_sub(seconds(expected));
    assert!(
        took >= seconds(expected) && late.as_millis() < 250,
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_queue_limit_ends_what_never_started() {
    let world = world_with(|config| config.max_active = 1).await;
    running(&world, "a", spec()).await;
    let limits = limited(|limits| limits.queue = Some(seconds(30)));
    let task = world.submit("b", limits).await.unwrap();
    let ended = world.until_state("b", "ended").await;
    assert_eq!(fired(&ended), Limit::Queue);
    ended_after(&ended, task.submitted_at, 30);
}

#[tokio::test(start_paused = true)]
async fn the_start_limit_stops_a_start_that_hangs_and_the_host_ends_it() {
    let world = world().await;
    script(&world, "a", on_start(OnStart::Block));
    let limits = limited(|limits| limits.start = Some(seconds(30)));
    let task = world.submit("a", limits).await.unwrap();
    let ended = world.until_state("a", "ended").await;
    assert_eq!(fired(&ended), Limit::Start);
    // The limit, the grace of ten seconds, and the host's patience.
    ended_after(&ended, task.submitted_at, 45);
    settle().await;
    assert_eq!(world.units.count(Order::Terminate(task.id, FIRST)), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_hung_start_begins_after_its_end_is_killed() {
    let world = world().await;
    script(&world, "a", on_start(OnStart::Block));
    let limits = limited(|limits| limits.start = Some(seconds(30)));
    let task = world.submit("a", limits).await.unwrap();
    world.until_state("a", "ended").await;
    world.strategies.unblock(&task.key.name);
    settle().await;
    assert_eq!(world.units.alive(), 0);
    assert_eq!(world.units.count(Order::Terminate(task.id, FIRST)), 2);
}

#[tokio::test(start_paused = true)]
async fn the_run_limit_names_itself_and_keeps_the_exit() {
    let world = world().await;
    let limits = limited(|limits| limits.run = Some(seconds(30)));
    let task = running(&world, "a", limits).await;
    let ended = world.until_state("a", "ended").await;
    assert_eq!(fired(&ended), Limit::Run);
    assert_eq!(ending(&ended), "timeout 143");
    ended_after(&ended, task.attempts[0].started_at.unwrap(), 30);
}

#[tokio::test(start_paused = true)]
async fn the_idle_limit_counts_from_the_last_output() {
    let world = world().await;
    let limits = limited(|limits| limits.idle = Some(seconds(30)));
    let task = running(&world, "a", limits).await;
    tokio::time::sleep(seconds(20)).await;
    let printed = world.clock.now();
    world.units.set_last_output(task.id, printed);
    let ended = world.until_state("a", "ended").await;
    assert_eq!(fired(&ended), Limit::Idle);
    ended_after(&ended, printed, 30);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ignores_term_has_its_grace() {
    let world = world().await;
    script(&world, "a", on_stop(OnStop::EndsAfterGrace));
    running(&world, "a", limited(|limits| limits.grace = seconds(3))).await;
    let asked = world.clock.now();
    world.control.stop(task_key("a"), None).await.unwrap();
    let ended = world.until_state("a", "ended").await;
    assert_eq!(ending(&ended), "canceled 137");
    ended_after(&ended, asked, 3);
}

#[tokio::test(start_paused = true)]
async fn a_strategy_that_ignores_the_stop_is_overruled() {
    let world = world().await;
    script(&world, "a", on_stop(OnStop::Ignores));
    let task = running(&world, "a", limited(|limits| limits.grace = seconds(3))).await;
    let asked = world.clock.now();
    world.control.stop(task_key("a"), None).await.unwrap();
    let ended = world.until_state("a", "ended").await;
    ended_after(&ended, asked, 8);
    settle().await;
    assert_eq!(world.units.alive(), 0);
    // Never the other way round: what is released is forgotten, dead or alive.
    let orders = world.units.orders();
    assert_eq!(orders[0], Order::Terminate(task.id, FIRST));
    assert_eq!(orders[1], Order::Release(task.id, FIRST));
}

#[tokio::test(start_paused = true)]
async fn more_timers_than_one_turn_takes_all_fire() {
    let world = world_with(|config| config.max_active = 1).await;
    running(&world, "a", spec()).await;
    let limits = limited(|limits| limits.queue = Some(seconds(30)));
    let names: Vec<String> = (0..3000).map(|number| format!("t{number}")).collect();
    for name in &names {
        world.submit(name, limits.clone()).await.unwrap();
    }
    world
        .until("all have ended", |world| {
            world.control.counts().contains(&("ended", names.len()))
        })
        .await;
}
