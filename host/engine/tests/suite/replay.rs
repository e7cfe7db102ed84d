//! Calls that were recorded, once more: with the answers on record and nothing else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use taskwright_capability::{Directory, Secret, SecretSource, UnitEnd};
use taskwright_control::port::{
    PluginInfo, Plugins as _, Step, Strategies as _, StrategyEvent, UnitEnded,
};
use taskwright_engine::record::{RecordError, RecordReader};
use taskwright_engine::replay::{Difference, Repeated};
use taskwright_engine::{CallLimits, PluginSource, Script};
use taskwright_model::{ExitStatus, Timestamp, UnitName};
use taskwright_test_guests::{BORROWER, MISBEHAVE, PROCESS, RELAY, SCRIPT};

use crate::lent::{borrower, everything, tell};
use crate::support::{Bench, command, command_for, given, misbehaving, mischief, process, script};

/// The record of a plugin.
fn record(bench: &Bench, plugin: &str) -> PathBuf {
    let records = bench.folder.path().join("records");
    let mut found: Vec<PathBuf> = std::fs::read_dir(records)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(&format!("{plugin}-"))
        })
        .collect();
    found.sort();
    found.pop().unwrap()
}

/// What comes of each call of a record with this component, on a bench where nothing is.
async fn replay(
    record: &Path,
    component: &[u8],
    script: Option<Script>,
) -> Result<Vec<(String, Repeated)>, RecordError> {
    let bench = Bench::new();
    let (header, mut calls) = RecordReader::open(record)?;
    let player = bench.runtimes.player(&header, component.into(), script);
    let player = player.await.unwrap();
    let mut came = Vec::new();
    while let Some(noted) = calls.next_call()? {
        let export = noted.export.clone();
        came.push((export, player.play(noted).await));
    }
    assert!(
        bench.processes.spawned().is_empty(),
        "something was started"
    );
    Ok(came)
}

/// All of them are the same; their exports.
async fn check_same(bench: &Bench, plugin: &str, component: &[u8]) -> Vec<String> {
    let came = replay(&record(bench, plugin), component, None).await;
    let came = came.unwrap().into_iter();
    came.map(|(export, repeated)| {
        assert_eq!(repeated, Repeated::Same, "{plugin} {export}");
        export
    })
    .collect()
}

fn the_difference(came: Vec<(String, Repeated)>) -> (String, Difference) {
    let mut differ = came
        .into_iter()
        .filter_map(|(export, repeated)| match repeated {
            Repeated::Differs(difference) => Some((export, difference)),
            _ => None,
        });
    let first = differ.next().unwrap();
    assert_eq!(differ.next(), None, "one call differs");
    first
}

#[tokio::test]
async fn a_runtimes_calls_are_the_same_once_more() {
    let bench = Bench::recording();
    bench.runtimes.load(process()).await.unwrap();
    let _probed: Vec<PluginInfo> = bench.runtimes.list().await;
    let task = given(command(&["sleep", "1"]));
    assert!(
        bench
            .runtimes
            .validate(task.clone())
            .await
            .unwrap()
            .is_empty()
    );
    bench.runtimes.start(task.clone()).await.unwrap();
    let unit = bench.processes.spawned().remove(0).unit;
    let stop = StrategyEvent::StopRequested {
        grace: Duration::from_secs(3),
    };
    let stepped = bench.runtimes.on_event(task.clone(), [].into(), stop).await;
    assert!(matches!(stepped.unwrap().step, Step::Wait { .. }));
    assert_eq!(bench.processes.stopped().len(), 1);
    let status = Some(ExitStatus::Code(4));
    let at = Timestamp::from_millis(0);
    let end = UnitEnd {
        status,
        out_of_memory: false,
        at,
    };
    bench.processes.end(&unit, end);
    let exited = StrategyEvent::Exited {
        unit: UnitName::parse("main").unwrap(),
        end: UnitEnded {
            status,
            out_of_memory: false,
        },
    };
    bench
        .runtimes
        .on_event(task, [].into(), exited)
        .await
        .unwrap();
    let exports = check_same(&bench, "process", PROCESS).await;
    let expected = [
        "runtime.describe",
        "runtime.probe",
        "runtime.validate",
        "runtime.start",
        "runtime.on-event",
        "runtime.on-event",
    ];
    assert_eq!(exports, expected);
}

#[tokio::test]
async fn what_was_lent_is_answered_from_the_record_after_it_is_gone() {
    let bench = Bench::recording();
    let data = bench.folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("model"), "weights").unwrap();
    let mut grants = everything();
    let lent = Directory {
        path: data.clone(),
        write: true,
    };
    grants.directories.insert("data".to_owned(), lent);
    let secret = SecretSource::Variable {
        name: "KEY".to_owned(),
        value: Some(Secret::new(b"hunter2".to_vec())),
    };
    grants.secrets.insert("key".to_owned(), secret);
    bench.runtimes.load(borrower(grants)).await.unwrap();
    for line in [
        "all",
        "read data model",
        "read data none",
        "read data ../x",
        "read other model",
        "list data ",
        "stat data model",
        "write data new text",
        "remove data new",
        "secret key",
        "secret none",
        "clock",
        "random",
        "sleep 5",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        tell(&bench, &words).await;
    }
    std::fs::remove_dir_all(&data).unwrap();
    let exports = check_same(&bench, "borrower", BORROWER).await;
    assert_eq!(exports.len(), 1 + 14);
    let kept = std::fs::read_to_string(record(&bench, "borrower")).unwrap();
    for function in [
        "wall-clock",
        "monotonic-clock",
        "wasi:random",
        "secrets.get",
    ] {
        assert!(kept.contains(function), "{function}");
    }
}

#[tokio::test]
async fn a_call_that_fails_fails_the_same_way() {
    for (fault, said) in [
        ("files", ""),
        ("shout", ""),
        ("spawn-many", "at most 16 units"),
        ("spawn-odd-unit", "Denied"),
        ("trap", "gave up"),
        ("panic", "a bug in start"),
        ("spin", "CPU time"),
        ("sleep", "longer than"),
    ] {
        let bench = Bench::recording();
        let settings = [("start", fault)];
        bench.runtimes.load(misbehaving(&settings)).await.unwrap();
        let told = bench.start(mischief()).await.err().unwrap_or_default();
        assert!(told.contains(said), "{fault}: {told}");
        let exports = check_same(&bench, "misbehave", MISBEHAVE).await;
        let described = ["runtime", "policy", "observer"].map(|role| format!("{role}.describe"));
        let called = [&described[..], &["runtime.start".to_owned()]].concat();
        assert_eq!(exports, called, "{fault}");
    }
}

#[tokio::test]
async fn an_answer_that_never_came_ends_the_call_as_it_did() {
    let bench = Bench::recording();
    bench.runtimes.load(process()).await.unwrap();
    bench
        .processes
        .set_mood(taskwright_capability::fake::Mood::Silent);
    let told = bench.start(command(&["true"])).await.unwrap_err();
    assert!(told.contains("process.spawn gave no answer"), "{told}");
    check_same(&bench, "process", PROCESS).await;
}

#[tokio::test]
async fn an_edited_script_differs_and_is_told_where() {
    let text = "fn describe() { #{ version: \"1\" } }\n\
                fn start(task) { #{ argv: [\"nice\"] + task.command } }\n";
    let bench = Bench::recording();
    // The engine of scripts is large, and on a busy machine charged for the time of others.
    let source = PluginSource {
        limits: Some(CallLimits::default()),
        ..script(text)
    };
    bench.runtimes.load(source).await.unwrap();
    let stepped = bench
        .runtimes
        .start(given(command_for("wrap", &["true"])))
        .await;
    stepped.unwrap();
    let record = record(&bench, "wrap");
    let as_script = |text: &str| Script {
        file: "wrap.rhai".to_owned(),
        text: text.into(),
    };
    let same = replay(&record, SCRIPT, Some(as_script(text)))
        .await
        .unwrap();
    assert!(
        same.iter().all(|(_, came)| *came == Repeated::Same),
        "{same:?}"
    );
    let edited = text.replace("nice", "ionice");
    let came = replay(&record, SCRIPT, Some(as_script(&edited))).await;
    let (export, difference) = the_difference(came.unwrap());
    assert_eq!(export, "runtime.start");
    let told = difference.on_the_way.unwrap();
    for part in [
        "host call 1: it asked for process.spawn",
        "ionice",
        "the record has",
        "\"nice\"",
    ] {
        assert!(told.contains(part), "{told} lacks {part}");
    }
    let (kept, _) = RecordReader::open(&record).unwrap();
    assert!(kept.script);
    // Its own text is the plugin, and no answer of the host's.
    assert!(
        !std::fs::read_to_string(&record)
            .unwrap()
            .contains("fn start")
    );
}

#[tokio::test]
async fn another_answer_on_record_is_told_with_both() {
    let bench = Bench::recording();
    let relay = PluginSource {
        name: "relay".to_owned(),
        component: RELAY.into(),
        ..process()
    };
    bench.runtimes.load(relay).await.unwrap();
    let task = given(command_for("relay", &["true"]));
    bench.runtimes.start(task).await.unwrap();
    check_same(&bench, "relay", RELAY).await;
    let record = record(&bench, "relay");
    let kept = std::fs::read_to_string(&record).unwrap();
    let changed = kept.replace("\"running\":true", "\"running\":false");
    assert_ne!(kept, changed);
    std::fs::write(&record, changed).unwrap();
    let came = replay(&record, RELAY, None).await.unwrap();
    let (_, difference) = the_difference(came);
    assert_eq!(difference.on_the_way, None);
    let running = |of: &serde_json::Value| of.pointer("/answer/Ok/Wait/running").cloned();
    assert_eq!(running(&difference.noted), Some(false.into()));
    assert_eq!(running(&difference.came), Some(true.into()));
}

#[tokio::test]
async fn host_calls_that_are_missing_or_left_over_are_told() {
    let bench = Bench::recording();
    bench.runtimes.load(process()).await.unwrap();
    bench.start(command(&["true"])).await.unwrap();
    let record = record(&bench, "process");
    let kept = std::fs::read_to_string(&record).unwrap();
    let spawn = "{\"function\":\"process.spawn\"";
    let log = "{\"function\":\"log.write\",\"arguments\":[\"Info\",\"x\"],\"answer\":null}";
    for (changed, expected) in [
        (
            kept.replace(spawn, &format!("{log},{spawn}")),
            "the record has log.write",
        ),
        (
            kept.replace(
                "],\"answer\":{\"Ok\":{\"Wait\"",
                &format!(",{log}],\"answer\":{{\"Ok\":{{\"Wait\""),
            ),
            "host call 2: it ended, where the record has log.write",
        ),
    ] {
        assert_ne!(kept, changed, "{expected}");
        std::fs::write(&record, changed).unwrap();
        let came = replay(&record, PROCESS, None).await.unwrap();
        let (_, difference) = the_difference(came);
        let told = difference.on_the_way.unwrap();
        assert!(told.contains(expected), "{told} lacks {expected}");
    }
}

#[tokio::test]
async fn a_call_that_asked_by_http_is_not_played() {
    let bench = Bench::recording();
    bench.runtimes.load(borrower(everything())).await.unwrap();
    tell(&bench, &["get", "http://127.0.0.1:1/"]).await;
    let came = replay(&record(&bench, "borrower"), BORROWER, None).await;
    let (_, last) = came.unwrap().pop().unwrap();
    assert!(
        matches!(last, Repeated::NotPlayed(why) if why.contains("HTTP")),
        "{last:?}"
    );
}

#[tokio::test]
async fn a_record_that_breaks_off_is_told_with_its_line() {
    let bench = Bench::recording();
    bench.runtimes.load(process()).await.unwrap();
    bench.start(command(&["true"])).await.unwrap();
    let record = record(&bench, "process");
    let kept = std::fs::read(&record).unwrap();
    std::fs::write(&record, kept.get(..kept.len() - 10).unwrap()).unwrap();
    let told = replay(&record, PROCESS, None).await.unwrap_err();
    assert!(matches!(told, RecordError::BrokenOff { line: 3 }), "{told}");
}
