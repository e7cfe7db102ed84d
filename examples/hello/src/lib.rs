//! The runtime `hello`: it runs a task's command as one process tree.
//!
//! This file asks the host. What to answer is decided in `decide.rs`, whose tests run natively.

mod decide;

/// `wit/` as Rust.
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "runtime-plugin" });
}

use bindings::exports::taskwright::plugin::runtime::{Description, Event, Guest};
use bindings::taskwright::plugin::types::{Failure, Outcome, Problem, Step, Task};
use bindings::taskwright::plugin::{process, settings, units};

/// Our word for the one unit of an attempt.
const MAIN: &str = "main";

struct Plugin;

impl Guest for Plugin {
    fn describe() -> Description {
        Description {
            name: "hello".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: vec!["process".to_owned()],
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
        let request = decide::request(task, settings::get("greeting"))?;
        decide::after_spawn(process::spawn(MAIN, &request))
    }

    fn on_event(_: Task, _: Vec<u8>, event: Event) -> Result<Step, Failure> {
        match event {
            Event::Exited(exit) => Ok(Step::Done(Outcome::from(exit.end))),
            Event::StopRequested(stop) => decide::after_stop(units::stop(MAIN, stop.grace_ms)),
            Event::Woke | Event::Recovered => Ok(decide::running()),
        }
    }
}

bindings::export!(Plugin with_types_in bindings);
