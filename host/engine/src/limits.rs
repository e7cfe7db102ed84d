//! What one call may use. Whoever wants more is stopped, and only this call fails.
//!
//! | resource | bounded by |
//! |---|---|
//! | memory, tables, instances | the store's limiter, and the pool's slots |
//! | CPU time | epochs: the guest yields every tick and is charged for it |
//! | time in all, waiting for the host included | one deadline around the call |
//! | what it hands to the host in one piece | hostcall fuel |
//! | handles | the resource table's capacity |
//! | native stack | `max_wasm_stack`, see [`crate::machine`] |

use std::time::Duration;

use wasmtime::{Store, StoreLimits, StoreLimitsBuilder, UpdateDeadline};

use crate::call::CallState;

/// How often the epoch moves on: the longest a guest keeps its thread from others, and the
/// unit in which it is charged for CPU time.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Bytes that a guest may hand to the host in one call; twice the largest task.
const HOSTCALL_BYTES: usize = 4 << 20;
/// Resources that a guest may hold at a time.
pub(crate) const MOST_HANDLES: usize = 1000;
/// Elements of all tables of a guest together.
pub(crate) const TABLE_ELEMENTS: usize = 20_000;
/// Core instances a component may consist of.
pub(crate) const CORE_INSTANCES: u32 = 64;
/// Linear memories a component may have.
pub(crate) const MEMORIES: u32 = 4;
/// Tables a component may have.
pub(crate) const TABLES: u32 = 20;

/// The most linear memory that an operator may lend to the calls of a plugin.
pub const MOST_MEMORY_BYTES: usize = 256 << 20;

/// The bounds that an operator may move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Linear memory, in bytes.
    pub memory_bytes: usize,
    /// CPU time. Measured in ticks of wall time while the guest runs, so it is generous, not
    /// exact: on a busy machine a guest is also charged for time that was stolen from it.
    pub cpu: Duration,
    /// Wall time of the guest and of the host functions it calls, together.
    pub deadline: Duration,
}

impl Default for CallLimits {
    /// 64 MiB, one second of CPU time, ten seconds in all.
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            cpu: Duration::from_secs(1),
            deadline: Duration::from_secs(10),
        }
    }
}

/// The guest used up its CPU time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it used its {} ms of CPU time", .0.as_millis())]
pub(crate) struct CpuBudget(Duration);

impl CallLimits {
    pub(crate) fn store_limits(&self) -> StoreLimits {
        StoreLimitsBuilder::new()
            .memory_size(self.memory_bytes)
            .table_elements(TABLE_ELEMENTS)
            .instances(CORE_INSTANCES as usize)
            .memories(MEMORIES as usize)
            .tables(TABLES as usize)
            // A guest that meets a failing allocation aborts without a word; a trap says why.
            .trap_on_grow_failure(true)
            .build()
    }

    /// Puts the bounds on a store. Must happen before the instance is made, which runs guest
    /// code already.
    pub(crate) fn arm(&self, store: &mut Store<CallState>) {
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.set_max_component_handles(MOST_HANDLES);

        let budget = self.cpu;
        let mut used = Duration::ZERO;
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            used += TICK;
            if used > budget {
                Err(wasmtime::Error::new(CpuBudget(budget)))
            } else {
                Ok(UpdateDeadline::Yield(1))
            }
        });
    }
}
