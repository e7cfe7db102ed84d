//! Plugins in a registry: the program that others run, and servers that only pretend to be one.

use std::time::Instant;

use serde_json::{Value, json};
use taskwright_test_guests::RELAY;
use taskwright_tests::registry::{DockerRegistry, PASSWORD, Pretender, Then, USER};
use taskwright_tests::{SOON, cli, eventually};

use super::{Desk, SCRIPT, edition};
use crate::plugins::LENT;

impl Desk {
    /// Pushes `relay.wasm`; answers with what was told.
    #[track_caller]
    fn push(&self, to: &str, more: &[&str]) -> Value {
        let mut words = vec!["push", "relay.wasm", to, "-o", "json"];
        words.extend(more);
        self.plugin(&words).expect(0).json()
    }
}

fn reference(told: &Value) -> &str {
    told["reference"].as_str().unwrap()
}

#[test]
fn what_is_pushed_is_installed_by_tag_and_by_digest() {
    let Some(registry) = DockerRegistry::start() else {
        return;
    };
    let desk = Desk::new();
    let pushed = desk.push(&registry.place("team/relay:1.0"), &["--version", "1.0"]);
    let manifest = pushed["manifest"].as_str().unwrap();
    let by_tag = desk.plugin(&["install", &registry.place("team/relay:1.0"), "-o", "json"]);
    let by_tag = by_tag.expect(0).json();
    assert_eq!(by_tag["name"], "relay");
    assert_eq!(by_tag["version"], "1.0");
    assert_eq!(by_tag["wants"], json!(["process"]));
    // The lock file has the digest that the tag meant.
    let place = format!("{}@{manifest}", registry.place("team/relay:1.0"));
    assert_eq!(by_tag["source"], place);
    assert!(
        desk.lock().contains(&format!("source = \"{place}\"")),
        "{}",
        desk.lock()
    );
    assert_eq!(desk.read("relay.wasm").as_deref(), Some(RELAY));
    std::fs::remove_file(desk.path("relay.wasm")).unwrap();
    let by_digest = registry.place(&format!("team/relay@{manifest}"));
    let told = desk
        .plugin(&["install", &by_digest, "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(told["digest"], by_tag["digest"]);
    let _verified = desk.plugin(&["verify"]).expect(0);
    // What the registry keeps is what other tools for components write.
    let kept = std::fs::read(registry.blob(manifest)).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(
        kept["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(kept["layers"].as_array().unwrap().len(), 1);
    assert_eq!(kept["layers"][0]["mediaType"], "application/wasm");
    let config = std::fs::read(registry.blob(kept["config"]["digest"].as_str().unwrap()));
    let config: Value = serde_json::from_slice(&config.unwrap()).unwrap();
    assert_eq!(config["os"], "wasip2");
    assert_eq!(config["layerDigests"], json!([by_tag["digest"]]));
    assert_eq!(
        config["component"]["exports"][0],
        "taskwright:plugin/runtime@0.1.0"
    );
    // The same once more is the same.
    let again = desk.push(&registry.place("team/relay:again"), &["--version", "1.0"]);
    assert_eq!(again["manifest"], manifest);
}

#[test]
fn scripts_and_what_they_ask_for_travel_too() {
    let Some(registry) = DockerRegistry::start() else {
        return;
    };
    let desk = Desk::strict();
    desk.write("relay-polite.rhai", SCRIPT);
    desk.write("relay-polite.toml", LENT);
    let sign = [
        "sign",
        "--key",
        "key.pem",
        "--version",
        "3",
        "--with-lent",
        "relay-polite.rhai",
    ];
    let _signed = desk.plugin(&sign).expect(0);
    let place = registry.place("relay-polite:3");
    let told = desk.plugin(&["push", "relay-polite.rhai", &place, "-o", "json"]);
    assert_eq!(told.expect(0).json()["withLent"], true);
    let told = desk
        .plugin(&["install", &place, "--lend", "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(told["kind"], "script");
    assert_eq!(told["signedBy"], "acme");
    assert_eq!(told["version"], "3");
    let there = [
        "plugins.lock",
        "relay-polite.rhai",
        "relay-polite.rhai.sig",
        "relay-polite.toml",
    ];
    assert_eq!(desk.names(), there);
    assert_eq!(
        desk.read("relay-polite.toml").as_deref(),
        Some(LENT.as_bytes())
    );
    for name in &there[1..] {
        std::fs::remove_file(desk.path(name)).unwrap();
    }
    let _restored = desk.plugin(&["install", "--locked"]).expect(0);
    assert_eq!(desk.names(), there);
    let _verified = desk.plugin(&["verify"]).expect(0);
}

#[test]
fn a_tag_that_moved_changes_nothing_that_is_locked() {
    let Some(registry) = DockerRegistry::start() else {
        return;
    };
    let desk = Desk::new();
    let place = registry.place("relay:stable");
    let first = desk.push(&place, &[]);
    let _installed = desk.plugin(&["install", &place]).expect(0);
    let locked = desk.lock();
    desk.write("relay.wasm", edition(1));
    let second = desk.push(&place, &[]);
    assert_ne!(first["digest"], second["digest"]);
    std::fs::remove_file(desk.path("relay.wasm")).unwrap();
    let _restored = desk.plugin(&["install", "--locked"]).expect(0);
    assert_eq!(desk.read("relay.wasm").as_deref(), Some(RELAY));
    assert_eq!(desk.lock(), locked);
    let told = desk.refused(&["install", &place], "--force");
    assert!(
        told.stderr.contains(second["digest"].as_str().unwrap()),
        "{}",
        told.stderr
    );
    let _forced = desk.plugin(&["install", "--force", &place]).expect(0);
    assert!(desk.lock().contains(second["manifest"].as_str().unwrap()));
}

#[test]
fn what_is_not_as_its_digest_says_is_not_taken() {
    let Some(registry) = DockerRegistry::start() else {
        return;
    };
    let desk = Desk::new();
    let pushed = desk.push(&registry.place("relay:1"), &[]);
    // A digest that nothing has.
    let nothing = registry.place(&format!("relay@sha256:{}", "0".repeat(64)));
    let told = desk.plugin(&["install", &nothing]).expect(125).stderr;
    assert!(told.contains("has no manifest"), "{told}");
    let told = desk
        .plugin(&["install", &registry.place("relay:2")])
        .expect(125)
        .stderr;
    assert!(told.contains("spelled as they were pushed"), "{told}");
    let told = desk
        .plugin(&["install", &registry.place("nobody/relay:1")])
        .expect(125)
        .stderr;
    assert!(told.contains("spelled as they were pushed"), "{told}");
    // The blob was changed where the registry keeps it.
    let blob = registry.blob(pushed["digest"].as_str().unwrap());
    let mut changed = RELAY.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&blob, changed).unwrap();
    let told = desk
        .plugin(&["install", &registry.place("relay:1")])
        .expect(125)
        .stderr;
    assert!(told.contains("is not what was asked for"), "{told}");
    assert!(told.matches("sha256:").count() >= 2, "{told}");
    assert_eq!(desk.names(), [""; 0]);
    // And the manifest.
    std::fs::write(&blob, RELAY).unwrap();
    let manifest = registry.blob(pushed["manifest"].as_str().unwrap());
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replacen("relay.wasm", "other.wasm", 1)).unwrap();
    let told = desk
        .plugin(&["install", reference(&pushed)])
        .expect(125)
        .stderr;
    assert!(!told.is_empty());
    assert_eq!(desk.names(), [""; 0]);
}

#[test]
fn a_signature_comes_along_and_a_registry_cannot_change_what_it_is_for() {
    let Some(registry) = DockerRegistry::start() else {
        return;
    };
    let desk = Desk::strict();
    let place = registry.place("team/relay:1");
    let _unsigned = desk.push(&place, &[]);
    let _told = desk.refused(&["install", &place], "it is not signed");
    desk.sign("other.pem", "1.0", &[]);
    let _others = desk.push(&place, &[]);
    let _told = desk.refused(&["install", &place], "not among the trusted keys");
    desk.sign("key.pem", "1.0", &[]);
    let _signed = desk.push(&place, &[]);
    let told = desk
        .plugin(&["install", &place, "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(
        (&told["signedBy"], &told["version"]),
        (&json!("acme"), &json!("1.0"))
    );
    let _told = desk.refused(
        &["install", &place, "--name", "relay-2"],
        "is for a plugin relay",
    );
    // An older signature beside newer bytes is not even pushed.
    desk.write("relay.wasm", edition(1));
    let told = desk.plugin(&["push", "relay.wasm", &place]);
    assert_ne!(told.code, 0);
    assert!(told.stderr.contains("sign it again"), "{}", told.stderr);
}

#[test]
fn a_registry_with_a_password_is_shown_it_and_nobody_else_is() {
    let Some(registry) = DockerRegistry::with_password() else {
        return;
    };
    let desk = Desk::new();
    let place = registry.place("relay:1");
    let told = desk
        .plugin(&["push", "relay.wasm", &place])
        .expect(125)
        .stderr;
    assert!(told.contains("wants other credentials than none"), "{told}");
    assert!(told.contains("docker login"), "{told}");
    let with = |words: &[&str], password: &str| {
        let mut command = desk.command(words);
        command.env("TASKWRIGHT_REGISTRY_USER", USER);
        command.env("TASKWRIGHT_REGISTRY_PASSWORD", password);
        cli::finish(&mut command, b"", SOON)
    };
    let told = with(&["push", "relay.wasm", &place], "wrong")
        .expect(125)
        .stderr;
    assert!(told.contains("other credentials than these"), "{told}");
    assert!(!told.contains("wrong"), "{told}");
    let _pushed = with(&["push", "relay.wasm", &place], PASSWORD).expect(0);
    // As `docker login` writes it: base64 of USER:PASSWORD.
    std::fs::create_dir(desk.home.path().join(".docker")).unwrap();
    let config = |host: &str| {
        let auths = json!({"auths": {host: {"auth": "bWU6b3BlbiBzZXNhbWU="}}});
        let _written = desk.home.file(".docker/config.json", auths.to_string());
    };
    config("other.example.org");
    let _told = desk.plugin(&["install", &place]).expect(125);
    config(&registry.host());
    let _installed = desk.plugin(&["install", &place]).expect(0);
    assert_eq!(desk.read("relay.wasm").as_deref(), Some(RELAY));
}

#[test]
fn a_registry_that_is_away_is_told_and_what_lies_there_stays() {
    let Some(mut registry) = DockerRegistry::start() else {
        return;
    };
    let desk = Desk::new();
    let place = registry.place("relay:1");
    let _pushed = desk.push(&place, &[]);
    let _installed = desk.plugin(&["install", &place]).expect(0);
    registry.stop();
    let told = desk.plugin(&["install", &place]).expect(125).stderr;
    assert!(
        told.contains("does not answer") && told.contains("hint: "),
        "{told}"
    );
    // Nobody is asked for what lies there just so.
    let _same = desk.plugin(&["install", "--locked"]).expect(0);
    std::fs::write(desk.path("relay.wasm"), edition(1)).unwrap();
    let _told = desk.refused(&["install", "--locked"], "does not answer");
    assert_eq!(
        desk.read("relay.wasm"),
        Some(edition(1)),
        "it is left for the operator"
    );
}

pub(super) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A manifest of a component that has so many bytes.
pub(super) fn manifest(size: u64) -> Vec<u8> {
    let digest = format!("sha256:{}", "1".repeat(64));
    let layer = json!({"mediaType": "application/wasm", "digest": digest, "size": size});
    let config =
        json!({"mediaType": "application/vnd.wasm.config.v0+json", "digest": digest, "size": 2});
    let whole = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    whole.to_string().into_bytes()
}

#[test]
fn nothing_without_a_bound_is_read_from_a_registry() {
    let desk = Desk::new();
    let endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    let blob = format!("/blobs/sha256:{}", "1".repeat(64));
    let whole = |end: &str, bytes: Vec<u8>, then| vec![(end.to_owned(), bytes, then)];
    let with_blob = |size, bytes, then| {
        vec![
            (
                "/manifests/latest".to_owned(),
                answer("200 OK", "", &manifest(size)),
                Then::Close,
            ),
            (blob.clone(), bytes, then),
        ]
    };
    let huge = answer("200 OK", "", &vec![b' '; 2 << 20]);
    for (what, answers, why) in [
        (
            "an endless manifest",
            whole("/manifests/latest", endless.clone(), Then::Zeroes),
            "1048576 bytes",
        ),
        (
            "a large manifest",
            whole("/manifests/latest", huge, Then::Close),
            "1048576 bytes",
        ),
        (
            "a blob that is told to be huge",
            with_blob(1 << 40, Vec::new(), Then::Close),
            "33554432 bytes",
        ),
        (
            "a blob that goes on",
            with_blob(1000, endless, Then::Zeroes),
            "more than 1000 bytes",
        ),
        (
            "a blob that is cut",
            with_blob(1000, answer("200 OK", "", b"x"), Then::Close),
            "is not what was asked for",
        ),
        (
            "no manifest",
            whole(
                "/manifests/latest",
                answer("200 OK", "", b"<html>"),
                Then::Close,
            ),
            "cannot be read",
        ),
    ] {
        let server = Pretender::start(answers);
        let begun = Instant::now();
        let told = desk
            .plugin(&["install", &server.place("relay")])
            .expect(125)
            .stderr;
        assert!(told.contains(why), "{what}: {told}");
        assert!(begun.elapsed() < SOON, "{what}");
        assert_eq!(desk.names(), [""; 0], "{what}");
    }
}

#[test]
fn redirects_are_followed_a_few_times_and_not_just_anywhere() {
    let desk = Desk::new();
    let to = |place: &str| {
        answer(
            "307 Temporary Redirect",
            &format!("location: {place}\r\n"),
            b"",
        )
    };
    for (place, why) in [
        ("/v2/relay/manifests/latest", "one redirect too many"),
        ("http://registry.example.org/x", "that is not HTTPS"),
        ("file:///etc/passwd", "that is no HTTP"),
        (
            "http://me:secret@127.0.0.1/x",
            "there is a user or a password in it",
        ),
        ("", "it names no place"),
    ] {
        let server = Pretender::start(vec![(
            "/manifests/latest".to_owned(),
            to(place),
            Then::Close,
        )]);
        let told = desk
            .plugin(&["install", &server.place("relay")])
            .expect(125)
            .stderr;
        assert!(told.contains(why), "{place}: {told}");
    }
    // To where the bytes are kept, as large registries do.
    let store = Pretender::start(vec![(
        "/kept?secret=1".to_owned(),
        answer("200 OK", "", &manifest(1 << 40)),
        Then::Close,
    )]);
    let kept = store.place("kept?secret=1").replace("oci://", "http://");
    let server = Pretender::start(vec![(
        "/manifests/latest".to_owned(),
        to(&kept),
        Then::Close,
    )]);
    let told = desk
        .plugin(&["install", &server.place("relay")])
        .expect(125)
        .stderr;
    assert!(told.contains("33554432 bytes"), "{told}");
}

#[test]
fn an_install_that_is_killed_while_it_waits_for_bytes_leaves_nothing() {
    let desk = Desk::new();
    let blob = format!("/blobs/sha256:{}", "1".repeat(64));
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf".to_vec();
    let server = Pretender::start(vec![
        (
            "/manifests/latest".to_owned(),
            answer("200 OK", "", &manifest(1000)),
            Then::Close,
        ),
        (blob, half, Then::Silence),
    ]);
    let mut command = desk.command(&["install", &server.place("relay")]);
    let mut install = cli::Running::start(&mut command, b"");
    eventually(SOON, "it waits for the rest", || {
        server.asked().iter().any(|one| one.contains("/blobs/"))
    });
    install.process().kill();
    assert_eq!(desk.names(), [""; 0]);
}

#[test]
fn http_leaves_this_machine_only_when_that_is_said() {
    let desk = Desk::new();
    // A name that leads nowhere: what matters is how it is asked.
    let told = desk
        .plugin(&["install", "oci://registry.invalid:1/relay"])
        .expect(125)
        .stderr;
    assert!(
        told.contains("does not answer") && told.contains("--plain-http"),
        "{told}"
    );
    for place in [
        "oci://",
        "oci://h",
        "oci://h/../x",
        "oci://u:p@h/x",
        "oci://h/X",
        "oci://h/x@sha256:1",
    ] {
        let told = desk.plugin(&["install", place]).expect(2).stderr;
        assert!(told.contains("hint: "), "{place}: {told}");
    }
    let told = desk
        .plugin(&["push", "relay.wasm", "oci://127.0.0.1:1/relay"])
        .expect(2)
        .stderr;
    assert!(told.contains("a tag is wanted"), "{told}");
}
