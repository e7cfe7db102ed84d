//! Queued tasks as they change: server-sent events, WebSockets, callbacks; and what keeps
//! clients of the queue within bounds.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use taskwright_tests::queued::{register, report, submit, until_claimed};
use taskwright_tests::{
    Client, Daemon, Options, Request, SOON, ServerEvent, eventually, eventually_some, postgres,
};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

fn complete(client: &Client, worker: &str, id: &str) {
    report(client, worker, id, "complete", &json!({"success": true})).expect(200);
}

fn say(client: &Client, id: &str, lines: &[&str]) {
    let lines: Vec<Value> = lines.iter().map(|line| json!({"message": line})).collect();
    let path = format!("/api/v1/tasks/{id}/logs");
    client.post(&path, &json!({"logs": lines})).expect(201);
}

fn data(event: &ServerEvent) -> Value {
    serde_json::from_str(&event.data).unwrap()
}

/// `state:pending`, `log:Task created`.
fn told(event: &ServerEvent) -> String {
    let data = data(event);
    let field = if event.event == "state" {
        "status"
    } else {
        "message"
    };
    format!("{}:{}", event.event, data[field].as_str().unwrap())
}

#[test]
fn a_stream_tells_states_and_lines_and_goes_on_where_it_was() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let worker = register(&client, 1, 1);
    let id = submit(&client, &json!({"problem_id": "p"}));
    let path = format!("/api/v1/tasks/{id}/events");
    let stream = client.stream(&path, None);
    let mut events = stream.until(SOON, |event| told(event) == "log:Task created");
    until_claimed(&client, &worker);
    events.extend(stream.until(SOON, |event| told(event) == "state:running"));
    say(&client, &id, &["one", "two"]);
    events.extend(stream.until(SOON, |event| told(event) == "log:two"));
    complete(&client, &worker, &id);
    while let Some(event) = stream.next_within(SOON) {
        events.push(event);
    }
    let all: Vec<String> = events.iter().map(told).collect();
    assert_eq!(
        all,
        [
            "state:pending",
            "log:Task created",
            "state:running",
            "log:one",
            "log:two",
            "state:completed"
        ]
    );
    assert_eq!(data(&events[5])["result"], json!({"success": true}));
    // Cut off anywhere, a reader misses nothing and is told nothing twice.
    for (place, seen) in events.iter().enumerate().take(5) {
        let again = client.stream(&path, Some(&seen.id));
        let rest = std::iter::from_fn(|| again.next_within(SOON)).map(|event| told(&event));
        let rest: Vec<String> = rest.collect();
        let lines = |all: &[String]| all.iter().filter(|one| one.starts_with("log")).count();
        assert_eq!(lines(&rest), lines(&all[place + 1..]), "{rest:?}");
        assert_eq!(rest.last().unwrap(), "state:completed");
        let under_prefix = format!("/aiopslab{path}?after={}", seen.id);
        let again = client.stream(&under_prefix, None);
        assert!(again.next_within(SOON).is_some());
    }
    let end = Request::new("GET", &path).header("last-event-id", &events[5].id);
    assert_eq!(client.send(end).status, 204, "nothing more will come");
    let unknown = "/api/v1/tasks/00000000-0000-7000-8000-000000000000/events";
    let refused = client.get(unknown).expect(404).json();
    assert_eq!(refused["type"], "not_found");
    let refused = client.get(&format!("{path}?after=x")).expect(422).json();
    assert_eq!(refused["errors"][0]["loc"], json!(["query", "after"]));
}

fn socket(daemon: &Daemon, path: &str) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(daemon.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let address = format!("ws://{}{path}", daemon.address());
    tungstenite::client(address, stream).unwrap().0
}

/// The next message with something in it, or the code that the socket was closed with.
fn next(socket: &mut WebSocket<TcpStream>) -> Result<Value, u16> {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
            Message::Close(frame) => return Err(frame.unwrap().code.into()),
            _ => {}
        }
    }
}

#[test]
fn a_websocket_tells_the_same_and_says_why_it_is_closed() {
    let daemon = Options::new().flag("--reader-patience=600ms").start();
    let client = daemon.client();
    let worker = register(&client, 1, 1);
    let id = submit(&client, &json!({"problem_id": "p"}));
    let mut live = socket(&daemon, &format!("/ws/tasks/{id}"));
    let first = next(&mut live).unwrap();
    assert_eq!(
        (&first["type"], &first["task"]["status"]),
        (&json!("task"), &json!("pending"))
    );
    let second = next(&mut live).unwrap();
    assert_eq!(
        (&second["type"], &second["log"]["message"]),
        (&json!("log"), &json!("Task created"))
    );
    // It stays open while nothing happens, because its pings are answered.
    let mut pings = 0;
    while pings < 10 {
        if let Message::Ping(_) = live.read().unwrap() {
            pings += 1;
        }
    }
    until_claimed(&client, &worker);
    assert_eq!(next(&mut live).unwrap()["task"]["status"], "running");
    // Whoever answers none is told so, if it listens at last.
    let mut deaf = socket(&daemon, &format!("/ws/tasks/{id}"));
    eventually(SOON, "the deaf one is cut", || {
        // The other one goes on answering meanwhile.
        assert!(matches!(live.read().unwrap(), Message::Ping(_)));
        client.metric("taskwright_http_readers_cut_total") == Some(1.0)
    });
    let code = loop {
        if let Err(code) = next(&mut deaf) {
            break code;
        }
    };
    assert_eq!(code, u16::from(CloseCode::Policy));
    complete(&client, &worker, &id);
    loop {
        match next(&mut live) {
            Ok(message) => assert_ne!(message["task"]["status"], "pending"),
            Err(code) => {
                assert_eq!(code, u16::from(CloseCode::Normal));
                break;
            }
        }
    }
    let after = second["id"].as_str().unwrap();
    let mut rest = socket(&daemon, &format!("/aiopslab/ws/tasks/{id}?after={after}"));
    assert_eq!(next(&mut rest).unwrap()["task"]["status"], "completed");
    assert_eq!(next(&mut rest), Err(u16::from(CloseCode::Normal)));
    // What is no WebSocket, or of another page, is refused in words.
    let plain = client.get(&format!("/ws/tasks/{id}")).expect(400).json();
    assert!(
        plain["detail"].as_str().unwrap().contains("ws://"),
        "{plain}"
    );
    let page = Request::new("GET", &format!("/ws/tasks/{id}"))
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("origin", "https://evil.example");
    assert_eq!(client.send(page).expect(403).json()["type"], "forbidden");
}

#[test]
fn a_websocket_answers_a_goodbye_and_names_what_is_no_frame() {
    let daemon = Daemon::start();
    let id = submit(&daemon.client(), &json!({"problem_id": "p"}));
    let path = format!("/ws/tasks/{id}");
    let mut live = socket(&daemon, &path);
    live.close(None).unwrap();
    let end = loop {
        if let Err(error) = live.read() {
            break error;
        }
    };
    assert!(
        matches!(end, tungstenite::Error::ConnectionClosed),
        "it was answered: {end}"
    );
    // A reserved bit; a text of one byte, masked with zeros, that is not UTF-8.
    for (frame, code) in [
        (&[0xf1, 0x80, 0, 0, 0, 0][..], CloseCode::Protocol),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], CloseCode::Invalid),
    ] {
        let mut live = socket(&daemon, &path);
        live.get_mut().write_all(frame).unwrap();
        let told = loop {
            if let Err(code) = next(&mut live) {
                break code;
            }
        };
        assert_eq!(told, u16::from(code));
    }
}

#[test]
fn a_daemon_that_stops_says_goodbye_to_its_sockets() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    let id = submit(&client, &json!({"problem_id": "p"}));
    let mut live = socket(&daemon, &format!("/ws/tasks/{id}"));
    next(&mut live).unwrap();
    let reading = thread::spawn(move || {
        loop {
            if let Err(code) = next(&mut live) {
                return code;
            }
        }
    });
    assert!(daemon.terminate().success());
    assert_eq!(reading.join().unwrap(), u16::from(CloseCode::Away));
}

#[test]
fn a_slow_reader_is_cut_and_goes_on_where_it_was() {
    const LINES: u64 = 200;
    let daemon = Options::new().flag("--reader-patience=2s").start();
    let client = daemon.client();
    let id = submit(&client, &json!({"problem_id": "p"}));
    let line = "x".repeat(200 * 1024);
    for _ in 0..LINES / 20 {
        say(&client, &id, &[line.as_str(); 20]);
    }
    let path = format!("/ws/tasks/{id}");
    let mut slow = socket(&daemon, &path);
    let events = client.connect().unwrap();
    write!(
        events.try_clone().unwrap(),
        "GET /api/v1/tasks/{id}/events HTTP/1.1\r\nhost: localhost\r\n\r\n"
    )
    .unwrap();
    eventually(SOON, "both are open", || {
        client.metric("taskwright_queue_streams ") == Some(2.0)
    });
    // Neither of them is read. The socket's reader wakes up in time to hear why.
    eventually(SOON, "both are cut", || {
        client.metric("taskwright_http_readers_cut_total") == Some(2.0)
    });
    let mut last = None;
    let code = loop {
        match next(&mut slow) {
            Ok(message) => last = Some(message),
            Err(code) => break code,
        }
    };
    assert_eq!(code, u16::from(CloseCode::Policy));
    eventually(SOON, "their places are free", || {
        client.metric("taskwright_queue_streams ") == Some(0.0)
    });
    let mut reader = BufReader::new(events);
    let mut rest = Vec::new();
    // Whatever the kernel kept, and then its end: clean or not.
    let _ = reader.read_to_end(&mut rest);
    assert!(rest.len() < 30 << 20, "it was not told everything");
    // From where it was, nothing is missing.
    let last = last.unwrap();
    let mut sequence = last["log"]["sequence"].as_u64().unwrap();
    assert!(sequence <= LINES);
    let after = last["id"].as_str().unwrap();
    let mut again = socket(&daemon, &format!("{path}?after={after}"));
    while sequence <= LINES {
        let message = next(&mut again).unwrap();
        sequence += 1;
        assert_eq!(message["log"]["sequence"], sequence);
    }
}

#[test]
fn streams_and_submissions_are_bounded() {
    let daemon = Options::new()
        .flag("--queue-max-streams=1")
        .flag("--queue-submissions-per-second=0.01")
        .flag("--queue-submission-burst=2")
        .start();
    let client = daemon.client();
    let id = submit(&client, &json!({"problem_id": "p"}));
    let path = format!("/api/v1/tasks/{id}/events");
    let first = client.stream(&path, None);
    first.until(SOON, |event| event.event == "state");
    let refused = client.get(&path).expect(503);
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(refused.json()["type"], "service_unavailable");
    drop(first);
    eventually(SOON, "its place is free", || {
        client.metric("taskwright_queue_streams ") == Some(0.0)
    });
    let again = client.stream(&path, None);
    again.until(SOON, |event| event.event == "state");
    let body = json!({"problem_id": "q"});
    client.post("/api/v1/tasks", &body).expect(201);
    let refused = client.post("/aiopslab/api/v1/tasks", &body).expect(429);
    assert_eq!(refused.json()["type"], "too_many_requests");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=100).contains(&wait), "{wait}");
    // Everything else is answered.
    client.get("/api/v1/tasks").expect(200);
}

#[test]
fn each_token_is_limited_by_itself() {
    let home = taskwright_tests::Home::new();
    let tokens = home.path().join("tokens");
    std::fs::write(&tokens, "submit one-secret\nsubmit two-secret\n").unwrap();
    let daemon = Options::new()
        .flag(&format!("--token-file={}", tokens.display()))
        .flag("--queue-submissions-per-second=0.01")
        .flag("--queue-submission-burst=1")
        .start_in(home);
    let body = json!({"problem_id": "p"});
    for (token, expected) in [
        ("one-secret", 201),
        ("one-secret", 429),
        ("two-secret", 201),
    ] {
        let client = daemon.client().with_token(token);
        client.post("/api/v1/tasks", &body).expect(expected);
    }
}

/// Somebody who is told. Answers as it is scripted; without an answer the connection is kept.
struct Told {
    address: SocketAddr,
    heard: Receiver<Heard>,
}

struct Heard {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Heard {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Told {
    fn start(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (send, heard) = channel();
        thread::spawn(move || {
            let mut kept = Vec::new();
            for number in 0.. {
                let Ok((stream, _)) = listener.accept() else {
                    return;
                };
                let Some(request) = hear(&stream) else {
                    continue;
                };
                let answer = answers.get(number).or(answers.last()).copied();
                let answer = answer.unwrap_or_default();
                let _ = write!(&stream, "{answer}");
                if answer.is_empty() {
                    kept.push(stream);
                }
                if send.send(request).is_err() {
                    return;
                }
            }
        });
        Self { address, heard }
    }

    fn url(&self) -> String {
        format!("http://{}/done?of=it", self.address)
    }

    fn next_within(&self, deadline: Duration) -> Heard {
        self.heard.recv_timeout(deadline).unwrap()
    }
}

fn hear(stream: &TcpStream) -> Option<Heard> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    assert!(first.starts_with("POST /done?of=it HTTP/1.1"), "{first}");
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length?.1.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Heard { headers, body })
}

const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";
/// A callback that was not heard is tried again a quarter of a minute later.
const AGAIN: Duration = Duration::from_secs(60);

#[test]
fn a_callback_is_told_though_the_daemon_is_killed_before() {
    // The first time there is no answer, and the daemon is killed while it waits for one.
    let told = Told::start(&["", OK]);
    let home = taskwright_tests::Home::new();
    let secret = home.path().join("key");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let mut daemon = Options::new()
        .flag(&format!("--queue-callback-hosts={}", told.address))
        .flag(&format!(
            "--queue-callback-secret-file={}",
            secret.display()
        ))
        .start_in(home);
    let client = daemon.client();
    let worker = register(&client, 1, 1);
    let body = json!({"problem_id": "p", "callback_url": told.url()});
    let id = submit(&client, &body);
    until_claimed(&client, &worker);
    complete(&client, &worker, &id);
    let first = told.next_within(SOON);
    daemon.kill();
    daemon.start_again();
    let second = told.next_within(AGAIN);
    for (heard, attempt) in [(&first, 1), (&second, 2)] {
        let document = heard.json();
        assert_eq!(
            (&document["event"], &document["attempt"]),
            (&json!("task.completed"), &json!(attempt))
        );
        assert_eq!(document["task"]["id"], id.as_str());
        assert_eq!(document["task"]["result"], json!({"success": true}));
        assert_eq!(document["delivery_id"], heard.header("taskwright-delivery"));
        assert_eq!(heard.header("taskwright-attempt"), attempt.to_string());
        assert_eq!(heard.header("content-type"), "application/json");
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").unwrap();
        mac.update(&heard.body);
        let signed = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        assert_eq!(heard.header("taskwright-signature"), signed);
    }
    assert_eq!(
        first.json()["delivery_id"],
        second.json()["delivery_id"],
        "a receiver knows the repeat"
    );
    let client = daemon.client();
    eventually(SOON, "it is off the record", || {
        client.metric("taskwright_queue_callbacks_total{result=\"heard\"}") == Some(1.0)
    });
}

#[test]
fn a_callback_goes_nowhere_else() {
    const ELSEWHERE: &str = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/done?of=it\r\ncontent-length: 0\r\n\r\n";
    let told = Told::start(&[ELSEWHERE]);
    let other = Told::start(&[OK]);
    let daemon = Options::new()
        .flag(&format!("--queue-callback-hosts={}", told.address))
        .flag(&format!(
            "--queue-callback-hosts=localhost:{}",
            other.address.port()
        ))
        .flag("--queue-callback-private-addresses")
        .flag("--queue-callback-tries=1")
        .start();
    let client = daemon.client();
    for address in [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://2130706433/",
        "http://user:secret@localhost/",
        "file:///etc/passwd",
        "not an address",
        "https://hooks.example.org/",
    ] {
        for body in [
            json!({"problem_id": "p", "callback_url": address}),
            json!({"problem_id": "p", "parameters": {"callback_url": address}}),
        ] {
            let refused = client.post("/api/v1/tasks", &body).expect(422).json();
            let place = &refused["errors"][0]["loc"];
            assert_eq!(place, &json!(["body", "callback_url"]), "{refused}");
        }
    }
    let counted = client.get("/api/v1/tasks/stats").json();
    assert_eq!(counted["total_tasks"], 0, "nothing of it was stored");
    // A redirect is an answer like any other that is not a 2xx.
    let call_off = |url: &str| {
        let id = submit(&client, &json!({"problem_id": "p", "callback_url": url}));
        let path = format!("/api/v1/tasks/{id}/cancel");
        client.send(Request::new("POST", &path)).expect(200);
        let lines = format!("/api/v1/tasks/{id}/logs");
        eventually_some(SOON, "it is given up", || {
            let lines = client.get(&lines).json();
            let lines = lines.as_array().unwrap().iter();
            let mut words = lines.map(|line| line["message"].as_str().unwrap().to_owned());
            words.find(|words| words.starts_with("The callback was given up"))
        })
    };
    let why = call_off(&told.url());
    assert!(why.contains("it answered 302"), "{why}");
    assert_eq!(told.next_within(SOON).json()["event"], "task.cancelled");
    // A name that was allowed and leads to this machine.
    let url = format!("http://localhost:{}/done?of=it", other.address.port());
    let why = call_off(&url);
    assert!(why.contains("may not be told"), "{why}");
    assert!(!why.contains("of=it"), "paths may be secret: {why}");
    assert!(other.heard.try_recv().is_err());
    // And nobody at all where nobody is allowed.
    let closed = Daemon::start();
    let body = json!({"problem_id": "p", "callback_url": told.url()});
    let refused = closed.client().post("/api/v1/tasks", &body).expect(422);
    assert!(refused.text().contains("queue.callback-hosts"));
}

#[test]
fn the_documents_variables_are_honoured() {
    let daemon = Options::new()
        .variable("ENABLE_DOCS", "false")
        .variable("ENABLE_METRICS", "false")
        .variable("LOG_LEVEL", "DEBUG")
        .variable("LOG_FORMAT", "json")
        .variable("OPENROUTER_MODEL", "router/model")
        .variable("OPENAI_MODEL", "other-model")
        .variable("CORS_ORIGINS", r#"["https://pages.example.org"]"#)
        .variable("SECRET_KEY", "x")
        .variable("SQL_ECHO", "true")
        .start();
    let client = daemon.client();
    for path in [
        "/docs",
        "/redoc",
        "/metrics",
        "/aiopslab/docs",
        "/aiopslab/metrics",
    ] {
        let answer = client.get(path).expect(404).json();
        assert_eq!(
            (&answer["detail"], &answer["type"]),
            (&json!("Not Found"), &json!("not_found")),
            "{path}"
        );
    }
    client.get("/openapi.json").expect(200);
    let task = client.post("/api/v1/tasks", &json!({"problem_id": "p"}));
    let task = task.expect(201).json();
    assert_eq!(task["parameters"]["agent_config"]["model"], "router/model");
    let log = daemon.log();
    let last = log.lines().last().unwrap();
    let line: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{last}"));
    assert_eq!(line["level"], "DEBUG", "{line}");
    let from = |origin: &str| {
        let asked = Request::new("OPTIONS", "/api/v1/tasks")
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        client.send(asked)
    };
    let answer = from("https://pages.example.org").expect(204);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://pages.example.org")
    );
    assert_eq!(
        from("https://evil.example").expect(403).json()["type"],
        "forbidden"
    );
    let submit = |origin: &str| {
        let request = Request::new("POST", "/api/v1/tasks").header("origin", origin);
        client.send(request.json(&json!({"problem_id": "p"})))
    };
    submit("https://evil.example").expect(403);
    submit("https://pages.example.org").expect(201);
    // The other dialects are nobody's but their own page's.
    let asked = Request::new("GET", "/tasks").header("origin", "https://pages.example.org");
    assert_eq!(
        client.send(asked).header("access-control-allow-origin"),
        None
    );
}

#[test]
fn a_stream_of_one_daemon_sees_what_the_others_worker_reports() {
    let Some(address) = postgres::database() else {
        return;
    };
    let start = || Options::new().variable("DATABASE_URL", &address).start();
    let (one, other) = (start(), start());
    let (first, second) = (one.client(), other.client());
    let worker = register(&second, 1, 1);
    let id = submit(&second, &json!({"problem_id": "p"}));
    let stream = first.stream(&format!("/api/v1/tasks/{id}/events"), None);
    stream.until(SOON, |event| told(event) == "log:Task created");
    let mut live = socket(&one, &format!("/ws/tasks/{id}"));
    until_claimed(&second, &worker);
    stream.until(SOON, |event| told(event) == "state:running");
    say(&second, &id, &["from elsewhere"]);
    stream.until(SOON, |event| told(event) == "log:from elsewhere");
    complete(&second, &worker, &id);
    stream.until(SOON, |event| told(event) == "state:completed");
    assert!(stream.next_within(SOON).is_none());
    let mut seen = Vec::new();
    while let Ok(message) = next(&mut live) {
        seen.push(message);
    }
    assert_eq!(seen.last().unwrap()["task"]["status"], "completed");
}
