//! What the operator lends: directories and secrets by name, the time, random numbers.

use std::os::unix::fs::symlink;
use std::path::Path;

use taskwright_capability::{Capability, Directory, Grants, Secret, SecretSource};
use taskwright_control::port::{Step, Strategies as _};
use taskwright_engine::PluginSource;
use taskwright_model::Outcome;
use taskwright_test_guests::BORROWER;

use crate::support::{Bench, command_for, given, said};

/// The guest that tries what it was lent.
pub(crate) fn borrower(grants: Grants) -> PluginSource {
    PluginSource {
        name: "borrower".to_owned(),
        origin: "borrower.wasm".to_owned(),
        component: BORROWER.into(),
        script: None,
        grants,
        limits: None,
        policy: None,
    }
}

/// Everything it can import, with nothing in it.
pub(crate) fn everything() -> Grants {
    Grants::of(&Capability::ALL)
}

/// What the guest was told: whether the host did it, and its words.
pub(crate) async fn tell(bench: &Bench, words: &[&str]) -> (u8, String) {
    let stepped = bench.start(command_for("borrower", words)).await.unwrap();
    match stepped.step {
        Step::Done(Outcome::Exited { code, message }) => (code, message.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

/// Tries `line` and looks for `expected` in what the host said.
pub(crate) async fn check(bench: &Bench, line: &str, code: u8, expected: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let (done, said) = tell(bench, &words).await;
    assert!(
        done == code && said.contains(expected),
        "{line}: {done} {said:?} lacks {expected:?}"
    );
}

fn directory(path: &Path, write: bool) -> Directory {
    Directory {
        path: path.to_owned(),
        write,
    }
}

/// A bench with `data` to read and `out` to write, and something beside them.
async fn with_directories() -> Bench {
    let bench = Bench::new();
    let folder = bench.folder.path();
    for name in ["data/deep", "out"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("secret"), "outside").unwrap();
    std::fs::write(folder.join("data/model"), "weights").unwrap();
    let mut grants = everything();
    grants.directories = [
        ("data".to_owned(), directory(&folder.join("data"), false)),
        ("out".to_owned(), directory(&folder.join("out"), true)),
        ("gone".to_owned(), directory(&folder.join("gone"), true)),
    ]
    .into();
    bench.runtimes.load(borrower(grants)).await.unwrap();
    bench
}

#[tokio::test]
async fn a_directory_that_was_lent_is_read_and_listed() {
    let bench = with_directories().await;
    check(&bench, "all", 0, "data:false gone:true out:true").await;
    check(&bench, "read data model", 0, "weights").await;
    check(&bench, "stat data model", 0, "Kind::File 7").await;
    check(&bench, "stat data ", 0, "Kind::Directory").await;
    check(
        &bench,
        "list data ",
        0,
        "deep:Kind::Directory model:Kind::File",
    )
    .await;
    check(&bench, "list data  deep", 0, "model:Kind::File").await;
    check(&bench, "list data  model", 0, "").await;
    check(&bench, "read data none", 1, "NotFound").await;
    check(&bench, "read gone none", 1, "NotFound").await;
    check(&bench, "read data deep", 1, "BadPath").await;
}

#[tokio::test]
async fn without_a_grant_it_is_not_loaded_and_told_the_line_to_add() {
    let bench = Bench::new();
    let error = bench.runtimes.load(borrower(Grants::default())).await;
    let said = said(&error.unwrap_err());
    for line in [
        "`directories = { NAME = { path = \"/PATH\" } }` under `[grants]` in borrower.toml",
        "`NAME = { file = \"/PATH\" }` under `[secrets]` in borrower.toml",
        "`http = { hosts = [\"HOST\"] }` under `[grants]` in borrower.toml",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[tokio::test]
async fn what_was_not_lent_is_denied_with_the_line_to_add() {
    let bench = with_directories().await;
    let line =
        "add `other = { path = \\\"/PATH\\\" }` to `directories` under `[grants]` in borrower.toml";
    check(&bench, "read other model", 1, line).await;
    let line = "add `write = true` to `data` of `directories` under `[grants]` in borrower.toml";
    check(&bench, "write data model new", 1, line).await;
    check(&bench, "remove data model", 1, "Denied").await;
    let kept = std::fs::read(bench.folder.path().join("data/model")).unwrap();
    assert_eq!(kept, b"weights");
}

#[tokio::test]
async fn what_was_lent_for_writing_is_written_and_removed() {
    let bench = with_directories().await;
    let out = bench.folder.path().join("out");
    check(&bench, "write out a/b one", 0, "done").await;
    check(&bench, "write out a/b two", 0, "done").await;
    assert_eq!(std::fs::read(out.join("a/b")).unwrap(), b"two");
    assert_eq!(std::fs::read_dir(out.join("a")).unwrap().count(), 1);
    check(&bench, "remove out a/b", 0, "done").await;
    check(&bench, "remove out a/b", 0, "done").await;
    check(&bench, "remove out a", 1, "Io").await;
    // 1 MiB at a time, 16 MiB in one call.
    check(&bench, "write-many out 1048577 1", 1, "TooLarge").await;
    check(&bench, "write-many out 1048576 17", 1, "TooLarge").await;
    assert_eq!(std::fs::read_dir(out.join("many")).unwrap().count(), 16);
}

#[tokio::test]
async fn no_path_leads_outside() {
    let bench = with_directories().await;
    let out = bench.folder.path().join("out");
    symlink("../secret", out.join("link")).unwrap();
    symlink("..", out.join("up")).unwrap();
    symlink("/proc/self", out.join("magic")).unwrap();
    for path in [
        "../secret",
        "/etc/passwd",
        "a/../../secret",
        "link",
        "up/secret",
        "magic/environ",
        "magic/root/etc/passwd",
        "a\0b",
        &"x/".repeat(600),
        &"x".repeat(300),
    ] {
        let (code, said) = tell(&bench, &["read", "out", path]).await;
        assert_eq!(code, 1, "{path:?}: {said}");
    }
    for path in ["../secret", "up/secret", "magic/fd/1"] {
        let (code, said) = tell(&bench, &["write", "out", path, "x"]).await;
        assert_eq!(code, 1, "{path:?}: {said}");
        let (code, said) = tell(&bench, &["remove", "out", path]).await;
        assert_eq!(code, 1, "{path:?}: {said}");
    }
    let kept = std::fs::read(bench.folder.path().join("secret")).unwrap();
    assert_eq!(kept, b"outside");
}

#[tokio::test]
async fn nothing_is_changed_before_a_task_is_taken() {
    let bench = Bench::new();
    let mut grants = everything();
    grants.directories = [("out".to_owned(), directory(bench.folder.path(), true))].into();
    for (line, expected) in [
        ("write out new x", "in start and on-event only"),
        ("read out secret", "inside"),
    ] {
        std::fs::write(bench.folder.path().join("secret"), "inside").unwrap();
        let (key, line) = ("validate".to_owned(), line.to_owned());
        grants.settings.insert(key, line);
        let source = borrower(grants.clone());
        bench.runtimes.load(source).await.unwrap();
        let task = given(command_for("borrower", &["all"]));
        let problems = bench.runtimes.validate(task).await.unwrap();
        let problem = problems.first().unwrap();
        assert!(problem.message.contains(expected), "{problem:?}");
    }
    assert!(!bench.folder.path().join("new").exists());
}

#[tokio::test]
async fn a_secret_is_lent_by_name_and_read_at_each_call() {
    let bench = Bench::new();
    let file = bench.folder.path().join("key");
    let secret_file = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).unwrap();
    };
    let mut grants = everything();
    let variable = |value: Option<&str>| SecretSource::Variable {
        name: "KEY".to_owned(),
        value: value.map(|text| Secret::new(text.as_bytes().to_vec())),
    };
    grants.secrets = [
        ("api-key".to_owned(), SecretSource::File(file.clone())),
        ("variable".to_owned(), variable(Some("from-env"))),
    ]
    .into();
    let error = bench.runtimes.load(borrower(grants.clone())).await;
    let told = said(&error.unwrap_err());
    assert!(
        told.contains("secret api-key") && told.contains("No such"),
        "{told}"
    );
    secret_file("first");
    bench.runtimes.load(borrower(grants.clone())).await.unwrap();
    check(&bench, "secret api-key", 0, "first").await;
    check(&bench, "secret variable", 0, "from-env").await;
    secret_file("second");
    check(&bench, "secret api-key", 0, "second").await;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&file, mode).unwrap();
    check(&bench, "secret api-key", 1, "Unavailable").await;
    let line = "add `other = { file = \\\"/PATH\\\" }` under `[secrets]` in borrower.toml";
    check(&bench, "secret other", 1, line).await;
    let shown = format!("{grants:?}");
    assert!(
        shown.contains("api-key") && !shown.contains("from-env"),
        "{shown}"
    );
    grants.secrets = [("variable".to_owned(), variable(None))].into();
    let error = bench.runtimes.load(borrower(grants)).await;
    let told = said(&error.unwrap_err());
    assert!(told.contains("without the variable KEY"), "{told}");
}

#[tokio::test]
async fn without_a_grant_a_repeat_sees_the_same_time_and_numbers() {
    let bench = Bench::new();
    let mut grants = everything();
    grants.capabilities.remove(&Capability::Clock);
    grants.capabilities.remove(&Capability::Random);
    bench.runtimes.load(borrower(grants)).await.unwrap();
    check(&bench, "clock", 0, "946684800 1000").await;
    let task = command_for("borrower", &["random"]);
    let first = bench.start(task.clone()).await.unwrap().step;
    assert_eq!(bench.start(task).await.unwrap().step, first);
    let other = bench.start(command_for("borrower", &["random"])).await;
    assert_ne!(other.unwrap().step, first);
    // A sleep takes its time, and a long one that of the call.
    check(&bench, "sleep 10", 0, "done").await;
    let endless = command_for("borrower", &["sleep", "3600000"]);
    assert!(bench.start(endless).await.unwrap_err().contains("2000 ms"));
    bench.runtimes.load(borrower(everything())).await.unwrap();
    let (_, said) = tell(&bench, &["clock"]).await;
    assert!(!said.starts_with("946684800"), "{said}");
    let task = command_for("borrower", &["random"]);
    let first = bench.start(task.clone()).await.unwrap().step;
    assert_ne!(bench.start(task).await.unwrap().step, first);
}
