//! Broken files: what can be read is kept, what cannot is set aside and told.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use taskwright_control::port::Recovered;

use super::crash::Writer;
use super::samples;
use crate::contract::commit;
use crate::{Options, Store};

/// Batches of 50 tasks in a store of [`filled`].
const BATCHES: u64 = 10;
const TASKS: u64 = 50;

fn options() -> Options {
    Options {
        feed_lines_loaded: 1 << 20,
        ..Options::at(samples::NOW)
    }
}

fn open(place: &Path) -> Recovered {
    Store::open(place, options()).unwrap().2
}

fn filled() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let (mut journal, _history, _) = Store::open(place.path(), options()).unwrap();
    for number in 0..BATCHES {
        let first = 1 + number * TASKS * samples::LINES_EACH;
        commit(&mut journal, &samples::batch(first, TASKS)).unwrap();
    }
    place
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

fn names(place: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_damaged_record_is_moved_and_the_rest_kept() {
    let place = filled();
    let path = place.path().join("store.db");
    let connection = Connection::open(&path).unwrap();
    let change = |sql: &str| assert_eq!(connection.execute(sql, []).unwrap(), 1, "{sql}");
    change("UPDATE tasks SET body = substr(body, 1, 40) WHERE rowid = 3");
    change("UPDATE tasks SET id = x'01' WHERE rowid = 4");
    change("UPDATE feed SET body = x'' WHERE sequence = 17");
    change("UPDATE idempotency SET body = 'text' WHERE rowid = 2");
    connection.close().unwrap();
    let recovered = open(place.path());
    assert_eq!(recovered.damage.len(), 4, "{:?}", recovered.damage);
    assert_eq!(recovered.tasks.len() as u64, BATCHES * TASKS - 2);
    assert_eq!(
        recovered.feed.len() as u64,
        BATCHES * TASKS * samples::LINES_EACH - 1
    );
    assert_eq!(recovered.idempotency.len() as u64, BATCHES - 1);
    let connection = Connection::open(&path).unwrap();
    let kept: i64 = connection
        .query_row("SELECT count(*) FROM damaged", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 4);
    drop(connection);
    assert_eq!(open(place.path()).damage, Vec::<String>::new());
}

#[test]
fn broken_pages_cost_only_what_was_on_them() {
    let place = filled();
    let path = place.path().join("store.db");
    let pages = fs::metadata(&path).unwrap().len() / 4096;
    // Page numbers from 1; the first ones are roots, so one of the middle and the last but one.
    for page in [pages / 2, pages - 2] {
        overwrite(&path, page * 4096, &[0xA5; 4096]);
    }
    let recovered = open(place.path());
    assert!(
        recovered.damage[0].contains("malformed"),
        "{:?}",
        recovered.damage
    );
    let tasks = BATCHES * TASKS;
    assert!(
        recovered.tasks.len() as u64 > tasks * 8 / 10,
        "{:?}",
        recovered.damage
    );
    assert!(
        recovered.feed.len() as u64 > tasks * 4 * 8 / 10,
        "{:?}",
        recovered.damage
    );
    assert_eq!(recovered.next_sequence, tasks * samples::LINES_EACH + 1);
    assert!(
        names(place.path())
            .iter()
            .any(|name| name.starts_with("store.db.damaged-"))
    );
    assert_eq!(open(place.path()).damage, Vec::<String>::new());
}

#[test]
fn every_single_broken_page_is_survived() {
    let whole = filled();
    let bytes = fs::read(whole.path().join("store.db")).unwrap();
    let seen = fs::read(whole.path().join("committed")).unwrap();
    for page in 0..bytes.len() / 4096 {
        let place = tempfile::tempdir().unwrap();
        let mut bytes = bytes.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(if page % 2 == 0 { 0 } else { 0xFF });
        fs::write(place.path().join("store.db"), bytes).unwrap();
        fs::write(place.path().join("committed"), &seen).unwrap();
        let recovered = open(place.path());
        assert!(
            !recovered.damage.is_empty(),
            "page {page} was broken and nobody said so"
        );
        assert_eq!(
            recovered.next_sequence,
            BATCHES * TASKS * samples::LINES_EACH + 1
        );
        let (mut journal, _, again) = Store::open(place.path(), options()).unwrap();
        assert_eq!(again.damage, Vec::<String>::new(), "page {page}");
        assert_eq!(again.tasks.len(), recovered.tasks.len(), "page {page}");
        commit(&mut journal, &samples::batch(again.next_sequence, 1)).unwrap();
    }
}

#[test]
fn a_file_that_is_no_database_is_kept_and_replaced() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("store.db"), [b'x'; 9000]).unwrap();
    let recovered = open(place.path());
    assert!(recovered.tasks.is_empty() && !recovered.damage.is_empty());
    let name = format!("store.db.damaged-{}", samples::NOW.as_millis());
    assert_eq!(fs::read(place.path().join(name)).unwrap(), [b'x'; 9000]);
}

#[test]
fn a_truncated_database_is_survived() {
    let place = filled();
    let path = place.path().join("store.db");
    let length = fs::metadata(&path).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length / 3)
        .unwrap();
    let recovered = open(place.path());
    assert!(!recovered.damage.is_empty());
    assert_eq!(
        recovered.next_sequence,
        BATCHES * TASKS * samples::LINES_EACH + 1
    );
}

/// How much of a log was ever written to: behind it is room made of zeros.
fn used(log: &Path) -> u64 {
    let bytes = fs::read(log).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    last as u64 + 1
}

/// A killed writer's log, cut or scribbled upon, is told of; the lines before are whole.
fn damaged_log(damage: impl FnOnce(&Path, u64)) {
    let place = tempfile::tempdir().unwrap();
    let acked = Writer::start(place.path()).kill_after(20, Duration::ZERO);
    let log = place.path().join("store.db-wal");
    damage(&log, used(&log));
    let recovered = open(place.path());
    let damage = recovered.damage.join("\n");
    assert!(damage.contains("commits are missing"), "{damage:?}");
    let lines = recovered.feed.len() as u64;
    assert!(lines < acked);
    assert!(
        recovered
            .feed
            .iter()
            .map(|line| line.sequence)
            .eq(1..=lines)
    );
    assert!(
        recovered.next_sequence > acked,
        "a number would be used again"
    );
    assert!(
        names(place.path())
            .iter()
            .any(|name| name.starts_with("store.db-wal.damaged-"))
    );
    let (mut journal, history, again) = Store::open(place.path(), options()).unwrap();
    assert_eq!(again.damage, Vec::<String>::new());
    assert_eq!(again.next_sequence, recovered.next_sequence);
    commit(&mut journal, &samples::batch(again.next_sequence, 1)).unwrap();
    drop((journal, history));
    assert_eq!(
        open(place.path()).feed.len() as u64,
        lines + samples::LINES_EACH
    );
}

#[test]
fn a_cut_log_is_noticed() {
    damaged_log(|log, length| {
        OpenOptions::new()
            .write(true)
            .open(log)
            .unwrap()
            .set_len(length / 2)
            .unwrap();
    });
}

#[test]
fn a_scribbled_log_is_noticed() {
    damaged_log(|log, length| overwrite(log, length * 3 / 4, &[0x5A; 64]));
}

#[test]
fn a_torn_witness_is_no_witness() {
    let place = filled();
    overwrite(&place.path().join("committed"), 6, &[0xFF; 3]);
    assert_eq!(open(place.path()).damage, Vec::<String>::new());
}

#[test]
fn a_lost_database_is_noticed() {
    let place = filled();
    fs::remove_file(place.path().join("store.db")).unwrap();
    let recovered = open(place.path());
    assert!(
        recovered
            .damage
            .join("")
            .contains("the last 10 commits are missing")
    );
    assert_eq!(
        recovered.next_sequence,
        BATCHES * TASKS * samples::LINES_EACH + 1
    );
}
