//! Who is shown a password, and who is not.

use taskwright_tests::registry::{PASSWORD, Pretender, SHOWN, Then, USER};
use taskwright_tests::{Finished, SOON, cli};

use super::Desk;
use super::registry::{answer, manifest};

const MANIFEST: &str = "/manifests/latest";
/// What is told once the manifest came: it names more than is read.
const CAME: &str = "33554432 bytes";

/// Installs from there as somebody who has a password, which does not succeed.
fn install(desk: &Desk, place: &str) -> String {
    let mut command = desk.command(&["install", place]);
    let file = desk.write("password", format!("{PASSWORD}\n"));
    command
        .env("TASKWRIGHT_REGISTRY_USER", USER)
        .env("TASKWRIGHT_REGISTRY_PASSWORD_FILE", file);
    let finished: Finished = cli::finish(&mut command, b"", SOON);
    let told = finished.expect(125).stderr;
    assert!(!told.contains(PASSWORD), "{told}");
    told
}

/// A server that keeps a manifest under `/kept`.
fn store() -> (Pretender, Vec<u8>) {
    let large = answer("200 OK", "", &manifest(1 << 40));
    let store = Pretender::start(vec![("/kept".to_owned(), large, Then::Close)]);
    let place = store.place("kept").replace("oci://", "http://");
    let header = format!("location: {place}\r\n");
    (store, answer("307 Temporary Redirect", &header, b""))
}

fn ask(how: &str) -> Vec<u8> {
    let header = format!("www-authenticate: {how}\r\n");
    answer("401 Unauthorized", &header, b"")
}

/// A registry that asks so, and then leads to where it keeps its bytes.
fn asking(how: &str, redirect: Vec<u8>) -> Pretender {
    Pretender::start(vec![
        (format!("{SHOWN}{MANIFEST}"), redirect, Then::Close),
        (MANIFEST.to_owned(), ask(how), Then::Close),
    ])
}

/// How many requests came, and those that showed something.
fn shown(server: &Pretender) -> (usize, Vec<String>) {
    let asked = server.asked();
    let shown = asked.iter().filter(|one| one.contains("\nauthorization: "));
    (asked.len(), shown.cloned().collect())
}

#[test]
fn a_password_is_shown_when_it_is_asked_for_and_to_the_registry_alone() {
    let desk = Desk::new();
    let (store, redirect) = store();
    let server = asking("Basic realm=\"x\"", redirect);
    let told = install(&desk, &server.place("relay"));
    assert!(told.contains(CAME), "{told}");
    let (asked, with) = shown(&server);
    assert_eq!((asked, with.len()), (2, 1), "not before it is asked for");
    // Of USER:PASSWORD, in small letters as all headers are kept here.
    assert!(with[0].contains("basic bwu6b3blbibzzxnhbwu="), "{with:?}");
    assert_eq!(shown(&store), (1, Vec::new()));
}

#[test]
fn a_token_is_fetched_with_the_password_and_shown_to_the_registry_alone() {
    let desk = Desk::new();
    let (store, redirect) = store();
    let tokens = Pretender::start(vec![(
        format!("{SHOWN}/token?service=s&scope=repository%3Arelay%3Apull"),
        answer("200 OK", "", b"{\"token\": \"t0k3n\"}"),
        Then::Close,
    )]);
    let realm = tokens.place("token").replace("oci://", "http://");
    let how = format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:relay:pull\"");
    let server = asking(&how, redirect);
    let told = install(&desk, &server.place("relay"));
    assert!(told.contains(CAME), "{told}");
    let (_, with) = shown(&server);
    assert_eq!(with.len(), 1);
    assert!(
        with[0].contains("bearer t0k3n"),
        "not the password: {with:?}"
    );
    assert_eq!(shown(&tokens).1.len(), 1);
    assert_eq!(shown(&store), (1, Vec::new()));
}

#[test]
fn who_pushes_gets_another_token_than_who_looks() {
    let desk = Desk::new();
    let told = desk.plugin(&["install", "relay.wasm", "--dry-run", "-o", "json"]);
    let digest = super::digest_of(&told.expect(0).json());
    let token = answer("200 OK", "", b"{\"access_token\": \"t0k3n\"}");
    let scopes = ["pull", "pull%2Cpush"];
    let token = |scope| (format!("/token?scope={scope}"), token.clone(), Then::Close);
    let tokens = Pretender::start(scopes.map(token).to_vec());
    let realm = tokens.place("token").replace("oci://", "http://");
    let ask = |scope| ask(&format!("Bearer realm=\"{realm}\",scope=\"{scope}\""));
    let missing = answer("404 Not Found", "", b"");
    let server = Pretender::start(vec![
        (format!("{SHOWN}{digest}"), missing, Then::Close),
        (digest, ask("pull"), Then::Close),
        ("/blobs/uploads/".to_owned(), ask("pull,push"), Then::Close),
    ]);
    let told = desk.plugin(&["push", "relay.wasm", &server.place("relay:1")]);
    let told = told.expect(125).stderr;
    assert!(told.contains("other credentials"), "{told}");
    let asked = tokens.asked();
    assert_eq!(asked.len(), 2, "one for each, and no more: {asked:?}");
    for (asked, scope) in asked.iter().zip(scopes) {
        assert!(asked.contains(&format!("scope={scope} ")), "{asked:?}");
    }
}

#[test]
fn a_place_for_tokens_without_tls_is_not_asked() {
    let desk = Desk::new();
    for (realm, why) in [
        ("http://tokens.example.org/token", "that is not HTTPS"),
        ("ftp://127.0.0.1/token", "that is no HTTP"),
        ("token", "asks for credentials in a way"),
    ] {
        let server = asking(&format!("Bearer realm=\"{realm}\""), Vec::new());
        let told = install(&desk, &server.place("relay"));
        assert!(told.contains(why), "{realm}: {told}");
        assert_eq!(shown(&server), (1, Vec::new()));
    }
    let endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    let tokens = Pretender::start(vec![("/token".to_owned(), endless, Then::Zeroes)]);
    let realm = tokens.place("token").replace("oci://", "http://");
    let server = asking(&format!("Bearer realm=\"{realm}\""), Vec::new());
    let told = install(&desk, &server.place("relay"));
    assert!(told.contains("token has more than 65536 bytes"), "{told}");
}
