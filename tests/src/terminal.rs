//! A terminal that somebody looks at.

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::pty::openpty;

use crate::reaper::Owned;

/// A command whose standard error is a terminal.
#[derive(Debug)]
pub struct OnTerminal {
    /// The command.
    pub process: Owned,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    /// Starts a command whose standard error is a terminal, its standard output nothing.
    ///
    /// # Panics
    /// When there is no terminal, or it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let pair = match openpty(None, None) {
            Ok(pair) => pair,
            Err(error) => panic!("make a terminal: {error}"),
        };
        command
            .stdout(Stdio::null())
            .stderr(Stdio::from(pair.slave));
        let process = match Owned::spawn(command) {
            Ok(process) => process,
            Err(error) => panic!("start {command:?}: {error}"),
        };
        // Ours goes with the command: what reads ends when nobody can write any more.
        command.stderr(Stdio::null());
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let shown = seen.clone();
        let mut screen = File::from(pair.master);
        std::thread::spawn(move || {
            let mut piece = [0; 1024];
            // The end of a terminal is an error.
            while let Ok(count @ 1..) = screen.read(&mut piece) {
                let piece = piece.get(..count).unwrap_or_default();
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.extend_from_slice(piece);
            }
        });
        Self { process, seen }
    }

    /// All that was ever shown, with what controls the terminal.
    #[must_use]
    pub fn shown(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&seen).into_owned()
    }
}
