//! What `NAME.toml` lends a plugin beside processes, through a plugin folder.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use taskwright_test_guests::{BORROWER, RELAY};
use taskwright_tests::task::{exit_code, flat};
use taskwright_tests::{Home, SOON};

use crate::plugins::{Folder, on, printed};

/// Everything that the guest imports, with nothing in it.
const NOTHING: &str = "[grants]\ndirectories = { }\nhttp = { hosts = [] }\n[secrets]\n";

fn borrower_in(home: Home, lent: &str) -> Folder {
    let files = [
        ("borrower.wasm", BORROWER),
        ("borrower.toml", lent.as_bytes()),
    ];
    let folder = Folder::holding_in(home, &files);
    folder.until_serving("borrower", "1");
    folder
}

/// What the host told the guest, whether it did it or not.
#[track_caller]
fn check(folder: &Folder, name: &str, command: &[&str], code: i64, expected: &str) -> Value {
    let mut task = flat(name, command);
    task["runtime"] = json!("borrower");
    let ended = folder.client().run(&task);
    let told = ended["outcome"]["message"].as_str().unwrap_or_default();
    assert!(
        exit_code(&ended) == code && told.contains(expected),
        "{command:?}: {told:?} lacks {expected:?}: {ended:#}"
    );
    ended
}

#[test]
fn a_directory_is_lent_by_name() {
    let home = Home::new();
    let data = home.path().join("models");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("small"), "weights").unwrap();
    std::fs::write(home.path().join("beside"), "secret").unwrap();
    let lent = format!(
        "[secrets]\n[grants]\nhttp = {{ hosts = [] }}\ndirectories.models = {{ path = {data:?} }}\n\
         directories.out = {{ path = {data:?}, write = true }}\n"
    );
    let folder = borrower_in(home, &lent);
    check(&folder, "read", &["read", "models", "small"], 0, "weights");
    check(
        &folder,
        "up",
        &["read", "models", "../beside"],
        1,
        "BadPath",
    );
    let line = "add `write = true` to `models` of `directories`";
    check(
        &folder,
        "refused",
        &["write", "models", "new", "x"],
        1,
        line,
    );
    check(&folder, "written", &["write", "out", "new", "x"], 0, "done");
    assert_eq!(std::fs::read(data.join("new")).unwrap(), b"x");
    let plugin = folder.client().get("/plugins/borrower").expect(200).json();
    assert_eq!(plugin["grants"], json!(["directories", "secrets", "http"]));
}

#[test]
fn what_was_not_lent_is_named_with_the_line_to_add() {
    let folder = Folder::holding(&[("borrower.wasm", BORROWER)]);
    let plugin = folder.until("borrower", |plugin| plugin.get("refused").is_some());
    let why = plugin["refused"].as_str().unwrap().to_owned();
    let file = folder.path.join("borrower.wasm");
    let words = ["plugin", "check", file.to_str().unwrap()];
    let checked = folder.daemon.taskwright(&words).expect(1).stdout;
    for line in [
        "add `directories = { NAME = { path = \"/PATH\" } }` under `[grants]` in borrower.toml",
        "add `NAME = { file = \"/PATH\" }` under `[secrets]` in borrower.toml",
        "add `http = { hosts = [\"HOST\"] }` under `[grants]` in borrower.toml",
    ] {
        assert!(why.contains(line), "{why}");
        assert!(checked.contains(line), "{checked}");
    }
    folder.put("borrower.toml", NOTHING);
    folder.until_serving("borrower", "1");
    let checked = folder.daemon.taskwright(&words).expect(0).stdout;
    for note in [
        "its clock stands still: add `clock = true` under `[grants]` in borrower.toml",
        "its random numbers are the same at each repeat: add `random = true`",
    ] {
        assert!(checked.contains(note), "{checked}");
    }
}

#[test]
fn the_time_and_random_numbers_are_lent() {
    let folder = borrower_in(Home::new(), NOTHING);
    check(&folder, "standing", &["clock"], 0, "946684800 1000");
    let lent = NOTHING.replace("[grants]", "[grants]\nclock = true\nrandom = true");
    folder.put("borrower.toml", lent);
    folder.until("borrower", |plugin| {
        let grants = plugin["grants"].as_array().unwrap();
        grants.contains(&json!("clock")) && grants.contains(&json!("random"))
    });
    let ended = check(&folder, "moving", &["clock"], 0, "");
    let told = ended["outcome"]["message"].as_str().unwrap();
    assert!(!told.starts_with("946684800"), "{told}");
}

/// Every file below a folder that holds these words.
pub(crate) fn holding(folder: &Path, words: &str) -> Vec<std::path::PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path)
                && bytes
                    .windows(words.len())
                    .any(|part| part == words.as_bytes())
            {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_secret_is_had_and_told_nobody() {
    let home = Home::new();
    let key = home.path().join("key");
    let put = |text: &str, mode| {
        std::fs::write(&key, text).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
    };
    put("hunter2-first", 0o644);
    let lent = format!("{NOTHING}key = {{ file = {key:?} }}\n");
    let files = [
        ("borrower.wasm", BORROWER),
        ("borrower.toml", lent.as_bytes()),
    ];
    let folder = Folder::holding_in(home, &files);
    let plugin = folder.until("borrower", |plugin| plugin.get("refused").is_some());
    let why = plugin["refused"].as_str().unwrap();
    assert!(
        why.contains("secret key") && why.contains("chmod o-rwx"),
        "{why}"
    );
    put("hunter2-second", 0o600);
    folder.put("borrower.toml", format!("{lent}\n"));
    folder.until_serving("borrower", "1");
    // Only what it is: the guest does not tell it.
    check(&folder, "length", &["secret-length", "key"], 0, "14");
    let line = "`[secrets]` in borrower.toml";
    check(&folder, "other", &["secret-length", "other"], 1, line);
    let client = folder.client();
    for path in [
        "/plugins",
        "/plugins/borrower",
        "/metrics",
        "/tasks",
        "/events",
    ] {
        let told = client.get(path).text();
        assert!(!told.contains("hunter2"), "{path}: {told}");
    }
    let data = folder.daemon.home().path();
    let held = holding(data, "hunter2");
    assert_eq!(held, [data.join("key")]);
}

#[test]
fn requests_go_to_the_hosts_that_were_lent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
        }
    });
    let url = format!("http://127.0.0.1:{port}/");
    let folder = borrower_in(Home::new(), NOTHING);
    let denied = "HttpRequestDenied";
    check(&folder, "denied", &["get", &url], 1, denied);
    let hosts = format!("hosts = [\"127.0.0.1:{port}\"], schemes = [\"http\"]");
    folder.put("borrower.toml", NOTHING.replace("hosts = []", &hosts));
    let client = folder.client();
    let mut tried = 0;
    taskwright_tests::eventually(SOON, "the new grant serves", || {
        tried += 1;
        let mut task = flat(&format!("again-{tried}"), &["get", &url]);
        task["runtime"] = json!("borrower");
        let ended = client.run(&task);
        exit_code(&ended) == 0
    });
    check(&folder, "asked", &["get", &url], 0, "200 hello");
}

#[test]
fn processes_run_on_the_operators_terms() {
    if !rustix::process::geteuid().is_root() {
        taskwright_tests::skip("limits and users need root");
        return;
    }
    let home = Home::new();
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let lent = "[grants]\nprocess = { user = \"65534:65533\", pids = 20 }\n";
    let files = [("relay.wasm", RELAY), ("relay.toml", lent.as_bytes())];
    let folder = Folder::holding_in(home, &files);
    let client = folder.client();
    let ended = client.run(&on("relay", "whose", "id -u; id -g"));
    assert_eq!(printed(&client, "whose"), "65534\n65533\n", "{ended:#}");
    let enforced = &ended["attempts"][0]["enforced"];
    assert!(enforced.get("pids").is_some(), "{ended:#}");
    // The task may be stricter, and name no other.
    let mut other = on("relay", "other", "id -u");
    other["user"] = json!({"uid": 0, "gid": 0});
    let refused = client.post("/tasks", &other).expect(400).text();
    assert!(refused.contains("65534:65533"), "{refused}");
    let mut same = on("relay", "same", "id -u");
    same["user"] = json!({"uid": 65534, "gid": 65533});
    client.run(&same);
    assert_eq!(printed(&client, "same"), "65534\n");
}
