//! What `NAME.toml` lends a plugin beside processes, through a plugin folder.

use serde_json::{Value, json};
use taskwright_test_guests::BORROWER;
use taskwright_tests::Home;
use taskwright_tests::task::{exit_code, flat};

use crate::plugins::Folder;

/// Everything that the guest imports, with nothing in it.
const NOTHING: &str = "[grants]\ndirectories = { }\n";

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
        "[grants]\ndirectories.models = {{ path = {data:?} }}\n\
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
    assert_eq!(plugin["grants"], json!(["directories"]));
}

#[test]
fn what_was_not_lent_is_named_with_the_line_to_add() {
    let folder = Folder::holding(&[("borrower.wasm", BORROWER)]);
    let plugin = folder.until("borrower", |plugin| plugin.get("refused").is_some());
    let why = plugin["refused"].as_str().unwrap().to_owned();
    let file = folder.path.join("borrower.wasm");
    let words = ["plugin", "check", file.to_str().unwrap()];
    let checked = folder.daemon.taskwright(&words).expect(1).stdout;
    for line in
        ["add `directories = { NAME = { path = \"/PATH\" } }` under `[grants]` in borrower.toml"]
    {
        assert!(why.contains(line), "{why}");
        assert!(checked.contains(line), "{checked}");
    }
    folder.put("borrower.toml", NOTHING);
    folder.until_serving("borrower", "1");
    folder.daemon.taskwright(&words).expect(0);
}
