//! The runtime for commands, as a component: one process tree per attempt.
//!
//! It keeps nothing: an attempt is one unit called [`MAIN`], and its end is the
//! attempt's end. What to answer is decided in [`decide`]; this file only asks
//! the host.

mod decide;

wit_bindgen::generate!({ world: "runtime-plugin", path: "../../wit" });

use exports::taskwright::plugin::runtime::{
    Description, Event, Failure, Guest, Problem, Step, Task,
};
use taskwright::plugin::process;

/// The one unit of an attempt.
const MAIN: &str = "main";

struct ProcessRuntime;

impl Guest for ProcessRuntime {
    fn describe() -> Description {
        Description {
            name: "process".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: vec![decide::KIND.to_owned()],
            config_schema: String::new(),
        }
    }

    fn probe() -> Result<(), String> {
        Ok(())
    }

    fn validate(task: Task) -> Result<(), Vec<Problem>> {
        let problems = decide::problems(&task);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn start(task: Task) -> Result<Step, Failure> {
        let request = decide::spawn_request(task)?;
        decide::after_spawn(process::spawn(MAIN, &request))
    }

    fn on_event(_: Task, _: Vec<u8>, event: Event) -> Result<Step, Failure> {
        match event {
            Event::Exited(end) if end.unit == MAIN => Ok(decide::after_exit(end.end)),
            // A unit of another name was never started here.
            Event::Exited(_) | Event::Woke | Event::Recovered => Ok(decide::wait()),
            Event::StopRequested(request) => {
                decide::after_stop(process::stop(MAIN, request.grace_ms))
            }
        }
    }
}

export!(ProcessRuntime);
