#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

use taskwright_capability::{Inside, Namespaces, UnitEnd};
use taskwright_model::{
    AttemptNumber, Confinement, Enforced, ExitStatus, Mechanism, ProcessIdentity, UnitName, User,
};

use super::*;

fn unit() -> UnitKey {
    UnitKey {
        task: TaskId::from_u128(0x0123_4567_89ab_cdef),
        attempt: AttemptNumber(3),
        unit: UnitName::parse("main").unwrap(),
    }
}

fn end() -> UnitEnd {
    UnitEnd {
        status: Some(ExitStatus::Signal(9)),
        out_of_memory: true,
        at: Timestamp::from_millis(1_700_000_000_123),
    }
}

fn spawned() -> Spawned {
    Spawned {
        process: ProcessIdentity {
            pid: 42,
            start_ticks: 4711,
        },
        started_at: Timestamp::from_millis(5),
        exit: Some(end()),
        enforced: Enforced::default(),
    }
}

fn enforced() -> Enforced {
    let mut enforced = Enforced::default();
    enforced.set(Restriction::Memory, Mechanism::Cgroup1);
    enforced.set(Restriction::User, Mechanism::Credentials);
    enforced.leave_out(Restriction::Pids, "there is no such controller");
    enforced
}

fn plain() -> SpawnRequest {
    SpawnRequest {
        unit: unit(),
        name: TaskName::parse("build-7").unwrap(),
        directory: PathBuf::from("/data/build-7"),
        argv: vec!["sh".into(), String::new()],
        env: vec![("PATH".into(), "/bin".into())],
        working_dir: Some(PathBuf::from("/")),
        lifetime: Lifetime::KillDescendants,
        inside: None,
        confinement: Confinement::default(),
    }
}

fn confined() -> SpawnRequest {
    SpawnRequest {
        inside: Some(Inside {
            target: ProcessIdentity {
                pid: 4,
                start_ticks: 5,
            },
            further: Namespaces {
                user: true,
                cgroup: false,
            },
            identity: true,
            cgroup: false,
        }),
        confinement: Confinement {
            cpu_millis: Some(1),
            memory_bytes: Some(2),
            pids: None,
            open_files: Some(3),
            file_size_bytes: Some(4),
            user: Some(User {
                uid: 5,
                gid: 6,
                groups: vec![7, 8],
            }),
            no_new_privileges: true,
            read_only_paths: vec!["/a".into(), "/b c".into()],
            best_effort: true,
        },
        ..plain()
    }
}

fn every_request() -> Vec<Request> {
    vec![
        Request::Hello { version: 7 },
        Request::Spawn(Box::new(plain())),
        Request::Spawn(Box::new(confined())),
        Request::Stop {
            unit: unit(),
            grace: Duration::from_secs(10),
        },
        Request::Signal {
            unit: unit(),
            signal: 15,
        },
        Request::Inspect(unit()),
        Request::List,
        Request::Release(unit()),
        Request::Purge(TaskId::from_u128(9)),
        Request::Status,
        Request::ShutdownIfIdle,
        Request::Enforceable,
    ]
}

fn every_answer() -> Vec<Answer> {
    vec![
        Answer::Welcome { version: 1 },
        Answer::Spawned(spawned()),
        Answer::Spawned(Spawned {
            enforced: enforced(),
            ..spawned()
        }),
        Answer::NotSpawned(SpawnError::TargetGone { detail: "x".into() }),
        Answer::NotSpawned(SpawnError::NotEnforceable {
            restriction: Restriction::Pids,
            detail: "y".into(),
        }),
        Answer::Enforceable(vec![
            (Restriction::Cpu, Ok(Mechanism::Cgroup2)),
            (Restriction::Memory, Err("no controller".into())),
        ]),
        Answer::NotSpawned(SpawnError::NotFound {
            program: "x".into(),
            detail: "y".into(),
        }),
        Answer::Done,
        Answer::NotDone(StopError::NotRunning { unit: unit() }),
        Answer::State(Some(UnitState::Running(spawned()))),
        Answer::State(None),
        Answer::Units {
            units: vec![(unit(), UnitState::Ended(end()))],
            more: true,
        },
        Answer::Status(SupervisorStatus {
            version: "0.1.0".into(),
            supervisor_pid: 1,
            guardian_pid: 2,
            tree_level: "scan".into(),
            tree_why: "asked for".into(),
            started_at: Timestamp::from_millis(1),
            running: 3,
            unreleased: 4,
            left_behind: 5,
            damage: String::new(),
        }),
        Answer::Unsupported { kind: 77 },
        Answer::Report(UnitReport {
            unit: unit(),
            event: UnitEvent::Ended(end()),
        }),
    ]
}

#[test]
fn every_request_survives_the_wire() {
    for (id, request) in (0_u64..).zip(every_request()) {
        let mut bytes = Vec::new();
        request.put(id, &mut bytes);
        let (frame, taken) = next_frame(&bytes).unwrap().unwrap();
        assert_eq!((frame.id, taken), (id, bytes.len()));
        assert!(Request::take(&frame).unwrap().unwrap() == request);
    }
}

#[test]
fn every_answer_survives_the_wire() {
    for answer in every_answer() {
        let mut bytes = Vec::new();
        answer.put(5, &mut bytes);
        let (frame, _) = next_frame(&bytes).unwrap().unwrap();
        assert_eq!(Answer::take(&frame).unwrap().unwrap(), answer);
    }
}

#[test]
fn a_cut_message_is_malformed_and_never_a_panic() {
    for request in every_request() {
        let mut bytes = Vec::new();
        request.put(1, &mut bytes);
        for length in 0..bytes.len() {
            assert!(next_frame(&bytes[..length]).unwrap().is_none());
            let body = bytes.get(13..length).unwrap_or_default();
            let kind = bytes[4];
            let _either = Request::take(&Frame { kind, id: 1, body });
        }
    }
}

#[test]
fn a_frame_beyond_the_limit_is_refused_before_it_is_read() {
    let mut bytes = Vec::new();
    bytes.put_u32(u32::MAX);
    assert!(next_frame(&bytes).is_err());
}

#[test]
fn appended_fields_of_a_newer_version_are_passed_over() {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, kind::HELLO, 1, |out| {
        out.put_u32(2);
        out.put_text("a field of tomorrow");
    });
    let (frame, _) = next_frame(&bytes).unwrap().unwrap();
    assert!(Request::take(&frame).unwrap().unwrap() == Request::Hello { version: 2 });
}

#[test]
fn a_spawn_of_an_older_daemon_is_neither_inside_nor_confined() {
    let mut bytes = Vec::new();
    Request::Spawn(Box::new(plain())).put(1, &mut bytes);
    let (frame, _) = next_frame(&bytes).unwrap().unwrap();
    // No target, eight restrictions that are not asked for, best effort.
    let appended = 1 + 6 + 1 + 4 + 1;
    let body = &frame.body[..frame.body.len() - appended];
    let old = Frame { body, ..frame };
    assert!(Request::take(&old).unwrap().unwrap() == Request::Spawn(Box::new(plain())));
}

#[test]
fn only_what_an_older_supervisor_would_drop_needs_a_newer_one() {
    let needed = |request: SpawnRequest| Request::Spawn(Box::new(request)).needed_version();
    assert_eq!(needed(plain()), 0);
    assert_eq!(needed(confined()), CONFINES);
    let inside = confined().inside;
    assert_eq!(needed(SpawnRequest { inside, ..plain() }), CONFINES);
    let best_effort = Confinement {
        best_effort: true,
        ..Confinement::default()
    };
    let unrestricted = SpawnRequest {
        confinement: best_effort,
        ..plain()
    };
    assert_eq!(needed(unrestricted), 0);
}
