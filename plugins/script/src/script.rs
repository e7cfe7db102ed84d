//! A script: read, held within bounds, and asked.
//!
//! It has functions and nothing else: no imports, no `eval`, no randomness, no memory between
//! calls; of files, secrets and the time only what the operator lent. So the same task gives the
//! same answer, and a start can be tried when a task is submitted.

use std::fmt;

use rhai::packages::{
    BasicArrayPackage, BasicFnPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage,
    BasicStringPackage, LanguageCorePackage, MoreStringPackage, Package as _,
};
use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, Map, ParseError, Position, Scope};
use taskwright_plugin_sdk::command::{self, KIND};
use taskwright_plugin_sdk::observer::Event;
use taskwright_plugin_sdk::policy::{Request, Verdict};
use taskwright_plugin_sdk::{Description, Problem, SpawnRequest, Task};

use crate::value;

/// Steps of one call of a script. A start takes some dozens.
const MOST_OPERATIONS: u64 = 500_000;
/// Functions that wait for each other.
const MOST_CALL_LEVELS: usize = 32;
/// Parts within parts of one expression, outside and inside of functions.
const MOST_DEPTHS: (usize, usize) = (64, 64);
/// Bytes of one text: those of the largest task.
const MOST_TEXT_BYTES: usize = 1 << 20;
/// Elements of one list, with those of the lists in it.
const MOST_ELEMENTS: usize = 100_000;
/// Keys of one map, with those of the maps in it.
const MOST_KEYS: usize = 10_000;
/// Characters of a line that are shown with what is wrong with it.
const MOST_SHOWN: usize = 120;

/// The functions that make a script what it is, and what each is told.
const ROLES: [(&str, &str); 3] = [
    ("start", "task"),
    ("review", "request"),
    ("notice", "event"),
];

/// What a function of a script is given.
enum Arguments {
    None,
    One(Map),
}

/// What a script may ask for beside its task. Functions that keep nothing: the engine is made
/// with them before there is a task or a script.
pub(crate) struct Surroundings {
    /// What the operator set.
    pub(crate) setting: fn(&str) -> Option<String>,
    /// A file in a directory that was lent.
    pub(crate) file: fn(&str, &str) -> Result<Vec<u8>, String>,
    /// A secret that was lent.
    pub(crate) secret: fn(&str) -> Result<Vec<u8>, String>,
    /// Milliseconds since 1970, if the clock was lent.
    pub(crate) now: fn() -> Result<i64, String>,
}

/// Why a script gave no answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Fault {
    /// It does not want the task: it threw a text.
    Refused(String),
    /// Something is wrong with the script.
    Broken(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(sentence) | Self::Broken(sentence) => f.write_str(sentence),
        }
    }
}

/// A script that can be asked.
pub(crate) struct Script {
    engine: Engine,
    functions: AST,
    file: String,
    text: String,
}

impl Script {
    /// Reads a script, which then has this engine.
    ///
    /// # Errors
    /// [`Fault::Broken`] with the file, the line and what stands there.
    pub(crate) fn read(engine: Engine, file: String, text: String) -> Result<Self, Fault> {
        match engine.compile(&text) {
            Ok(functions) => Ok(Self {
                engine,
                functions,
                file,
                text,
            }),
            Err(ParseError(kind, position)) => Err(Fault::Broken(told(
                &file,
                &text,
                position,
                &kind.to_string(),
            ))),
        }
    }

    /// Lets it print here.
    pub(crate) fn print_to(&mut self, print: fn(&str)) {
        self.engine.on_print(print);
        self.engine.on_debug(move |line, _, _| print(line));
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// [`Fault`], also when it lacks a function or has something beside functions.
    pub(crate) fn describe(&self) -> Result<Description, Fault> {
        if let Some(beside) = self.functions.statements().first() {
            let why = "stands beside functions, where nobody would run it";
            return Err(Fault::Broken(told(
                &self.file,
                &self.text,
                beside.position(),
                why,
            )));
        }
        let roles = ROLES.map(|(function, _)| function);
        if !roles.iter().any(|function| self.has(function, 1)) {
            let wanted = ROLES.map(|(function, word)| format!("`fn {function}({word})`"));
            let why = format!("there is none of {}", wanted.join(", "));
            return Err(self.broken(&why));
        }
        let name = match self.has("start", 1) {
            true => self.name(),
            // Another of its roles has it.
            false => "",
        };
        if !self.has("describe", 0) {
            // A policy and an observer have nothing to say that must be said.
            if !name.is_empty() {
                return Err(self.broken("there is no `fn describe()`"));
            }
            return Ok(value::nothing());
        }
        let said = self.call("describe", Arguments::None)?;
        value::description(name, said).map_err(|why| self.broken(&format!("describe() {why}")))
    }

    /// Its name and version, if it has this function; else no name.
    ///
    /// # Errors
    /// As [`Script::describe`].
    pub(crate) fn describe_as(&self, function: &str) -> Result<(String, String), Fault> {
        let version = self.describe()?.version;
        let name = match self.has(function, 1) {
            true => self.name(),
            false => "",
        };
        Ok((name.to_owned(), version))
    }

    /// What it says about a task that is to run.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn verdict(&self, request: &Request) -> Result<Verdict, Fault> {
        let asked = value::asked(request).map_err(Fault::Broken)?;
        let said = self.call("review", Arguments::One(asked))?;
        value::verdict(said).map_err(|why| self.broken(&format!("review(request) {why}")))
    }

    /// Tells it of an event.
    ///
    /// # Errors
    /// [`Fault`]; one that it threw says that the event is to be told again.
    pub(crate) fn notice(&self, event: &Event) -> Result<(), Fault> {
        let event = value::event(event).map_err(Fault::Broken)?;
        self.call("notice", Arguments::One(event)).map(|_| ())
    }

    fn name(&self) -> &str {
        let parts = self.file.rsplit_once('.');
        parts.map_or(&*self.file, |parts| parts.0)
    }

    /// Everything that keeps a task from being started, all of it at once.
    ///
    /// # Errors
    /// [`Fault::Broken`].
    pub(crate) fn problems(&self, task: &Task) -> Result<Vec<Problem>, Fault> {
        let mut found = Vec::new();
        if task.kind == KIND {
            found.extend(command::problems(task));
        }
        if self.has("validate", 1) {
            match self.call("validate", self.about(task)?) {
                Ok(said) => found.extend(
                    value::problems(said)
                        .map_err(|why| self.broken(&format!("validate(task) {why}")))?,
                ),
                Err(Fault::Refused(sentence)) => found.push(command::problem("", &sentence)),
                Err(broken) => return Err(broken),
            }
        } else if !task.config.is_empty() && self.describe()?.config_schema.is_empty() {
            found.push(command::problem(
                "/config",
                "means nothing to this runtime: leave it out, or name another runtime",
            ));
        }
        if !found.is_empty() {
            // The start may count on what was asked for.
            return Ok(found);
        }
        match self.request(task) {
            Ok(_) => {}
            Err(Fault::Refused(sentence)) => found.push(command::problem("", &sentence)),
            Err(broken) => return Err(broken),
        }
        Ok(found)
    }

    /// What it wants to be started for a task.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn request(&self, task: &Task) -> Result<SpawnRequest, Fault> {
        let said = self.call("start", self.about(task)?)?;
        value::request(said, task).map_err(|why| self.broken(&format!("start(task) {why}")))
    }

    fn has(&self, function: &str, parameters: usize) -> bool {
        let mut functions = self.functions.iter_functions();
        functions.any(|found| found.name == function && found.params.len() == parameters)
    }

    fn about(&self, task: &Task) -> Result<Arguments, Fault> {
        value::task(task).map(Arguments::One).map_err(Fault::Broken)
    }

    fn call(&self, function: &str, arguments: Arguments) -> Result<Dynamic, Fault> {
        let options = CallFnOptions::new().eval_ast(false);
        let mut scope = Scope::new();
        let functions = &self.functions;
        let answer = match arguments {
            Arguments::One(map) => self.engine.call_fn_with_options::<Dynamic>(
                options,
                &mut scope,
                functions,
                function,
                (map,),
            ),
            Arguments::None => self.engine.call_fn_with_options::<Dynamic>(
                options,
                &mut scope,
                functions,
                function,
                (),
            ),
        };
        answer.map_err(|error| self.fault(*error))
    }

    /// What went wrong, where in the script it went wrong.
    fn fault(&self, error: EvalAltResult) -> Fault {
        let mut error = error;
        let mut position = error.position();
        while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) = error {
            error = *inner;
            if !error.position().is_none() {
                position = error.position();
            }
        }
        error.set_position(Position::NONE);
        match error {
            EvalAltResult::ErrorRuntime(thrown, _) if thrown.is_string() => {
                Fault::Refused(thrown.to_string())
            }
            error => Fault::Broken(told(&self.file, &self.text, position, &error.to_string())),
        }
    }

    fn broken(&self, what: &str) -> Fault {
        Fault::Broken(format!("{}: {what}", self.file))
    }
}

/// An engine within bounds, which knows only what scripts need. To register that takes longer than
/// all the rest of a call.
pub(crate) fn engine(surroundings: Surroundings) -> Engine {
    let mut engine = Engine::new_raw();
    // Operators on the script's own kinds of values are built in: without the packages that would
    // register them once more, each call is cheaper.
    LanguageCorePackage::new().register_into_engine(&mut engine);
    BasicFnPackage::new().register_into_engine(&mut engine);
    BasicIteratorPackage::new().register_into_engine(&mut engine);
    BasicStringPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    BasicMathPackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    engine
        .set_max_operations(MOST_OPERATIONS)
        .set_max_call_levels(MOST_CALL_LEVELS)
        .set_max_expr_depths(MOST_DEPTHS.0, MOST_DEPTHS.1)
        .set_max_string_size(MOST_TEXT_BYTES)
        .set_max_array_size(MOST_ELEMENTS)
        .set_max_map_size(MOST_KEYS)
        .set_strict_variables(true)
        .disable_symbol("eval");
    let Surroundings {
        setting,
        file,
        secret,
        now,
    } = surroundings;
    engine.register_fn("setting", move |key: &str| {
        setting(key).map_or(Dynamic::UNIT, Dynamic::from)
    });
    engine.register_fn("read_file", move |directory: &str, path: &str| {
        file(directory, path).and_then(text).map_err(raised)
    });
    engine.register_fn("secret", move |name: &str| {
        secret(name).and_then(text).map_err(raised)
    });
    engine.register_fn("now", move || now().map_err(raised));
    engine
}

/// What a script gets of bytes. They are not shown in what is said of them.
fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes)
        .map_err(|_| "it is no UTF-8, and a script has no other texts".to_owned())
}

/// What the host refused, as an error of the script.
fn raised(why: String) -> Box<EvalAltResult> {
    EvalAltResult::ErrorSystem(String::new(), why.into()).into()
}

/// `FILE:LINE:COLUMN: what is wrong`, and the line itself.
fn told(file: &str, text: &str, position: Position, what: &str) -> String {
    let Some(number) = position.line() else {
        return format!("{file}: {what}");
    };
    let column = position.position().unwrap_or(1);
    let mut told = format!("{file}:{number}:{column}: {what}");
    let line = text.lines().nth(number.saturating_sub(1)).map(str::trim);
    if let Some(line) = line.filter(|line| !line.is_empty()) {
        let shown: String = line.chars().take(MOST_SHOWN).collect();
        told.push_str(&format!(": `{shown}`"));
    }
    told
}

#[cfg(test)]
mod tests;
