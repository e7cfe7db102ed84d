//! The engine of script runtimes, as a component: a text of the operator's says what a task
//! starts.
//!
//! The host hands the text over as the setting `script` and its file's name as `script-file`.
//! Every instance reads it anew; nothing of it is asked once a task runs. What reads it is there from
//! the start: the build calls `probe` once and makes what is in memory then the component's first
//! memory (`xtask/guest-build/src/snapshot.rs`). The host calls `probe` of an instance that is to
//! have read its script before its call comes. What a script may say is in [`script`], what it is
//! told and answers in [`value`]; this file only asks the host. A script is a runtime by its `start`, a policy by its `review`, an observer by
//! its `notice`, and may be all of them.

mod script;
mod value;

use std::cell::Cell;
use std::time::SystemTime;

use rhai::Engine;
use taskwright_plugin_sdk::command::{self, MAIN};
use taskwright_plugin_sdk::observer::{self, Observer};
use taskwright_plugin_sdk::policy::{self, Denial, Policy, Request, Verdict};
use taskwright_plugin_sdk::{
    Description, Event, Failure, Problem, Runtime, Step, Task, directories, export,
    export_observer, export_policy, log, process, secrets, settings,
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
        if let Some(script) = READ.take() {
            READ.set(Some(script));
            return Ok(());
        }
        match MADE.take() {
            // The build calls: nothing may be asked of the host here.
            None => MADE.set(Some(made())),
            Some(engine) => {
                let script = parsed(engine).map_err(|fault| fault.to_string())?;
                READ.set(Some(script));
            }
        }
        Ok(())
    }

    fn validate(task: Task) -> Result<(), Vec<Problem>> {
        // Its start is only tried here, so it prints when it is meant.
        let script = read(Prints::Dropped).unwrap_or_else(|fault| give_up(&fault));
        let problems = script.problems(&task).unwrap_or_else(|fault| {
            // It was read, so this is about this task: giving up would let one submitter put the
            // script to rest for all.
            vec![command::problem("", &fault.to_string())]
        });
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

struct ScriptPolicy;

impl Policy for ScriptPolicy {
    fn describe() -> policy::Description {
        let described = read(Prints::Logged).and_then(|script| script.describe_as("review"));
        let (name, version) = described.unwrap_or_else(|fault| give_up(&fault));
        policy::Description { name, version }
    }

    fn review(request: Request) -> Result<Verdict, String> {
        match read(Prints::Logged).and_then(|script| script.verdict(&request)) {
            Ok(verdict) => Ok(verdict),
            Err(Fault::Refused(reason)) => {
                let field = String::new();
                Ok(Verdict::Deny(Denial { reason, field }))
            }
            Err(Fault::Broken(sentence)) => Err(sentence),
        }
    }
}

export_policy!(ScriptPolicy);

struct ScriptObserver;

impl Observer for ScriptObserver {
    fn describe() -> observer::Description {
        let described = read(Prints::Logged).and_then(|script| script.describe_as("notice"));
        let (name, version) = described.unwrap_or_else(|fault| give_up(&fault));
        observer::Description { name, version }
    }

    fn notice(event: observer::Event) -> Result<(), String> {
        let noticed = read(Prints::Logged).and_then(|script| script.notice(&event));
        noticed.map_err(|fault| fault.to_string())
    }
}

export_observer!(ScriptObserver);

/// What becomes of what a script prints.
#[derive(Clone, Copy)]
enum Prints {
    Logged,
    Dropped,
}

thread_local! {
    /// An engine that no script was read with.
    static MADE: Cell<Option<Engine>> = const { Cell::new(None) };
    /// The script, where it was read before its call.
    static READ: Cell<Option<Script>> = const { Cell::new(None) };
}

/// The engine that was made before, or one that is made now.
fn made() -> Engine {
    MADE.take().unwrap_or_else(|| {
        script::engine(Surroundings {
            setting: |key| match key {
                TEXT | FILE => None,
                key => settings::get(key),
            },
            file: |directory, path| {
                let read = directories::read(directory, path, 0, u32::MAX);
                read.map_err(said_of_file)
            },
            secret: |name| secrets::get(name).map_err(said_of_secret),
            now,
        })
    })
}

/// The script, as the host hands it over. The instance ends with the call and takes everything
/// along, so nothing is given back piece by piece.
fn read(prints: Prints) -> Result<&'static Script, Fault> {
    let mut script = match READ.take() {
        Some(script) => script,
        None => parsed(made())?,
    };
    script.print_to(match prints {
        Prints::Logged => |line: &str| log::write(log::Level::Info, line),
        Prints::Dropped => |_: &str| {},
    });
    Ok(Box::leak(Box::new(script)))
}

/// Reads the script. Nothing of it runs.
fn parsed(engine: Engine) -> Result<Script, Fault> {
    let [Some(file), Some(text)] = [settings::get(FILE), settings::get(TEXT)] else {
        return Err(Fault::Broken(
            "this is the engine of scripts, and there is no script".to_owned(),
        ));
    };
    Script::read(engine, file, text)
}

/// Where the clock stands that was not lent, in seconds since 1970: the contract says so.
const STANDING: u64 = 946_684_800;

fn now() -> Result<i64, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default();
    if now.as_secs() == STANDING {
        return Err("it was lent no clock: add `clock = true` under `[grants]`".to_owned());
    }
    Ok(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

fn said_of_file(error: directories::Error) -> String {
    use directories::Error;
    match error {
        Error::Denied(why)
        | Error::NotFound(why)
        | Error::BadPath(why)
        | Error::TooLarge(why)
        | Error::Io(why)
        | Error::Other(why) => why,
    }
}

fn said_of_secret(error: secrets::Error) -> String {
    use secrets::Error;
    match error {
        Error::Denied(why) | Error::Unavailable(why) | Error::Other(why) => why,
    }
}

/// Ends a call that has no word for what went wrong. The host tells what was printed last.
fn give_up(fault: &Fault) -> ! {
    eprintln!("{fault}");
    std::process::abort()
}
