//! Bytes of every released form, loaded for ever.

use std::fs;
use std::path::{Path, PathBuf};

use taskwright_model::*;

use super::samples;
use crate::contract::commit;
use crate::record::*;
use crate::{Options, Store};

fn folder() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/compat/store/v1"
    ))
}

/// One task of every state and every outcome.
fn tasks() -> Vec<Task> {
    let exit = Some(ExitStatus::Signal(15));
    let text = || "for people".to_owned();
    let outcomes = [
        Outcome::Exited {
            code: 3,
            message: Some(text()),
        },
        Outcome::Signaled { signal: 9 },
        Outcome::OutOfMemory {
            exit: Some(ExitStatus::Code(137)),
        },
        Outcome::TimedOut {
            limit: Limit::Idle,
            exit,
        },
        Outcome::Canceled { exit: None },
        Outcome::Denied {
            policy: "hours".into(),
            reason: text(),
        },
        Outcome::PluginFault {
            runtime: "process".into(),
            message: text(),
        },
        Outcome::Infrastructure {
            fault: Fault::Machine,
            message: text(),
        },
        Outcome::Lost { message: text() },
    ];
    let since = samples::NOW;
    let grace = std::time::Duration::from_millis(1500);
    let mut states = vec![
        TaskState::Pending {
            not_before: Some(since),
        },
        TaskState::Starting { since },
        TaskState::Running { since },
        TaskState::Stopping {
            since,
            reason: StopReason::TimedOut(Limit::Run),
            grace,
        },
    ];
    states.extend(outcomes.map(|outcome| TaskState::Ended { at: since, outcome }));
    (1..)
        .zip(states)
        .map(|(number, state)| samples::task(number, state))
        .collect()
}

/// A task with every field that form 1 gained: what restricts it, and what people see of it.
fn confined() -> Task {
    let since = samples::NOW;
    let outcome = Outcome::Infrastructure {
        fault: Fault::Target,
        message: "its main container ended".to_owned(),
    };
    let mut task = samples::task(1, TaskState::Ended { at: since, outcome });
    let mut spec = (*task.spec).clone();
    spec.confinement = Confinement {
        cpu_millis: Some(500),
        memory_bytes: Some(64 << 20),
        pids: Some(20),
        open_files: Some(256),
        file_size_bytes: Some(1 << 30),
        user: Some(User {
            uid: 1000,
            gid: 100,
            groups: vec![4, 27],
        }),
        no_new_privileges: true,
        read_only_paths: vec!["/usr".to_owned()],
        best_effort: true,
    };
    spec.config = r#"{"target":{"pid":7}}"#.to_owned();
    task.spec = spec.into();
    let mut enforced = Enforced::default();
    for (restriction, mechanism) in Restriction::ALL.into_iter().zip(Mechanism::ALL) {
        enforced.set(restriction, mechanism);
    }
    let ended = |code, out_of_memory, started_at| PartState::Ended {
        code,
        out_of_memory,
        started_at,
        ended_at: since,
    };
    let parts = [
        PartState::Waiting("ContainerCreating".to_owned()),
        PartState::Running(since),
        ended(Some(137), true, Some(since)),
        ended(None, false, None),
    ];
    let parts = (1..).zip(parts).map(|(number, state)| Part {
        name: format!("part-{number}"),
        state,
    });
    if let Some(attempt) = task.attempts.last_mut() {
        attempt.remarks = Remarks {
            note: Some("waits for its image".into()),
            parts: parts.collect(),
            enforced,
        };
    }
    task
}

/// A task with what form 1 gained after that: what was left out of it.
fn left_out() -> Task {
    let mut task = samples::task(
        1,
        TaskState::Running {
            since: samples::NOW,
        },
    );
    if let Some(attempt) = task.attempts.last_mut() {
        let enforced = &mut attempt.remarks.enforced;
        enforced.set(Restriction::OpenFiles, Mechanism::Rlimit);
        enforced.leave_out(Restriction::Memory, "there is no cgroup v1 memory mount");
    }
    task
}

fn left_out_file() -> PathBuf {
    folder().with_file_name("v1-left-out").join("task.bin")
}

fn confined_file() -> PathBuf {
    folder().with_file_name("v1-confined").join("task.bin")
}

#[test]
fn what_form_1_gained_is_read() {
    let task = confined();
    assert!(!task.attempts.is_empty());
    let body = fs::read(confined_file()).unwrap();
    assert_eq!(read_task(task.id, &body).unwrap(), task);
    let task = left_out();
    let body = fs::read(left_out_file()).unwrap();
    assert_eq!(read_task(task.id, &body).unwrap(), task);
}

#[test]
#[ignore = "writes the frozen file; run once, when the fields came"]
fn generate_confined() {
    generate_one(&confined_file(), &confined());
}

#[test]
#[ignore = "writes the frozen file; run once, when the field came"]
fn generate_left_out() {
    generate_one(&left_out_file(), &left_out());
}

fn generate_one(path: &Path, task: &Task) {
    assert!(!path.exists(), "{} is frozen", path.display());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut body = Vec::new();
    write_task(task, &mut body).unwrap();
    fs::write(path, body).unwrap();
}

/// Seals any payload by the rule in `record.rs`, written out a second time.
pub(crate) fn sealed(table: &str, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let sum = crc32fast::hash(&[table.as_bytes(), key, payload].concat());
    [&[1][..], &sum.to_le_bytes(), payload].concat()
}

#[test]
fn records_of_form_1_are_read() {
    for (number, task) in (1..).zip(tasks()) {
        let body = fs::read(folder().join(format!("task-{number:02}.bin"))).unwrap();
        assert_eq!(read_task(task.id, &body).unwrap(), task);
    }
    let line = samples::line(7, 1, Happening::Submitted);
    let body = fs::read(folder().join("feed.bin")).unwrap();
    assert_eq!(read_feed(7, line.task, &body).unwrap(), line);
    let used = samples::used(1);
    let body = fs::read(folder().join("idempotency.bin")).unwrap();
    assert_eq!(read_idempotency(&used.key, &body).unwrap(), used);
}

#[test]
fn a_store_of_schema_1_is_opened() {
    let place = tempfile::tempdir().unwrap();
    fs::copy(folder().join("store.db"), place.path().join("store.db")).unwrap();
    let (_, _, recovered) = Store::open(place.path(), Options::at(samples::NOW)).unwrap();
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(recovered.feed, samples::batch(1, 3).feed);
    assert_eq!((recovered.tasks.len(), recovered.next_sequence), (3, 13));
}

#[test]
fn fields_of_a_later_time_are_skipped() {
    let task = samples::task(
        1,
        TaskState::Running {
            since: samples::NOW,
        },
    );
    let mut body = Vec::new();
    write_task(&task, &mut body).unwrap();
    let text = String::from_utf8(body[5..].to_vec()).unwrap();
    let later = text
        .replacen(
            "{\"namespace\"",
            "{\"mood\":[1,{\"x\":null}],\"namespace\"",
            1,
        )
        .replacen("{\"since\"", "{\"why\":\"because\",\"since\"", 1)
        .replacen("{\"pid\"", "{\"tid\":9,\"pid\"", 1);
    assert!(
        ["mood", "why", "tid"]
            .iter()
            .all(|field| later.contains(field))
    );
    let body = sealed("tasks", &task.id.as_u128().to_be_bytes(), later.as_bytes());
    assert_eq!(read_task(task.id, &body).unwrap(), task);
}

#[test]
#[ignore = "writes the frozen files; only ever run for a new form, into a new folder"]
fn generate() {
    fs::create_dir_all(folder()).unwrap();
    let mut body = Vec::new();
    let write = |name: &str, body: &[u8]| {
        let path = folder().join(name);
        assert!(!path.exists(), "{} is frozen", path.display());
        fs::write(path, body).unwrap();
    };
    for (number, task) in (1..).zip(tasks()) {
        write_task(&task, &mut body).unwrap();
        write(&format!("task-{number:02}.bin"), &body);
    }
    write_feed(&samples::line(7, 1, Happening::Submitted), &mut body).unwrap();
    write("feed.bin", &body);
    write_idempotency(&samples::used(1), &mut body).unwrap();
    write("idempotency.bin", &body);
    let place = tempfile::tempdir().unwrap();
    let (mut journal, history, _) = Store::open(place.path(), Options::at(samples::NOW)).unwrap();
    commit(&mut journal, &samples::batch(1, 3)).unwrap();
    drop((journal, history));
    write(
        "store.db",
        &fs::read(place.path().join("store.db")).unwrap(),
    );
}
