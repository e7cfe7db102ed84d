//! The hidden verb: from a started program to a listening supervisor.
//!
//! The program that was started forks the guardian and ends as soon as a
//! supervisor listens, so whoever started it knows, and is the parent of nothing.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use taskwright_native::daemonize::{self, Fork, Standard};

use crate::guardian::{self, Role};
use crate::options::SuperviseOptions;
use crate::place::{MESSAGES, Place};
use crate::process::{Limits, Supervisor};
use crate::sealed;

/// Why there is no supervisor.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("{0}")]
    Usage(String),
    #[error("use the state directory {path}: {source}")]
    Place { path: String, source: io::Error },
    #[error("become a background process: {0}")]
    Daemonize(io::Error),
    #[error("the supervisor ended before it listened; see {0}")]
    Silent(String),
}

/// How long the starter waits for its supervisor to listen.
const START_TIME: Duration = Duration::from_secs(10);

/// Runs the hidden verb with its arguments. To be called before the process has a second thread.
///
/// Success means that a supervisor listens in the state directory, this one or one that was
/// there already. Problems are told on standard error.
#[must_use]
pub fn supervise(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nobody_else_to_tell = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: impl IntoIterator<Item = OsString>) -> Result<(), RunError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Where it works it does not come back.
    let unsealed = sealed::execute_again(&arguments);
    let options = SuperviseOptions::from_arguments(arguments).map_err(RunError::Usage)?;
    let unusable = |source| RunError::Place {
        path: options.state_dir.display().to_string(),
        source,
    };
    let place = Place::open(&options.state_dir).map_err(unusable)?;
    let Some(lock) = place.lock().map_err(unusable)? else {
        // Another one is, or will be, there.
        return Ok(());
    };
    let messages = place.messages(MESSAGES).map_err(unusable)?;
    // Who is not root enters nothing of which others are root.
    if let Err(why) = unsealed
        && daemonize::this_user() == 0
    {
        let _nobody_else_to_tell = writeln!(
            &messages,
            "the program could be written to by a task that runs inside a container: {why}"
        );
    }
    let (ours, theirs) = UnixStream::pair().map_err(RunError::Daemonize)?;
    match daemonize::fork().map_err(RunError::Daemonize)? {
        Fork::Parent(_) => {
            drop((theirs, lock));
            wait_until_listening(ours).map_err(|_| {
                let said = place.file(MESSAGES);
                RunError::Silent(said.display().to_string())
            })
        }
        Fork::Child => {
            drop(ours);
            background(&options, &place, &messages, theirs);
            drop(lock);
            Ok(())
        }
    }
}

fn wait_until_listening(mut ready: UnixStream) -> io::Result<()> {
    ready.set_read_timeout(Some(START_TIME))?;
    ready.read_exact(&mut [0])
}

/// The guardian and, in its child, the supervisor. Returns when either is to end.
fn background(options: &SuperviseOptions, place: &Place, messages: &File, ready: UnixStream) {
    let failed = |what: &str, error: io::Error| {
        let _nobody_else_to_tell = writeln!(&*messages, "{what}: {error}");
    };
    daemonize::own_session();
    daemonize::go_first();
    if let Err(error) = leave_standard_files(messages) {
        return failed("set up standard files", error);
    }
    let limits = Limits {
        open_files: daemonize::raise_open_files(),
        oom_score: daemonize::avoid_oom_killer(),
    };
    let (link, since) = match guardian::guard() {
        Ok(Role::Supervisor(link, since)) => (link, since),
        Ok(Role::Finished) => return,
        Err(error) => return failed("guard", error),
    };
    daemonize::name_this_process(c"tw-supervisor");
    let begun = Supervisor::begin(options.clone(), place, limits, link, since);
    let result = begun.and_then(|supervisor| {
        let _starter_gave_up = (&ready).write_all(&[1]);
        drop(ready);
        supervisor.run()
    });
    if let Err(error) = result {
        failed("supervise", error);
        // Not in order: the guardian starts the next one.
        std::process::exit(1);
    }
}

fn leave_standard_files(messages: &File) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    daemonize::replace_standard(Standard::Input, &null)?;
    daemonize::replace_standard(Standard::Output, &null)?;
    daemonize::replace_standard(Standard::Error, messages)
}
