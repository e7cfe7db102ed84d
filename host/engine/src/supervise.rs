//! How a plugin has been doing: calls, faults, and faults in a row.
//!
//! It counts and remembers, it does not act: a breaker that stops calling a
//! plugin would read [`Supervision::faults_in_a_row`] before a call.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The account of one plugin since it was loaded.
#[derive(Debug, Default)]
pub(crate) struct Supervision {
    calls: AtomicU64,
    faults: AtomicU64,
    in_a_row: AtomicU64,
    last_fault: Mutex<Option<String>>,
}

impl Supervision {
    /// A call came back and kept the contract.
    pub(crate) fn went_well(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    /// A call gave no answer, but not by the plugin's fault.
    pub(crate) fn was_spoiled(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A call failed by the plugin's fault.
    pub(crate) fn failed(&self, message: &str) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.in_a_row.fetch_add(1, Ordering::Relaxed);
        *self.last_fault.lock() = Some(message.to_owned());
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Faults since the last call that went well.
    pub(crate) fn faults_in_a_row(&self) -> u64 {
        self.in_a_row.load(Ordering::Relaxed)
    }

    /// `Err` while the newest calls failed by the plugin's fault.
    pub(crate) fn health(&self) -> Result<(), String> {
        match self.faults_in_a_row() {
            0 => Ok(()),
            faults => Err(format!(
                "its last {faults} calls failed by its own fault, the newest: {}",
                self.last_fault.lock().as_deref().unwrap_or("unknown")
            )),
        }
    }
}
