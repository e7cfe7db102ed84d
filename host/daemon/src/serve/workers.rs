//! The workers of this daemon, over its own queue or another's.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use taskwright_api::TaskDocuments;
use taskwright_control::Control;
use taskwright_queue::{Json, WorkerId};
use taskwright_worker::names::Names;
use taskwright_worker::pool::Setup;
use taskwright_worker::port::Introduction;
use taskwright_worker::worker::Habits;
use taskwright_worker::{Runs, Templates, WorkQueue};

use super::data_dir::DataDir;
use crate::settings::queue::WorkerSettings;
use crate::versions;

/// The kind of the workers inside a daemon, as the original's.
pub(crate) const INTERNAL_KIND: &str = "orchestrator";
/// A worker is heard so many times before it would be given up.
const BEATS: u32 = 4;
/// Bounds on how often it says that it is alive.
const SHORTEST_BEAT: Duration = Duration::from_millis(200);
const LONGEST_BEAT: Duration = Duration::from_secs(15);

/// What this machine runs for workers.
pub(crate) fn runs(control: Control, data_dir: &DataDir, largest_result: usize) -> Runs {
    Runs::new(
        control,
        Arc::new(|task| TaskDocuments.read(task)),
        data_dir.work(),
        largest_result as u64,
    )
}

/// Who a worker of this machine is.
pub(crate) fn introduction(
    id: WorkerId,
    kind: &str,
    parallel: u32,
    templates: &Templates,
) -> Introduction {
    let host = rustix::system::uname();
    let metadata = json!({
        "host": host.nodename().to_string_lossy(),
        "pid": std::process::id(),
        "version": versions::PRODUCT,
        "type": if kind == INTERNAL_KIND { "internal" } else { "external" },
        "process": "taskwright",
    });
    Introduction {
        id,
        backend_type: kind.to_owned(),
        parallel,
        problems: templates.patterns(),
        metadata: Json::of(&metadata),
    }
}

/// How the workers inside this daemon behave, given how long they may be silent.
fn habits(settings: &WorkerSettings, silence: Duration) -> Habits {
    Habits {
        heartbeat: (silence / BEATS).clamp(SHORTEST_BEAT, LONGEST_BEAT),
        poll: settings.poll,
        ..Habits::default()
    }
}

/// What the workers of this daemon have in common, and the ids they have.
pub(crate) fn setup(
    settings: &WorkerSettings,
    silence: Duration,
    queue: Arc<dyn WorkQueue>,
    runs: Runs,
    data_dir: &DataDir,
) -> (Setup, Names) {
    let templates = Arc::new(settings.templates.clone());
    let setup = Setup {
        who: introduction(WorkerId::numbered(0), INTERNAL_KIND, 1, &templates),
        queue,
        runs,
        templates,
        habits: habits(settings, silence),
    };
    (setup, Names::read(data_dir.worker_ids()))
}
