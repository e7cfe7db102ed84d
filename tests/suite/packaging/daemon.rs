//! A daemon that loads only what its lock file names, or what a trusted key signed.

use serde_json::Value;
use taskwright_test_guests::RELAY;
use taskwright_tests::{Daemon, Options, SOON, eventually_some};

use super::{Desk, edition};
use crate::plugins::{LENT, on, printed};

/// A daemon at this desk, with these further flags.
fn serving(desk: Desk, flags: &[&str]) -> (Desk, Daemon) {
    let Desk { home, folder } = desk;
    let mut options = Options::new().flag(&format!("--plugin-dir={}", folder.display()));
    let config = home.path().join("work/config.toml");
    if config.exists() {
        options = options.variable("TASKWRIGHT_CONFIG", config.to_str().unwrap());
    }
    for flag in flags {
        options = options.flag(flag);
    }
    // The daemon has a home of its own: this one is the person's.
    let daemon = options.start();
    (Desk { home, folder }, daemon)
}

fn until(daemon: &Daemon, is_so: impl Fn(&Value) -> bool) -> Value {
    let client = daemon.client();
    eventually_some(SOON, "the plugin is so", || {
        let answer = client.get("/plugins/relay");
        let plugin = (answer.status == 200).then(|| answer.json())?;
        is_so(&plugin).then_some(plugin)
    })
}

fn until_refused(daemon: &Daemon, why: &str) -> Value {
    until(daemon, |plugin| {
        plugin["refused"]
            .as_str()
            .is_some_and(|told| told.contains(why))
    })
}

fn until_digest(daemon: &Daemon, digest: &str) {
    let digest = digest.trim_start_matches("sha256:");
    until(daemon, |plugin| {
        plugin["digest"] == digest && plugin.get("refused").is_none()
    });
}

#[test]
fn what_the_lock_file_does_not_name_is_not_loaded() {
    let desk = Desk::new();
    std::fs::write(desk.path("relay.wasm"), RELAY).unwrap();
    std::fs::write(desk.path("relay.toml"), LENT).unwrap();
    let (desk, daemon) = serving(desk, &["--plugin-lock=enforce"]);
    let client = daemon.client();
    let plugin = until_refused(&daemon, "it does not stand in plugins.lock");
    assert_eq!(plugin["healthy"], false);
    client
        .post("/tasks", &on("relay", "early", "true"))
        .expect(400);
    // The command that the message names helps, while the daemon runs.
    let _locked = desk.plugin(&["lock", "relay"]).expect(0);
    until(&daemon, |plugin| plugin["healthy"] == true);
    client.run(&on("relay", "first", "echo v$RELAY_VERSION"));
    assert_eq!(printed(&client, "first"), "v1\n");
}

#[test]
fn a_changed_file_is_refused_with_both_digests_and_an_installed_one_serves() {
    let desk = Desk::new();
    let told = desk.plugin(&["install", "relay.wasm", "--lend", "-o", "json"]);
    let first = super::digest_of(&told.expect(0).json());
    let (desk, mut daemon) = serving(desk, &["--plugin-lock=enforce"]);
    until_digest(&daemon, &first);
    std::fs::write(desk.path("relay.wasm"), edition(1)).unwrap();
    let plugin = until_refused(&daemon, &first);
    assert_eq!(
        plugin["refused"]
            .as_str()
            .unwrap()
            .matches("sha256:")
            .count(),
        2,
        "{plugin}"
    );
    assert_eq!(plugin["healthy"], true, "the one before serves");
    // After a restart nothing is left of the one before.
    daemon.kill();
    daemon.start_again();
    let plugin = until_refused(&daemon, &first);
    assert_eq!(plugin["healthy"], false);
    let _restored = desk.plugin(&["install", "--locked"]).expect(0);
    until_digest(&daemon, &first);
    // What it is lent is pinned, too.
    std::fs::write(desk.path("relay.toml"), format!("{LENT}files = true\n")).unwrap();
    until_refused(&daemon, "what it is lent was changed");
    std::fs::remove_file(desk.path("relay.toml")).unwrap();
    until_refused(&daemon, "and it is none");
    std::fs::write(desk.path("relay.toml"), LENT).unwrap();
    until_digest(&daemon, &first);
    // And another edition comes in by the front door.
    desk.write("relay.wasm", edition(2));
    let told = desk.plugin(&["install", "relay.wasm", "--force", "-o", "json"]);
    let second = super::digest_of(&told.expect(0).json());
    until_digest(&daemon, &second);
    // A lock file that cannot be read lets nothing in, and takes nothing away.
    std::fs::write(desk.path("plugins.lock"), "version = ").unwrap();
    let plugin = until_refused(&daemon, "plugins.lock");
    assert_eq!(plugin["healthy"], true);
}

#[test]
fn without_a_word_of_the_operator_a_lock_file_is_for_people() {
    let desk = Desk::new();
    let _installed = desk.plugin(&["install", "relay.wasm", "--lend"]).expect(0);
    let (desk, daemon) = serving(desk, &[]);
    until(&daemon, |plugin| plugin["healthy"] == true);
    std::fs::write(desk.path("plugins.lock"), "broken").unwrap();
    std::fs::write(desk.path("relay.wasm"), edition(1)).unwrap();
    let file = desk.path("relay.wasm");
    let words = ["inspect", file.to_str().unwrap(), "-o", "json"];
    let digest = super::digest_of(&desk.plugin(&words).expect(0).json());
    until_digest(&daemon, &digest);
}

#[test]
fn signatures_are_looked_at_when_a_file_is_loaded() {
    let desk = Desk::strict();
    desk.sign("key.pem", "1.0", &[]);
    let told = desk.plugin(&["install", "relay.wasm", "--lend", "-o", "json"]);
    let first = super::digest_of(&told.expect(0).json());
    let (desk, daemon) = serving(desk, &[]);
    until_digest(&daemon, &first);
    std::fs::write(desk.path("relay.wasm"), edition(1)).unwrap();
    until_refused(&daemon, "changed after it was signed");
    std::fs::write(desk.path("relay.wasm"), RELAY).unwrap();
    until_digest(&daemon, &first);
    let signature = desk.read("relay.wasm.sig").unwrap();
    std::fs::remove_file(desk.path("relay.wasm.sig")).unwrap();
    until_refused(&daemon, "it is not signed");
    desk.sign("other.pem", "1.0", &[]);
    let others = desk.home.path().join("work/relay.wasm.sig");
    std::fs::copy(others, desk.path("relay.wasm.sig")).unwrap();
    until_refused(&daemon, "not among the trusted keys");
    // The signature of one plugin is none for another name.
    std::fs::write(desk.path("relay.wasm.sig"), &signature).unwrap();
    std::fs::write(desk.path("relay-2.wasm"), RELAY).unwrap();
    std::fs::write(desk.path("relay-2.wasm.sig"), &signature).unwrap();
    let client = daemon.client();
    eventually_some(SOON, "the copy is refused", || {
        let answer = client.get("/plugins/relay-2");
        let plugin = (answer.status == 200).then(|| answer.json())?;
        let why = plugin["refused"].as_str()?;
        assert!(why.contains("its signature is for a plugin relay"), "{why}");
        Some(())
    });
    until_digest(&daemon, &first);
}

#[test]
fn an_older_edition_with_a_good_signature_is_kept_out_by_the_lock_file_alone() {
    let desk = Desk::strict();
    desk.sign("key.pem", "1.0", &[]);
    let old = std::fs::read(desk.home.path().join("work/relay.wasm.sig")).unwrap();
    desk.write("relay.wasm", edition(1));
    desk.sign("key.pem", "1.1", &[]);
    let told = desk.plugin(&["install", "relay.wasm", "--lend", "-o", "json"]);
    let new = super::digest_of(&told.expect(0).json());
    let (desk, daemon) = serving(desk, &["--plugin-lock=enforce"]);
    until_digest(&daemon, &new);
    std::fs::write(desk.path("relay.wasm.sig"), &old).unwrap();
    std::fs::write(desk.path("relay.wasm"), RELAY).unwrap();
    until_refused(&daemon, &new);
    // And installing it again has to be asked for, with both versions told.
    desk.write("relay.wasm", RELAY);
    desk.sign("key.pem", "1.0", &[]);
    std::fs::write(desk.path("relay.wasm"), edition(1)).unwrap();
    let told = desk.refused(&["install", "relay.wasm"], "version 1.0");
    assert!(told.stderr.contains("version 1.1"), "{}", told.stderr);
}
