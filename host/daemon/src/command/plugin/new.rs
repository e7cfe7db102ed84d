//! `taskwright plugin new`: a small project that is a runtime, to be changed into another one.
//!
//! What is written is `examples/hello` under another name, with the contract of this very
//! binary. All of it is embedded: nothing of our sources need be there. So that nothing else is
//! renamed, the example says `hello` only where it means its own name.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use taskwright_model::RuntimeName;

use crate::builtin;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The runtime's name, and that of the folder that is made here
    #[arg(value_name = "NAME", value_parser = |text: &str| RuntimeName::parse(text))]
    name: RuntimeName,
    /// The language that it is written in
    #[arg(long, default_value = "rust")]
    lang: Language,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Language {
    Rust,
}

/// What the example is called, in its own files.
const EXAMPLE: &str = "hello";
/// Its component's file without the ending: the name of a crate holds no `-`.
const EXAMPLE_CRATE: &str = "runtime_hello";

/// A file of the project, and what is in it.
type File = (&'static str, &'static str);

const RUST: [File; 7] = [
    (
        ".gitignore",
        include_str!("../../../../../examples/hello/.gitignore"),
    ),
    (
        "Cargo.lock",
        include_str!("../../../../../examples/hello/Cargo.lock"),
    ),
    (
        "Cargo.toml",
        include_str!("../../../../../examples/hello/Cargo.toml"),
    ),
    (
        "README.md",
        include_str!("../../../../../examples/hello/README.md"),
    ),
    (
        "hello.toml",
        include_str!("../../../../../examples/hello/hello.toml"),
    ),
    (
        "src/decide.rs",
        include_str!("../../../../../examples/hello/src/decide.rs"),
    ),
    (
        "src/lib.rs",
        include_str!("../../../../../examples/hello/src/lib.rs"),
    ),
];

/// The contract, as it is served by this binary.
const WIT: [File; 13] = [
    (
        "wit/container.wit",
        include_str!("../../../../../wit/container.wit"),
    ),
    (
        "wit/directories.wit",
        include_str!("../../../../../wit/directories.wit"),
    ),
    (
        "wit/files.wit",
        include_str!("../../../../../wit/files.wit"),
    ),
    ("wit/log.wit", include_str!("../../../../../wit/log.wit")),
    (
        "wit/namespace.wit",
        include_str!("../../../../../wit/namespace.wit"),
    ),
    (
        "wit/process.wit",
        include_str!("../../../../../wit/process.wit"),
    ),
    (
        "wit/runtime.wit",
        include_str!("../../../../../wit/runtime.wit"),
    ),
    (
        "wit/secrets.wit",
        include_str!("../../../../../wit/secrets.wit"),
    ),
    (
        "wit/settings.wit",
        include_str!("../../../../../wit/settings.wit"),
    ),
    (
        "wit/status.wit",
        include_str!("../../../../../wit/status.wit"),
    ),
    (
        "wit/types.wit",
        include_str!("../../../../../wit/types.wit"),
    ),
    (
        "wit/units.wit",
        include_str!("../../../../../wit/units.wit"),
    ),
    (
        "wit/world.wit",
        include_str!("../../../../../wit/world.wit"),
    ),
];

pub(super) fn carry_out(args: &NewArgs) -> anyhow::Result<Code> {
    let name = args.name.as_str();
    let making = || format!("make the plugin {name}");
    if builtin::ALL.iter().any(|ours| ours.name == name) {
        return Err(anyhow!("that is the name of a built-in runtime"))
            .exit_with(Code::USAGE)
            .hint("choose another name: it would take the place of the built-in one")
            .with_context(making);
    }
    let Language::Rust = args.lang;
    make(Path::new(name), name).with_context(making)?;
    output::print(&next_steps(name))?;
    Ok(Code::DONE)
}

/// Writes the project into a folder that is not there yet.
fn make(folder: &Path, name: &str) -> anyhow::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(anyhow!("{} is there already", folder.display()))
                .exit_with(Code::PROBLEM)
                .hint("choose another name, or another folder to be in");
        }
        other => other.with_context(|| format!("make the folder {}", folder.display()))?,
    }
    let written = files(name)
        .iter()
        .try_for_each(|(path, text)| write(&folder.join(path), text));
    if written.is_err() {
        // Nobody had anything in there before. The failure itself is what is told.
        let _left = fs::remove_dir_all(folder);
    }
    written
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, text));
    written.with_context(|| format!("write {}", path.display()))
}

/// Every file of the project of that name.
fn files(name: &str) -> Vec<(String, String)> {
    let renamed = RUST
        .iter()
        .map(|(path, text)| (rename(path, name), rename(text, name)));
    let as_it_is = WIT
        .iter()
        .map(|&(path, text)| (path.to_owned(), text.to_owned()));
    renamed.chain(as_it_is).collect()
}

/// The example's text under another name, which may hold that of the example.
fn rename(text: &str, name: &str) -> String {
    let parts: Vec<String> = text
        .split(EXAMPLE_CRATE)
        .map(|part| part.replace(EXAMPLE, name))
        .collect();
    parts.join(&crate_name(name))
}

fn crate_name(name: &str) -> String {
    format!("runtime_{}", name.replace('-', "_"))
}

fn next_steps(name: &str) -> String {
    format!(
        "{name}/ is a runtime that runs a task's command. Next:\n  \
         cd {name}\n  \
         rustup target add wasm32-wasip2\n  \
         cargo test\n  \
         cargo build --release --target wasm32-wasip2\n  \
         cp target/wasm32-wasip2/release/{}.wasm {name}.wasm\n  \
         taskwright plugin check {name}.wasm\n  \
         taskwright plugin test {name}.wasm\n\
         Then put {name}.wasm and {name}.toml into the daemon's plugin folder; README.md in there \
         says more.\n",
        crate_name(name)
    )
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that cannot go on has failed"
    )]

    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    /// Every file below a folder that is kept in version control.
    fn kept(folder: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(inner) = folders.pop() {
            for entry in fs::read_dir(inner).unwrap() {
                let path: PathBuf = entry.unwrap().path();
                if path.is_dir() {
                    if !path.ends_with("target") {
                        folders.push(path);
                    }
                } else if path.extension().is_none_or(|end| end != "wasm") {
                    let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
                    let text = fs::read_to_string(&path).unwrap();
                    found.insert(name.to_owned(), text);
                }
            }
        }
        found
    }

    #[test]
    fn the_example_is_what_is_written_under_its_name() {
        let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
        let example = kept(&here.join("../../examples").join(EXAMPLE));
        let written: BTreeMap<String, String> = files(EXAMPLE).into_iter().collect();
        let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&example), names(&written));
        for (name, text) in &written {
            assert!(
                example.get(name) == Some(text),
                "examples/hello/{name} is not what is written: copy wit/*.wit to examples/hello/wit"
            );
        }
        let contract = kept(&here.join("../../wit"));
        let wit = contract.keys().filter(|name| name.ends_with(".wit"));
        assert_eq!(wit.count(), WIT.len(), "an interface is not embedded");
    }

    #[test]
    fn nothing_of_the_example_is_left_under_another_name() {
        for (path, text) in files("gpu-2") {
            let whole = format!("{path}\n{text}").to_lowercase();
            assert!(!whole.contains(EXAMPLE), "{path}: {text}");
        }
        let all: BTreeMap<String, String> = files("say-hello").into_iter().collect();
        assert!(all["README.md"].contains("release/runtime_say_hello.wasm say-hello.wasm"));
        assert!(all["Cargo.toml"].contains("name = \"runtime-say-hello\""));
        assert!(all["Cargo.lock"].contains("name = \"runtime-say-hello\""));
        assert!(all["src/lib.rs"].contains("name: \"say-hello\".to_owned()"));
        assert!(all.contains_key("say-hello.toml"));
    }

    #[test]
    fn what_is_lent_in_it_can_be_read() {
        let lent = files("new");
        let (_, lent) = lent.iter().find(|(path, _)| path == "new.toml").unwrap();
        assert!(crate::folder::lent::parse(lent).is_ok());
        // What is commented out is to work, too.
        assert!(crate::folder::lent::parse(&lent.replace("#: ", "")).is_ok());
    }

    #[test]
    fn a_folder_that_is_there_is_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("new");
        make(&folder, "new").unwrap();
        assert_eq!(kept(&folder).len(), RUST.len() + WIT.len());
        fs::write(folder.join("README.md"), "mine").unwrap();
        let refused = format!("{:#}", make(&folder, "other").unwrap_err());
        assert!(refused.contains("is there already"), "{refused}");
        assert_eq!(kept(&folder)["README.md"], "mine");
        assert!(!folder.join("other.toml").exists());
    }
}
