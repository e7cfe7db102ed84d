//! The room for the log: there from the first commit, and harmless in a crash.

use std::fs;

use super::samples;
use crate::contract::commit;
use crate::reserve::reserve;
use crate::schema::LOG_BYTES;
use crate::{Options, Store};

#[test]
fn commits_do_not_make_the_log_longer() {
    let place = tempfile::tempdir().unwrap();
    let (mut journal, history, _) = Store::open(place.path(), Options::at(samples::NOW)).unwrap();
    let log = place.path().join("store.db-wal");
    let length = || fs::metadata(&log).unwrap().len();
    assert_eq!(length(), LOG_BYTES);
    commit(&mut journal, &samples::batch(1, 5)).unwrap();
    assert_eq!(length(), LOG_BYTES);
    drop((journal, history));
    assert_eq!(length(), 0, "a store at rest is one file");
}

#[test]
fn what_is_long_enough_stays_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    fs::write(&log, "frames").unwrap();
    reserve(&log, 6).unwrap();
    assert_eq!(fs::read(&log).unwrap(), b"frames");
    reserve(&log, 1_000_000).unwrap();
    let bytes = fs::read(&log).unwrap();
    assert_eq!(bytes.len(), 1_000_000);
    assert!(bytes.starts_with(b"frames\0\0"));
    assert!(bytes[6..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_log_that_is_not_there_is_not_made() {
    let place = tempfile::tempdir().unwrap();
    assert!(reserve(&place.path().join("log"), 6).is_err());
}
