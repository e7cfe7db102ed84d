//! What tasks print: readable while they run, by offset, and bounded.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, flat, shell};
use taskwright_tests::{Daemon, Options, Response, SOON, ServerEvent, eventually};

const CAP: u64 = 256 * 1024;

/// A small cap on output, so that it is soon reached.
fn capped() -> Daemon {
    Options::new().flag("--output-cap=256KiB").start()
}

fn number(answer: &Response, header: &str) -> u64 {
    answer.header(header).unwrap().parse().unwrap()
}

/// A script that prints one line, waits for a file, and prints another.
fn gated(daemon: &Daemon) -> String {
    let gate = daemon.home().path().join("gate");
    format!(
        "echo before; while [ ! -e {} ]; do sleep 0.05; done; echo after",
        gate.display()
    )
}

fn open_gate(daemon: &Daemon) {
    std::fs::write(daemon.home().path().join("gate"), "").unwrap();
}

#[test]
fn output_is_readable_while_the_task_runs() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("live", &gated(&daemon)));
    eventually(SOON, "the first line is there", || {
        client.get("/tasks/live/logs").expect(200).body == b"before\n"
    });
    client.until_state("live", "running", SOON);
    open_gate(&daemon);
    client.until_ended("live", SOON);
    assert_eq!(
        client.get("/tasks/live/logs").expect(200).body,
        b"before\nafter\n"
    );
}

#[test]
fn the_two_streams_are_kept_apart() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.run(&shell("two", "echo out; echo err >&2"));
    assert_eq!(client.get("/tasks/two/logs").expect(200).body, b"out\n");
    assert_eq!(
        client.get("/tasks/two/logs?stream=stdout").expect(200).body,
        b"out\n"
    );
    assert_eq!(
        client.get("/tasks/two/logs?stream=stderr").expect(200).body,
        b"err\n"
    );
    client.get("/tasks/two/logs?stream=stdin").expect(400);
    client.get("/tasks/none/logs").expect(404);
    let read = |file| std::fs::read_to_string(daemon.task_file("two", file)).unwrap();
    assert_eq!(
        (read("stdout.log"), read("stderr.log")),
        ("out\n".into(), "err\n".into())
    );
}

#[test]
fn a_reader_goes_on_where_it_was_cut_off() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.run(&shell("ten", "seq 10"));
    let mut read = Vec::new();
    let mut offset = 0;
    loop {
        let path = format!("/tasks/ten/logs?offset={offset}&limit=4");
        let answer = client.get(&path).expect(200);
        assert!(answer.body.len() <= 4);
        assert_eq!(number(&answer, "x-log-offset"), offset);
        assert_eq!(number(&answer, "x-log-end"), 21);
        assert_eq!(number(&answer, "x-log-dropped"), 0);
        offset = number(&answer, "x-log-next-offset");
        if answer.body.is_empty() {
            break;
        }
        read.extend(answer.body);
    }
    assert_eq!(read, b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
}

#[test]
fn the_tail_is_counted_in_lines_or_bytes() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.run(&shell("ten", "seq 10"));
    for (query, expected) in [
        ("tail=2", "9\n10\n"),
        ("tail=0", ""),
        ("tail=100", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n"),
        ("tailBytes=3", "10\n"),
        ("tailBytes=1000", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n"),
    ] {
        let answer = client.get(&format!("/tasks/ten/logs?{query}")).expect(200);
        assert_eq!(answer.text(), expected, "{query}");
    }
    for query in [
        "tail=1&offset=1",
        "tail=-1",
        "offset=x",
        "tail=1&tailBytes=1",
    ] {
        client.get(&format!("/tasks/ten/logs?{query}")).expect(400);
    }
}

/// The text of every `output` event, joined.
fn text(events: &[ServerEvent]) -> String {
    let pieces = events.iter().filter(|event| event.event == "output");
    pieces
        .map(|event| {
            let piece: Value = serde_json::from_str(&event.data).unwrap();
            piece["text"].as_str().unwrap_or_default().to_owned()
        })
        .collect()
}

#[test]
fn a_follower_sees_lines_as_they_come_and_then_the_end() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("live", &format!("{}; exit 3", gated(&daemon))));
    let stream = client.stream("/tasks/live/logs?follow=true", None);
    let first = stream.until(SOON, |event| event.event == "output");
    assert_eq!(text(&first), "before\n");
    open_gate(&daemon);
    let rest = stream.until(SOON, |event| event.event == "end");
    assert_eq!(text(&rest), "after\n");
    let end: Value = serde_json::from_str(&rest.last().unwrap().data).unwrap();
    assert_eq!(
        end,
        json!({"state": "ended", "outcome": {"cause": "exit", "exitCode": 3}})
    );
    assert_eq!(stream.next_within(SOON), None, "the stream is over");
}

#[test]
fn a_follower_that_was_cut_off_resumes_and_misses_nothing() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("live", &gated(&daemon)));
    let stream = client.stream("/tasks/live/logs?follow=true&stream=both", None);
    let seen = stream.until(SOON, |event| event.event == "output");
    let last = seen.last().unwrap().id.clone();
    drop(stream);
    open_gate(&daemon);
    client.until_ended("live", SOON);
    let stream = client.stream("/tasks/live/logs?stream=both", Some(&last));
    let rest = stream.until(SOON, |event| event.event == "end");
    assert_eq!(text(&seen) + &text(&rest), "before\nafter\n");
}

#[test]
fn a_follower_resumes_across_a_restart_of_the_daemon() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("live", &gated(&daemon)));
    let stream = client.stream("/tasks/live/logs?follow=true", None);
    let seen = stream.until(SOON, |event| event.event == "output");
    let last = seen.last().unwrap().id.clone();
    daemon.kill();
    assert_eq!(stream.next_within(SOON), None);
    open_gate(&daemon);
    daemon.start_again();
    let stream = client.stream("/tasks/live/logs?follow=true", Some(&last));
    let rest = stream.until(SOON, |event| event.event == "end");
    assert_eq!(text(&rest), "after\n");
}

#[test]
fn bytes_that_are_no_text_are_kept_as_they_are() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.run(&crate::misbehave("bytes", &["bytes"]));
    let expected: Vec<u8> = (0..=255).chain(*b"\nno end").collect();
    assert_eq!(client.get("/tasks/bytes/logs").expect(200).body, expected);
    assert_eq!(
        std::fs::read(daemon.task_file("bytes", "stdout.log")).unwrap(),
        expected
    );
    let stream = client.stream("/tasks/bytes/logs?follow=true", None);
    let events = stream.until(SOON, |event| event.event == "end");
    let piece: Value = serde_json::from_str(&events[0].data).unwrap();
    assert!(piece["base64"].is_string(), "{piece}");
    assert_eq!(piece["text"], Value::Null);
}

#[test]
fn a_task_that_prints_without_end_keeps_its_head_and_its_tail() {
    let daemon = capped();
    let client = daemon.client();
    let total = 8 * 1024 * 1024;
    let ended = client.run(&crate::misbehave("flood", &["flood", &total.to_string()]));
    assert_eq!(exit_code(&ended), 0);
    // 16 bytes a line.
    let head = client.get("/tasks/flood/logs?limit=32").expect(200);
    assert_eq!(head.text(), "line 0000000000\nline 0000000001\n");
    let end = number(&head, "x-log-end");
    assert_eq!(end, total, "offsets count every byte that was ever printed");
    let tail = client.get("/tasks/flood/logs?tail=1").expect(200);
    assert_eq!(tail.text(), format!("line {:010}\n", total / 16 - 1));
    eventually(SOON, "its middle is given back to the disk", || {
        let file = std::fs::metadata(daemon.task_file("flood", "stdout.log")).unwrap();
        file.blocks() * 512 <= 2 * CAP
    });

    // A reader that walks through it is told where bytes were dropped, and every line that
    // is there stands at its own offset.
    let (mut offset, mut kept, mut dropped) = (0, 0, 0);
    while offset < end {
        let path = format!("/tasks/flood/logs?offset={offset}&limit=65536");
        let piece = client.get(&path).expect(200);
        let at = number(&piece, "x-log-offset");
        dropped += number(&piece, "x-log-dropped");
        kept += piece.body.len() as u64;
        if at.is_multiple_of(16) && piece.body.len() >= 16 {
            let line = String::from_utf8_lossy(&piece.body[..16]).into_owned();
            assert_eq!(line, format!("line {:010}\n", at / 16));
        }
        let next = number(&piece, "x-log-next-offset");
        assert!(next > offset, "the reader goes on");
        offset = next;
    }
    assert_eq!(kept + dropped, total);
    assert!(dropped > 0 && kept <= 2 * CAP, "{kept} bytes are kept");
}

#[test]
fn a_flood_is_bounded_while_it_goes_on() {
    let daemon = capped();
    let client = daemon.client();
    client.submit(&flat("yes", &["yes"]));
    let path = daemon.task_file("yes", "stdout.log");
    let size = || std::fs::metadata(&path).map_or(0, |file| file.len());
    eventually(SOON, "much was printed", || size() > 64 * 1024 * 1024);
    // How much may lie around between two rounds of giving back depends on the machine's
    // speed; that it does not grow with what is printed does not.
    eventually(SOON, "its disk use is bounded", || {
        let file = std::fs::metadata(&path).unwrap();
        file.len() > 128 * 1024 * 1024 && file.blocks() * 512 < 64 * 1024 * 1024
    });
    client.get("/health").expect(200);
    client.delete("/tasks/yes").expect(204);
    client.until_gone("yes", SOON);
}

#[test]
fn files_belong_to_their_owner_alone() {
    let daemon = Daemon::start();
    daemon.client().run(&shell("private", "echo secret"));
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let data = daemon.home().data();
    assert_eq!(mode(&data.join("private")), 0o700);
    assert_eq!(mode(&data.join("private/stdout.log")), 0o600);
    assert_eq!(mode(&data.join("private/stderr.log")), 0o600);
    assert_eq!(mode(&data.join(".taskwright")), 0o700);
    for entry in std::fs::read_dir(data.join(".taskwright")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{path:?} is open to others");
    }
}

#[test]
fn a_link_planted_as_output_is_not_followed() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let secret = daemon.home().file("secret", "do not touch\n");
    // A task has its own directory and may plant there what it likes: first for readers,
    let script = format!("rm stdout.log; ln -s {} stdout.log", secret.display());
    assert_eq!(exit_code(&client.run(&shell("reader", &script))), 0);
    let answer = client.get("/tasks/reader/logs");
    assert!(!answer.text().contains("do not touch"), "{answer:?}");
    // The task's doing, not a fault of ours.
    assert_eq!(answer.status, 409, "{answer:?}");
    for (name, instead) in [
        ("pipe", "mkfifo stdout.log"),
        ("folder", "mkdir stdout.log"),
    ] {
        client.run(&shell(name, &format!("rm stdout.log; {instead}")));
        client.get(&format!("/tasks/{name}/logs")).expect(409);
    }
    // and then for its next attempt, which must not write there.
    let mut body = shell(
        "writer",
        &format!(
            "[ $TASKWRIGHT_ATTEMPT = 2 ] && exit 0; rm stdout.log; ln -s {} stdout.log; exit 1",
            secret.display()
        ),
    );
    body["retry"] = json!({"maxAttempts": 2, "backoffSeconds": 0.05});
    client.run(&body);
    // And one that somebody else planted before the task came.
    let early = daemon.home().data().join("early");
    std::fs::create_dir(&early).unwrap();
    symlink(&secret, early.join("stdout.log")).unwrap();
    client.run(&shell("early", "echo overwritten"));
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "do not touch\n");
}

#[test]
fn what_a_daemonised_child_prints_is_kept_too() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.run(&shell("parent", "(sleep 0.3; echo late) & echo early"));
    eventually(SOON, "the child's line is there", || {
        client.get("/tasks/parent/logs").expect(200).text() == "early\nlate\n"
    });
}

#[test]
fn what_stood_in_a_new_tasks_place_is_set_aside_and_kept() {
    let daemon = Daemon::start();
    let client = daemon.client();
    // As an executor of before leaves it.
    let place = daemon.home().data().join("again");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("stdout.log"), "of before\n").unwrap();
    std::fs::write(place.join("task.json"), "{}").unwrap();
    client.run(&shell("again", "echo of now"));
    assert_eq!(
        client.get("/tasks/again/logs").expect(200).text(),
        "of now\n"
    );
    client.delete("/tasks/again").expect(204);
    client.until_gone("again", SOON);
    let left: Vec<_> = std::fs::read_dir(daemon.home().data())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("again.set-aside-")
        })
        .collect();
    let [aside] = left.as_slice() else {
        panic!("{left:?}");
    };
    assert_eq!(
        std::fs::read_to_string(aside.join("stdout.log")).unwrap(),
        "of before\n"
    );
    // An attempt of its own finds what the one before it printed.
    let mut body = shell(
        "twice",
        "echo $TASKWRIGHT_ATTEMPT; [ $TASKWRIGHT_ATTEMPT = 2 ]",
    );
    body["retry"] = json!({"maxAttempts": 2, "backoffSeconds": 0.05});
    client.run(&body);
    assert_eq!(client.get("/tasks/twice/logs").expect(200).text(), "1\n2\n");
}
