#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

use taskwright_capability::{Lifetime, SpawnRequest};
use taskwright_model::{
    AttemptNumber, Confinement, ExitStatus, TaskId, TaskName, UnitKey, UnitName,
};
use taskwright_native::TreeLevel;

use super::*;
use crate::unit::Unit;
use crate::wire::{PROTOCOL_VERSION, Request};

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
            inside: None,
            confinement: Confinement::default(),
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

#[test]
fn a_start_that_is_under_way_stays_on_record() {
    if taskwright_native::daemonize::this_user() != 0 {
        // Only root may become somebody else, which takes a child that is not waited for.
        return;
    }
    let mut turned = Turned::new();
    let mut request = turned.request("exit 7");
    request.working_dir = Some("/".into());
    request.confinement.user = Some(taskwright_model::User {
        uid: 1,
        gid: 1,
        groups: Vec::new(),
    });
    let unit = request.unit.clone();
    let begun = turned.supervisor.start(request).unwrap();
    assert!(matches!(begun, starting::Started::OnItsWay(_)));
    assert!(!turned.supervisor.is_idle());
    turned.supervisor.log.want_rewriting();
    turned.supervisor.shorten_log();
    assert!(!turned.supervisor.log.wants_rewriting(), "it was shortened");
    let records = turned.on_record();
    let intended = |it: &Record| matches!(it, Record::Intent(intent) if intent.unit == unit);
    assert!(
        records.iter().any(intended),
        "nobody else knows of its child"
    );

    // However long nobody looked, its end is not taken away unseen.
    std::thread::sleep(Duration::from_millis(50));
    turned.supervisor.reap_orphans();
    let id = turned.supervisor.units.find(&unit);
    let deadline = Instant::now() + PATIENCE;
    while id
        .and_then(|id| turned.supervisor.units.get(id)?.end())
        .is_none()
    {
        assert!(Instant::now() < deadline, "it did not end in time");
        turned.turn();
    }
    let end = id.and_then(|id| turned.supervisor.units.get(id)?.end());
    assert_eq!(end.unwrap().status, Some(ExitStatus::Code(7)));
    assert!(turned.supervisor.under_way.is_empty());
}

/// A daemon that speaks this version, over the real socket.
struct Daemon {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Daemon {
    fn connect(turned: &Turned, version: u32) -> Self {
        let place = Place::open(&turned.supervisor.options.state_dir).unwrap();
        let stream = UnixStream::connect(place.socket()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut daemon = Self {
            stream,
            input: Vec::new(),
        };
        daemon.ask(0, &Request::Hello { version });
        daemon
    }

    fn ask(&mut self, id: u64, request: &Request) {
        let mut bytes = Vec::new();
        request.put(id, &mut bytes);
        std::io::Write::write_all(&mut self.stream, &bytes).unwrap();
    }

    /// The next thing the supervisor says, and to which request, turning its loop meanwhile.
    fn hear(&mut self, turned: &mut Turned) -> (u64, Answer) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((frame, taken)) = crate::wire::next_frame(&self.input).unwrap() {
                let heard = (frame.id, Answer::take(&frame).unwrap().unwrap());
                self.input.drain(..taken);
                return heard;
            }
            assert!(Instant::now() < deadline, "nothing was heard in time");
            turned.turn();
            let mut piece = [0; 4096];
            if let Ok(count) = std::io::Read::read(&mut self.stream, &mut piece) {
                self.input.extend_from_slice(&piece[..count]);
            }
        }
    }
}

#[test]
fn an_older_daemon_is_answered_at_once_and_told_of_the_end_apart() {
    let mut turned = Turned::new();
    let mut daemon = Daemon::connect(&turned, 1);
    assert_eq!(
        daemon.hear(&mut turned),
        (0, Answer::Welcome { version: 1 })
    );
    let request = turned.request("exit 7");
    daemon.ask(5, &Request::Spawn(Box::new(request)));
    let (id, answer) = daemon.hear(&mut turned);
    assert!(
        matches!(&answer, Answer::Spawned(spawned) if id == 5 && spawned.exit.is_none()),
        "{answer:?}"
    );
    let (id, answer) = daemon.hear(&mut turned);
    assert!(
        matches!(&answer, Answer::Report(_)) && id == 0,
        "{answer:?}"
    );
}

#[test]
fn an_end_that_was_told_to_one_daemon_is_reported_to_the_others() {
    let mut turned = Turned::new();
    let mut asking = Daemon::connect(&turned, PROTOCOL_VERSION);
    let mut watching = Daemon::connect(&turned, PROTOCOL_VERSION);
    for daemon in [&mut asking, &mut watching] {
        assert!(matches!(
            daemon.hear(&mut turned),
            (0, Answer::Welcome { .. })
        ));
    }
    let request = turned.request("exit 7");
    asking.ask(5, &Request::Spawn(Box::new(request)));
    let (id, answer) = asking.hear(&mut turned);
    let Answer::Spawned(spawned) = answer else {
        unreachable!("{answer:?}");
    };
    let (_, reported) = watching.hear(&mut turned);
    assert!(matches!(reported, Answer::Report(_)), "{reported:?}");
    assert_eq!(id, 5);
    if spawned.exit.is_some() {
        // It was told once: the next thing it hears is what it asks for.
        asking.ask(6, &Request::List);
        let (id, answer) = asking.hear(&mut turned);
        assert!(
            matches!(&answer, Answer::Units { units, .. } if units.len() == 1) && id == 6,
            "{answer:?}"
        );
    }
}
