//! Opening, refusing to open, limits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use taskwright_control::port::{Batch, FeedHistory, MOST_KEYS};

use super::samples;
use crate::contract::{commit, futures_block};
use crate::{OpenError, Options, Store};

fn refused(place: &Path) -> OpenError {
    Store::open(place, Options::at(samples::NOW))
        .map(|_| ())
        .unwrap_err()
}

#[test]
fn files_are_for_their_owner_only() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path().join("a/.taskwright");
    let (mut journal, _history, _) = Store::open(&place, Options::at(samples::NOW)).unwrap();
    commit(&mut journal, &samples::batch(1, 1)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place), 0o700);
    for entry in fs::read_dir(&place).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn a_second_daemon_is_told_of_the_first() {
    let place = tempfile::tempdir().unwrap();
    let first = Store::open(place.path(), Options::at(samples::NOW)).unwrap();
    let error = refused(place.path());
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id()))
    );
    drop(first);
    Store::open(place.path(), Options::at(samples::NOW)).unwrap();
}

#[test]
fn the_lock_file_of_a_dead_process_is_no_obstacle() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("lock"), "999999\n").unwrap();
    Store::open(place.path(), Options::at(samples::NOW)).unwrap();
}

#[test]
fn a_newer_schema_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("store.db");
    drop(Store::open(place.path(), Options::at(samples::NOW)).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 3).unwrap();
    connection.close().unwrap();
    let before = fs::read(&path).unwrap();
    let error = refused(place.path());
    let text = error.to_string();
    assert!(
        text.contains("newer taskwright (schema 3, this one knows 1)"),
        "{text}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_foreign_database_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("store.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("CREATE TABLE recipes (name)")
        .unwrap();
    connection.close().unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(refused(place.path()), OpenError::Foreign { .. }));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_in_the_way_is_named() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(refused(&file), OpenError::NotADirectory { .. }));
    assert!(matches!(
        refused(&file.join("below")),
        OpenError::NotADirectory { .. }
    ));
}

#[test]
fn a_directory_that_may_not_be_written_is_named() {
    if rustix::process::geteuid().is_root() {
        // Root may write everywhere but in the kernel's own file system.
        let error = refused(Path::new("/proc/taskwright"));
        assert!(error.to_string().contains("/proc/taskwright"), "{error}");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o500)).unwrap();
    assert!(matches!(
        refused(place.path()),
        OpenError::NotWritable { .. }
    ));
}

#[test]
fn a_full_disk_is_told_and_gone_when_there_is_room() {
    let place = tempfile::tempdir().unwrap();
    let options = Options::at(samples::NOW);
    let (mut journal, history, _) = Store::open(place.path(), options.clone()).unwrap();
    journal.limit_pages(20).unwrap();
    let too_much = samples::batch(1, 500);
    for _ in 0..3 {
        let error = commit(&mut journal, &too_much).unwrap_err();
        assert!(error.disk_full, "{error}");
    }
    commit(&mut journal, &samples::batch(1, 1)).unwrap();
    journal.limit_pages(1 << 30).unwrap();
    commit(&mut journal, &samples::batch(5, 500)).unwrap();
    drop((journal, history));
    let recovered = Store::open(place.path(), options).unwrap().2;
    assert_eq!((recovered.tasks.len(), recovered.damage.len()), (501, 0));
}

/// The same with a file system that is really full.
#[test]
#[ignore = "needs root, to mount a small tmpfs"]
fn a_full_file_system_is_told_and_gone_when_there_is_room() {
    let place = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let status = Command::new(program)
            .args(arguments)
            .arg(place.path())
            .status()
            .unwrap();
        assert!(status.success(), "{program}");
    };
    run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
    let store = place.path().join("store");
    let (mut journal, history, _) = Store::open(&store, Options::at(samples::NOW)).unwrap();
    let ballast = place.path().join("ballast");
    let filled = fs::write(&ballast, vec![0; 2 << 20]);
    let batch = samples::batch(1, 200);
    let refused = commit(&mut journal, &batch);
    fs::remove_file(&ballast).unwrap();
    let accepted = commit(&mut journal, &batch);
    drop((journal, history));
    let recovered = Store::open(&store, Options::at(samples::NOW)).map(|opened| opened.2);
    run("umount", &[]);
    assert!(filled.is_err() && refused.unwrap_err().disk_full);
    accepted.unwrap();
    assert_eq!(recovered.unwrap().tasks.len(), 200);
}

#[test]
fn the_feed_is_bounded() {
    let place = tempfile::tempdir().unwrap();
    let options = Options {
        feed_lines_kept: 1000,
        ..Options::at(samples::NOW)
    };
    let (mut journal, history, _) = Store::open(place.path(), options.clone()).unwrap();
    for number in 0..50 {
        commit(&mut journal, &samples::batch(1 + number * 80, 20)).unwrap();
    }
    let oldest = futures_block(history.read(0, None, 1)).unwrap()[0].sequence;
    let kept = 4000 - oldest + 1;
    assert!((1000..1256 + 80).contains(&kept), "{kept} lines");
    drop((journal, history));
    let recovered = Store::open(place.path(), options).unwrap().2;
    assert_eq!(recovered.next_sequence, 4001);
}

#[test]
fn idempotency_keys_are_forgotten_after_a_day() {
    let place = tempfile::tempdir().unwrap();
    let (mut journal, history, _) = Store::open(place.path(), Options::at(samples::NOW)).unwrap();
    let used = |number, hours: u64| {
        let mut record = samples::used(number);
        record.at = samples::NOW.plus(Duration::from_secs(hours * 3600));
        Batch {
            idempotency: vec![record],
            ..Batch::default()
        }
    };
    for (number, hours) in [(1, 0), (2, 10), (3, 25)] {
        commit(&mut journal, &used(number, hours)).unwrap();
    }
    drop((journal, history));
    let keys = |hours: u64| {
        let options = Options::at(samples::NOW.plus(Duration::from_secs(hours * 3600)));
        Store::open(place.path(), options)
            .unwrap()
            .2
            .idempotency
            .len()
    };
    assert_eq!(keys(0), 2, "the oldest was removed by the last commit");
    assert_eq!(keys(40), 1, "those too old are not handed out");
}

#[test]
fn the_newest_idempotency_keys_are_kept_however_many_came() {
    let place = tempfile::tempdir().unwrap();
    let (mut journal, history, _) = Store::open(place.path(), Options::at(samples::NOW)).unwrap();
    let most = MOST_KEYS as u64;
    let keys = |numbers: std::ops::Range<u64>| Batch {
        idempotency: numbers.map(samples::used).collect(),
        ..Batch::default()
    };
    commit(&mut journal, &keys(0..most + 50)).unwrap();
    commit(&mut journal, &keys(most + 50..most + 100)).unwrap();
    drop((journal, history));
    let options = Options::at(samples::NOW);
    let kept = Store::open(place.path(), options).unwrap().2.idempotency;
    assert_eq!(kept.len() as u64, most);
    assert!(kept.contains(&samples::used(100)) && !kept.contains(&samples::used(99)));
}
