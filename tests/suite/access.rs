//! Who may do what: tokens and their scopes, Unix sockets, pages of other sites.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use taskwright_tests::cli::Running;
use taskwright_tests::client::Target;
use taskwright_tests::task::{flat, shell};
use taskwright_tests::{Client, Daemon, Home, Options, Request, SOON, binary, eventually};

#[test]
fn a_page_of_another_site_changes_nothing() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let foreign = Request::new("POST", "/tasks")
        .header("origin", "https://evil.example")
        .json(&flat("evil", &["true"]));
    client.send(foreign).expect(403);
    client.get("/tasks/evil").expect(404);
}

#[test]
fn a_page_that_owns_a_name_which_points_here_changes_nothing() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let port = daemon.address().port();
    let from = |host: &str, task: &str| {
        let origin = format!("http://{host}:{port}");
        Request::new("POST", "/tasks")
            .header("host", &format!("{host}:{port}"))
            .header("origin", &origin)
            .json(&flat(task, &["true"]))
    };
    client.send(from("evil.example", "evil")).expect(403);
    client.get("/tasks/evil").expect(404);
    // Its reads tell no origin.
    let read = Request::new("GET", "/getTasks").header("host", "evil.example");
    client.send(read).expect(403);
    client.send(from("127.0.0.1", "docs-page")).expect(201);
    client.send(from("localhost", "docs-page-too")).expect(201);
    client.send(from("[::1]", "docs-page-six")).expect(201);
    // A name with a token is as good as any: the page would not know the token.
    let guarded = guarded();
    let client = guarded.client().with_token("s-token");
    let named = Request::new("POST", "/tasks")
        .header("host", "tasks.example:5758")
        .header("origin", "https://tasks.example:5758")
        .json(&flat("named", &["true"]));
    client.send(named).expect(201);
}

#[test]
fn a_daemon_that_is_open_to_all_says_so_loudly() {
    let home = Home::new();
    let mut command = home.command(binary::taskwright());
    command
        .arg("serve")
        .arg("--listen-addr=0.0.0.0:0")
        .arg(format!("--data-dir={}", home.data().display()));
    let mut process = Running::start(&mut command, b"");
    let warned = || {
        process
            .stderr()
            .contains("ANYBODY WHO REACHES THIS MACHINE")
    };
    eventually(SOON, "it warns", warned);
    process.process().kill();
    assert!(
        !Daemon::start().log().contains("ANYBODY"),
        "not on loopback"
    );
    assert!(!guarded().log().contains("ANYBODY"));
}

/// A daemon with one token of each scope.
fn guarded() -> Daemon {
    let home = Home::new();
    let tokens = home.file(
        "tokens",
        "# scopes\nread r-token\nsubmit s-token\nadmin a-token\n",
    );
    std::fs::set_permissions(&tokens, PermissionsExt::from_mode(0o600)).unwrap();
    let flag = format!("--token-file={}", tokens.display());
    Options::new().flag(&flag).start_in(home)
}

#[test]
fn without_a_token_only_probes_and_documents_are_open() {
    let daemon = guarded();
    let client = daemon.client();
    for path in ["/livez", "/readyz", "/health", "/openapi.json", "/docs"] {
        client.get(path).expect(200);
    }
    let refused = client.get("/getTasks").expect(401);
    assert!(
        refused
            .header("www-authenticate")
            .unwrap()
            .starts_with("Bearer")
    );
    assert_eq!(refused.json()["code"], "Unauthorized");
    for path in [
        "/tasks",
        "/tasks/x",
        "/events",
        "/plugins",
        "/metrics",
        "/tasks/x/logs",
    ] {
        client.get(path).expect(401);
    }
    client.post("/tasks", &flat("x", &["true"])).expect(401);
    client.delete("/tasks/x").expect(401);
    client.with_token("wrong").get("/getTasks").expect(401);
}

#[test]
fn scopes_allow_what_they_say() {
    let daemon = guarded();
    let client = daemon.client();
    let (reader, submitter) = (client.with_token("r-token"), client.with_token("s-token"));
    let mut body = flat("one", &["sleep", "60"]);
    body["process"]["env"] = json!([{"name": "PASSWORD", "value": "hunter2"}]);
    reader.post("/tasks", &body).expect(403);
    submitter.post("/tasks", &body).expect(201);
    let masked = reader.get("/tasks/one").expect(200).text();
    assert!(
        masked.contains("PASSWORD") && !masked.contains("hunter2"),
        "{masked}"
    );
    for path in ["/getTasks", "/tasks"] {
        assert!(!reader.get(path).expect(200).text().contains("hunter2"));
    }
    let shown = submitter.get("/tasks/one").expect(200).text();
    assert!(
        shown.contains("hunter2"),
        "the contract's clients need their spec back"
    );
    reader.get("/tasks/one/logs").expect(200);
    reader.get("/metrics").expect(200);
    reader.post("/setTasks", &json!([])).expect(403);
    reader.post("/tasks/one/stop", &json!({})).expect(403);
    reader.delete("/tasks/one").expect(403);
    client
        .with_token("a-token")
        .delete("/tasks/one")
        .expect(204);
}

#[test]
fn secrets_stay_out_of_the_log() {
    let daemon = guarded();
    let client = daemon.client().with_token("s-token");
    let mut body = shell("one", "exit 1");
    body["process"]["env"] = json!([{"name": "PASSWORD", "value": "hunter2"}]);
    client.post("/tasks", &body).expect(201);
    client.until_ended("one", SOON);
    body["process"]["env"] = json!([{"name": "BAD=", "value": "hunter2"}]);
    let refused = client.post("/tasks", &body).expect(400);
    assert!(!refused.text().contains("hunter2"));
    let log = daemon.log();
    for secret in ["hunter2", "s-token", "a-token"] {
        assert!(!log.contains(secret), "{secret} is in:\n{log}");
    }
}

#[test]
fn a_unix_socket_serves_its_owner_without_a_token() {
    let home = Home::new();
    let tokens = home.file("tokens", "admin a-token\n");
    let socket = home.path().join("api.sock");
    let daemon = Options::new()
        .flag(&format!("--token-file={}", tokens.display()))
        .flag(&format!("--unix-socket={}", socket.display()))
        .start_in(home);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & 0o007, 0, "others cannot connect: {mode:o}");
    let local = Client::new(Target::Unix(socket.clone()));
    local.post("/tasks", &flat("one", &["true"])).expect(201);
    local.until_ended("one", SOON);
    daemon.client().get("/getTasks").expect(401);
    let listed = daemon.home().taskwright(&[
        "list",
        "-o",
        "name",
        "--server",
        &format!("unix:{}", socket.display()),
    ]);
    assert_eq!(listed.expect(0).stdout, "one\n");
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let home = Home::new();
    let socket = home.path().join("api.sock");
    let mut daemon = Options::new()
        .flag(&format!("--unix-socket={}", socket.display()))
        .start_in(home);
    let local = Client::new(Target::Unix(socket));
    local.get("/health").expect(200);
    daemon.kill();
    daemon.start_again();
    local.get("/health").expect(200);
}
