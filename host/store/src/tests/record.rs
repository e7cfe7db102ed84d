//! Bodies of records: whatever is written comes back, whatever is changed is noticed.

use proptest::prelude::*;

use super::samples;
use crate::record::*;

proptest! {
    #[test]
    fn a_task_comes_back(task in samples::any_task()) {
        let mut body = Vec::new();
        write_task(&task, &mut body).unwrap();
        prop_assert_eq!(read_task(task.id, &body).unwrap(), task);
    }

    #[test]
    fn a_feed_line_comes_back(line in samples::any_line()) {
        let mut body = Vec::new();
        write_feed(&line, &mut body).unwrap();
        prop_assert_eq!(read_feed(line.sequence, line.task, &body).unwrap(), line);
    }

    #[test]
    fn an_idempotency_record_comes_back(used in samples::any_used()) {
        let mut body = Vec::new();
        write_idempotency(&used, &mut body).unwrap();
        prop_assert_eq!(read_idempotency(&used.key, &body).unwrap(), used);
    }

    #[test]
    fn a_changed_byte_is_noticed(task in samples::any_task(), at in any::<prop::sample::Index>(), by in 1..=255_u8) {
        let mut body = Vec::new();
        write_task(&task, &mut body).unwrap();
        let at = at.index(body.len());
        body[at] ^= by;
        prop_assert!(read_task(task.id, &body).is_err());
    }

    #[test]
    fn any_bytes_are_refused_quietly(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read_task(samples::id(1), &bytes).is_err());
        prop_assert!(read_idempotency("key", &bytes).is_err());
    }
}

#[test]
fn a_body_under_another_key_is_noticed() {
    let task = samples::task(1, samples::ended());
    let mut body = Vec::new();
    write_task(&task, &mut body).unwrap();
    assert!(matches!(
        read_task(samples::id(2), &body),
        Err(RecordError::Checksum)
    ));
}

#[test]
fn an_error_never_quotes_a_value() {
    let task = samples::task(1, samples::ended());
    let mut body = Vec::new();
    write_task(&task, &mut body).unwrap();
    let text = String::from_utf8(body[5..].to_vec()).unwrap();
    let broken = text.replace("\"priority\":0", "\"priority\":\"hunter2\"");
    let body = super::compat::sealed("tasks", &task.id.as_u128().to_be_bytes(), broken.as_bytes());
    let error = read_task(task.id, &body).unwrap_err().to_string();
    assert!(
        error.contains("payload") && !error.contains("hunter2"),
        "{error}"
    );
}
