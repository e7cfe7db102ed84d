//! Plugins on their way: signed, published, installed, locked; and everything that must not get in.

mod credentials;
mod daemon;
mod registry;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use taskwright_test_guests::RELAY;
use taskwright_tests::{Finished, Home, SOON, binary, cli};

use crate::plugins::{LENT, padded};

/// A key as `openssl genpkey -algorithm ed25519` writes it, of a seed that everybody knows.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\n\
    -----END PRIVATE KEY-----\n";
/// Its public half, as `openssl pkey -pubout` writes it between its first and its last line.
const PUBLIC: &str = "MCowBQYDK2VwAyEAiojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=";
/// Another one.
const OTHER_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC\n\
    -----END PRIVATE KEY-----\n";
const SCRIPT: &str =
    "fn describe() { #{ version: \"1\" } }\nfn start(task) { #{ argv: task.command } }\n";

/// A person's folder with a plugin in it, and a plugin folder.
struct Desk {
    home: Home,
    folder: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let home = Home::new();
        let folder = home.path().join("plugins");
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(home.path().join("work")).unwrap();
        let desk = Self { home, folder };
        desk.write("relay.wasm", RELAY);
        desk.secret("key.pem", KEY);
        desk.secret("other.pem", OTHER_KEY);
        desk
    }

    /// One whose daemon and whose installs need signatures by [`KEY`], which may sign `relay*`.
    fn strict() -> Self {
        let desk = Self::new();
        let config = format!(
            "[plugins]\nrequire-signature = true\n[[plugins.trusted-keys]]\nname = 'acme'\n\
             key = '{PUBLIC}'\nplugins = ['relay*']\n"
        );
        desk.write("config.toml", config);
        desk
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.home.file(&format!("work/{name}"), content)
    }

    fn secret(&self, name: &str, content: &str) {
        let path = self.write(name, content);
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// `taskwright plugin` with these words, in the folder where the work lies.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.home.command(binary::taskwright());
        let work = self.home.path().join("work");
        let config = work.join("config.toml");
        if config.exists() {
            command.env("TASKWRIGHT_CONFIG", config);
        }
        command
            .current_dir(work)
            .env("TASKWRIGHT_PLUGIN_DIR", &self.folder)
            .arg("plugin")
            .args(words);
        command
    }

    #[track_caller]
    fn plugin(&self, words: &[&str]) -> Finished {
        cli::finish(&mut self.command(words), b"", SOON)
    }

    /// Fails with 1, and says why.
    #[track_caller]
    fn refused(&self, words: &[&str], why: &str) -> Finished {
        let told = self.plugin(words).expect(1);
        let all = format!("{}{}", told.stdout, told.stderr);
        assert!(all.contains(why), "{why:?} is not in {all}");
        told
    }

    #[track_caller]
    fn sign(&self, key: &str, version: &str, more: &[&str]) {
        let mut words = vec!["sign", "--key", key, "--version", version];
        words.extend(more);
        words.push("relay.wasm");
        let _statement = self.plugin(&words).expect(0);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(name)).ok()
    }

    fn lock(&self) -> String {
        String::from_utf8(self.read("plugins.lock").unwrap_or_default()).unwrap()
    }

    /// What lies in the plugin folder.
    fn names(&self) -> Vec<String> {
        names(&self.folder)
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Another edition of the same component.
fn edition(byte: u8) -> Vec<u8> {
    padded(RELAY, byte)
}

fn digest_of(told: &Value) -> String {
    told["digest"].as_str().unwrap().to_owned()
}

#[test]
fn a_file_is_installed_whole_and_lent_nothing_unasked() {
    let desk = Desk::new();
    let told = desk.plugin(&["install", "relay.wasm"]).expect(0).stdout;
    let line = format!("Put it into {}", desk.path("relay.toml").display());
    for part in [
        "installed",
        "signed   by nobody",
        "wants    process",
        &line,
        "process = true",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    assert_eq!(desk.names(), ["plugins.lock", "relay.wasm"]);
    assert_eq!(desk.read("relay.wasm").as_deref(), Some(RELAY));
    let mode = desk
        .path("relay.wasm")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o644);
    let verified = desk.plugin(&["verify"]).expect(0).stdout;
    assert!(verified.contains("as locked"), "{verified}");
    let told = desk
        .plugin(&["install", "relay.wasm", "--lend"])
        .expect(0)
        .stdout;
    assert!(told.contains("was there already"), "{told}");
    assert_eq!(desk.read("relay.toml").as_deref(), Some(LENT.as_bytes()));
    let again = desk.lock();
    assert!(again.contains("\nlent = \"sha256:"), "{again}");
    // What the operator wrote is the operator's.
    std::fs::write(desk.path("relay.toml"), "[grants]\n").unwrap();
    let told = desk
        .plugin(&["install", "relay.wasm", "--lend"])
        .expect(0)
        .stdout;
    assert!(told.contains("does not lend it all: add process"), "{told}");
    assert_eq!(desk.read("relay.toml").as_deref(), Some(&b"[grants]\n"[..]));
}

#[test]
fn what_comes_along_is_lent_only_when_that_is_said() {
    let desk = Desk::new();
    let lent = "[grants]\nprocess = { programs = [\"/bin/sh\"] }\n";
    desk.write("relay.toml", lent);
    let told = desk
        .plugin(&["install", "relay.wasm", "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(told["toLend"], lent);
    assert_eq!(told["lent"], false);
    assert_eq!(desk.read("relay.toml"), None);
    let told = desk.plugin(&["install", "relay.wasm", "--lend", "-o", "json"]);
    assert_eq!(told.expect(0).json()["lent"], true);
    assert_eq!(desk.read("relay.toml").as_deref(), Some(lent.as_bytes()));
    desk.write("relay.toml", "[grants]\nno-such = true\n");
    let _told = desk.refused(&["install", "relay.wasm"], "there is no such grant");
}

#[test]
fn how_a_policy_is_asked_comes_along_and_what_it_is_lent_does_not() {
    let desk = Desk::new();
    let policy = "fn review(request) { #{ ask: \"is this wanted?\" } }\n";
    desk.write("careful.rhai", policy);
    let lent = "[grants]\nclock = true\n\n[policy]\nmode = \"warn\"\norder = 10\n";
    desk.write("careful.toml", lent);
    let told = desk.plugin(&["install", "careful.rhai"]).expect(0).stdout;
    assert!(
        told.contains("wants    nothing"),
        "no more than it uses: {told}"
    );
    let kept = desk.read("careful.toml").unwrap();
    let kept = String::from_utf8(kept).unwrap();
    assert!(
        kept.contains("mode = \"warn\"") && !kept.contains("clock"),
        "{kept}"
    );
    assert!(
        desk.plugin(&["verify"])
            .expect(0)
            .stdout
            .contains("as locked")
    );
    let _lent = desk
        .plugin(&["install", "careful.rhai", "--lend"])
        .expect(0);
    assert_eq!(desk.read("careful.toml").as_deref(), Some(lent.as_bytes()));
}

#[test]
fn nothing_is_replaced_unasked() {
    let desk = Desk::new();
    let _installed = desk.plugin(&["install", "relay.wasm"]).expect(0);
    let before = desk.lock();
    desk.write("relay.wasm", edition(1));
    let _told = desk.refused(&["install", "relay.wasm"], "--force replaces it");
    let told = desk.plugin(&["install", "--force", "--dry-run", "relay.wasm"]);
    assert!(told.expect(0).stdout.contains("would be installed"));
    assert_eq!(desk.read("relay.wasm").as_deref(), Some(RELAY));
    assert_eq!(desk.lock(), before);
    desk.write("relay.rhai", SCRIPT);
    let _told = desk.refused(&["install", "relay.rhai"], "is a plugin of this name");
    desk.write("process.rhai", SCRIPT);
    let _told = desk.refused(&["install", "process.rhai"], "a built-in runtime");
    let _forced = desk.plugin(&["install", "--force", "relay.rhai"]).expect(0);
    assert_eq!(desk.names(), ["plugins.lock", "relay.rhai"]);
    assert!(
        desk.lock().contains("file = \"relay.rhai\""),
        "{}",
        desk.lock()
    );
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let desk = Desk::new();
    for name in [
        "../relay", "/relay", ".", "..", "a/b", "", "a\nb", ".hidden", "A",
    ] {
        let told = desk
            .plugin(&["install", "relay.wasm", "--name", name])
            .expect(2);
        assert!(!told.stderr.is_empty());
    }
    let odd = desk.write("Not A Name.wasm", RELAY);
    let told = desk.plugin(&["install", odd.to_str().unwrap()]).expect(2);
    assert!(told.stderr.contains("--name"), "{}", told.stderr);
    let _named = desk
        .plugin(&["install", odd.to_str().unwrap(), "--name", "relay"])
        .expect(0);
    assert!(
        desk.lock().contains("Not%20A%20Name.wasm"),
        "{}",
        desk.lock()
    );
    assert_eq!(desk.names(), ["plugins.lock", "relay.wasm"]);
}

#[test]
fn links_and_folders_that_are_open_to_all_do_not_help_anybody() {
    let desk = Desk::new();
    let victim = desk.write("victim", "mine");
    for name in [
        "relay.wasm",
        "relay.wasm.sig",
        ".taskwright-relay.wasm.part",
    ] {
        std::os::unix::fs::symlink(&victim, desk.path(name)).unwrap();
    }
    let _told = desk.refused(&["install", "relay.wasm"], "--force");
    let _forced = desk.plugin(&["install", "--force", "relay.wasm"]).expect(0);
    assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    assert_eq!(desk.names(), ["plugins.lock", "relay.wasm"]);
    std::fs::set_permissions(&desk.folder, PermissionsExt::from_mode(0o777)).unwrap();
    let _told = desk.refused(&["install", "relay.wasm"], "everybody may write it");
    let _told = desk.refused(&["verify"], "everybody may write it");
    std::fs::set_permissions(&desk.folder, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(desk.path("plugins.lock"), PermissionsExt::from_mode(0o666)).unwrap();
    let _told = desk.refused(&["verify"], "everybody may write it");
}

#[test]
fn what_is_no_plugin_does_not_come_in() {
    let desk = Desk::new();
    desk.write("core.wasm", b"\0asm\x01\0\0\0");
    let _told = desk.refused(&["install", "core.wasm"], "component");
    desk.write("cut.wasm", &RELAY[..RELAY.len() / 2]);
    let _told = desk.refused(&["install", "cut.wasm"], "not a WebAssembly component");
    desk.write("binary.rhai", b"\xff\xfe");
    let _told = desk.refused(&["install", "binary.rhai"], "no UTF-8");
    let told = desk.plugin(&["install", "missing.wasm"]).expect(125).stderr;
    assert!(told.contains("missing.wasm"), "{told}");
    let _told = desk.plugin(&["install", "relay.zip"]).expect(2);
    let _told = desk.plugin(&["install"]).expect(2);
    assert_eq!(desk.names(), [""; 0]);
}

#[test]
fn a_folder_is_compared_with_its_lock_file_and_brought_back() {
    let desk = Desk::new();
    let told = desk.plugin(&["install", "relay.wasm", "--lend", "-o", "json"]);
    let digest = digest_of(&told.expect(0).json());
    std::fs::write(desk.path("relay.wasm"), edition(1)).unwrap();
    let told = desk.refused(&["verify"], "changed");
    assert!(
        told.stdout.matches("sha256:").count() == 2,
        "{}",
        told.stdout
    );
    assert!(told.stdout.contains(&digest), "{}", told.stdout);
    std::fs::write(desk.path("relay.toml"), "[grants]\n").unwrap();
    std::fs::write(desk.path("stranger.rhai"), SCRIPT).unwrap();
    let told = desk.plugin(&["verify", "-o", "json"]).expect(1).json();
    assert_eq!(told["items"][0]["state"], "changed");
    assert_eq!(told["items"][1]["state"], "not locked");
    let _restored = desk.plugin(&["install", "--locked"]).expect(0);
    assert_eq!(desk.read("relay.wasm").as_deref(), Some(RELAY));
    assert_eq!(desk.read("relay.toml").as_deref(), Some(LENT.as_bytes()));
    std::fs::remove_file(desk.path("relay.wasm")).unwrap();
    let _told = desk.refused(&["verify"], "missing");
    let told = desk.plugin(&["install", "--locked", "--dry-run"]).expect(0);
    assert!(told.stdout.contains("would be brought"), "{}", told.stdout);
    assert_eq!(desk.read("relay.wasm"), None);
    // What it came from is another file now.
    desk.write("relay.wasm", edition(2));
    let told = desk.refused(&["install", "--locked"], "it is not taken");
    assert!(told.stdout.contains(&digest), "{}", told.stdout);
    assert_eq!(desk.read("relay.wasm"), None);
    let _locked = desk.plugin(&["lock"]).expect(0);
    let _verified = desk.plugin(&["verify"]).expect(0);
    assert!(!desk.lock().contains("relay") && desk.lock().contains("stranger"));
    let _told = desk.refused(&["lock", "relay"], "holds no plugin of this name");
    std::fs::remove_file(desk.path("stranger.rhai")).unwrap();
    let _told = desk.refused(&["install", "--locked"], "by hand");
}

#[test]
fn a_lock_file_that_was_tampered_with_is_told_and_changes_nothing() {
    let desk = Desk::new();
    let _installed = desk.plugin(&["install", "relay.wasm"]).expect(0);
    let good = desk.lock();
    for (from, to, why) in [
        ("relay.wasm\"", "../relay.wasm\"", "plugins.relay.file"),
        ("[plugins.relay]", "[plugins.\"../relay\"]", "plugins.lock"),
        ("version = 1", "version = 9", "its version is 9"),
        ("version = 1", "version = ", "plugins.lock"),
    ] {
        std::fs::write(desk.path("plugins.lock"), good.replacen(from, to, 1)).unwrap();
        for words in [&["verify"][..], &["install", "relay.wasm"], &["lock"]] {
            let _told = desk.refused(words, why);
        }
        let _told = desk.plugin(&["install", "--locked"]).expect(125);
        assert_eq!(desk.names(), ["plugins.lock", "relay.wasm"]);
    }
    // Other bytes under its name are what a lock file is for.
    let (before, after) = good.split_once("digest = \"sha256:").unwrap();
    let zeroes = format!(
        "{before}digest = \"sha256:{}{}",
        "0".repeat(64),
        &after[64..]
    );
    std::fs::write(desk.path("plugins.lock"), zeroes).unwrap();
    let _told = desk.refused(&["install", "--locked"], "it is not taken");
    assert_eq!(desk.read("relay.wasm").as_deref(), Some(RELAY));
}

#[test]
fn an_interrupted_install_leaves_no_half_plugin() {
    let desk = Desk::new();
    // Large enough to be caught at it: a section that nobody knows.
    let mut large = RELAY.to_vec();
    let size = 12_u32 << 20;
    large.push(0);
    let mut left = size;
    while left >= 0x80 {
        large.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    large.push(u8::try_from(left).unwrap());
    large.extend([1, b'p']);
    large.resize(large.len() + size as usize - 2, 7);
    desk.write("relay.wasm", &large);
    let whole = std::time::Instant::now();
    let _installed = desk.plugin(&["install", "relay.wasm", "--lend"]).expect(0);
    let whole = whole.elapsed();
    let mut caught = 0;
    for step in 0..24 {
        for name in desk.names() {
            std::fs::remove_file(desk.path(&name)).unwrap();
        }
        let mut command = desk.command(&["install", "relay.wasm", "--lend"]);
        let mut install = cli::Running::start(&mut command, b"");
        // Each time a little later, so that it is interrupted everywhere.
        let begun = std::time::Instant::now();
        taskwright_tests::eventually(SOON, "it is time to interrupt it", || {
            begun.elapsed() > whole * step / 24
        });
        install.process().kill();
        let seen = desk.read("relay.wasm");
        assert!(
            seen.is_none_or(|seen| seen == large),
            "half a plugin, step {step}"
        );
        caught += u32::from(desk.names().iter().any(|name| name.ends_with(".part")));
        let lent = desk.read("relay.toml");
        assert!(
            lent.is_none_or(|lent| lent == LENT.as_bytes()),
            "step {step}"
        );
        if desk.read("plugins.lock").is_some() {
            let _finished = desk.plugin(&["install", "--locked"]).expect(0);
            let _verified = desk.plugin(&["verify"]).expect(0);
        }
    }
    // The next one takes away what was left.
    let _installed = desk
        .plugin(&["install", "relay.wasm", "--lend", "--force"])
        .expect(0);
    assert_eq!(
        desk.names(),
        ["plugins.lock", "relay.toml", "relay.wasm"],
        "caught {caught}"
    );
}

#[test]
fn a_signature_counts_for_its_key_name_version_and_bytes_alone() {
    let desk = Desk::strict();
    let install = ["install", "relay.wasm"];
    let _told = desk.refused(&install, "it is not signed");
    desk.sign("other.pem", "1.0", &[]);
    let _told = desk.refused(&install, "not among the trusted keys");
    desk.sign("key.pem", "1.0", &["--name", "other"]);
    let _told = desk.refused(&install, "its signature is for a plugin other");
    // The key may sign relay*, and nothing else.
    let _told = desk.refused(
        &["install", "relay.wasm", "--name", "other"],
        "may sign relay*",
    );
    desk.sign("key.pem", "1.0", &[]);
    let signature = desk.home.path().join("work/relay.wasm.sig");
    let good = std::fs::read_to_string(&signature).unwrap();
    for (from, to, why) in [
        ("version 1.0", "version 2.0", "does not hold"),
        ("name relay", "name other", "does not hold"),
        ("taskwright plugin 1", "taskwright plugin 2", "line 1"),
        ("signature ", "signature 0", "line 8"),
        ("key ed25519:8a", "key ed25519:8b", ""),
    ] {
        std::fs::write(&signature, good.replacen(from, to, 1)).unwrap();
        let told = desk.plugin(&install);
        assert_ne!(told.code, 0, "{from}: {}", told.stdout);
        assert!(told.stderr.contains(why), "{from}: {}", told.stderr);
    }
    std::fs::write(&signature, &good).unwrap();
    desk.write("relay.wasm", edition(1));
    let _told = desk.refused(&install, "changed after it was signed");
    desk.write("relay.wasm", RELAY);
    let told = desk.plugin(&install).expect(0).stdout;
    assert!(
        told.contains("signed   by acme") && told.contains("version 1.0"),
        "{told}"
    );
    assert_eq!(
        desk.names(),
        ["plugins.lock", "relay.wasm", "relay.wasm.sig"]
    );
    assert!(
        desk.lock().contains("signer = \"ed25519:8a88"),
        "{}",
        desk.lock()
    );
    let _verified = desk.plugin(&["verify"]).expect(0);
    std::fs::remove_file(desk.path("relay.wasm.sig")).unwrap();
    let told = desk.refused(&["verify"], "relay is not trusted: it is not signed");
    assert!(told.stdout.contains("unsigned"), "{}", told.stdout);
    assert!(
        told.stdout.contains("taskwright plugin sign"),
        "{}",
        told.stdout
    );
    // Without such a configuration nobody need sign, and a wrong signature is still wrong.
    let free = Desk::new();
    free.write("relay.wasm.sig", &good);
    let told = free.plugin(&install).expect(0).stdout;
    assert!(told.contains("not trusted"), "{told}");
    free.write("relay.wasm.sig", good.replace("1.0", "1.1"));
    let _told = free.refused(&install, "does not hold");
}

#[test]
fn what_is_to_be_lent_can_be_signed_too() {
    let desk = Desk::strict();
    desk.write("relay.toml", LENT);
    desk.sign("key.pem", "1.0", &["--with-lent"]);
    desk.write("relay.toml", format!("{LENT}files = true\n"));
    let _told = desk.refused(&["install", "relay.wasm", "--lend"], "as it was signed");
    desk.write("relay.toml", LENT);
    let _lent = desk.plugin(&["install", "relay.wasm", "--lend"]).expect(0);
    assert_eq!(desk.read("relay.toml").as_deref(), Some(LENT.as_bytes()));
}

#[test]
fn a_key_that_others_may_read_signs_nothing() {
    let desk = Desk::new();
    let key = desk.write("open.pem", KEY);
    std::fs::set_permissions(key, PermissionsExt::from_mode(0o644)).unwrap();
    let sign = |key| ["sign", "--key", key, "--version", "1", "relay.wasm"];
    let told = desk.refused(&sign("open.pem"), "chmod 600");
    assert!(!told.stderr.contains("AQEB"), "{}", told.stderr);
    desk.secret("none.pem", "-----BEGIN RSA PRIVATE KEY-----\nAQEB\n");
    let told = desk.refused(&sign("none.pem"), "no ed25519 private key");
    assert!(!told.stderr.contains("AQEB"), "{}", told.stderr);
    let bad = ["sign", "--key", "key.pem", "--version", "1 0", "relay.wasm"];
    let _told = desk.plugin(&bad).expect(2);
}
