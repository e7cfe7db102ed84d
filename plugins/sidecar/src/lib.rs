//! The runtime for commands inside a main container's namespaces, as a component.
//!
//! An attempt is one unit called `main`, started inside the namespaces of a process that is
//! looked for first. What to answer is decided in [`decide`] and [`config`]; this file only asks
//! the host.

mod config;
mod decide;

use taskwright_plugin_sdk::command::{self, KIND, MAIN};
use taskwright_plugin_sdk::namespace::Entry;
use taskwright_plugin_sdk::{
    Description, End, Event, Failure, Problem, Runtime, Step, Task, export, log, namespace, status,
    units,
};

use crate::config::Wanted;
use crate::decide::{Memory, Seen};

struct SidecarRuntime;

impl Runtime for SidecarRuntime {
    fn describe() -> Description {
        Description {
            name: "sidecar".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: vec![KIND.to_owned()],
            config_schema: config::SCHEMA.to_owned(),
        }
    }

    fn probe() -> Result<(), String> {
        // A main container may come later: that it is not there yet is no fault of this runtime.
        Ok(())
    }

    fn validate(task: Task) -> Result<(), Vec<Problem>> {
        let mut problems = command::problems(&task);
        match Wanted::read(&task.config) {
            Ok(wanted) => problems.extend(not_allowed(&wanted)),
            Err(found) => problems.extend(found),
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn start(task: Task) -> Result<Step, Failure> {
        begin(task, Memory::default())
    }

    fn on_event(task: Task, state: Vec<u8>, event: Event) -> Result<Step, Failure> {
        let memory = Memory::read(&state);
        match (event, memory.target) {
            (Event::Exited(exit), _) if exit.unit == MAIN => ended(memory, exit.end),
            // Nothing was started yet: its main container is still looked for.
            (Event::StopRequested(_), None) if memory.is_looking() => Ok(decide::stopped_early()),
            (Event::Woke, None) if memory.is_looking() => begin(task, memory),
            (Event::StopRequested(request), _) => {
                let answer = units::stop(MAIN, request.grace_ms);
                command::after_stop(answer).map(|_| decide::go_on(&memory))
            }
            (Event::Exited(_) | Event::Woke | Event::Recovered, _) => Ok(decide::go_on(&memory)),
        }
    }
}

/// What the operator does not allow. Told before anything is stored; the host sees to it once more
/// when the time comes.
fn not_allowed(wanted: &Wanted) -> Vec<Problem> {
    let nothing = Entry {
        user_namespace: false,
        cgroup_namespace: false,
        identity: false,
        cgroup: false,
    };
    let Entry {
        user_namespace,
        cgroup_namespace,
        ..
    } = wanted.entry();
    [
        (
            "/config/userNamespace",
            Entry {
                user_namespace,
                ..nothing
            },
        ),
        (
            "/config/cgroupNamespace",
            Entry {
                cgroup_namespace,
                ..nothing
            },
        ),
    ]
    .into_iter()
    .filter_map(|(field, entry)| match namespace::may_enter(entry) {
        Err(namespace::Error::Denied(sentence)) => Some(command::problem(field, &sentence)),
        _ => None,
    })
    .collect()
}

/// Looks for the target, and starts the command in there if it is found.
fn begin(task: Task, memory: Memory) -> Result<Step, Failure> {
    let wanted = Wanted::read(&task.config).map_err(|_| {
        Failure::Bug("a task was accepted whose config this runtime refuses".to_owned())
    })?;
    let found = namespace::find(&wanted.selector()).map_err(not_looked)?;
    let Some(target) = found else {
        return Ok(keep_looking(&wanted, memory));
    };
    if target.candidates > 1 {
        log::write(log::Level::Info, &decide::choice(&wanted, &target));
    }
    let request = command::spawn_request(task)?;
    match decide::after_spawn(
        namespace::spawn(MAIN, target, wanted.entry(), &request),
        target,
    ) {
        Seen::Over(end) => ended(Memory::inside(target), end),
        // It went away between the look and the entry; the next one may be there in a moment.
        Seen::TargetGone => Ok(keep_looking(&wanted, memory)),
        Seen::Step(step) => step,
    }
}

fn keep_looking(wanted: &Wanted, memory: Memory) -> Step {
    status::note(&decide::waits_for(wanted));
    decide::look_again(wanted, memory)
}

/// The command ended: whether its main container had a part in that is told with it.
fn ended(memory: Memory, end: End) -> Result<Step, Failure> {
    let alive = match memory.target {
        Some(target) => Some(namespace::is_alive(target.into()).map_err(not_looked)?),
        None => None,
    };
    Ok(decide::after_exit(&memory, end, alive))
}

fn not_looked(error: namespace::Error) -> Failure {
    match error {
        namespace::Error::Denied(sentence) | namespace::Error::Unavailable(sentence) => {
            Failure::Infrastructure(sentence)
        }
        namespace::Error::Other(sentence) => Failure::Other(sentence),
    }
}

export!(SidecarRuntime);
