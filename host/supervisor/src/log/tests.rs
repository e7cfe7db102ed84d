#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

use taskwright_capability::{Lifetime, UnitEnd};
use taskwright_model::{
    AttemptNumber, Enforced, ExitStatus, Mechanism, ProcessIdentity, Restriction, TaskId,
    Timestamp, UnitKey, UnitName,
};
use taskwright_native::TreeLevel;

use super::*;
use crate::record::{Bounds, Intent, SharedMemory};

fn unit() -> UnitKey {
    UnitKey {
        task: TaskId::from_u128(0x0102_0304),
        attempt: AttemptNumber(2),
        unit: UnitName::parse("main").unwrap(),
    }
}

fn one_of_each() -> Vec<Record> {
    vec![
        Record::Begun {
            boot: 77,
            level: TreeLevel::Cgroup2,
            base: PathBuf::from("/g"),
        },
        Record::Intent(Intent {
            unit: unit(),
            directory: Path::new("/d/t").into(),
            lifetime: Lifetime::LeaveDescendants,
            group: Some(5),
            bounds: None,
        }),
        Record::Spawned {
            unit: unit(),
            process: ProcessIdentity {
                pid: 42,
                start_ticks: 4711,
            },
            at: Timestamp::from_millis(1000),
        },
        Record::NotSpawned(unit()),
        Record::Stopping {
            unit: unit(),
            kill_at: Timestamp::from_millis(2000),
        },
        Record::Ended {
            unit: unit(),
            end: UnitEnd {
                status: Some(ExitStatus::Code(3)),
                out_of_memory: false,
                at: Timestamp::from_millis(3000),
            },
        },
        Record::Settled(unit()),
        Record::Released(unit()),
        Record::Purging(unit()),
        Record::Forgotten(unit()),
    ]
}

/// The bytes of version 1, as the first release wrote them. Never changed, only added to.
const VERSION_1: &str = include_str!("../../tests/data/log-v1.hex");

#[test]
fn the_bytes_of_version_1_are_read_for_ever() {
    let digits: Vec<u8> = VERSION_1.bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let (found, good) = parse(&bytes);
    assert_eq!((found.damage.as_str(), good), ("", bytes.len()));
    assert_eq!(found.records, one_of_each());
}

#[test]
fn what_bounds_a_unit_is_found_again() {
    let mut enforced = Enforced::default();
    enforced.set(Restriction::Pids, Mechanism::Cgroup1);
    enforced.leave_out(Restriction::Memory, "there is none");
    let intent = |bounds| {
        Record::Intent(Intent {
            unit: unit(),
            directory: Path::new("/d/t").into(),
            lifetime: Lifetime::KillDescendants,
            group: None,
            bounds: Some(Box::new(bounds)),
        })
    };
    let records = [
        intent(Bounds {
            groups: vec!["/g/pids/u1".into(), "/g/cpu/u1".into()],
            tree: Some("/g/limited/u7".into()),
            enforced,
            shared_memory: Some(SharedMemory {
                group: "/g/memory/theirs".into(),
                kills: 7,
                target: ProcessIdentity {
                    pid: 41,
                    start_ticks: 9,
                },
            }),
        }),
        intent(Bounds::default()),
    ];
    let mut bytes = MAGIC.to_vec();
    for record in &records {
        record.put(&mut bytes);
    }
    let (found, _) = parse(&bytes);
    assert_eq!(found.damage, "");
    assert_eq!(found.records, records);
}

#[test]
fn bounds_of_a_supervisor_that_told_less_are_read() {
    let body = [
        &[2][..],
        &[0; 16],
        &[1, 0, 0, 0],
        b"\x04\0\0\0main",
        b"\x04\0\0\0/d/t",
        &[1],
        &[0; 4],
        // No groups, no tree, one restriction; and there it ended.
        &[0; 4],
        &[0; 4],
        b"\x01\0\0\0\x04\0\0\0pids\x07\0\0\0cgroup1",
    ]
    .concat();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    bytes.extend(crc32fast::hash(&body).to_le_bytes());
    bytes.extend(body);
    let (found, _) = parse(&bytes);
    assert_eq!(found.damage, "");
    let [Record::Intent(intent)] = &found.records[..] else {
        unreachable!("one intent was written: {:?}", found.records);
    };
    let mut enforced = Enforced::default();
    enforced.set(Restriction::Pids, Mechanism::Cgroup1);
    let expected = Bounds {
        enforced,
        ..Bounds::default()
    };
    assert_eq!(intent.bounds.as_deref(), Some(&expected));
}

#[test]
fn what_was_written_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut log, found) = Log::open(&path).unwrap();
    assert!(found.records.is_empty() && found.damage.is_empty());
    for record in one_of_each() {
        log.put(&record);
        log.flush().unwrap();
    }
    drop(log);
    let (_, found) = Log::open(&path).unwrap();
    assert_eq!(found.records, one_of_each());
}

#[test]
fn a_damaged_tail_is_set_aside_and_the_rest_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut log, _) = Log::open(&path).unwrap();
    for record in one_of_each() {
        log.put(&record);
    }
    log.flush().unwrap();
    let whole = std::fs::read(&path).unwrap();
    // Every length and, at some places, a changed byte: always the records before it.
    for cut in 0..whole.len() {
        let (found, good) = parse(&whole[..cut]);
        assert!(good <= cut);
        assert_eq!(found.records, one_of_each()[..found.records.len()]);
    }
    for place in (MAGIC.len()..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[place] ^= 0x10;
        let (found, _) = parse(&changed);
        assert!(!found.damage.is_empty());
        assert_eq!(found.records, one_of_each()[..found.records.len()]);
    }
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let (mut log, found) = Log::open(&path).unwrap();
    assert!(found.damage.contains("damaged"));
    assert!(dir.path().join("log.damaged").exists());
    log.put(&Record::Released(unit()));
    log.flush().unwrap();
    let (_, found) = Log::open(&path).unwrap();
    assert_eq!(found.records.last(), Some(&Record::Released(unit())));
    assert_eq!(found.damage, "");
}

#[test]
fn a_rewritten_log_holds_exactly_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut log, _) = Log::open(&path).unwrap();
    for record in one_of_each() {
        log.put(&record);
    }
    log.flush().unwrap();
    log.rewrite([Record::NotSpawned(unit())].into_iter())
        .unwrap();
    log.put(&Record::Released(unit()));
    log.flush().unwrap();
    let (_, found) = Log::open(&path).unwrap();
    let expected = [Record::NotSpawned(unit()), Record::Released(unit())];
    assert_eq!(found.records, expected);
}
