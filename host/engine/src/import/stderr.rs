//! What a guest prints to its standard error: kept in part, then logged.
//!
//! Where it prints more than is kept, the rest is dropped and the write still
//! succeeds: a guest must not fail for being talkative.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::call::Scope;

/// Bytes kept of what one call prints.
const MOST_BYTES: usize = 8 << 10;

/// A bounded standard error. Clones write to the same place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stderr(Arc<Mutex<Vec<u8>>>);

impl Stderr {
    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.0.lock();
        let room = MOST_BYTES.saturating_sub(kept.len());
        kept.extend(bytes.iter().take(room));
    }

    /// Its last lines, as one: what a panic says takes two.
    pub(crate) fn last_words(&self) -> String {
        let kept = self.0.lock();
        let text = String::from_utf8_lossy(&kept);
        let lines = text.lines().map(str::trim).filter(|line| {
            // Advice of Rust's runtime to somebody with a shell, which a guest is not.
            !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE")
        });
        let mut last: Vec<&str> = lines.rev().take(2).collect();
        last.reverse();
        last.join(" ")
    }

    /// Passes what was printed on to the log.
    pub(crate) fn log(&self, plugin: &str, scope: &Scope) {
        let kept = self.0.lock();
        if kept.is_empty() {
            return;
        }
        let task = scope.task().map(|given| given.task.id);
        let task = task.map(tracing::field::display);
        let text = String::from_utf8_lossy(&kept);
        tracing::info!(target: "taskwright::plugin", plugin, task, "stderr: {}", text.trim_end());
    }
}

impl IsTerminal for Stderr {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stderr {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Stderr {
    async fn ready(&mut self) {}
}

impl OutputStream for Stderr {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.keep(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MOST_BYTES)
    }
}

impl AsyncWrite for Stderr {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.keep(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
