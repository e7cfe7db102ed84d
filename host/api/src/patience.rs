//! How long the other end of a connection may take nothing.
//!
//! Whoever asks and does not read keeps what was made for it in memory, and whatever place its
//! request holds. So a write that waits is given a time, in which enough has to be taken of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

/// So many bytes taken within the time are enough: whoever takes a byte now and then holds as much
/// as whoever takes none.
const ENOUGH: usize = 64 * 1024;

/// A stream whose other end is given up once it takes too little.
pub(crate) struct Patient<S> {
    stream: S,
    patience: Duration,
    reader: Arc<Reader>,
    waiting: Option<Waiting>,
}

/// The other end of a connection, as far as it takes what is sent.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Whether somebody is told that it takes too little, instead of giving it up.
    attended: AtomicBool,
    too_slow: Notify,
}

impl Reader {
    /// From now on [`Reader::stands_still`] tells, and nobody is given up.
    pub(crate) fn attend(&self) {
        self.attended.store(true, Ordering::Relaxed);
    }

    /// Until it took too little for as long as it may.
    pub(crate) async fn stands_still(&self) {
        self.too_slow.notified().await;
    }
}

struct Waiting {
    until: Pin<Box<Sleep>>,
    taken: usize,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S, patience: Duration, reader: Arc<Reader>) -> Self {
        Self {
            stream,
            patience,
            reader,
            waiting: None,
        }
    }

    fn attend(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            let waiting = self.waiting.get_or_insert_with(|| Waiting {
                until: Box::pin(sleep(self.patience)),
                taken: 0,
            });
            ready!(waiting.until.as_mut().poll(context));
            if self.reader.attended.load(Ordering::Relaxed) {
                self.waiting = None;
                self.reader.too_slow.notify_one();
                return Poll::Pending;
            }
            metrics::counter!("taskwright_http_readers_cut_total").increment(1);
            let told = "its reader takes too little";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, told)));
        }
        if let (Poll::Ready(Ok(bytes)), Some(waiting)) = (&written, &mut self.waiting) {
            waiting.taken = waiting.taken.saturating_add(*bytes);
            if waiting.taken >= ENOUGH {
                self.waiting = None;
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.attend(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.attend(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever writes flushes when it has nothing more: all of it was taken.
        self.waiting = None;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    //! Readers that take nothing, little, and enough, by a clock that only the test moves.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const BUFFER: usize = 16 * 1024;

    /// Writes a megabyte to a reader that takes so much in each second; how it ended, and when.
    async fn write(each_second: usize) -> (io::Result<()>, Duration) {
        let (near, mut far) = duplex(BUFFER);
        let mut patient = Patient::new(near, PATIENCE, Arc::default());
        let begun = Instant::now();
        let reading = tokio::spawn(async move {
            let mut taken = vec![0; each_second];
            loop {
                sleep(Duration::from_secs(1)).await;
                if far.read_exact(&mut taken).await.is_err() {
                    break;
                }
            }
        });
        let written = timeout(PATIENCE * 20, patient.write_all(&vec![1; 1 << 20])).await;
        reading.abort();
        let timed_out = |_| Err(io::Error::other("it went on waiting"));
        (written.unwrap_or_else(timed_out), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_too_little_is_given_up() {
        for each_second in [0, 1, 2048] {
            let (ended, after) = write(each_second).await;
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(after.as_secs(), PATIENCE.as_secs(), "{each_second}");
        }
        let (ended, _) = write(4096).await;
        ended.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_attends_to_a_reader_is_told_instead() {
        let (near, _far) = duplex(BUFFER);
        let reader = Arc::new(Reader::default());
        reader.attend();
        let mut patient = Patient::new(near, PATIENCE, reader.clone());
        let begun = Instant::now();
        for times in 1..3 {
            tokio::select! {
                written = patient.write_all(&[1; 2 * BUFFER]) => panic!("{written:?}"),
                () = reader.stands_still() => {}
            }
            assert_eq!(begun.elapsed().as_secs(), (PATIENCE * times).as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_taken_everything_has_all_the_time_there_is() {
        let (near, mut far) = duplex(BUFFER);
        let mut patient = Patient::new(near, PATIENCE, Arc::default());
        for _ in 0..4 {
            let write = async {
                patient.write_all(&[1; BUFFER + 1]).await.unwrap();
                patient.flush().await.unwrap();
            };
            let read = async {
                sleep(PATIENCE / 2).await;
                far.read_exact(&mut [0; BUFFER + 1]).await.unwrap();
            };
            tokio::join!(write, read);
        }
    }
}
