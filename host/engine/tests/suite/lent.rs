//! What the operator lends by name: directories.

use std::os::unix::fs::symlink;
use std::path::Path;

use taskwright_capability::{Capability, Directory, Grants};
use taskwright_control::port::{Step, Strategies as _};
use taskwright_engine::PluginSource;
use taskwright_model::Outcome;
use taskwright_test_guests::BORROWER;

use crate::support::{Bench, command_for, given, said};

/// The guest that tries what it was lent.
fn borrower(grants: Grants) -> PluginSource {
    PluginSource {
        name: "borrower".to_owned(),
        origin: "borrower.wasm".to_owned(),
        component: BORROWER.into(),
        script: None,
        grants,
        limits: None,
    }
}

/// Everything it can import, with nothing in it.
fn everything() -> Grants {
    Grants::of(&Capability::ALL)
}

/// What the guest was told: whether the host did it, and its words.
async fn tell(bench: &Bench, words: &[&str]) -> (u8, String) {
    let stepped = bench.start(command_for("borrower", words)).await.unwrap();
    match stepped.step {
        Step::Done(Outcome::Exited { code, message }) => (code, message.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

/// Tries `line` and looks for `expected` in what the host said.
async fn check(bench: &Bench, line: &str, code: u8, expected: &str) {
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
    for line in
        ["`directories = { NAME = { path = \"/PATH\" } }` under `[grants]` in borrower.toml"]
    {
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
