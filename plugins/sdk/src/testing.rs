//! A double of the host for a plugin's own tests: `cargo test`, no component, no daemon.
//!
//! Each thread has one of its own, which a test fills and looks at with [`host`]:
//!
//! ```
//! use taskwright_plugin_sdk::{process, testing, EnvVar, SpawnRequest};
//!
//! testing::host(|host| host.settings.insert("level".into(), "10".into()));
//! // ... what the plugin under test does ...
//! let request = SpawnRequest { argv: vec!["true".into()], env: Vec::<EnvVar>::new(), working_dir: None, extra: Vec::new() };
//! process::spawn("main", &request).unwrap();
//! testing::host(|host| assert_eq!(host.spawned[0].1.argv, ["true"]));
//! ```
//!
//! It starts nothing. Interfaces that it has no double for (`namespace`, `container`,
//! `directories`) end the test with a panic when they are called.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use crate::log::Level;
use crate::status::Part;
use crate::{SpawnError, SpawnRequest, Spawned, files, secrets, units};

/// What a plugin finds, and what it did.
#[derive(Debug, Default)]
pub struct Host {
    /// The operator's settings.
    pub settings: BTreeMap<String, String>,
    /// The secrets that were lent.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// The task's files.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What the next spawns answer, first to last. Where nothing is left a unit runs, with pid
    /// 1000 and so on.
    pub spawns: VecDeque<Result<Spawned, SpawnError>>,
    /// What was to be started, in order: the unit and the request.
    pub spawned: Vec<(String, SpawnRequest)>,
    /// What was to be stopped, in order: the unit and the grace in milliseconds.
    pub stopped: Vec<(String, u64)>,
    /// Signals that were sent, in order: the unit and the number.
    pub signaled: Vec<(String, u32)>,
    /// Why the next stops and signals fail, first to last. Where nothing is left they do not.
    pub unit_errors: VecDeque<units::Error>,
    /// Lines of the log.
    pub lines: Vec<(Level, String)>,
    /// What people were told.
    pub notes: Vec<String>,
    /// The parts that were told last.
    pub parts: Vec<Part>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// Fills this thread's host, or looks at it.
pub fn host<T>(look: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with_borrow_mut(look)
}

/// Makes this thread's host a new one, and gives the old one away.
pub fn fresh() -> Host {
    HOST.take()
}

/// What the functions of [`crate::host`] are answered by.
pub(crate) fn double<T>(ask: impl FnOnce(&mut Double<'_>) -> T) -> T {
    HOST.with_borrow_mut(|host| ask(&mut Double(host)))
}

/// The host with a word for each interface.
pub(crate) struct Double<'a>(&'a mut Host);

macro_rules! interfaces {
    ($($name:ident: $kind:ident),*) => {
        $(pub(crate) struct $kind<'a>(&'a mut Host);)*

        impl Double<'_> {
            $(pub(crate) fn $name(&mut self) -> $kind<'_> {
                $kind(self.0)
            })*
        }
    };
}

interfaces!(
    process: Process,
    units: Units,
    settings: Settings,
    log: Log,
    status: Status,
    files: Files,
    secrets: Secrets
);

impl Process<'_> {
    pub(crate) fn spawn(self, unit: &str, request: &SpawnRequest) -> Result<Spawned, SpawnError> {
        let host = self.0;
        host.spawned.push((unit.to_owned(), request.clone()));
        let pid = 999 + host.spawned.len() as u32;
        let running = Spawned { pid, ended: None };
        host.spawns.pop_front().unwrap_or(Ok(running))
    }
}

impl Units<'_> {
    pub(crate) fn stop(self, unit: &str, grace_ms: u64) -> Result<(), units::Error> {
        self.0.stopped.push((unit.to_owned(), grace_ms));
        self.0.unit_errors.pop_front().map_or(Ok(()), Err)
    }

    pub(crate) fn signal(self, unit: &str, number: u32) -> Result<(), units::Error> {
        self.0.signaled.push((unit.to_owned(), number));
        self.0.unit_errors.pop_front().map_or(Ok(()), Err)
    }
}

impl Settings<'_> {
    pub(crate) fn get(self, key: &str) -> Option<String> {
        self.0.settings.get(key).cloned()
    }
}

impl Log<'_> {
    pub(crate) fn write(self, level: Level, message: &str) {
        self.0.lines.push((level, message.to_owned()));
    }
}

impl Status<'_> {
    pub(crate) fn note(self, text: &str) {
        self.0.notes.push(text.to_owned());
    }

    pub(crate) fn parts(self, all: &[Part]) {
        self.0.parts = all.to_vec();
    }
}

impl Files<'_> {
    pub(crate) fn read(
        self,
        path: &str,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, files::Error> {
        let bytes = self.0.files.get(path);
        let bytes = bytes.ok_or_else(|| files::Error::NotFound(format!("there is no {path}")))?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = bytes.iter().skip(from).take(length as usize);
        Ok(rest.copied().collect())
    }

    pub(crate) fn write(self, path: &str, bytes: &[u8]) -> Result<(), files::Error> {
        self.0.files.insert(path.to_owned(), bytes.to_vec());
        Ok(())
    }

    pub(crate) fn remove(self, path: &str) -> Result<(), files::Error> {
        self.0.files.remove(path);
        Ok(())
    }
}

impl Secrets<'_> {
    pub(crate) fn get(self, name: &str) -> Result<Vec<u8>, secrets::Error> {
        let value = self.0.secrets.get(name).cloned();
        value.ok_or_else(|| secrets::Error::Denied(format!("the secret {name} is not lent")))
    }
}

#[cfg(test)]
mod tests {
    //! A whole runtime in some thirty lines, and an attempt of it without any host.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::command::{self, KIND, MAIN};
    use crate::{
        Command, Description, End, Event, ExitStatus, Failure, Outcome, Problem, Runtime, Step,
        StopRequest, Task, UnitExit, log, process, settings,
    };

    struct Greeter;

    impl Runtime for Greeter {
        fn describe() -> Description {
            Description {
                name: "greeter".to_owned(),
                version: "1".to_owned(),
                kinds: vec![KIND.to_owned()],
                config_schema: String::new(),
            }
        }

        fn probe() -> Result<(), String> {
            Ok(())
        }

        fn validate(task: Task) -> Result<(), Vec<Problem>> {
            match command::problems(&task) {
                none if none.is_empty() => Ok(()),
                problems => Err(problems),
            }
        }

        fn start(task: Task) -> Result<Step, Failure> {
            let mut request = command::spawn_request(task)?;
            request.argv.extend(settings::get("greeting"));
            log::write(log::Level::Info, "hello");
            command::after_spawn(process::spawn(MAIN, &request))
        }

        fn on_event(_: Task, _: Vec<u8>, event: Event) -> Result<Step, Failure> {
            command::hear(event)
        }
    }

    fn task() -> Task {
        Task {
            id: "0198b0e5-0000-7000-8000-000000000001".to_owned(),
            namespace: "default".to_owned(),
            name: "build".to_owned(),
            attempt: 1,
            kind: KIND.to_owned(),
            process: Some(Command {
                command: vec!["echo".to_owned()],
                args: Vec::new(),
                env: Vec::new(),
                working_dir: None,
            }),
            document: String::new(),
            labels: Vec::new(),
            config: String::new(),
            extra: Vec::new(),
        }
    }

    #[test]
    fn an_attempt_is_played_without_a_host() {
        host(|host| host.settings.insert("greeting".to_owned(), "hi".to_owned()));
        assert!(matches!(Greeter::start(task()), Ok(Step::Wait(_))));
        let stop = Event::StopRequested(StopRequest { grace_ms: 500 });
        assert!(matches!(
            Greeter::on_event(task(), Vec::new(), stop),
            Ok(Step::Wait(_))
        ));
        let end = End {
            status: ExitStatus::Signal(15),
            out_of_memory: false,
        };
        let exited = Event::Exited(UnitExit {
            unit: MAIN.to_owned(),
            end,
        });
        let step = Greeter::on_event(task(), Vec::new(), exited).unwrap();
        assert_eq!(step, Step::Done(Outcome::Signaled(15)));
        let host = fresh();
        let (unit, request) = host.spawned.first().unwrap();
        assert_eq!(
            (&**unit, &*request.argv),
            (MAIN, &["echo", "hi"].map(str::to_owned)[..])
        );
        assert_eq!(host.stopped, [(MAIN.to_owned(), 500)]);
        assert_eq!(host.lines, [(Level::Info, "hello".to_owned())]);
    }

    #[test]
    fn what_does_not_start_is_answered_as_the_test_wants() {
        host(|host| {
            let missing = SpawnError::NotFound("no echo".to_owned());
            host.spawns.push_back(Err(missing));
        });
        let step = Greeter::start(task()).unwrap();
        assert!(matches!(step, Step::Done(Outcome::ExitedBecause((127, _)))));
        assert_eq!(fresh().spawned.len(), 1);
        assert!(fresh().spawned.is_empty(), "each test begins with nothing");
    }

    #[test]
    fn files_and_secrets_are_what_the_test_put_there() {
        host(|host| {
            host.secrets.insert("key".to_owned(), b"value".to_vec());
        });
        assert_eq!(secrets::get("key").unwrap(), b"value");
        assert!(secrets::get("other").is_err());
        files::write("a/b", b"0123456789").unwrap();
        assert_eq!(files::read("a/b", 8, 100).unwrap(), b"89");
        files::remove("a/b").unwrap();
        assert!(matches!(
            files::read("a/b", 0, 1),
            Err(files::Error::NotFound(_))
        ));
    }
}
