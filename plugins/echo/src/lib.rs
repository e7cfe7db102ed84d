//! The machine `echo`, as a component: a script that says, logs, sleeps and ends as it is told.
//!
//! The script becomes the arguments of one fixed shell program, so an attempt is one process tree
//! like any other. What to answer is decided in [`decide`], what a script may say in [`script`];
//! this file only asks the host.

mod decide;
mod script;

use taskwright_plugin_sdk::command::MAIN;
use taskwright_plugin_sdk::{
    Description, Event, Failure, Problem, Runtime, Step, Task, export, process,
};

struct Echo;

impl Runtime for Echo {
    fn describe() -> Description {
        Description {
            name: "echo".to_owned(),
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
        let request = decide::spawn_request(&task)?;
        decide::after_spawn(&task, process::spawn(MAIN, &request))
    }

    fn on_event(task: Task, _: Vec<u8>, event: Event) -> Result<Step, Failure> {
        decide::hear(&task, event)
    }
}

export!(Echo);
