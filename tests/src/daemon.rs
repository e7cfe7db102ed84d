//! The daemon under test: started, killed, started again.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cli::{self, Finished, Running};
use crate::client::{Client, Request, Target};
use crate::home::Home;
use crate::network::Machine;
use crate::processes::Process;
use crate::reaper::{self, Owned};
use crate::{SOON, binary, eventually_some};

/// The first start on a machine compiles the built-in plugins.
const START: Duration = Duration::from_secs(40);

/// How a daemon is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    binary: Option<PathBuf>,
    place: Option<Place>,
}

/// A machine, and one from which it is spoken to.
#[derive(Clone, Debug)]
struct Place {
    at: Machine,
    from: Machine,
}

impl Options {
    /// As a user starts it: on loopback, in a directory of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a flag, as `--max-running=1`.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Adds a variable to the daemon's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts this instead of the program under test: something that becomes it.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.binary = Some(program.to_owned());
        self
    }

    /// Starts it on a machine of a network; tests speak to it from another one.
    #[must_use]
    pub fn on(mut self, at: &Machine, from: &Machine) -> Self {
        self.place = Some(Place {
            at: at.clone(),
            from: from.clone(),
        });
        self
    }

    /// Starts it in a fresh home.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn start(self) -> Daemon {
        self.start_in(Home::new())
    }

    /// Starts it in this home.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn start_in(self, home: Home) -> Daemon {
        let address = match &self.place {
            Some(place) => SocketAddr::new(place.at.address(), 5758),
            None => free_address(),
        };
        let mut daemon = Daemon {
            address,
            options: self,
            process: None,
            home,
        };
        daemon.start_again();
        daemon
    }

    /// Starts it where it is expected to refuse, and answers with its end.
    ///
    /// # Panics
    /// When it goes on running.
    #[must_use]
    pub fn refused_in(&self, home: &Home) -> Finished {
        cli::finish(&mut self.command(home, free_address()), b"", START)
    }

    fn command(&self, home: &Home, address: SocketAddr) -> Command {
        let program = self
            .binary
            .as_deref()
            .unwrap_or_else(|| binary::taskwright());
        let mut command = match &self.place {
            Some(place) => home.command_on(&place.at, program),
            None => home.command(program),
        };
        command
            .arg("serve")
            .arg(format!("--data-dir={}", home.data().display()))
            .arg(format!("--listen-addr={address}"))
            .arg(format!("--task-env={}", home.mark()))
            .args(&self.flags)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A daemon with its home.
#[derive(Debug)]
pub struct Daemon {
    options: Options,
    address: SocketAddr,
    // Before the home, which ends whatever else is left.
    process: Option<Owned>,
    home: Home,
}

impl Daemon {
    /// One as a user starts it.
    #[must_use]
    pub fn start() -> Self {
        Options::new().start()
    }

    /// Its home.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Client {
        let place = self.options.place.as_ref();
        Client::new(match place {
            Some(place) => Target::Within(place.from.namespace(), self.address),
            None => Target::Tcp(self.address),
        })
    }

    /// What it logged, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map_or_else(
            |error| format!("no log: {error}"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// A file of a task.
    #[must_use]
    pub fn task_file(&self, task: &str, file: &str) -> PathBuf {
        self.home.data().join(task).join(file)
    }

    /// Its pid.
    ///
    /// # Panics
    /// When it was killed. So do its sisters below.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match &self.process {
            Some(process) => process.pid(),
            None => panic!("the daemon does not run"),
        }
    }

    /// Starts it again on the same directory and port, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn start_again(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// The same, from another file with the same program: an upgrade.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn start_again_from(&mut self, program: &Path) {
        self.options.binary = Some(program.to_owned());
        self.start_again();
    }

    /// The same, with a further flag; of a switch the last word counts.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn start_again_with(&mut self, flag: &str) {
        self.options.flags.push(flag.to_owned());
        self.start_again();
    }

    /// Starts it without waiting for anything.
    ///
    /// # Panics
    /// When it runs already.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the daemon runs already");
        let mut command = self.options.command(&self.home, self.address);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path());
        let log = log.and_then(|log| Ok((log.try_clone()?, log)));
        match log {
            Ok((out, err)) => command.stdout(out).stderr(err),
            Err(error) => panic!("open the daemon's log: {error}"),
        };
        match Owned::spawn(&mut command) {
            Ok(process) => self.process = Some(process),
            Err(error) => panic!("start {command:?}: {error}"),
        }
    }

    /// Waits until it can launch tasks.
    ///
    /// # Panics
    /// When it ends before, or takes too long.
    pub fn wait_ready(&mut self) {
        let client = self.client();
        let begun = Instant::now();
        loop {
            let answer = client.try_send(Request::new("GET", "/readyz"));
            if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                return;
            }
            let ended = self.process.as_mut().and_then(Owned::ended);
            assert!(
                ended.is_none() && begun.elapsed() < START,
                "the daemon is not ready ({ended:?}, {answer:?}); its log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        match &mut self.process {
            Some(process) => process.signal(signal),
            None => panic!("the daemon does not run"),
        }
    }

    /// `kill -9`, and nothing else: tasks and supervisor live on.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// `kill -9` to the daemon and to everything of it that owns tasks, as fast as that can be
    /// done: nobody is left who could see a task end.
    pub fn kill_everything(&mut self) {
        // By name: between fork and exec a task looks like its supervisor, and its death by
        // this would be a true one.
        let all = [self.guardian(), self.supervisor()];
        for process in &all {
            reaper::send(process.pid, Signal::KILL);
        }
        self.kill();
        all.iter().for_each(reaper::kill);
    }

    /// TERM, as an init system stops it; waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        match self.process.take() {
            Some(mut process) => {
                process.signal(Signal::TERM);
                process.wait(SOON)
            }
            None => panic!("the daemon does not run"),
        }
    }

    /// Waits for its end, without doing anything for it.
    pub fn wait_end(&mut self) -> ExitStatus {
        match self.process.take() {
            Some(mut process) => process.wait(SOON),
            None => panic!("the daemon does not run"),
        }
    }

    /// The supervisor: the parent of tasks.
    ///
    /// # Panics
    /// When there is none, or more than one, for [`SOON`].
    #[must_use]
    pub fn supervisor(&self) -> Process {
        self.only("tw-supervisor")
    }

    /// The guardian: the parent of the supervisor, which replaces it.
    ///
    /// # Panics
    /// When there is none, or more than one, for [`SOON`].
    #[must_use]
    pub fn guardian(&self) -> Process {
        self.only("tw-guardian")
    }

    /// The one process of this home with that name.
    fn only(&self, name: &str) -> Process {
        eventually_some(SOON, &format!("there is one {name}"), || {
            let mut found = self.home.own_processes();
            found.retain(|process| process.name == name);
            // Between fork and exec a child looks like its parent.
            let pids: Vec<u32> = found.iter().map(|process| process.pid).collect();
            found.retain(|process| !pids.contains(&process.parent));
            match found.as_slice() {
                [only] => Some(only.clone()),
                _ => None,
            }
        })
    }

    /// The command line, speaking to this daemon.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.home.command(binary::taskwright());
        command
            .env("TASKWRIGHT_SERVER", format!("http://{}", self.address))
            .args(words);
        command
    }

    /// Runs a command line to its end.
    #[must_use]
    pub fn taskwright(&self, words: &[&str]) -> Finished {
        cli::finish(&mut self.command(words), b"", SOON)
    }

    /// Starts a command line that goes on for a while.
    #[must_use]
    pub fn running(&self, words: &[&str]) -> Running {
        Running::start(&mut self.command(words), b"")
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("daemon.log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "--- log of the daemon\n{}", self.log());
        }
    }
}

/// An address that nobody listens on. It is below the ports that the kernel gives to
/// outgoing connections, so it stays free while a daemon is down.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Runs beside this one begin elsewhere.
    let begin = u16::try_from(std::process::id() % 80).unwrap_or(0) * 200;
    for _ in 0..2000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + begin.wrapping_add(step) % 20_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port of 2000 is free")
}
