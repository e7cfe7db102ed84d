//! Finding the supervisor, or starting one.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use taskwright_native::{Exit, SpawnFault, exit, spawn};
use tokio::net::UnixStream;

use super::SupervisorConfig;
use crate::options::VERB;
use crate::place::{self, Place};

/// Why there is no supervisor.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory is unusable.
    #[error("use the supervisor's state directory {path}")]
    Directory {
        /// Which.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("start the supervisor from {program}")]
    Spawn {
        /// Which.
        program: String,
        /// Why.
        source: SpawnFault,
    },
    /// It was started and gave up.
    #[error("the supervisor gave up: {message}")]
    GaveUp {
        /// What it said.
        message: String,
    },
    /// It is there and does not answer.
    #[error("connect to the supervisor")]
    Connect {
        /// What the kernel said.
        source: io::Error,
    },
}

/// How long a supervisor may take from its start to its socket.
const START_TIME: Duration = Duration::from_secs(10);

pub(super) async fn connect_or_start(config: &SupervisorConfig) -> Result<UnixStream, StartError> {
    let path = &config.options.state_dir;
    let place = Place::open(path).map_err(|source| StartError::Directory {
        path: path.display().to_string(),
        source,
    })?;
    if let Ok(stream) = connect(&place).await {
        return Ok(stream);
    }
    start(config, &place).await?;
    // The socket is there when the starter ends with success, unless another supervisor just
    // gives way to the next one.
    let deadline = tokio::time::Instant::now() + START_TIME;
    let mut pause = Duration::from_millis(2);
    loop {
        match connect(&place).await {
            Ok(stream) => return Ok(stream),
            Err(source) if tokio::time::Instant::now() >= deadline => {
                return Err(StartError::Connect { source });
            }
            Err(source) => {
                tokio::time::sleep(pause).await;
                if matches!(
                    source.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::NotFound
                ) {
                    // The one that held the lock was on its way out. Where one holds it still,
                    // this does nothing.
                    start(config, &place).await?;
                }
            }
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// One try.
pub(super) async fn connect(place: &Place) -> io::Result<UnixStream> {
    UnixStream::connect(place.socket()).await
}

async fn start(config: &SupervisorConfig, place: &Place) -> Result<(), StartError> {
    let failed = |source| StartError::Directory {
        path: place.file(place::STARTUP).display().to_string(),
        source,
    };
    let said = File::create(place.file(place::STARTUP)).map_err(failed)?;
    let mut command: Vec<OsString> = vec![config.executable.clone().into(), VERB.into()];
    command.extend(config.options.to_arguments());
    let program = config.executable.display().to_string();
    let ended = tokio::task::spawn_blocking(move || run_starter(command, &said))
        .await
        .map_err(|panic| failed(io::Error::other(panic)))?
        .map_err(|source| StartError::Spawn { program, source })?;
    match ended {
        Some(Exit::Code(0)) => Ok(()),
        ended => Err(StartError::GaveUp {
            message: std::fs::read_to_string(place.file(place::STARTUP))
                .ok()
                .filter(|text| !text.trim().is_empty())
                .map_or_else(
                    || format!("how it ended: {ended:?}"),
                    |text| text.trim().to_owned(),
                ),
        }),
    }
}

/// Runs the program that forks the guardian and ends once the supervisor listens; how it ended,
/// unless it takes too long.
fn run_starter(command: Vec<OsString>, said: &File) -> Result<Option<Exit>, SpawnFault> {
    let detail = "its path or an option holds a NUL character";
    let argv = command
        .into_iter()
        .map(|text| CString::new(text.into_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| SpawnFault::BadCommand { detail })?;
    let env: Vec<CString> = ["RUST_BACKTRACE", "LANG"]
        .into_iter()
        .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
        .filter_map(|line| CString::new(line).ok())
        .collect();
    let step = "open /dev/null";
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|source| SpawnFault::Other { step, source })?;
    let child = spawn::spawn(&spawn::Command {
        argv: &argv,
        env: &env,
        working_dir: c"/",
        stdio: [null.as_fd(), null.as_fd(), said.as_fd()],
        cgroup: None,
        join: &[],
        open_files: None,
        oom_score: None,
        limits: &[],
        no_new_privileges: false,
        isolation: None,
    })?;
    let waited = exit::reap_within(&child.pidfd, START_TIME).ok().flatten();
    Ok(waited.map(|waited| waited.exit))
}
