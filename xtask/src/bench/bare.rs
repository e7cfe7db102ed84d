//! What the machine can do at best: the same work in a bare loop, without a daemon.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::wait::{WaitStatus, waitpid};

/// What is appended for each change of state: about as much as a task's record.
const RECORD: [u8; 512] = [b'r'; 512];

/// A command, ready to be spawned as often as needed.
#[derive(Clone, Debug)]
pub(super) struct Command {
    words: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    /// `env` as lines of `NAME=VALUE`.
    pub(super) fn new(words: &[&str], env: &str) -> anyhow::Result<Self> {
        let texts = |texts: &mut dyn Iterator<Item = &str>| {
            texts.map(CString::new).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            words: texts(&mut words.iter().copied())?,
            env: texts(&mut env.lines())?,
        })
    }

    /// `posix_spawn` and `waitpid`.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let program = self.words.first().context("the command is empty")?;
        let actions = PosixSpawnFileActions::init()?;
        let attributes = PosixSpawnAttr::init()?;
        let pid = posix_spawn(
            program.as_c_str(),
            &actions,
            &attributes,
            &self.words,
            &self.env,
        )
        .with_context(|| format!("spawn {program:?}"))?;
        match waitpid(pid, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            other => bail!("{program:?} ended with {other:?}"),
        }
    }
}

/// A file that records are appended to.
#[derive(Debug)]
pub(super) struct Log(File);

impl Log {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        Ok(Self(
            file.with_context(|| format!("open {}", path.display()))?,
        ))
    }

    /// One record, on the disk when this returns (`fdatasync`).
    pub(super) fn append(&mut self) -> anyhow::Result<()> {
        self.0.write_all(&RECORD)?;
        self.0.sync_data().context("sync a record")
    }
}

/// Runs `command` `times` times, each between two durable records; the time of each.
pub(super) fn durable_runs(
    log: &mut Log,
    command: &Command,
    times: usize,
) -> anyhow::Result<Vec<Duration>> {
    let one = |_| {
        let begun = Instant::now();
        log.append()?;
        command.run()?;
        log.append()?;
        Ok(begun.elapsed())
    };
    (0..times).map(one).collect()
}

/// How often a second all processors together can run `command`, each in a loop of its own,
/// with nothing durable.
pub(super) fn runs_per_second(command: &Command, time: Duration) -> anyhow::Result<f64> {
    let threads = std::thread::available_parallelism()?.get();
    let begun = Instant::now();
    let counts = std::thread::scope(|scope| {
        let spawn_loop = || {
            let mut count = 0_u64;
            while begun.elapsed() < time {
                command.run()?;
                count += 1;
            }
            anyhow::Ok(count)
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(spawn_loop)).collect();
        let ends = workers.into_iter().map(|worker| worker.join());
        ends.collect::<Vec<_>>()
    });
    let mut total = 0;
    for count in counts {
        let Ok(count) = count else {
            bail!("a thread of the bare loop panicked")
        };
        total += count?;
    }
    ensure!(total > 0, "the bare loop ran nothing");
    Ok(total as f64 / begun.elapsed().as_secs_f64())
}
