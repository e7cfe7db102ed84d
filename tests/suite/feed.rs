//! Watching: the numbered feed, streams that resume, waiting for an end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, flat, shell};
use taskwright_tests::{Daemon, Request, SOON};

fn events(answer: &Value) -> Vec<&str> {
    let items = answer["items"].as_array().unwrap();
    items
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect()
}

#[test]
fn the_feed_tells_a_tasks_life_in_order() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.run(&shell("one", "exit 2"));
    let page = client.get("/events").expect(200).json();
    assert_eq!(events(&page), ["submitted", "launched", "running", "ended"]);
    let items = page["items"].as_array().unwrap();
    let numbers: Vec<u64> = items
        .iter()
        .map(|event| event["sequence"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{numbers:?}"
    );
    assert_eq!(items[3]["outcome"], json!({"cause": "exit", "exitCode": 2}));
    assert_eq!(client.get("/tasks/one/events").expect(200).json(), page);

    client.run(&flat("two", &["true"]));
    let rest = client
        .get(&format!("/events?after={}", page["nextAfter"]))
        .expect(200)
        .json();
    assert!(
        rest["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|event| event["name"] == "two")
    );
    assert_eq!(
        client.get("/tasks/one/events").expect(200).json()["items"],
        page["items"]
    );
    client.delete("/tasks/two").expect(204);
    client.until_gone("two", SOON);
    let rest = client
        .get(&format!("/events?after={}", rest["nextAfter"]))
        .expect(200)
        .json();
    assert_eq!(events(&rest), ["deleting", "removed"]);
}

#[test]
fn the_feed_can_be_waited_for() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let begun = Instant::now();
    let nothing = client.get("/events?wait=300ms").expect(200).json();
    assert_eq!(events(&nothing), [""; 0]);
    assert!(begun.elapsed() >= Duration::from_millis(250));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.get("/events?wait=30s").expect(200).json());
        client.submit(&flat("one", &["true"]));
        assert_eq!(events(&waiting.join().unwrap())[0], "submitted");
    });
}

#[test]
fn the_feed_as_a_stream_resumes_where_it_was_cut_off() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    let stream = client.stream("/events", None);
    client.submit(&flat("one", &["true"]));
    let seen = stream.until(SOON, |event| event.event == "running");
    let last = seen.last().unwrap().id.clone();
    drop(stream);
    client.until_ended("one", SOON);
    client.delete("/tasks/one").expect(204);
    client.until_gone("one", SOON);
    daemon.kill();
    daemon.start_again();
    let stream = client.stream("/events", Some(&last));
    let rest = stream.until(SOON, |event| event.event == "removed");
    let kinds: Vec<&str> = rest.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(kinds, ["ended", "deleting", "removed"]);
    let first: u64 = rest[0].id.parse().unwrap();
    assert_eq!(
        first,
        last.parse::<u64>().unwrap() + 1,
        "numbers go on after a restart"
    );
}

#[test]
fn the_stream_of_one_task_ends_with_it() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&flat("one", &["true"]));
    client.submit(&flat("other", &["sleep", "60"]));
    let stream = client.stream("/tasks/one/events?follow=true", None);
    client.until_ended("one", SOON);
    client.delete("/tasks/one").expect(204);
    let seen = stream.until(SOON, |event| event.event == "removed");
    assert!(
        seen.iter().all(|event| event.data.contains("\"one\"")),
        "{seen:?}"
    );
    assert_eq!(stream.next_within(SOON), None);
}

#[test]
fn waiting_is_answered_at_the_end_or_when_its_time_is_up() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&flat("long", &["sleep", "60"]));
    let begun = Instant::now();
    let still = client
        .get("/tasks/long/wait?timeout=300ms")
        .expect(202)
        .json();
    assert!(begun.elapsed() >= Duration::from_millis(250));
    assert!(still["outcome"].is_null());
    let body = shell("short", "exit 6");
    let created = client.post("/tasks?wait=30s", &body).expect(201).json();
    assert_eq!(exit_code(&created), 6, "a submission can wait too");
    assert_eq!(
        exit_code(&client.get("/tasks/short/wait").expect(200).json()),
        6
    );
    client.get("/tasks/long/wait?timeout=soon").expect(400);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.get("/tasks/long/wait?timeout=30s"));
        client.post("/tasks/long/stop", &json!({})).expect(200);
        let ended = waiting.join().unwrap().expect(200).json();
        assert_eq!(ended["outcome"]["cause"], "canceled");
    });
}

#[test]
fn a_waiter_is_answered_when_the_daemon_goes_down() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&flat("long", &["sleep", "60"]));
    client.until_state("long", "running", SOON);
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| client.try_send(Request::new("GET", "/tasks/long/wait?timeout=30s")));
        let stream = client.stream("/events", None);
        stream.until(SOON, |event| event.event == "running");
        let begun = Instant::now();
        assert_eq!(daemon.terminate().code(), Some(0));
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "it does not wait for its waiters"
        );
        if let Ok(answer) = waiting.join().unwrap() {
            assert!([202, 503].contains(&answer.status), "{answer:?}");
        }
    });
}
