//! What containers print: whole, in order, by offset, bounded, while they run and afterwards.

use std::os::unix::fs::MetadataExt as _;

use serde_json::json;
use taskwright_tests::task::exit_code;
use taskwright_tests::{SOON, ServerEvent, eventually};

use super::Contained;

#[test]
fn every_byte_is_kept_as_it_was_printed() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    // 1 MiB without an end of line: the runtime's log cuts it into pieces of 16 KiB.
    let long = "head -c 1048576 /dev/zero | tr '\\0' x";
    client.submit(&it.shell("long", long));
    // Every byte there is, in one line and without a last one.
    let binary = "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done";
    client.submit(&it.shell("binary", binary));
    client.submit(&it.shell("two", "echo out; echo err >&2; printf end"));
    client.submit(&it.shell("silent", "true"));
    for name in ["long", "binary", "two", "silent"] {
        let ended = client.until_ended(name, SOON);
        assert_eq!(exit_code(&ended), 0, "{ended:#}");
    }
    let read = |task: &str, file: &str| std::fs::read(it.daemon.task_file(task, file));
    let long = read("long", "stdout.log").unwrap();
    assert_eq!(long.len(), 1 << 20);
    assert!(long.iter().all(|byte| *byte == b'x'));
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(read("binary", "stdout.log").unwrap(), all);
    assert_eq!(read("two", "stdout.log").unwrap(), b"out\nend");
    assert_eq!(read("two", "stderr.log").unwrap(), b"err\n");
    assert_eq!(client.get("/tasks/two/logs?stream=stderr").text(), "err\n");
    assert_eq!(client.get("/tasks/silent/logs").expect(200).text(), "");
}

#[test]
fn output_is_read_while_the_container_runs_and_followed_to_its_end() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let script = "echo 1; until [ -e /tmp/go ]; do sleep 0.05; done; echo 2; printf 3";
    client.submit(&it.shell("live", script));
    it.until_printed("live", "1\n");
    let stream = client.stream("/tasks/live/logs?follow=true", None);
    let first = stream.next_within(SOON).unwrap();
    assert!(first.data.contains('1'), "{first:?}");
    let container = it.containers().remove(0);
    it.open_gate(&container.id);
    let mut seen: Vec<ServerEvent> = Vec::new();
    while let Some(event) = stream.next_within(SOON) {
        seen.push(event);
    }
    assert!(
        seen.iter().any(|event| event.data.contains('3')),
        "{seen:?}"
    );
    client.until_ended("live", SOON);
    assert_eq!(it.printed("live"), "1\n2\n3");
    let rest = client.get("/tasks/live/logs?offset=2&limit=2").expect(200);
    assert_eq!(rest.text(), "2\n");
    assert_eq!(rest.header("x-log-next-offset"), Some("4"));
    assert_eq!(client.get("/tasks/live/logs?tail=1").text(), "3");
}

#[test]
fn more_than_the_cap_is_cut_and_counted() {
    let Some(it) = Contained::with(|options| options.flag("--output-cap=64KiB")) else {
        return;
    };
    let client = it.client();
    let ended = client.run(&it.shell("much", "seq 100000"));
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    let answer = client.get("/tasks/much/logs?tail=1").expect(200);
    assert_eq!(answer.text(), "100000\n");
    let number = |name: &str| answer.header(name).unwrap().parse::<u64>().unwrap();
    // The numbers of 1 to 100000, each with its end of line.
    assert_eq!(number("x-log-end"), 588_895);
    // A reader that walks through it is told where something is missing.
    let (mut offset, mut kept, mut dropped) = (0, 0, 0);
    loop {
        let path = format!("/tasks/much/logs?offset={offset}");
        let piece = client.get(&path).expect(200);
        let number = |name: &str| piece.header(name).unwrap().parse::<u64>().unwrap();
        kept += piece.body.len();
        dropped += number("x-log-dropped");
        offset = number("x-log-next-offset");
        if piece.body.is_empty() {
            break;
        }
    }
    assert_eq!(kept as u64 + dropped, 588_895);
    assert!(dropped > 400_000, "{dropped}");
    let head = client.get("/tasks/much/logs?offset=0&limit=6").expect(200);
    assert_eq!(head.text(), "1\n2\n3\n");
    let kept = std::fs::metadata(it.daemon.task_file("much", "stdout.log")).unwrap();
    assert!(kept.blocks() * 512 < 200 * 1024, "{} blocks", kept.blocks());
}

#[test]
fn the_runtimes_log_does_not_grow_with_the_output() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    // Past the size at which the runtime's log is begun anew, then on.
    let script = "i=0; while [ $i -lt 12 ]; do head -c 1048576 /dev/zero | tr '\\0' x; echo; \
                  i=$((i+1)); done; echo last; until [ -e /tmp/go ]; do sleep 0.05; done; \
                  echo after";
    let id = client.submit(&it.shell("rotated", script))["id"].clone();
    let end = 12 * ((1 << 20) + 1) + 5;
    let file = it.daemon.task_file("rotated", "stdout.log");
    eventually(2 * SOON, "all of it is kept", || {
        std::fs::metadata(&file).is_ok_and(|meta| meta.len() == end)
    });
    let place = it.daemon.home().data().join(".taskwright/containers");
    let place = place.join(id.as_str().unwrap()).join("1");
    let size = || {
        let files = std::fs::read_dir(&place).unwrap().flatten();
        let files = files.filter_map(|file| file.metadata().ok());
        files
            .filter(std::fs::Metadata::is_file)
            .map(|meta| meta.len())
            .sum::<u64>()
    };
    eventually(SOON, "the runtime's own log is small again", || {
        size() < 10 << 20
    });
    let container = it.containers().remove(0);
    it.open_gate(&container.id);
    let ended = client.until_ended("rotated", SOON);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    let kept = std::fs::read(&file).unwrap();
    assert!(kept.ends_with(b"x\nlast\nafter\n"));
    assert_eq!(kept.len() as u64, end + 6);
}

#[test]
fn all_containers_of_a_pod_print_into_the_same_output() {
    let Some(it) = Contained::start() else { return };
    let lines = |who: &str| format!("for i in $(seq 500); do echo {who}$i; done");
    let body = it.pod("both", &[("a", &lines("a")), ("b", &lines("b"))], json!({}));
    let ended = it.client().run(&body);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    let printed = it.printed("both");
    for who in ["a", "b"] {
        let of_one: Vec<&str> = printed
            .lines()
            .filter(|line| line.starts_with(who))
            .collect();
        let expected: Vec<String> = (1..=500).map(|i| format!("{who}{i}")).collect();
        assert_eq!(of_one, expected, "whole lines, in the order of each");
    }
}
