//! What tasks print, as the loop's port over the supervisor's reader.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use taskwright_control::port::{OutputChunk, OutputError, Outputs, Stream};
use taskwright_model::TaskKey;
use taskwright_supervisor::OutputReader;
use taskwright_supervisor::output::OutputStream;

use super::places::Places;
use super::units::blocking;

/// The outputs below one data directory.
pub(crate) struct TaskOutputs {
    reader: Arc<OutputReader>,
    places: Places,
}

impl TaskOutputs {
    /// Outputs read by `reader`.
    pub(crate) fn new(reader: Arc<OutputReader>, places: Places) -> Self {
        Self { reader, places }
    }
}

impl Outputs for TaskOutputs {
    fn read(
        &self,
        key: TaskKey,
        stream: Stream,
        offset: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<OutputChunk, OutputError>> {
        let reader = self.reader.clone();
        let directory = self.places.below_data_dir(&key);
        Box::pin(async move {
            let read = move || reader.read(&directory, of(stream), offset, most);
            let read = blocking(read).await.map_err(OutputError::Unreadable)?;
            let piece = read.map_err(explain)?;
            Ok(OutputChunk {
                offset: piece.offset,
                bytes: piece.bytes,
                end: piece.end,
            })
        })
    }

    fn grown(
        &self,
        key: TaskKey,
        stream: Stream,
        end: u64,
        at_most: Duration,
    ) -> BoxFuture<'_, ()> {
        let directory = self.places.below_data_dir(&key);
        Box::pin(async move {
            self.reader
                .grown(&directory, of(stream), end, at_most)
                .await;
        })
    }
}

/// Links, pipes, directories and devices are never read: only the task can have put them there.
fn explain(error: io::Error) -> OutputError {
    let link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    match error.kind() {
        _ if link => OutputError::Replaced("it is a link".to_owned()),
        ErrorKind::NotADirectory | ErrorKind::InvalidData => {
            OutputError::Replaced(error.to_string())
        }
        _ => OutputError::Unreadable(error.to_string()),
    }
}

fn of(stream: Stream) -> OutputStream {
    match stream {
        Stream::Stdout => OutputStream::Stdout,
        Stream::Stderr => OutputStream::Stderr,
    }
}
