//! `taskwright plugin new`: a small project that is a runtime, to be changed into another one.
//!
//! What is written is one of `examples/hello*` under another name, with the contract of this very
//! binary. All of it is embedded: nothing of our sources need be there. So that nothing else is
//! renamed, an example says `hello` only where it means its own name.

mod language;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use clap::Args;
use taskwright_model::RuntimeName;

use self::language::Language;
use crate::builtin;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The runtime's name, and that of the folder that is made here
    #[arg(value_name = "NAME", value_parser = |text: &str| RuntimeName::parse(text))]
    name: RuntimeName,
    /// What it is written in
    #[arg(long, default_value = "rust")]
    lang: Language,
}

/// What the examples are called, in their own files.
const EXAMPLE: &str = "hello";
/// That name where no `-` may stand, as in the name of a crate.
const EXAMPLE_CRATE: &str = "runtime_hello";

pub(super) fn carry_out(args: &NewArgs) -> anyhow::Result<Code> {
    let name = args.name.as_str();
    let making = || format!("make the plugin {name}");
    if builtin::ALL.iter().any(|ours| ours.name == name) {
        return Err(anyhow!("that is the name of a built-in runtime"))
            .exit_with(Code::USAGE)
            .hint("choose another name: it would take the place of the built-in one")
            .with_context(making);
    }
    make(Path::new(name), name, args.lang).with_context(making)?;
    output::print(&next_steps(name, args.lang))?;
    Ok(Code::DONE)
}

/// Writes the project into a folder that is not there yet.
fn make(folder: &Path, name: &str, lang: Language) -> anyhow::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(anyhow!("{} is there already", folder.display()))
                .exit_with(Code::PROBLEM)
                .hint("choose another name, or another folder to be in");
        }
        other => other.with_context(|| format!("make the folder {}", folder.display()))?,
    }
    let written = files(name, lang)
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
fn files(name: &str, lang: Language) -> Vec<(String, String)> {
    let renamed = lang
        .files()
        .iter()
        .map(|(path, text)| (rename(path, name), rename(text, name)));
    let contract = lang.contract_folder().into_iter().flat_map(|folder| {
        language::CONTRACT
            .iter()
            .map(move |(file, text)| (format!("{folder}/{file}"), (*text).to_owned()))
    });
    renamed.chain(contract).collect()
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

fn next_steps(name: &str, lang: Language) -> String {
    let file = lang.runtime_file();
    let steps = [&["cd hello"], lang.steps()].concat();
    let steps: String = steps.iter().map(|step| format!("  {step}\n")).collect();
    let text = format!(
        "hello/ is a runtime that runs a task's command. Next:\n\
         {steps}  \
         taskwright plugin check {file}\n  \
         taskwright plugin test {file}\n\
         Then put {file} and hello.toml into the daemon's plugin folder; README.md in there \
         says more.\n"
    );
    rename(&text, name)
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

    use clap::ValueEnum as _;

    use super::*;

    /// What builds and tests leave in the folder of an example.
    const LEFT: [&str; 6] = [
        "target",
        "node_modules",
        ".venv",
        "bindings",
        "__pycache__",
        "build",
    ];

    fn example(lang: Language) -> &'static str {
        match lang {
            Language::Rust => "hello",
            Language::Python => "hello-python",
            Language::Javascript => "hello-javascript",
            Language::Go => "hello-go",
            Language::C => "hello-c",
            Language::Script => "hello-script",
        }
    }

    /// Every file below a folder that is kept in version control.
    fn kept(folder: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(inner) = folders.pop() {
            for entry in fs::read_dir(inner).unwrap() {
                let path: PathBuf = entry.unwrap().path();
                if path.is_dir() {
                    if !LEFT.iter().any(|left| path.ends_with(left)) {
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
    fn an_example_is_what_is_written_under_its_name() {
        let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
        for lang in Language::value_variants() {
            let folder = here.join("../../examples").join(example(*lang));
            let (example, written) = (kept(&folder), files(EXAMPLE, *lang).into_iter().collect());
            let names =
                |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&example), names(&written), "{lang:?}");
            for (name, text) in &written {
                assert!(
                    example.get(name) == Some(text),
                    "{lang:?}: {name} is not what is written: copy wit/*.wit to its contract"
                );
            }
        }
        let contract = kept(&here.join("../../wit"));
        let wit = contract.keys().filter(|name| name.ends_with(".wit"));
        assert_eq!(
            wit.count(),
            language::CONTRACT.len(),
            "an interface is not embedded"
        );
    }

    #[test]
    fn nothing_of_an_example_is_left_under_another_name() {
        for lang in Language::value_variants() {
            for (path, text) in files("gpu-2", *lang) {
                let whole = format!("{path}\n{text}").to_lowercase();
                assert!(!whole.contains(EXAMPLE), "{lang:?}: {path}: {text}");
            }
            let steps = next_steps("gpu-2", *lang);
            assert!(!steps.contains(EXAMPLE), "{steps}");
            let all: BTreeMap<String, String> = files("say-hello", *lang).into_iter().collect();
            assert!(all.contains_key("say-hello.toml"));
            let check = format!("plugin check say-{}", lang.runtime_file());
            assert!(all["README.md"].contains(&check), "{lang:?}");
        }
        let all: BTreeMap<String, String> =
            files("say-hello", Language::Rust).into_iter().collect();
        assert!(all["README.md"].contains("release/runtime_say_hello.wasm say-hello.wasm"));
        assert!(all["Cargo.toml"].contains("name = \"runtime-say-hello\""));
        assert!(all["Cargo.lock"].contains("name = \"runtime-say-hello\""));
        assert!(all["src/lib.rs"].contains("name: \"say-hello\".to_owned()"));
    }

    #[test]
    fn a_readme_says_what_is_said_to_do_next() {
        for lang in Language::value_variants() {
            let all: BTreeMap<String, String> = files("new", *lang).into_iter().collect();
            let steps = next_steps("new", *lang);
            for step in steps.lines().filter_map(|line| line.strip_prefix("  ")) {
                let told = all["README.md"].contains(&format!("$ {step}\n"));
                assert!(told || step == "cd new", "{lang:?}: {step}");
            }
        }
    }

    #[test]
    fn what_is_lent_in_it_can_be_read() {
        for lang in Language::value_variants() {
            let lent = files("new", *lang);
            let (_, lent) = lent.iter().find(|(path, _)| path == "new.toml").unwrap();
            assert!(crate::folder::lent::parse(lent).is_ok());
            // What is commented out is to work, too.
            assert!(crate::folder::lent::parse(&lent.replace("#: ", "")).is_ok());
        }
    }

    #[test]
    fn a_folder_that_is_there_is_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("new");
        make(&folder, "new", Language::Rust).unwrap();
        let files = files("new", Language::Rust);
        assert_eq!(kept(&folder).len(), files.len());
        fs::write(folder.join("README.md"), "mine").unwrap();
        let refused = format!("{:#}", make(&folder, "other", Language::Rust).unwrap_err());
        assert!(refused.contains("is there already"), "{refused}");
        assert_eq!(kept(&folder)["README.md"], "mine");
        assert!(!folder.join("other.toml").exists());
    }
}
