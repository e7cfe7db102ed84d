#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use taskwright_capability::{Lifetime, SpawnRequest};
use taskwright_model::{AttemptNumber, ExitStatus, TaskId, TaskName, UnitKey, UnitName};
use taskwright_native::TreeLevel;

use super::*;
use crate::unit::Unit;

const PATIENCE: Duration = Duration::from_secs(20);

/// A supervisor in this process, whose loop the test turns.
struct Turned {
    dir: tempfile::TempDir,
    supervisor: Supervisor,
    _guardian: UnixStream,
}

impl Turned {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = SuperviseOptions::new(dir.path().join("state"));
        options.tree_level = Some(TreeLevel::Scan);
        let place = Place::open(&options.state_dir).unwrap();
        let limits = Limits {
            open_files: (1024, 1024),
            oom_score: None,
        };
        let (guardian, link) = UnixStream::pair().unwrap();
        let supervisor =
            Supervisor::begin(options, &place, limits, link, Continuity::Broken).unwrap();
        Self {
            dir,
            supervisor,
            _guardian: guardian,
        }
    }

    fn request(&self, script: &str) -> SpawnRequest {
        SpawnRequest {
            unit: UnitKey {
                task: TaskId::from_u128(u128::from(std::process::id()) << 32),
                attempt: AttemptNumber(1),
                unit: UnitName::parse("main").unwrap(),
            },
            directory: self.dir.path().join("task"),
            name: TaskName::parse("task").unwrap(),
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            working_dir: None,
            lifetime: Lifetime::LeaveDescendants,
        }
    }

    /// Waits for one wake-up and handles it.
    fn turn(&mut self) {
        let mut ready = Vec::new();
        let timeout = Some(Duration::from_millis(20));
        self.supervisor.epoll.wait(&mut ready, timeout).unwrap();
        self.supervisor.turn(&ready);
    }

    /// What a supervisor would find that came after `kill -9` of this one.
    fn on_record(&self) -> Vec<Record> {
        let copy = self.dir.path().join("copy");
        std::fs::copy(self.dir.path().join("state").join(LOG), &copy).unwrap();
        Log::open(&copy).unwrap().1.records
    }
}

#[test]
fn a_log_is_shortened_only_where_it_loses_nothing() {
    let mut turned = Turned::new();
    let request = turned.request("exit 7");
    let unit = request.unit.clone();
    turned.supervisor.log.want_rewriting();
    turned.supervisor.start(request).unwrap();
    let id = turned.supervisor.units.find(&unit).unwrap();
    let spawned = turned.supervisor.units.get(id).unwrap().spawned();
    let started = Record::Spawned {
        unit: unit.clone(),
        process: spawned.process,
        at: spawned.started_at,
    };
    assert!(turned.on_record().contains(&started), "right after it");

    let deadline = Instant::now() + PATIENCE;
    let end = loop {
        turned.supervisor.log.want_rewriting();
        turned.turn();
        assert!(!turned.supervisor.log.wants_rewriting(), "it was shortened");
        let records = turned.on_record();
        assert!(records.contains(&started), "after every turn");
        if let Some(end) = turned.supervisor.units.get(id).and_then(Unit::end) {
            assert!(records.contains(&Record::Ended { unit, end }));
            break end;
        }
        assert!(Instant::now() < deadline, "it did not end in time");
    };
    assert_eq!(end.status, Some(ExitStatus::Code(7)));
}
