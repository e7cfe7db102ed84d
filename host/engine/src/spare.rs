//! Instances of a script that have read it before their call comes.
//!
//! Reading takes several times as long as the call of most scripts, and is the same each time. So
//! once a script is called, one more instance reads it beside the calls, and the next call begins
//! there. It is used once, as every instance is, and is given back when nobody calls for a while.
//! Nothing of the script's own runs before the call: reading it only parses it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use metrics::Counter;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::bindings::runtime;
use crate::call::{CallState, Scope};
use crate::import::Host;
use crate::load::Identity;
use crate::machine::Engine;
use crate::tape::Tape;

/// How long an instance is kept that nobody calls: it holds memory.
const UNUSED: Duration = Duration::from_secs(30);

/// An instance that has read its script.
pub(crate) struct Spare {
    pub(crate) store: Store<CallState>,
    pub(crate) instance: Instance,
    _place: OwnedSemaphorePermit,
}

/// The spare instance of one script, if there is one at the moment.
pub(crate) struct Spares {
    shared: Arc<Shared>,
    keeper: AbortHandle,
    used: Counter,
}

#[derive(Default)]
struct Shared {
    kept: Mutex<Option<Spare>>,
    /// Told at each call.
    called: Notify,
}

/// What an instance is made of.
struct Maker {
    engine: Engine,
    component: InstancePre<CallState>,
    /// How it is told to read its script.
    reader: runtime::GuestIndices,
    plugin: Arc<Identity>,
    host: Arc<Host>,
}

impl Spares {
    /// Keeps one of this script from its first call on, until this is dropped.
    pub(crate) fn keep(
        engine: &Engine,
        component: &InstancePre<CallState>,
        plugin: &Arc<Identity>,
        host: &Arc<Host>,
    ) -> wasmtime::Result<Self> {
        let maker = Maker {
            engine: engine.clone(),
            component: component.clone(),
            reader: runtime::GuestIndices::new(component)?,
            plugin: Arc::clone(plugin),
            host: Arc::clone(host),
        };
        let shared = Arc::new(Shared::default());
        let keeper = tokio::spawn(maker.follow(Arc::clone(&shared))).abort_handle();
        let name = plugin.name.to_string();
        Ok(Self {
            shared,
            keeper,
            used: metrics::counter!("taskwright_plugin_spares_used_total", "plugin" => name),
        })
    }

    /// The spare instance, for a call. Another one is made meanwhile.
    pub(crate) fn take(&self) -> Option<Spare> {
        let spare = self.shared.kept.lock().take();
        self.shared.called.notify_one();
        self.used.increment(u64::from(spare.is_some()));
        spare
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Maker {
    /// Has one ready for as long as there are calls.
    async fn follow(self, shared: Arc<Shared>) {
        loop {
            shared.called.notified().await;
            loop {
                let missing = shared.kept.lock().is_none();
                if missing {
                    let made = self.make().await;
                    *shared.kept.lock() = made;
                }
                if timeout(UNUSED, shared.called.notified()).await.is_err() {
                    *shared.kept.lock() = None;
                    break;
                }
            }
        }
    }

    /// Makes one, under the bounds of a call. None where there is no place for it or it does not
    /// read its script: then the call finds out why.
    async fn make(&self) -> Option<Spare> {
        let _turn = self.engine.turn(&self.plugin.lane).await.ok()?;
        let place = self.engine.spare_place()?;
        let _ticking = self.engine.ticker().call();
        let state = CallState::new(&self.plugin, &self.host, Scope::Plugin, Tape::default());
        let mut store = Store::new(self.engine.wasm(), state);
        self.plugin.limits.arm(&mut store);
        let reading = async {
            let instance = self.component.instantiate_async(&mut store).await?;
            let guest = self.reader.load(&mut store, &instance)?;
            let read = guest.call_probe(&mut store).await?;
            Ok::<_, wasmtime::Error>(read.is_ok().then_some(instance))
        };
        let reading = AssertUnwindSafe(reading).catch_unwind();
        let read = timeout(self.plugin.limits.deadline, reading).await;
        let instance = read.ok()?.ok()?.ok()??;
        Some(Spare {
            store,
            instance,
            _place: place,
        })
    }
}
