//! The shipped process runtime, through the ports.

use std::sync::Arc;
use std::time::Duration;

use taskwright_capability::fake::Mood;
use taskwright_capability::{Lifetime, SpawnError, UnitEnd};
use taskwright_control::port::{
    Plugins, Step, Strategies, StrategyError, StrategyEvent, UnitEnded,
};
use taskwright_model::{ExitStatus, Outcome, RuntimeName, Task, Timestamp, UnitName, Work};

use crate::support::{Bench, command, given, mischief};

fn process_spec(task: &mut Task, change: impl FnOnce(&mut taskwright_model::ProcessSpec)) {
    let mut spec = (*task.spec).clone();
    if let Work::Process(process) = &mut spec.work {
        change(process);
    }
    task.spec = Arc::new(spec);
}

fn exited(status: Option<ExitStatus>, out_of_memory: bool) -> StrategyEvent {
    StrategyEvent::Exited {
        unit: UnitName::parse("main").unwrap(),
        end: UnitEnded {
            status,
            out_of_memory,
        },
    }
}

fn wait() -> Step {
    Step::Wait {
        running: true,
        state: Arc::from([]),
        wake_after: None,
    }
}

#[tokio::test]
async fn an_end_within_the_start_is_the_outcome_and_is_accounted_for() {
    let bench = Bench::with_process().await;
    let task = command(&["true"]);
    let first = bench.runtimes.start(given(task.clone())).await.unwrap();
    assert_eq!(first.ended, []);
    let unit = bench.processes.spawned().remove(0).unit;
    let end = UnitEnd {
        status: Some(ExitStatus::Code(4)),
        out_of_memory: false,
        at: Timestamp::from_millis(0),
    };
    bench.processes.end(&unit, end);
    let again = bench.runtimes.start(given(task)).await.unwrap();
    let exited = Outcome::Exited {
        code: 4,
        message: None,
    };
    assert_eq!(again.step, Step::Done(exited));
    let [(told, how)] = &again.ended[..] else {
        panic!("{} ends", again.ended.len());
    };
    assert_eq!((told, how.status), (&unit.unit, end.status));
}

#[tokio::test]
async fn start_spawns_what_the_task_says_with_what_the_host_adds() {
    let bench = Bench::with_process().await;
    let mut task = command(&["sh", "-c"]);
    process_spec(&mut task, |process| {
        process.args = vec!["exit 3".to_owned()];
        process.working_dir = Some("sub".to_owned());
    });
    let id = task.id;
    let stepped = bench.runtimes.start(given(task)).await.unwrap();

    assert_eq!(stepped.step, wait());
    assert_eq!(stepped.process.map(|process| process.pid), Some(1001));
    let spawned = bench.processes.spawned();
    let [request] = &spawned[..] else {
        panic!("{} spawns", spawned.len());
    };
    assert_eq!(request.argv, ["sh", "-c", "exit 3"]);
    assert_eq!(request.unit.to_string(), format!("{id}/1/main"));
    assert_eq!(request.directory.to_str(), Some("/tasks/build"));
    assert_eq!(
        request
            .working_dir
            .as_deref()
            .and_then(|path| path.to_str()),
        Some("/tasks/build/sub")
    );
    assert_eq!(request.lifetime, Lifetime::LeaveDescendants);
    let env: Vec<String> = request
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        env,
        [
            "PATH=/usr/bin:/bin".to_owned(),
            "LANG=C".to_owned(),
            format!("TASKWRIGHT_TASK_ID={id}"),
            "TASKWRIGHT_TASK_NAME=build".to_owned(),
            "TASKWRIGHT_NAMESPACE=default".to_owned(),
            "TASKWRIGHT_ATTEMPT=1".to_owned(),
            "TASKWRIGHT_DEADLINE=1700000060".to_owned(),
            "TASKWRIGHT_OUTPUT_DIR=/tasks/build".to_owned(),
            "COLOUR=blue".to_owned(),
        ]
    );
}

#[tokio::test]
async fn starting_an_attempt_twice_finds_the_first() {
    let bench = Bench::with_process().await;
    let task = given(command(&["true"]));
    let first = bench.runtimes.start(task.clone()).await.unwrap();
    let second = bench.runtimes.start(task).await.unwrap();
    assert_eq!(first, second);
}

#[tokio::test]
async fn what_cannot_be_started_ends_the_attempt_or_is_the_machines_failure() {
    let bench = Bench::with_process().await;
    let start = async |error: SpawnError| {
        bench.processes.set_mood(Mood::SpawnFails(error));
        match bench.runtimes.start(given(command(&["nope"]))).await {
            Ok(stepped) => match stepped.step {
                Step::Done(Outcome::Exited { code, message }) => {
                    format!("{code}: {}", message.unwrap_or_default())
                }
                step => format!("{step:?}"),
            },
            Err(StrategyError::Host { message }) => format!("host: {message}"),
            Err(error) => error.to_string(),
        }
    };
    let (program, detail) = ("nope".to_owned(), "PATH".to_owned());
    assert_eq!(
        start(SpawnError::NotFound {
            program: program.clone(),
            detail: detail.clone()
        })
        .await,
        "127: program \"nope\" was not found: PATH"
    );
    assert_eq!(
        start(SpawnError::NotExecutable { program, detail }).await,
        "126: program \"nope\" cannot be executed: PATH"
    );
    assert_eq!(
        start(SpawnError::NoRoom {
            detail: "EAGAIN".to_owned()
        })
        .await,
        "host: this machine has no room for another process: EAGAIN"
    );
}

#[tokio::test]
async fn an_exit_becomes_the_outcome() {
    let bench = Bench::with_process().await;
    let end = async |status, out_of_memory| {
        let task = given(command(&["true"]));
        let event = exited(status, out_of_memory);
        let stepped = bench.runtimes.on_event(task, Arc::from([]), event).await;
        stepped.unwrap().step
    };
    assert_eq!(
        end(Some(ExitStatus::Code(7)), false).await,
        Step::Done(Outcome::Exited {
            code: 7,
            message: None
        })
    );
    assert_eq!(
        end(Some(ExitStatus::Signal(11)), false).await,
        Step::Done(Outcome::Signaled { signal: 11 })
    );
    assert_eq!(
        end(Some(ExitStatus::Signal(9)), true).await,
        Step::Done(Outcome::OutOfMemory {
            exit: Some(ExitStatus::Signal(9))
        })
    );
    assert!(matches!(
        end(None, false).await,
        Step::Done(Outcome::Lost { .. })
    ));
}

#[tokio::test]
async fn a_stop_stops_the_unit_with_the_grace_and_waits() {
    let bench = Bench::with_process().await;
    let task = given(command(&["sleep", "9"]));
    bench.runtimes.start(task.clone()).await.unwrap();
    let grace = Duration::from_millis(1500);
    let event = StrategyEvent::StopRequested { grace };
    let stepped = bench.runtimes.on_event(task, Arc::from([]), event).await;
    assert_eq!(stepped.unwrap().step, wait());
    let stopped = bench.processes.stopped();
    assert_eq!(stopped.len(), 1);
    assert_eq!(stopped.first().map(|(_, grace)| *grace), Some(grace));
}

#[tokio::test]
async fn a_restart_and_a_wake_up_change_nothing() {
    let bench = Bench::with_process().await;
    for event in [StrategyEvent::Recovered, StrategyEvent::Woke] {
        let task = given(command(&["true"]));
        let stepped = bench.runtimes.on_event(task, Arc::from([]), event).await;
        assert_eq!(stepped.unwrap().step, wait());
    }
}

#[tokio::test]
async fn validation_points_into_the_submitted_document() {
    let bench = Bench::with_process().await;
    let good = bench.runtimes.validate(given(command(&["true"]))).await;
    assert_eq!(good, Ok(Vec::new()));
    let bad = bench.runtimes.validate(given(command(&[]))).await.unwrap();
    let fields: Vec<&str> = bad.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["/spec/process/command"]);
}

#[tokio::test]
async fn a_runtime_is_found_by_name_or_by_kind() {
    let bench = Bench::with_misbehaving(&[]).await;
    let resolve = |task: Task, wanted: Option<&str>| {
        let mut spec = (*task.spec).clone();
        spec.runtime = wanted.map(|name| RuntimeName::parse(name).unwrap());
        match bench.runtimes.resolve(&spec) {
            Ok(name) => name.to_string(),
            Err(problem) => format!("{}: {}", problem.field, problem.message),
        }
    };
    assert_eq!(resolve(command(&["true"]), None), "process");
    assert_eq!(resolve(command(&["true"]), Some("process")), "process");
    assert_eq!(resolve(mischief(), None), "misbehave");
    assert_eq!(
        resolve(command(&["true"]), Some("misbehave")),
        "/spec/runtime: the runtime misbehave takes misbehave, this is work of kind process"
    );
    assert_eq!(
        resolve(command(&["true"]), Some("podman")),
        "/spec/runtime: there is no runtime podman; there is misbehave (takes misbehave), process (takes process)"
    );
    let mut task = mischief();
    let mut spec = (*task.spec).clone();
    spec.work = Work::Document {
        kind: "container".to_owned(),
        json: "{}".to_owned(),
    };
    task.spec = Arc::new(spec);
    assert!(resolve(task, None).starts_with("/spec: no runtime takes work of kind \"container\""));
}

#[tokio::test]
async fn the_list_says_what_a_plugin_is_and_how_it_does() {
    let bench = Bench::with_misbehaving(&[("unwell", "no GPU here")]).await;
    let list = bench.runtimes.list().await;
    let [misbehave, process] = &list[..] else {
        panic!("{list:?}");
    };
    assert_eq!(process.name, "process");
    assert_eq!(process.source, "built-in");
    assert_eq!(process.kinds, ["process"]);
    assert_eq!(process.grants, ["process"]);
    assert_eq!(process.exports, ["taskwright:plugin/runtime@0.1.0"]);
    assert!(
        process
            .imports
            .contains(&"taskwright:plugin/process@0.1.0".to_owned())
    );
    assert_eq!(process.health, Ok(()));
    assert_eq!(process.digest.len(), 64);
    assert_eq!(misbehave.health, Err("no GPU here".to_owned()));
}
