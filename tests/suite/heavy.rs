//! Answers that weigh more than a daemon should hold, and readers that do not take them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};
use taskwright_tests::queued::{id_of, submit};
use taskwright_tests::{
    Client, Connection, Daemon, Options, Request, eventually, postgres, processes,
};

const MIB: u64 = 1 << 20;
/// Long enough for answers of a hundred megabytes from a daemon that is not optimized.
const LONG: Duration = Duration::from_secs(60);

fn on_both_stores(check: impl Fn(Options)) {
    check(Options::new());
    if let Some(address) = postgres::database() {
        check(Options::new().flag(&format!("--store={address}")));
    }
}

/// Tasks of so many megabytes each; the newest first, as a list has them.
fn fill(client: &Client, tasks: usize, megabytes: usize) -> Vec<String> {
    let heavy = "x".repeat(megabytes << 20);
    let body = json!({"problem_id": "p", "parameters": {"heavy": heavy}});
    let mut ids: Vec<String> = (0..tasks).map(|_| submit(client, &body)).collect();
    ids.reverse();
    ids
}

fn ids(tasks: &Value) -> Vec<String> {
    tasks.as_array().unwrap().iter().map(id_of).collect()
}

#[test]
fn a_heavy_list_is_told_whole_and_not_held() {
    on_both_stores(|options| {
        let daemon = options.start();
        let client = daemon.client().with_patience(LONG);
        let made = fill(&client, 20, 6);
        let before = processes::peak(daemon.pid());
        let list = client.get("/api/v1/tasks");
        assert_eq!(list.header("x-total-count"), Some("20"));
        assert!(list.body.len() > 120 << 20);
        assert_eq!(ids(&list.json()), made);
        let grown = processes::peak(daemon.pid()).saturating_sub(before);
        assert!(grown < 80 * MIB, "it grew by {} MiB", grown / MIB);
        let page = "/aiopslab/api/v1/tasks?page=2&page_size=7&sort=created_at";
        let page = client.get(page).expect(200).json();
        let rest: Vec<String> = made.iter().rev().skip(7).take(7).cloned().collect();
        assert_eq!(ids(&page["tasks"]), rest);
        let told = ["total", "page", "page_size"].map(|name| page[name].as_u64().unwrap());
        assert_eq!(told, [20, 2, 7]);
    });
}

#[test]
fn a_long_conversation_is_told_whole() {
    let daemon = Daemon::start();
    let client = daemon.client().with_patience(LONG);
    let task = submit(&client, &json!({"problem_id": "p"}));
    let begin = json!({"task_id": task, "model_name": "m", "metadata": {"a": 1}});
    let begun = client.post("/api/v1/llm-conversations", &begin).expect(201);
    let path = format!("/api/v1/llm-conversations/{}", id_of(&begun.json()));
    let content = "x".repeat(3 << 20);
    for _ in 0..12 {
        let said = ["user", "assistant"].map(|role| json!({"role": role, "content": content}));
        client
            .post(&format!("{path}/messages"), &json!({"messages": said}))
            .expect(201);
    }
    let numbers = |answer: &Value| -> Vec<u64> {
        let messages = answer["messages"].as_array().unwrap().iter();
        messages
            .map(|one| one["sequence"].as_u64().unwrap())
            .collect()
    };
    let whole = client.get(&path).expect(200).json();
    assert_eq!(numbers(&whole), (0..24).collect::<Vec<u64>>());
    assert_eq!(
        (
            &whole["metadata"],
            &whole["total_messages"],
            &whole["task_id"]
        ),
        (&json!({"a": 1}), &json!(24), &json!(task))
    );
    let said = client.get(&format!("{path}/messages?role=user&from=3&limit=9"));
    let said = said.expect(200).json();
    assert_eq!(
        numbers(&said),
        (2..11).map(|one| one * 2).collect::<Vec<u64>>()
    );
    assert_eq!(said["total_messages"], 9);
    let few = client.get(&format!("{path}/messages?limit=1")).expect(200);
    assert_eq!(numbers(&few.json()), [0]);
}

#[test]
fn what_stands_beside_a_conversation_is_bounded() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let task = submit(&client, &json!({"problem_id": "p"}));
    let large = "x".repeat(700_000);
    let begin = |extra: Value| {
        let mut body = json!({"task_id": task, "id": "01920000-0000-7000-8000-00000000c0de"});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        client.post("/api/v1/llm-conversations", &body)
    };
    for field in ["metadata", "llm_config"] {
        let refused = begin(json!({field: {"a": large, "b": large}}))
            .expect(422)
            .json();
        assert_eq!(refused["errors"][0]["loc"], json!(["body", field]));
    }
    let times = json!({"started_at": "2026-01-02T00:00:00Z", "ended_at": "2026-01-01T00:00:00Z"});
    begin(times).expect(422);
    let begun = begin(json!({"metadata": {"a": large}, "model_name": "m"}))
        .expect(201)
        .json();
    let path = format!("/api/v1/llm-conversations/{}", id_of(&begun));
    let more = json!({"metadata": {"b": large}}).to_string();
    let refused = client.send(Request::new("PATCH", &path).body(more));
    let refused = refused.expect(413).json();
    assert!(
        refused["detail"].as_str().unwrap().contains("1048576"),
        "{refused}"
    );
    begin(json!({"model_name": "another"})).expect(409);
    begin(json!({"model_name": "m"})).expect(201);
    // Who writes is said once, or twice alike.
    let steps = json!({"worker_id": "worker-002-kind", "steps": [{"step": 1}]});
    let asked = format!("/api/v1/tasks/{task}/steps?worker_id=worker-001-kind");
    let refused = client.post(&asked, &steps).expect(422).json();
    assert_eq!(refused["errors"][0]["loc"], json!(["body", "worker_id"]));
}

/// Asks, and reads nothing.
fn ask(client: &Client, path: &str) -> Connection {
    let connection = client.connect().unwrap();
    let mut writer = connection.try_clone().unwrap();
    write!(writer, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    connection
}

#[test]
fn readers_that_take_nothing_are_cut_and_leave_room_and_places() {
    on_both_stores(|options| {
        let daemon = options.flag("--reader-patience=1s").start();
        let client = daemon.client().with_patience(LONG);
        let made = fill(&client, 12, 6);
        for id in &made {
            let path = format!("/api/v1/tasks/{id}/cancel");
            client.send(Request::new("POST", &path)).expect(200);
        }
        // As many exports as there are places for, and lists for which there is no room together.
        let exports: Vec<Connection> = (0..8)
            .map(|_| ask(&client, "/api/v1/export?format=tasks"))
            .collect();
        let lists: Vec<Connection> = (0..6).map(|_| ask(&client, "/api/v1/tasks")).collect();
        eventually(LONG, "those who take nothing are cut", || {
            client.metric("taskwright_http_readers_cut_total") >= Some(8.0)
        });
        let mut waiting = BTreeSet::new();
        eventually(
            LONG,
            "there is a place for an export and room for a list",
            || {
                let statuses = ["/api/v1/export?format=tasks", "/api/v1/tasks"]
                    .map(|path| client.get(path).status);
                waiting.extend(statuses);
                statuses == [200, 200]
            },
        );
        assert!(waiting.is_subset(&[200, 429, 503].into()), "{waiting:?}");
        for connection in exports.into_iter().chain(lists) {
            let mut taken = Vec::new();
            // Whatever the kernel kept, and then its end: clean or not.
            let _ = connection.try_clone().unwrap().read_to_end(&mut taken);
            assert!(taken.len() < 72 << 20, "it was not told everything");
        }
    });
}

#[test]
fn a_slow_reader_that_goes_on_taking_is_told_everything() {
    let daemon = Options::new().flag("--reader-patience=2s").start();
    let client = daemon.client().with_patience(LONG);
    fill(&client, 3, 5);
    let mut reader = ask(&client, "/api/v1/tasks");
    let mut taken = vec![0; 256 * 1024];
    let (mut bytes, mut reads) = (0, 0);
    loop {
        let read = reader.read(&mut taken).unwrap();
        assert!(read > 0, "it was cut after {bytes} bytes");
        bytes += read;
        reads += 1;
        if taken[..read].ends_with(b"0\r\n\r\n") {
            break;
        }
        // Four times as long as it may take nothing.
        if reads < 40 {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    assert!(reads > 40 && bytes > 15 << 20, "{bytes} in {reads}");
    assert_eq!(client.metric("taskwright_http_readers_cut_total "), None);
}

#[test]
fn a_crowd_of_readers_holds_no_more_than_a_few() {
    on_both_stores(|options| {
        let daemon = options.flag("--reader-patience=1s").start();
        let client = daemon.client().with_patience(LONG);
        let id = fill(&client, 1, 7).remove(0);
        let paths = ["", "/events"].map(|rest| format!("/api/v1/tasks/{id}{rest}"));
        let crowd = |size: usize| {
            let asked: Vec<Connection> = paths
                .iter()
                .flat_map(|path| (0..size).map(|_| ask(&client, path)).collect::<Vec<_>>())
                .collect();
            for mut connection in asked {
                let mut status = [0; 12];
                connection.read_exact(&mut status).unwrap();
                assert!([b"200", b"503"].contains(&status[9..].try_into().unwrap()));
            }
            processes::peak(daemon.pid())
        };
        let few = crowd(30);
        let many = crowd(120);
        let grown = many.saturating_sub(few);
        assert!(grown < 250 * MIB, "it grew by {} MiB", grown / MIB);
        // Whoever asks for little is answered meanwhile.
        let held: Vec<Connection> = (0..20).map(|_| ask(&client, &paths[0])).collect();
        client.get("/openapi.json").expect(200);
        drop(held);
    });
}
