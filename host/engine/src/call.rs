//! One call of a plugin: a fresh store and instance, its bounds, its account.
//!
//! Whatever the guest does, a call ends: with an answer, or with a [`CallError`]
//! that says whose fault it was. The store goes with it, so nothing of one call
//! is there in the next.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use taskwright_control::port::{StrategyTask, UnitEnded};
use taskwright_model::{ProcessIdentity, Remarks, UnitName};
use wasmtime::component::{InstancePre, ResourceTable};
use wasmtime::{Store, StoreLimits, Trap, WasmBacktrace};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bindings::Export;
use crate::convert::cut;
use crate::import::{Host, Outgoing, Stderr};
use crate::limits::{CpuBudget, MOST_HANDLES};
use crate::load::Identity;
use crate::machine::Engine;
use crate::spare::Spare;
use crate::tape::Tape;
use crate::wasi;

/// Functions named in the message of a trap.
const MOST_NAMED: usize = 4;
/// Bytes of a guest's last words in the message of a trap.
const MOST_LAST_WORDS: usize = 400;
/// Host functions that one call may wait for. Whoever asks for more does nothing else, and would
/// look as if the host were slow.
const MOST_WAITS: u32 = 1000;
/// What a Rust guest prints that did not mean to give up.
const PANIC: &str = "panicked at";

/// Why a call gave no answer, and whose fault that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The plugin's: it trapped, used up a limit, or broke the contract.
    Plugin(String),
    /// This machine's or this daemon's.
    Host(String),
}

/// What a call is about, and with it what it may do.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    /// The plugin itself: no task, nothing may be done.
    Plugin,
    /// A task that is being checked: nothing may be done.
    Check(StrategyTask),
    /// An attempt: units may be started and stopped.
    Attempt(StrategyTask),
}

impl Scope {
    /// The task, if the call is about one.
    pub(crate) fn task(&self) -> Option<&StrategyTask> {
        match self {
            Self::Plugin => None,
            Self::Check(task) | Self::Attempt(task) => Some(task),
        }
    }

    /// The attempt, if something may be done for one.
    pub(crate) fn attempt(&self) -> Option<&StrategyTask> {
        match self {
            Self::Plugin | Self::Check(_) => None,
            Self::Attempt(task) => Some(task),
        }
    }
}

/// What a store holds: the guest's bounds, and what host functions need to know.
pub(crate) struct CallState {
    pub(crate) limits: StoreLimits,
    wasi: WasiCtx,
    pub(crate) http: Outgoing,
    pub(crate) table: ResourceTable,
    stderr: Stderr,
    pub(crate) plugin: Arc<Identity>,
    pub(crate) host: Arc<Host>,
    pub(crate) scope: Scope,
    pub(crate) account: Account,
    pub(crate) tape: Tape,
}

/// What a call did on the way.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// The units it started or found, in order.
    pub(crate) units: Vec<UnitName>,
    /// The process of the first of them.
    pub(crate) process: Option<ProcessIdentity>,
    /// The ends of units that it was told of when it started or found them.
    pub(crate) ended: Vec<(UnitName, UnitEnded)>,
    /// What people are to see of the attempt.
    pub(crate) remarks: Remarks,
    /// Bytes it wrote into directories of the operator's.
    pub(crate) written: u64,
    /// Lines it wrote to the log.
    pub(crate) lines: u32,
    /// Time spent in host functions that wait.
    pub(crate) in_host: Duration,
    /// How many host functions it waited for.
    pub(crate) waits: u32,
    /// The host function it waits in.
    pub(crate) waits_in: Option<&'static str>,
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl CallState {
    /// That of an instance of this plugin.
    pub(crate) fn new(plugin: &Arc<Identity>, host: &Arc<Host>, scope: Scope, tape: Tape) -> Self {
        let about = about(plugin, &scope, &tape);
        let stderr = Stderr::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MOST_HANDLES);
        Self {
            limits: plugin.limits.store_limits(),
            wasi: wasi::context(plugin, &about, &tape, &stderr),
            http: Outgoing::new(plugin),
            table,
            stderr,
            plugin: Arc::clone(plugin),
            host: Arc::clone(host),
            scope,
            account: Account::default(),
            tape,
        }
    }

    /// Waits for `work` on a task of its own, so that a call which is dropped meanwhile
    /// (deadline, shutdown) never leaves it half done, and notes the time for the account.
    pub(crate) async fn outlast<T: Send + 'static>(
        &mut self,
        function: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> wasmtime::Result<T> {
        self.account.waits += 1;
        if self.account.waits > MOST_WAITS {
            return Err(wasmtime::Error::new(Flood));
        }
        self.account.waits_in = Some(function);
        let since = Instant::now();
        let answer = tokio::spawn(work).await;
        self.account.in_host += since.elapsed();
        self.account.waits_in = None;
        answer.map_err(|error| wasmtime::Error::new(HostPanic(format!("{function}: {error}"))))
    }
}

/// A bug of ours, met while a guest waited for us.
#[derive(Debug, thiserror::Error)]
#[error("the host function failed: {0}")]
struct HostPanic(String);

/// The guest did not stop calling.
#[derive(Debug, thiserror::Error)]
#[error("it called the host more than {MOST_WAITS} times in one call")]
struct Flood;

/// A call that is over.
pub(crate) struct Finished<T> {
    pub(crate) answer: Result<T, CallError>,
    pub(crate) account: Account,
    pub(crate) took: Duration,
}

/// How many calls' time a call waits for its turn before it gives up.
const TURNS_WAITED_FOR: u32 = 30;

/// What a call is about, as far as a repeat of it is about the same.
fn about(plugin: &Identity, scope: &Scope, tape: &Tape) -> String {
    let noted = tape.about();
    noted.unwrap_or_else(|| wasi::about(plugin.name.as_str(), scope))
}

/// Calls one function of a plugin's export in an instance of its own: a fresh one, or a spare one.
pub(crate) async fn run<E: Export, T: Serialize>(
    engine: &Engine,
    (component, export): (&InstancePre<CallState>, &E),
    plugin: &Arc<Identity>,
    host: &Arc<Host>,
    (scope, tape): (Scope, Tape),
    spare: Option<Spare>,
    function: impl for<'a> FnOnce(
        &'a E::Guest,
        &'a mut Store<CallState>,
    ) -> BoxFuture<'a, wasmtime::Result<T>>,
) -> Finished<T> {
    let started = Instant::now();
    let deadline = plugin.limits.deadline;
    // Nothing has been done yet and nothing is wrong with the task: a crowd waits longer for its
    // turn than a call may take.
    let patience = deadline.saturating_mul(TURNS_WAITED_FOR);
    let _turn = match tokio::time::timeout(patience, engine.turn(&plugin.lane)).await {
        Ok(Ok(turn)) => turn,
        Ok(Err(_)) | Err(_) => {
            let message = format!(
                "no plugin call could begin within {} ms: too many of them are running",
                patience.as_millis()
            );
            return Finished {
                answer: Err(CallError::Host(message)),
                account: Account::default(),
                took: started.elapsed(),
            };
        }
    };
    let _ticking = engine.ticker().call();

    let about = about(plugin, &scope, &tape);
    let mut state = CallState::new(plugin, host, scope, tape.clone());
    let (mut store, begun) = match spare {
        None => (Store::new(engine.wasm(), state), None),
        Some(Spare {
            mut store,
            instance,
            ..
        }) => {
            // Nothing of how it was made is left but the handles that it has.
            std::mem::swap(&mut state.table, &mut store.data_mut().table);
            *store.data_mut() = state;
            (store, Some(instance))
        }
    };
    plugin.limits.arm(&mut store);

    let call = async {
        let instance = match begun {
            Some(instance) => instance,
            None => component.instantiate_async(&mut store).await?,
        };
        let guest = export.load(&mut store, &instance)?;
        function(&guest, &mut store).await
    };
    // A panic in a host function unwinds through the guest's stack to here; the store is
    // dropped below and never used again, so nothing half-changed is seen.
    let ended = tokio::time::timeout(deadline, AssertUnwindSafe(call).catch_unwind()).await;
    let answer = match ended {
        Ok(Ok(Ok(answer))) => Ok(answer),
        Ok(Ok(Err(error))) => Err(explain(&error, &store)),
        Ok(Err(_)) => Err(CallError::Host(
            "a bug in a host function ended the call; the log has it".to_owned(),
        )),
        Err(_) => Err(overdue(deadline, store.data().account.waits_in)),
    };
    let CallState {
        stderr,
        account,
        scope,
        http,
        ..
    } = store.into_data();
    stderr.log(plugin.name.as_str(), &scope);
    let took = started.elapsed();
    tape.finish(&about, http.was_used(), &answer, took).await;
    Finished {
        answer,
        account,
        took,
    }
}

fn overdue(deadline: Duration, waits_in: Option<&'static str>) -> CallError {
    let limit = deadline.as_millis();
    match waits_in {
        Some(function) => CallError::Host(format!(
            "{function} gave no answer within the {limit} ms that a call may take"
        )),
        None => CallError::Plugin(format!(
            "it took longer than the {limit} ms a call may take"
        )),
    }
}

/// What went wrong, for an operator: the cause in a sentence, then where it was.
fn explain(error: &wasmtime::Error, store: &Store<CallState>) -> CallError {
    if let Some(panic) = error.downcast_ref::<HostPanic>() {
        return CallError::Host(panic.to_string());
    }
    let state = store.data();
    let mut said = state.stderr.last_words();
    cut(&mut said, MOST_LAST_WORDS);
    let gave_up = error.downcast_ref::<Trap>() == Some(&Trap::UnreachableCodeReached);
    if gave_up && !said.is_empty() && !said.contains(PANIC) {
        // It said why and gave up: where in its machine code that was helps nobody.
        return CallError::Plugin(crate::convert::text(said));
    }
    let mut sentence = if let Some(budget) = error.downcast_ref::<CpuBudget>() {
        budget.to_string()
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        match trap {
            Trap::UnreachableCodeReached => "it gave up (wasm trap: unreachable)".to_owned(),
            Trap::StackOverflow => "it ran out of stack".to_owned(),
            trap => format!("wasm trap: {trap}"),
        }
    } else {
        let cause = error.root_cause().to_string();
        if cause.starts_with("forcing trap when growing memory") {
            "it asked for more memory than a call may have".to_owned()
        } else {
            cause
        }
    };
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        let frames = backtrace.frames().iter();
        let names: Vec<String> = frames
            .filter_map(|frame| frame.func_name())
            .map(|name| format!("{:#}", rustc_demangle::demangle(name)))
            .filter(|name| !is_machinery(name))
            .take(MOST_NAMED)
            .collect();
        if !names.is_empty() {
            sentence.push_str(", in ");
            sentence.push_str(&names.join(" < "));
        }
    }
    if !said.is_empty() {
        sentence.push_str("; it said: ");
        sentence.push_str(&said);
    }
    CallError::Plugin(crate::convert::text(sentence))
}

/// Whether a function is what every panic of a Rust guest has on top, which says nothing
/// about this one.
fn is_machinery(name: &str) -> bool {
    const MACHINERY: [&str; 5] = ["abort", "core::panicking", "std::", "__rustc", "rust_panic"];
    MACHINERY.iter().any(|prefix| name.starts_with(prefix))
}
