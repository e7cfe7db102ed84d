//! The engine of script runtimes, as a component: a text of the operator's says what a task
//! starts.
//!
//! The host hands the text over as the setting `script` and its file's name as `script-file`.
//! Every call reads it anew in a fresh instance; nothing of it is asked once a task runs. What a
//! script may say is in [`script`], what it is told and answers in [`value`]; this file only
//! asks the host.

mod script;
mod value;

use taskwright_plugin_sdk::command::{self, MAIN};
use taskwright_plugin_sdk::{
    Description, Event, Failure, Problem, Runtime, Step, Task, export, log, process, settings,
};

use self::script::{Fault, Script, Surroundings};

/// The setting that holds the text.
const TEXT: &str = "script";
/// The setting that holds the name of its file.
const FILE: &str = "script-file";

struct ScriptRuntime;

impl Runtime for ScriptRuntime {
    fn describe() -> Description {
        let described = read(Prints::Logged).and_then(|script| script.describe());
        described.unwrap_or_else(|fault| give_up(&fault))
    }

    fn probe() -> Result<(), String> {
        Ok(())
    }

    fn validate(task: Task) -> Result<(), Vec<Problem>> {
        // Its start is only tried here, so it prints when it is meant.
        let problems = match read(Prints::Dropped).and_then(|script| script.problems(&task)) {
            Ok(problems) => problems,
            Err(fault) => give_up(&fault),
        };
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn start(task: Task) -> Result<Step, Failure> {
        let request = read(Prints::Logged)
            .and_then(|script| script.request(&task))
            .map_err(|fault| Failure::Bug(fault.to_string()))?;
        command::after_spawn(process::spawn(MAIN, &request))
    }

    fn on_event(_: Task, _: Vec<u8>, event: Event) -> Result<Step, Failure> {
        command::hear(event)
    }
}

export!(ScriptRuntime);

/// What becomes of what a script prints.
#[derive(Clone, Copy)]
enum Prints {
    Logged,
    Dropped,
}

/// The script, as the host hands it over.
fn read(prints: Prints) -> Result<Script, Fault> {
    let [Some(file), Some(text)] = [settings::get(FILE), settings::get(TEXT)] else {
        return Err(Fault::Broken(
            "this is the engine of scripts, and there is no script".to_owned(),
        ));
    };
    let surroundings = Surroundings {
        setting: |key| match key {
            TEXT | FILE => None,
            key => settings::get(key),
        },
        print: match prints {
            Prints::Logged => |line| log::write(log::Level::Info, line),
            Prints::Dropped => |_| {},
        },
    };
    Script::read(file, text, surroundings)
}

/// Ends a call that has no word for what went wrong. The host tells what was printed last.
fn give_up(fault: &Fault) -> ! {
    eprintln!("{fault}");
    std::process::abort()
}
