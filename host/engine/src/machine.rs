//! The engine: Wasmtime's settings, the pool of instances, the permits to use it.
//!
//! One per daemon. Instances come from a pool whose slots are reset, not
//! unmapped, because a fresh instance per call is only cheap that way.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use wasmtime::component::Component;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::cache::Cache;
use crate::epoch::Ticker;
use crate::limits::{self, CallLimits};

/// Frames named when a guest traps; a recursion would name thousands.
const MOST_FRAMES: usize = 20;
/// Native stack a guest may use.
const WASM_STACK: usize = 512 << 10;
/// Stack of the fibre a call runs on: the guest's part, and room for host functions.
const FIBRE_STACK: usize = 1 << 20;

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What one call may use.
    pub limits: CallLimits,
    /// Calls that run at a time; further ones wait. Each takes a slot of the pool, which
    /// costs address space at once and memory only when it is used.
    pub most_calls: u32,
    /// Where compiled components are kept. `None`: nowhere, each start compiles anew.
    pub cache_dir: Option<PathBuf>,
    /// Whether only components are kept there that are part of the product: nobody clears a
    /// folder of a user's, so it must not grow with each plugin that is tried.
    pub cache_ours_only: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            limits: CallLimits::default(),
            most_calls: 64,
            cache_dir: None,
            cache_ours_only: false,
        }
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Wasmtime refuses this machine.
    #[error("this machine cannot run WebAssembly: {detail}")]
    Unsupported {
        /// What Wasmtime said.
        detail: String,
    },
    /// No thread could be had.
    #[error("start the thread that meters plugins")]
    Thread {
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    wasm: wasmtime::Engine,
    ticker: Ticker,
    permits: Semaphore,
    /// Of these, as many as plugins that are not built in may have together.
    dropped_in: Semaphore,
    most_calls: usize,
    /// Places for instances that wait for their call.
    spares: Arc<Semaphore>,
    limits: CallLimits,
    cache: Option<Cache>,
    cache_ours_only: bool,
    /// The engine of scripts, with the digest of its component: all scripts share its code.
    shared: Mutex<Option<(String, Component)>>,
    allocation: Allocation,
}

/// In which a plugin waits for its turns; `None` for one that is built in.
#[derive(Debug)]
pub(crate) struct Lane(Option<Semaphore>);

/// A call may be made.
pub(crate) struct Turn<'a> {
    _of_its_own: Option<(SemaphorePermit<'a>, SemaphorePermit<'a>)>,
    _of_all: SemaphorePermit<'a>,
}

/// Where instances come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Slots that were reserved at the start.
    Pool,
    /// Fresh mappings for each call: slower, for machines without the address space.
    OnDemand,
}

impl Engine {
    /// Makes an engine. Falls back to instances on demand where the pool's address space
    /// cannot be reserved, and to no cache where the directory cannot be trusted; both are
    /// logged and neither is an error.
    ///
    /// # Errors
    /// [`EngineError`] when this machine cannot run components at all.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let (wasm, allocation) = Self::reserve(&config)?;
        let ticker =
            Ticker::start(wasm.clone()).map_err(|source| EngineError::Thread { source })?;
        let cache = config.cache_dir.and_then(|directory| {
            Cache::open(&directory, &wasm)
                .inspect_err(|error| {
                    tracing::warn!(
                        directory = %directory.display(),
                        error = %crate::cache::chain(error),
                        "compiled plugins are not kept: each start compiles them again"
                    );
                })
                .ok()
        });
        let most_calls = config.most_calls.max(1) as usize;
        Ok(Self {
            inner: Arc::new(Inner {
                wasm,
                ticker,
                permits: Semaphore::new(most_calls),
                dropped_in: Semaphore::new((most_calls / 2).max(1)),
                most_calls,
                spares: Arc::new(Semaphore::new(most_spares(config.most_calls) as usize)),
                limits: config.limits,
                cache,
                cache_ours_only: config.cache_ours_only,
                shared: Mutex::default(),
                allocation,
            }),
        })
    }

    fn reserve(config: &EngineConfig) -> Result<(wasmtime::Engine, Allocation), EngineError> {
        let mut pooled = settings();
        pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
        match wasmtime::Engine::new(&pooled) {
            Ok(engine) => return Ok((engine, Allocation::Pool)),
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "no pool of instances: plugin calls will be slower"
            ),
        }
        let engine =
            wasmtime::Engine::new(&settings()).map_err(|error| EngineError::Unsupported {
                detail: format!("{error:#}"),
            })?;
        Ok((engine, Allocation::OnDemand))
    }

    /// Where instances come from.
    #[must_use]
    pub fn allocation(&self) -> Allocation {
        self.inner.allocation
    }

    pub(crate) fn wasm(&self) -> &wasmtime::Engine {
        &self.inner.wasm
    }

    /// The code that scripts share, if it is of this component.
    pub(crate) fn shared(&self, digest: &str) -> Option<Component> {
        let shared = self.inner.shared.lock();
        let found = shared.as_ref().filter(|(of, _)| of == digest);
        found.map(|(_, component)| component.clone())
    }

    /// Lets scripts share this code from now on.
    pub(crate) fn share(&self, digest: &str, component: &Component) {
        *self.inner.shared.lock() = Some((digest.to_owned(), component.clone()));
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.inner.ticker
    }

    /// A turn for a call of this plugin. What operators dropped in never takes more than half of
    /// all turns, and none of it more than a quarter: whatever it does, built-in plugins are
    /// called.
    pub(crate) async fn turn<'a>(&'a self, lane: &'a Lane) -> Result<Turn<'a>, AcquireError> {
        let of_its_own = match &lane.0 {
            Some(own) => Some((own.acquire().await?, self.inner.dropped_in.acquire().await?)),
            None => None,
        };
        Ok(Turn {
            _of_its_own: of_its_own,
            _of_all: self.inner.permits.acquire().await?,
        })
    }

    /// A place for an instance that waits for its call, if there is one.
    pub(crate) fn spare_place(&self) -> Option<OwnedSemaphorePermit> {
        self.inner.spares.clone().try_acquire_owned().ok()
    }

    /// The lane of a plugin, for as long as it is loaded.
    pub(crate) fn lane(&self, built_in: bool) -> Lane {
        let share = (self.inner.most_calls / 4).max(1);
        Lane((!built_in).then(|| Semaphore::new(share)))
    }

    pub(crate) fn limits(&self) -> &CallLimits {
        &self.inner.limits
    }

    /// Where the code of a component is kept, if it is; `ours` are part of the product.
    pub(crate) fn cache(&self, ours: bool) -> Option<&Cache> {
        let kept = ours || !self.inner.cache_ours_only;
        self.inner.cache.as_ref().filter(|_| kept)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("allocation", &self.inner.allocation)
            .field("limits", &self.inner.limits)
            .finish_non_exhaustive()
    }
}

/// What compiled code depends on: the compiling child and the running daemon must agree, or
/// Wasmtime refuses the code. How instances are allocated is not part of it.
pub(crate) fn settings() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // Async WIT needs it and 0.1 has none; without it each call is a microsecond cheaper.
        .concurrency_support(false)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBRE_STACK)
        .wasm_backtrace_max_frames(NonZeroUsize::new(MOST_FRAMES));
    config
}

/// How many instances may wait for their calls beside those that are called.
fn most_spares(most_calls: u32) -> u32 {
    most_calls.div_ceil(4)
}

/// A slot for every call that may run at a time and every instance that may wait for one, large
/// enough for any component that may be loaded.
fn pool(config: &EngineConfig) -> PoolingAllocationConfig {
    let calls = config.most_calls.max(1);
    let calls = calls.saturating_add(most_spares(calls));
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_core_instances(calls.saturating_mul(limits::CORE_INSTANCES))
        .total_memories(calls.saturating_mul(limits::MEMORIES))
        .total_tables(calls.saturating_mul(limits::TABLES))
        .total_stacks(calls)
        .max_core_instances_per_component(limits::CORE_INSTANCES)
        .max_memories_per_component(limits::MEMORIES)
        .max_tables_per_component(limits::TABLES)
        .max_memory_size(config.limits.memory_bytes.max(limits::MOST_MEMORY_BYTES))
        .table_elements(limits::TABLE_ELEMENTS)
        .max_component_instance_size(1 << 20)
        .max_core_instance_size(1 << 20)
        // Slots are cleared by writing, which for a small guest is much cheaper than giving
        // pages back and faulting them in again. This much of each used slot stays resident.
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10)
        .async_stack_keep_resident(32 << 10)
        .max_unused_warm_slots(calls.min(32))
        .pagemap_scan(Enabled::Auto);
    pool
}
