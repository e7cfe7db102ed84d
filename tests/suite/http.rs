//! HTTP itself: forms, errors, paging, documents, and clients that behave badly.

use std::io::{BufReader, Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskwright_tests::client::read_response;
use taskwright_tests::task::{exit_code, flat, names, shell};
use taskwright_tests::{Daemon, Request, SOON};

#[test]
fn unknown_paths_and_methods_are_answered_in_json() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for (method, path, status) in [
        ("GET", "/nothing/here", 404),
        ("GET", "/nothing", 404),
        ("PUT", "/tasks/x", 405),
        ("DELETE", "/tasks", 405),
        ("GET", "/setTasks", 405),
        ("POST", "/getTasks", 405),
        ("POST", "/health", 405),
        ("PATCH", "/metrics", 405),
        ("BREW", "/tasks", 405),
    ] {
        let answer = client.send(Request::new(method, path));
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(
            answer.header("content-type").unwrap().contains("json"),
            "{method} {path}"
        );
        let body = answer.json();
        assert!(
            body["code"].is_string() || body["title"].is_string(),
            "{body}"
        );
        assert_eq!(
            answer.header("allow").is_some(),
            status == 405,
            "{method} {path}"
        );
    }
}

#[test]
fn errors_have_the_form_of_their_route() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let contract = client.get("/tasks/none").expect(404);
    assert_eq!(contract.header("content-type"), Some("application/json"));
    let body = contract.json();
    assert_eq!(body["code"], "Not Found");
    assert!(body["message"].as_str().unwrap().contains("none"));
    let ours = client.get("/tasks/none/wait").expect(404);
    assert_eq!(
        ours.header("content-type"),
        Some("application/problem+json")
    );
    let body = ours.json();
    assert_eq!(
        (&body["status"], &body["title"]),
        (&json!(404), &json!("Not Found"))
    );
    assert_eq!(body["requestId"].as_str(), ours.header("x-request-id"));
}

#[test]
fn every_answer_names_its_request() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let given = client.send(Request::new("GET", "/health").header("x-request-id", "mine-1"));
    assert_eq!(given.header("x-request-id"), Some("mine-1"));
    let first = client.get("/health");
    let second = client.get("/health");
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

#[test]
fn a_connection_is_used_again() {
    let daemon = Daemon::start();
    let mut connection = daemon.client().connect().unwrap();
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    for _ in 0..3 {
        connection
            .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        assert_eq!(read_response(&mut reader).unwrap().status, 200);
    }
    // Two at once, answered in order.
    let two = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\nGET /tasks/no HTTP/1.1\r\nhost: x\r\n\r\n";
    connection.write_all(two).unwrap();
    assert_eq!(read_response(&mut reader).unwrap().status, 200);
    assert_eq!(read_response(&mut reader).unwrap().status, 404);
}

#[test]
fn what_is_no_http_is_cut_off_and_nothing_else_suffers() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"GET\r\n\r\n",
        b"\r\n\r\n\0\0\0\0",
        &[b'A'; 200_000],
    ] {
        let mut connection = client.connect().unwrap();
        // It may close before it has read everything.
        let _ = connection.write_all(nonsense);
        connection.shut_down();
    }
    client.get("/health").expect(200);
}

#[test]
fn an_idempotency_key_makes_one_task() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    let runs = daemon.home().path().join("runs");
    let body = shell("once", &format!("echo run >> {}", runs.display()));
    let send = |body: &Value| {
        client.send(
            Request::new("POST", "/tasks")
                .header("idempotency-key", "k-1")
                .json(body),
        )
    };
    let first = send(&body).expect(201).json();
    client.until_ended("once", SOON);
    let again = send(&body).expect(201);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json()["id"], first["id"]);
    daemon.kill();
    daemon.start_again();
    assert_eq!(
        send(&body).expect(201).json()["id"],
        first["id"],
        "it is durable"
    );
    let other = send(&flat("other", &["true"])).expect(422).json();
    assert_eq!(other["code"], "Unprocessable Entity");
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), "run\n");
    let empty = Request::new("POST", "/tasks")
        .header("idempotency-key", "")
        .json(&body);
    client.send(empty).expect(400);
}

#[test]
fn lists_come_in_pages_and_a_cursor_misses_nothing() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let wanted: Vec<Value> = (0..25)
        .map(|index| flat(&format!("t-{index:02}"), &["true"]))
        .collect();
    client
        .post("/setTasks", &Value::from(wanted.clone()))
        .expect(200);
    let mut seen = Vec::new();
    let mut path = "/tasks?limit=10".to_owned();
    let mut pages = 0;
    loop {
        let page = client.get(&path).expect(200).json();
        seen.extend(names(&page["items"]).into_iter().map(str::to_owned));
        pages += 1;
        if pages == 1 {
            // What comes in between goes to the end.
            client.submit(&flat("t-99", &["true"]));
        }
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("/tasks?limit=10&cursor={cursor}"),
            None => break,
        }
    }
    let mut expected: Vec<String> = (0..25).map(|index| format!("t-{index:02}")).collect();
    expected.push("t-99".to_owned());
    assert_eq!((seen, pages), (expected, 3));
    for query in ["limit=0", "limit=501", "limit=x", "cursor=x"] {
        client.get(&format!("/tasks?{query}")).expect(400);
    }
}

#[test]
fn lists_are_selected_by_labels_and_state() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for (name, labels, command) in [
        ("a", json!({"team": "red", "tier": "1"}), "true"),
        ("b", json!({"team": "blue"}), "true"),
        ("c", json!({}), "true"),
    ] {
        client.submit(&json!({"name": name, "labels": labels, "process": {"command": [command]}}));
    }
    client.submit(&json!({"name": "d", "labels": {"team": "red"}, "spec": {"process": {"command": ["sleep", "60"]}}}));
    for name in ["a", "b", "c"] {
        client.until_ended(name, SOON);
    }
    client.until_state("d", "running", SOON);
    for (query, expected) in [
        ("labelSelector=team%3Dred", &["a", "d"][..]),
        ("labelSelector=team%3Dred,tier", &["a"]),
        ("labelSelector=team!%3Dred", &["b", "c"]),
        ("labelSelector=!team", &["c"]),
        ("labelSelector=team&state=ended", &["a", "b"]),
        ("state=running", &["d"]),
        ("state=pending", &[]),
    ] {
        let page = client.get(&format!("/tasks?{query}")).expect(200).json();
        assert_eq!(names(&page["items"]), expected, "{query}");
    }
    client.get("/tasks?state=gone").expect(400);
    client.get("/tasks?labelSelector=%3Dx").expect(400);
}

#[test]
fn metrics_have_the_names_that_were_promised() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.run(&shell("no-label", "exit 1"));
    let answer = client.get("/metrics").expect(200);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let text = answer.text();
    for name in [
        "taskwright_build_info",
        "taskwright_tasks_submitted_total 1",
        "taskwright_tasks_finished_total{cause=\"exit\"} 1",
        "taskwright_task_queue_seconds_bucket",
        "taskwright_task_start_seconds_bucket",
        "taskwright_task_run_seconds_bucket",
        "taskwright_plugin_call_seconds_bucket",
        "taskwright_journal_commit_seconds_bucket",
        "taskwright_http_request_seconds_bucket",
        "taskwright_http_requests_total",
        "taskwright_tasks{",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    ] {
        assert!(text.contains(name), "{name} is missing in:\n{text}");
    }
    assert!(!text.contains("no-label"), "no task is a label");
}

#[test]
fn the_openapi_document_describes_what_is_served() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let document = client.get("/openapi.json").expect(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/tasks",
        "/tasks/{name}",
        "/tasks/{name}/logs",
        "/tasks/{name}/wait",
        "/tasks/{name}/stop",
        "/tasks/{name}/events",
        "/events",
        "/setTasks",
        "/getTasks",
        "/health",
        "/plugins",
        "/metrics",
        "/livez",
        "/readyz",
    ] {
        assert!(
            document["paths"][path].is_object(),
            "{path} is not described"
        );
    }
}

#[test]
fn the_docs_page_needs_nothing_from_elsewhere() {
    let daemon = Daemon::start();
    let page = daemon.client().get("/docs").expect(200);
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    let text = page.text();
    for mark in [
        "src=\"http",
        "src='http",
        "src=\"//",
        "href=\"http",
        "@import",
        "url(http",
    ] {
        assert!(!text.contains(mark), "the page holds {mark}");
    }
}

#[test]
fn probes_say_what_was_looked_at() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.get("/livez").expect(200);
    let ready = client.get("/readyz").expect(200).json();
    let checks = ready["checks"].as_array().unwrap();
    assert!(
        checks
            .iter()
            .any(|check| check["name"] == "plugin:process" && check["ok"] == true)
    );
    assert!(
        checks
            .iter()
            .any(|check| check["name"] == "store" && check["ok"] == true)
    );
}

#[test]
fn the_process_runtime_is_a_component_that_was_loaded() {
    let daemon = Daemon::start();
    let client = daemon.client();
    // Not over before its start is answered, so that its end is an event.
    client.run(&flat("one", &["sleep", "0.1"]));
    let plugins = client.get("/plugins").expect(200).json();
    let items = plugins["items"].as_array().unwrap();
    let process = items.iter().find(|plugin| plugin["name"] == "process");
    let process = process.unwrap();
    assert_eq!(process["kinds"], json!(["process"]));
    assert_eq!(process["source"], "built-in");
    assert_eq!(process["digest"].as_str().unwrap().len(), 64);
    let has = |list: &Value, word: &str| {
        list.as_array()
            .unwrap()
            .iter()
            .any(|one| one.as_str().unwrap().contains(word))
    };
    assert!(
        has(&process["exports"], "taskwright:plugin/runtime"),
        "{process:#}"
    );
    assert!(
        has(&process["imports"], "taskwright:plugin/process"),
        "{process:#}"
    );
    // validate, start, on-event at least.
    assert!(process["calls"].as_u64().unwrap() >= 3, "{process:#}");
    assert_eq!(process["faults"], 0);
    client.get("/plugins/process").expect(200);
    client.get("/plugins/none").expect(404);
}

#[test]
fn many_clients_are_served_at_once() {
    let daemon = Daemon::start();
    let client = daemon.client();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let client = &client;
            scope.spawn(move || {
                for index in 0..10 {
                    client.submit(&flat(&format!("t-{thread}-{index}"), &["true"]));
                }
            });
        }
    });
    taskwright_tests::eventually(SOON, "all have ended well", || {
        let list = client.get("/getTasks").expect(200).json();
        let list = list.as_array().unwrap();
        list.len() == 160 && list.iter().all(|task| task["outcome"]["exitCode"] == 0)
    });
}

#[test]
fn half_a_request_does_not_hold_up_the_others() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let mut halves = Vec::new();
    for _ in 0..50 {
        let mut connection = client.connect().unwrap();
        connection
            .write_all(b"POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            .unwrap();
        halves.push(connection);
    }
    let begun = Instant::now();
    client.get("/health").expect(200);
    assert_eq!(exit_code(&client.run(&flat("one", &["true"]))), 0);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_head_request_has_no_body() {
    let daemon = Daemon::start();
    let mut connection = daemon.client().connect().unwrap();
    connection
        .write_all(b"HEAD /getTasks HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn headers_of_more_than_64_kib_are_refused() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let with = |bytes: usize| Request::new("GET", "/getTasks").header("x-long", &"x".repeat(bytes));
    client.send(with(60_000)).expect(200);
    client.send(with(66_000)).expect(431);
}
