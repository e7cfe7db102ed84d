//! Plugin calls that a daemon recorded, repeated without it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use taskwright_tests::Finished;
use taskwright_tests::task::{exit_code, flat};

use crate::plugins::{Folder, LENT, on};
use crate::scripts::holding;

const POLITE: &str = include_str!("../../examples/scripts/polite.rhai");
const POLITE_LENT: &str = include_str!("../../examples/scripts/polite.toml");
const GUARDRAILS: &str = include_str!("../../examples/scripts/guardrails.rhai");

/// A daemon that records what a runtime and a policy do, in scripts, and their records.
fn recording() -> (Folder, PathBuf) {
    let mut folder = holding(&[
        ("polite.rhai", POLITE.as_bytes()),
        ("polite.toml", POLITE_LENT.as_bytes()),
        ("guardrails.rhai", GUARDRAILS.as_bytes()),
        (
            "guardrails.toml",
            b"[settings]\nmost-seconds = 60\nimages = \"\"\n",
        ),
    ]);
    let records = folder.daemon.home().path().join("records");
    folder.daemon.kill();
    let flag = format!("--record-plugins={}", records.display());
    folder.daemon.start_again_with(&flag);
    folder.until("guardrails", |plugin| plugin["healthy"] == true);
    (folder, records)
}

fn record(records: &Path, plugin: &str) -> PathBuf {
    let mut found = std::fs::read_dir(records).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name()?.to_str()?;
        name.starts_with(&format!("{plugin}-")).then_some(path)
    });
    let first = found.next().unwrap();
    assert_eq!(found.next(), None, "{plugin} was loaded once");
    first
}

fn replay(folder: &Folder, record: &Path, further: &[&str]) -> Finished {
    let record = record.to_str().unwrap();
    let words = [&["plugin", "replay", record], further].concat();
    folder.daemon.taskwright(&words)
}

#[test]
fn the_calls_of_a_daemon_that_was_killed_are_the_same_once_more() {
    let (mut folder, records) = recording();
    let client = folder.client();
    for number in 0..3 {
        let ended = client.run(&on("polite", &format!("polite-{number}"), "exit 3"));
        assert_eq!(exit_code(&ended), 3);
        client.run(&flat(&format!("plain-{number}"), &["true"]));
    }
    client.run(&flat("none", &["no-such-program"]));
    folder.daemon.kill();
    for (plugin, least) in [
        ("polite", 1 + 3 * 2),
        ("process", 1 + 4 * 2),
        ("guardrails", 8),
    ] {
        let record = record(&records, plugin);
        let mode = std::fs::metadata(&record).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{plugin}");
        let told = replay(&folder, &record, &["-o", "json"]).expect(0).stdout;
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["differ"], 0, "{plugin}: {told:#}");
        assert_eq!(told["notPlayed"], 0, "{plugin}: {told:#}");
        assert!(
            told["calls"].as_u64().unwrap() >= least,
            "{plugin}: {told:#}"
        );
    }
    let mode = std::fs::metadata(&records).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    assert!(
        folder
            .daemon
            .log()
            .contains("every plugin call is recorded")
    );
}

#[test]
fn an_edited_script_is_told_and_where_it_differs() {
    let (mut folder, records) = recording();
    folder.client().run(&on("polite", "one", "exit 3"));
    folder.daemon.kill();
    let record = record(&records, "polite");
    let edited = folder.path.join("edited.rhai");
    std::fs::write(&edited, POLITE.replace("[\"nice\"", "[\"chrt\"")).unwrap();
    let component = format!("--component={}", edited.display());
    let told = replay(&folder, &record, &[&component]).expect(1);
    assert!(
        told.stderr.contains("is not the one on record"),
        "{}",
        told.stderr
    );
    assert!(told.stderr.contains("--any-version"), "{}", told.stderr);
    let told = replay(&folder, &record, &[&component, "--any-version"]).expect(1);
    for part in [
        "1 differ",
        "runtime.start: differs",
        "asked for process.spawn",
        "chrt",
    ] {
        assert!(told.stdout.contains(part), "{} lacks {part}", told.stdout);
    }
    // The file in the folder is found by itself.
    let same = replay(&folder, &record, &[]).expect(0);
    assert!(
        same.stdout.ends_with("calls, 0 differ\n"),
        "{}",
        same.stdout
    );
}

#[test]
fn a_record_that_is_cut_or_none_is_told() {
    let (mut folder, records) = recording();
    folder.client().run(&flat("one", &["true"]));
    folder.daemon.kill();
    let record = record(&records, "process");
    let kept = std::fs::read(&record).unwrap();
    std::fs::write(&record, &kept[..kept.len() - 9]).unwrap();
    let told = replay(&folder, &record, &[]).expect(0);
    assert!(
        told.stdout.contains("breaks off in line"),
        "{}",
        told.stdout
    );
    std::fs::write(&record, LENT).unwrap();
    let told = replay(&folder, &record, &[]).expect(125);
    assert!(told.stderr.contains("it is no record"), "{}", told.stderr);
    assert!(told.stderr.contains("--record-plugins"), "{}", told.stderr);
}

#[test]
fn a_directory_that_others_may_write_keeps_the_daemon_from_starting() {
    let (mut folder, records) = recording();
    folder.daemon.kill();
    let shared = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&records, shared).unwrap();
    let flag = format!("--record-plugins={}", records.display());
    let refused = taskwright_tests::Options::new().flag(&flag);
    let told = refused.refused_in(folder.daemon.home());
    assert!(told.stderr.contains("chmod go-w"), "{}", told.stderr);
}
