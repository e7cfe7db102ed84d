//! Requests, reports, failures and restarts in any order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use taskwright_model::{ExitStatus, Task, TaskId};

use super::support::*;
use crate::Config;
use crate::port::StrategyError;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const MOST_ACTIVE: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Submit(usize, Kind),
    Exit(usize, u8),
    ReportAgain,
    Stop(usize, Option<u64>),
    Delete(usize),
    FailStore(usize),
    FailUnits(usize),
    SlowStore(u64),
    Unblock(usize),
    Pass(u64),
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Blocks,
    IgnoresStop,
    SlowStop,
    Retried,
    Traps,
    Limited,
    Quick,
    QuickUnseen,
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![
        Kind::Plain,
        Kind::Blocks,
        Kind::IgnoresStop,
        Kind::SlowStop,
        Kind::Retried,
        Kind::Traps,
        Kind::Limited,
        Kind::Quick,
        Kind::QuickUnseen,
    ])
}

fn steps(with_restarts: bool) -> impl Strategy<Value = Vec<Step>> {
    let name = || 0..NAMES.len();
    let step = prop_oneof![
        8 => (name(), kinds()).prop_map(|(name, kind)| Step::Submit(name, kind)),
        6 => (name(), 0..3_u8).prop_map(|(name, code)| Step::Exit(name, code)),
        1 => Just(Step::ReportAgain),
        2 => (name(), prop::option::of(0..12_u64)).prop_map(|(name, grace)| Step::Stop(name, grace)),
        2 => name().prop_map(Step::Delete),
        2 => (1..4_usize).prop_map(Step::FailStore),
        1 => (1..4_usize).prop_map(Step::FailUnits),
        1 => (0..50_u64).prop_map(Step::SlowStore),
        2 => name().prop_map(Step::Unblock),
        6 => prop_oneof![0..50_u64, 0..20_000_u64].prop_map(Step::Pass),
        2 => Just(if with_restarts { Step::Restart } else { Step::ReportAgain }),
    ];
    prop::collection::vec(step, 1..60)
}

/// The task of a name that follows this kind, with what its strategy does.
fn prepare(world: &FakeWorld, name: &str, kind: Kind) -> taskwright_model::TaskSpec {
    let (mut wanted, mut acts) = (spec(), Script::default());
    match kind {
        Kind::Plain => {}
        Kind::Blocks => acts.start = OnStart::Block,
        Kind::IgnoresStop => acts.stop = OnStop::Ignores,
        Kind::Quick => acts.start = OnStart::RunToEnd(0),
        Kind::QuickUnseen => acts.start = OnStart::RunPastEnd(1),
        Kind::SlowStop => acts.stop = OnStop::EndsAfterGrace,
        Kind::Retried => wanted = retried(3, Duration::from_millis(500)),
        Kind::Traps => {
            acts.start = OnStart::RunAndFail(StrategyError::Plugin {
                runtime: "process".into(),
                message: "unreachable".into(),
            });
        }
        Kind::Limited => {
            wanted.limits.queue = Some(seconds(30));
            wanted.limits.run = Some(seconds(5));
            wanted.limits.idle = Some(seconds(4));
        }
    }
    script(world, name, acts);
    wanted
}

async fn carry_out(world: &mut FakeWorld, step: Step, acknowledged: &mut Vec<TaskId>) {
    match step {
        Step::Submit(name, kind) => {
            let name = NAMES[name];
            if world.get(name).is_none() {
                let wanted = prepare(world, name, kind);
                let accepted = world.submit(name, wanted).await;
                acknowledged.extend(accepted.ok().map(|task| task.id));
            }
        }
        Step::Exit(name, code) => {
            if let Some(task) = world.get(NAMES[name]) {
                world.exit(task.id, code);
            }
        }
        Step::ReportAgain => world.units.report_all(),
        // Refusals of a failing store are part of the game.
        Step::Stop(name, grace) => {
            let grace = grace.map(seconds);
            let _ = world.control.stop(task_key(NAMES[name]), grace).await;
        }
        Step::Delete(name) => {
            let _ = world.control.delete(task_key(NAMES[name])).await;
        }
        Step::FailStore(commits) => world.journal.fail_next(commits),
        Step::FailUnits(orders) => world.units.fail_next(orders),
        Step::SlowStore(millis) => world.journal.set_delay(Duration::from_millis(millis)),
        Step::Unblock(name) => world.strategies.unblock(&task_key(NAMES[name]).name),
        Step::Pass(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
        Step::Restart => world.restart(config()).await,
    }
}

fn config() -> Config {
    Config {
        max_active: MOST_ACTIVE,
        ..Config::default()
    }
}

/// Everything comes to its end: the store works, blocked starts return, units exit.
async fn finish(world: &FakeWorld) {
    world.journal.mend();
    world.journal.set_delay(Duration::ZERO);
    world.units.fail_next(0);
    for name in NAMES {
        world.strategies.unblock(&task_key(name).name);
    }
    world
        .until("everything has ended or is gone", |world| {
            let native = taskwright_model::Namespace::native();
            let tasks = world.control.all(&native);
            for task in &tasks {
                if let Some(attempt) = task.attempt() {
                    let code = Some(ExitStatus::Code(0));
                    world.units.end(task.id, attempt.number, code);
                }
            }
            tasks
                .iter()
                .all(|task| task.state.is_ended() && task.deleting_since.is_none())
        })
        .await;
    // Orders that failed are tried again for half a minute at most.
    tokio::time::sleep(seconds(120)).await;
}

fn check_journal(world: &FakeWorld) {
    let mut tasks: HashMap<TaskId, Arc<Task>> = HashMap::new();
    for batch in world.journal.batches() {
        let distinct: HashSet<_> = batch.put.iter().map(|task| task.id).collect();
        assert_eq!(
            distinct.len(),
            batch.put.len(),
            "a task stands twice in a batch"
        );
        for task in &batch.put {
            if let Some(before) = tasks.insert(task.id, task.clone())
                && before.state.is_ended()
            {
                assert_eq!(before.state, task.state, "an ended task left its end");
            }
        }
        for id in &batch.remove {
            assert!(tasks.remove(id).is_some(), "removed what was not there");
        }
        let active = tasks.values().filter(|task| task.state.is_active()).count();
        assert!(active <= MOST_ACTIVE, "{active} were active at once");
    }
    for (expected, line) in (1..).zip(world.journal.feed()) {
        assert_eq!(line.sequence, expected, "the feed has a gap");
    }
    for task in world.journal.tasks() {
        let published = world.control.get(&task.key);
        assert_eq!(
            published.as_ref(),
            Some(&task),
            "the view differs from the journal"
        );
    }
    let total: usize = world.control.counts().iter().map(|(_, count)| count).sum();
    assert_eq!(total, world.journal.tasks().len());
}

fn check_end(world: &FakeWorld, acknowledged: &[TaskId], starts_repeat: bool) {
    check_journal(world);
    let feed = world.journal.feed();
    for id in acknowledged {
        let ends = feed
            .iter()
            .filter(|line| line.task == *id && line.happening.as_str() == "ended");
        assert_eq!(ends.count(), 1, "an acknowledged task ends exactly once");
    }
    let mut starts = BTreeMap::new();
    for start in world.strategies.starts() {
        *starts.entry(start).or_insert(0) += 1;
    }
    for (start, count) in starts {
        assert!(
            count == 1 || starts_repeat,
            "{start:?} was started {count} times"
        );
    }
    assert_eq!(
        world.strategies.overlaps(),
        0,
        "two calls for one attempt at once"
    );
    assert_eq!(world.units.alive(), 0, "a unit was left behind");
    assert!(world.is_running());
}

fn play(steps: Vec<Step>, starts_repeat: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = FakeWorld::start(config()).await;
        let mut acknowledged = Vec::new();
        for step in steps {
            carry_out(&mut world, step, &mut acknowledged).await;
        }
        finish(&world).await;
        check_end(&world, &acknowledged, starts_repeat);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_acknowledged_task_ends_and_nothing_starts_twice(steps in steps(false)) {
        play(steps, false);
    }

    #[test]
    fn restarts_at_any_moment_lose_nothing(steps in steps(true)) {
        play(steps, true);
    }
}
