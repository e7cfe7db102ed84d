//! `log`: lines for the operator's log, marked and counted.

use tracing::{debug, error, info, warn};

use crate::bindings::log::{Host, Level};
use crate::call::CallState;
use crate::convert::cut;

/// Lines of one call that are written; the rest is counted.
const MOST_LINES: u32 = 64;
/// Bytes of a line.
const MOST_BYTES: usize = 4 << 10;

impl Host for CallState {
    fn write(&mut self, level: Level, mut message: String) -> wasmtime::Result<()> {
        self.account.lines = self.account.lines.saturating_add(1);
        if self.account.lines > MOST_LINES {
            return Ok(());
        }
        cut(&mut message, MOST_BYTES);
        let plugin = self.plugin.name.as_str();
        let task = self.scope.task().map(|given| given.task.id);
        let task = task.map(tracing::field::display);
        match level {
            Level::Debug => debug!(target: "taskwright::plugin", plugin, task, "{message}"),
            Level::Info => info!(target: "taskwright::plugin", plugin, task, "{message}"),
            Level::Warn => warn!(target: "taskwright::plugin", plugin, task, "{message}"),
            Level::Error => error!(target: "taskwright::plugin", plugin, task, "{message}"),
        }
        Ok(())
    }
}

/// Says how many lines of a call were left out, if any were.
pub(crate) fn note_left_out(plugin: &str, lines: u32) {
    if let Some(left_out) = lines.checked_sub(MOST_LINES).filter(|&count| count > 0) {
        warn!(target: "taskwright::plugin", plugin, left_out, "too many lines in one call");
    }
}
