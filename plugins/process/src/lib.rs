//! The runtime for commands, as a component: one process tree per attempt.
//!
//! It keeps nothing: an attempt is one unit called `main`, and its end is the
//! attempt's end. What to answer is decided in [`decide`]; this file only asks
//! the host.

mod decide;

use taskwright_plugin_sdk::command::{self, KIND, MAIN};
use taskwright_plugin_sdk::{
    Description, Event, Failure, Problem, Runtime, Step, Task, export, process,
};

struct ProcessRuntime;

impl Runtime for ProcessRuntime {
    fn describe() -> Description {
        Description {
            name: "process".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: vec![KIND.to_owned()],
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
        let request = command::spawn_request(task)?;
        command::after_spawn(process::spawn(MAIN, &request))
    }

    fn on_event(_: Task, _: Vec<u8>, event: Event) -> Result<Step, Failure> {
        command::hear(event)
    }
}

export!(ProcessRuntime);
