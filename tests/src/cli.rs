//! The command line, with a deadline on everything.

use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::reaper::{self, Owned};

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code as a shell shows it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// This, if it ended with that code.
    ///
    /// # Panics
    /// When it ended with another.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// Its standard output as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {:?}\nstderr: {}", self.stdout, self.stderr),
        }
    }
}

/// A command that runs, its output gathered as it comes.
#[derive(Debug)]
pub struct Running {
    process: Owned,
    stdout: Gathered,
    stderr: Gathered,
}

impl Running {
    /// Starts a command with `input` on its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command, input: &[u8]) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut process = match Owned::spawn(command) {
            Ok(process) => process,
            Err(error) => panic!("start {command:?}: {error}"),
        };
        if let Some(mut pipe) = process.child().stdin.take() {
            let input = input.to_vec();
            // It may end without reading everything.
            std::thread::spawn(move || pipe.write_all(&input));
        }
        let stdout = Gathered::from(process.child().stdout.take());
        let stderr = Gathered::from(process.child().stderr.take());
        Self {
            process,
            stdout,
            stderr,
        }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Owned {
        &mut self.process
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within `deadline`.
    #[must_use]
    pub fn finish(mut self, deadline: Duration) -> Finished {
        let status: ExitStatus = self.process.wait(deadline);
        self.stdout.close();
        self.stderr.close();
        Finished {
            code: reaper::shell_code(status),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it does not end within `deadline`.
#[must_use]
pub fn finish(command: &mut Command, input: &[u8], deadline: Duration) -> Finished {
    Running::start(command, input).finish(deadline)
}

/// What came through a pipe.
#[derive(Debug)]
struct Gathered {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Gathered {
    fn from(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let reader = pipe.map(|mut pipe| {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    let got = buffer.get(..count).unwrap_or_default();
                    let mut bytes = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    bytes.extend_from_slice(got);
                }
            })
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the last byte is here. A command that left the pipe to somebody who outlives
    /// it would keep every `| cat` waiting, so that is a failure.
    fn close(&mut self) {
        let Some(reader) = self.reader.take() else {
            return;
        };
        crate::eventually(
            Duration::from_secs(5),
            "the output of an ended command ends",
            || reader.is_finished(),
        );
    }
}
