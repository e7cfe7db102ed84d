//! What a restart makes of journal and units.

use std::sync::Arc;

use taskwright_model::{
    AttemptNumber, Event, ExitStatus, Outcome, ProcessIdentity, Remarks, RuntimeName, StopReason,
    Task, TaskId, TaskState, Timestamp, UnitName, state,
};

use super::support::*;
use crate::Config;
use crate::dispatcher::UnitAct;
use crate::port::{KnownUnit, StrategyEvent, UnitEnded};
use crate::recover::plan;

const ID: TaskId = TaskId::from_u128(7);

/// A task in this state, with a process if it runs or ran.
fn task_in(word: &str) -> Task {
    let runtime = RuntimeName::parse("process").unwrap();
    let now = Timestamp::from_millis(0);
    let mut task = Task::new(ID, task_key("a"), Arc::new(spec()), runtime, now);
    let started = |process| Event::Started {
        attempt: FIRST,
        process,
        strategy_state: [].into(),
        remarks: Remarks::default(),
    };
    let process = Some(ProcessIdentity {
        pid: 7,
        start_ticks: 7,
    });
    let exited = Event::AttemptEnded {
        attempt: FIRST,
        outcome: Outcome::Exited {
            code: 0,
            message: None,
        },
        remarks: Remarks::default(),
    };
    let stop = Event::StopRequested { grace: None };
    let events = match word {
        "pending" => vec![],
        "starting" => vec![Event::Launched],
        "starting, stopped" => vec![Event::Launched, stop],
        "running" => vec![Event::Launched, started(process)],
        "running without process" => vec![Event::Launched, started(None)],
        "stopping" => vec![Event::Launched, started(process), stop],
        "ended" => vec![Event::Launched, started(process), exited],
        "deleting, never started" => vec![Event::DeleteRequested],
        "deleting" => vec![
            Event::Launched,
            started(process),
            exited,
            Event::DeleteRequested,
        ],
        other => panic!("no such state: {other}"),
    };
    for event in events {
        task = state::apply(&task, &event, now).unwrap().0;
    }
    task
}

fn unit(task: TaskId, attempt: AttemptNumber) -> KnownUnit {
    KnownUnit {
        task,
        attempt,
        unit: UnitName::parse("main").unwrap(),
        process: None,
        ended: None,
    }
}

/// What is planned for a task in this state, in words.
fn planned(word: &str, known: bool, rebooted: bool) -> String {
    let known: Vec<_> = known.then(|| unit(ID, FIRST)).into_iter().collect();
    let plan = plan([Arc::new(task_in(word))].into_iter(), &known, rebooted);
    let mut words = Vec::new();
    words.extend(plan.launch.iter().map(|_| "launch".to_owned()));
    words.extend(plan.start.iter().map(|_| "start".to_owned()));
    words.extend(plan.adopt.iter().map(|(_, _, event)| match event {
        StrategyEvent::Recovered => "adopt".to_owned(),
        StrategyEvent::StopRequested { .. } => "stop".to_owned(),
        other => format!("{other:?}"),
    }));
    words.extend(plan.facts.iter().map(|(_, event)| match event {
        Event::AttemptEnded {
            outcome: Outcome::Lost { .. },
            ..
        } => "lost".to_owned(),
        other => format!("{other:?}"),
    }));
    words.extend(plan.remove.iter().map(|_| "remove".to_owned()));
    words.extend(plan.units.iter().map(|(_, _, act)| match act {
        UnitAct::Terminate => "kill".to_owned(),
        UnitAct::Release => "release".to_owned(),
    }));
    words.join(", ")
}

#[test]
fn the_plan_for_every_state() {
    // State; unit known, not known; the same after a reboot.
    let table = [
        // The unit known here still runs, so nothing of it may stay where no attempt is under way.
        ("pending", ["kill, release", "", "kill, release", ""]),
        (
            "deleting, never started",
            [
                "remove, kill, release",
                "remove",
                "remove, kill, release",
                "remove",
            ],
        ),
        ("starting", ["start", "launch", "start", "lost"]),
        ("running", ["adopt", "lost", "adopt", "lost"]),
        (
            "running without process",
            ["adopt", "adopt", "adopt", "adopt"],
        ),
        ("stopping", ["stop", "lost", "stop", "lost"]),
        ("ended", ["kill, release", "", "kill, release", ""]),
        (
            "deleting",
            [
                "remove, kill, release",
                "remove",
                "remove, kill, release",
                "remove",
            ],
        ),
    ];
    for (word, expected) in table {
        let cases = [(true, false), (false, false), (true, true), (false, true)];
        for ((known, rebooted), expected) in cases.into_iter().zip(expected) {
            let found = planned(word, known, rebooted);
            assert_eq!(
                found, expected,
                "{word}, known {known}, rebooted {rebooted}"
            );
        }
    }
}

/// The acts planned for the units of one task, when these units are known.
fn acts(known: &[KnownUnit], word: &str, of: TaskId) -> Vec<(AttemptNumber, UnitAct)> {
    let plan = plan([Arc::new(task_in(word))].into_iter(), known, false);
    let acts = plan.units.into_iter().filter(|one| one.0 == of);
    acts.map(|(_, attempt, act)| (attempt, act)).collect()
}

#[test]
fn units_of_unknown_tasks_and_of_other_attempts_are_killed() {
    let stranger = TaskId::from_u128(99);
    let known = [unit(stranger, FIRST), unit(ID, SECOND), unit(ID, FIRST)];
    let killed = |attempt| [(attempt, UnitAct::Terminate), (attempt, UnitAct::Release)];
    assert_eq!(acts(&known, "running", stranger), killed(FIRST));
    assert_eq!(acts(&known, "running", ID), killed(SECOND));
}

#[test]
fn what_a_normal_end_left_behind_stays() {
    let mut over = unit(ID, FIRST);
    over.ended = Some(UnitEnded {
        status: Some(ExitStatus::Code(0)),
        out_of_memory: false,
    });
    assert_eq!(acts(&[over], "ended", ID), [(FIRST, UnitAct::Release)]);
}

#[tokio::test(start_paused = true)]
async fn a_running_task_goes_on_and_its_end_is_told() {
    let mut world = world().await;
    let task = running(&world, "a", spec()).await;
    world.restart(Config::default()).await;
    settle().await;
    assert_eq!(world.get("a").unwrap().state.as_str(), "running");
    world.exit(task.id, 7);
    assert_eq!(end_of(&world, "a").await, "exit 7");
    assert_eq!(world.strategies.starts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_during_the_absence_is_told_truly() {
    let mut world = world().await;
    let task = running(&world, "a", spec()).await;
    world.kill().await;
    world.units.end(task.id, FIRST, Some(ExitStatus::Code(9)));
    world.restart(Config::default()).await;
    assert_eq!(end_of(&world, "a").await, "exit 9");
}

#[tokio::test(start_paused = true)]
async fn an_end_before_the_limit_is_not_called_a_timeout_because_nobody_was_there() {
    let mut world = world().await;
    let mut limited = spec();
    limited.limits.run = Some(seconds(30));
    let task = running(&world, "a", limited).await;
    world.kill().await;
    world.units.end(task.id, FIRST, Some(ExitStatus::Code(9)));
    tokio::time::sleep(seconds(300)).await;
    world.restart(Config::default()).await;
    assert_eq!(end_of(&world, "a").await, "exit 9");
}

#[tokio::test(start_paused = true)]
async fn a_stop_overdue_in_the_absence_still_keeps_the_exit() {
    let mut world = world().await;
    script(&world, "a", on_stop(OnStop::EndsAfterGrace));
    running(&world, "a", spec()).await;
    world.control.stop(task_key("a"), None).await.unwrap();
    settle().await;
    world.kill().await;
    tokio::time::sleep(seconds(300)).await;
    world.restart(Config::default()).await;
    assert_eq!(end_of(&world, "a").await, "canceled 137");
}

#[tokio::test(start_paused = true)]
async fn a_start_cut_short_is_repeated_and_finds_the_first() {
    let mut world = world().await;
    script(&world, "a", on_start(OnStart::Block));
    let task = world.submit("a", spec()).await.unwrap();
    world.until_state("a", "starting").await;
    let first = world.units.spawn(task.id, FIRST);
    script(&world, "a", Script::default());
    world.restart(Config::default()).await;
    let found = world.until_state("a", "running").await;
    assert_eq!(found.attempts[0].process, Some(first));
    assert_eq!(world.units.alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removal_cut_short_is_finished() {
    let mut world = world().await;
    let task = running(&world, "a", spec()).await;
    world.exit(task.id, 0);
    world.until_state("a", "ended").await;
    settle().await;
    world.units.fail_next(1);
    world.control.delete(task_key("a")).await.unwrap();
    world.restart(Config::default()).await;
    world
        .until("it is gone", |world| world.get("a").is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_reboot_loses_what_ran_and_says_so() {
    let mut world = world().await;
    running(&world, "a", spec()).await;
    world.kill().await;
    let config = Config {
        rebooted: true,
        ..Config::default()
    };
    // A reboot leaves no units.
    let after = FakeWorld::start_from(world.journal.clone(), Arc::default(), config).await;
    assert_eq!(end_of(&after, "a").await, "lost");
    assert!(after.strategies.starts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lower_limit_after_a_restart_lets_what_runs_finish() {
    let mut world = world().await;
    let names = ["a", "b", "c"];
    for name in names {
        running(&world, name, spec()).await;
    }
    let config = Config {
        max_active: 1,
        ..Config::default()
    };
    world.restart(config).await;
    world.submit("d", spec()).await.unwrap();
    for name in names {
        settle().await;
        assert_eq!(world.get("d").unwrap().state.as_str(), "pending");
        world.exit(world.get(name).unwrap().id, 0);
        world.until_state(name, "ended").await;
    }
    world.until_state("d", "running").await;
}

#[test]
fn a_stop_before_the_start_was_on_record() {
    assert!(matches!(
        task_in("starting, stopped").state,
        TaskState::Stopping {
            reason: StopReason::Canceled,
            ..
        }
    ));
    // Known: the start is repeated, which finds the first and its state; the stop follows.
    assert_eq!(planned("starting, stopped", true, false), "start");
    // Not known: if there is something that is no unit, only the strategy can find it.
    assert_eq!(planned("starting, stopped", false, false), "stop");
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_a_start_survives_a_restart_with_its_grace_and_exit() {
    let mut world = world().await;
    script(&world, "a", on_start(OnStart::Block));
    let task = world.submit("a", spec()).await.unwrap();
    world.until_state("a", "starting").await;
    world.units.spawn(task.id, FIRST);
    world.control.stop(task_key("a"), None).await.unwrap();
    script(&world, "a", Script::default());
    world.restart(Config::default()).await;
    assert_eq!(end_of(&world, "a").await, "canceled 143");
}
