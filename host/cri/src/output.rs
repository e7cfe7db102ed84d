//! From the runtime's log files into the output files of tasks, byte for byte.
//!
//! What is lost before it reaches a log stays lost: containerd drops a carriage return that stands right
//! before a newline, which then cannot be told from a line that had none. And containerd 1.6 drops
//! what it has not yet copied, some kilobytes, when a container ends while it prints faster than
//! that; 1.7 does not.
//!
//! | module | about |
//! |---|---|
//! | [`line`] | the form of a log |
//! | [`book`] | how far each container's log has been carried over, across crashes |
//! | [`follow`] | reading one log and its rotated part; no waiting, no runtime |
//! | [`pump`] | one container's log, followed until its end |
//! | [`notice`] | who is told when a log is written or closed |

pub(crate) mod book;
pub(crate) mod follow;
pub(crate) mod line;
pub(crate) mod notice;
pub(crate) mod pump;

use taskwright_capability::OutputStream;

/// A number for each of the two outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) stdout: u64,
    pub(crate) stderr: u64,
}

impl Pair {
    pub(crate) fn get(self, stream: OutputStream) -> u64 {
        match stream {
            OutputStream::Stdout => self.stdout,
            OutputStream::Stderr => self.stderr,
        }
    }

    pub(crate) fn of(&mut self, stream: OutputStream) -> &mut u64 {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }
}
