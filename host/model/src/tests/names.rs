//! Names come from strangers and become directories: what they may hold.

use proptest::prelude::*;

use crate::id::{MOST_LABEL_BYTES, MOST_NAME_BYTES};
use crate::{Namespace, RuntimeName, TaskId, TaskName, Timestamp, UnitName};

fn refused(text: &str) -> String {
    match TaskName::parse(text) {
        Ok(name) => panic!("{name:?} was taken as a name"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn names_that_could_leave_the_data_directory_are_refused() {
    for text in ["", ".", "..", "/", "a/b", "../a", "a/..", "\\a", "a\\b"] {
        refused(text);
    }
}

#[test]
fn names_that_hide_or_deceive_are_refused() {
    for text in [
        ".hidden",
        "-rf",
        "a\0b",
        "\0",
        "a\nb",
        "a\tb",
        "a b",
        " a",
        "a\u{7f}",
        "a\u{1b}[31m",
        "a\u{202e}gpj.exe",
        "a\u{200b}b",
        "a\u{feff}",
        "~root",
        "a;b",
        "a*",
        "$HOME",
        "a%2fb",
        "a\u{2215}b",
    ] {
        refused(text);
    }
}

#[test]
fn a_refusal_says_what_is_allowed() {
    assert_eq!(
        refused("a/b"),
        "a task name must not hold '/': letters and digits of any script and - _ . @ : + = ~ are allowed"
    );
    assert_eq!(
        refused(&"x".repeat(300)),
        "a task name has at most 200 bytes, this one has 300"
    );
    assert_eq!(refused(""), "a task name must not be empty");
}

#[test]
fn length_is_counted_in_bytes() {
    assert!(TaskName::parse(&"x".repeat(MOST_NAME_BYTES)).is_ok());
    refused(&"x".repeat(MOST_NAME_BYTES + 1));
    refused(&"日".repeat(MOST_NAME_BYTES / 3 + 1));
}

#[test]
fn names_of_other_scripts_are_taken_as_they_are() {
    for text in [
        "задача-1",
        "任务",
        "مهمة",
        "_x",
        "7",
        "a.b@c:d+e=f~g",
        "été",
    ] {
        assert_eq!(TaskName::parse(text).unwrap().as_str(), text);
    }
}

#[test]
fn labels_are_plain() {
    for text in ["default", "a-b", "7"] {
        assert!(Namespace::parse(text).is_ok(), "{text}");
        assert!(RuntimeName::parse(text).is_ok(), "{text}");
        assert!(UnitName::parse(text).is_ok(), "{text}");
    }
    let long = "x".repeat(MOST_LABEL_BYTES + 1);
    for text in [
        "",
        "-a",
        "A",
        "a_b",
        "a.b",
        "a/b",
        "ä",
        "a b",
        long.as_str(),
    ] {
        assert!(Namespace::parse(text).is_err(), "{text}");
    }
}

#[test]
fn texts_that_are_no_ids_are_refused_and_cut_short() {
    for text in [
        "",
        "7",
        "0192f0c1-2345-7000-8000-00000000000",
        "0192f0c1-2345-7000-8000-00000000000g",
        "0192f0c123457000800000000000000a",
        "0192f0c1-2345-7000-8000-+0000000000a",
        "0192f0c-12345-7000-8000-00000000000a",
    ] {
        assert!(TaskId::parse(text).is_err(), "{text}");
    }
    let error = TaskId::parse(&"é".repeat(10_000)).unwrap_err();
    assert!(error.to_string().len() < 300);
}

#[test]
fn time_saturates() {
    use std::time::Duration;
    let last = Timestamp::from_millis(i64::MAX);
    let first = Timestamp::from_millis(i64::MIN);
    assert_eq!(last.plus(Duration::from_millis(1)), last);
    assert_eq!(first.plus(Duration::MAX), Timestamp::from_millis(-1));
    assert_eq!(first.since(last), Duration::ZERO);
    assert_eq!(
        last.since(first),
        Duration::from_millis(u64::try_from(i64::MAX).unwrap())
    );
}

proptest! {
    #[test]
    fn an_id_reads_back_what_it_writes(bits: u128) {
        let id = TaskId::from_u128(bits);
        prop_assert_eq!(TaskId::parse(&id.to_string()), Ok(id));
        prop_assert_eq!(TaskId::parse(&id.to_string().to_uppercase()), Ok(id));
        prop_assert_eq!(id.as_u128(), bits);
    }

    #[test]
    fn whatever_is_taken_as_a_name_is_one_plain_path_component(text in "\\PC{0,8}|[.a/_é-]{1,6}") {
        if let Ok(name) = TaskName::parse(&text) {
            let path = std::path::Path::new(name.as_str());
            let parts: Vec<_> = path.components().collect();
            prop_assert_eq!(parts.len(), 1);
            prop_assert!(matches!(parts[0], std::path::Component::Normal(_)));
            prop_assert!(!name.as_str().starts_with(['.', '-']));
            prop_assert!(!name.as_str().chars().any(char::is_control));
        }
    }

    #[test]
    fn time_never_panics(a: i64, b: i64, millis: u64) {
        let later = Timestamp::from_millis(a).plus(std::time::Duration::from_millis(millis));
        prop_assert!(later >= Timestamp::from_millis(a));
        let _ = later.since(Timestamp::from_millis(b));
    }
}
