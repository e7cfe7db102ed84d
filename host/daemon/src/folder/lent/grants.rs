//! The table `[grants]` of `NAME.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail, ensure};
use serde::Deserialize;
use taskwright_capability::{Capability, Directory, Grants};

const MOST_PROGRAMS: usize = 256;
const MOST_DIRECTORIES: usize = 64;
/// Bytes of a word that a plugin has for something it was lent.
const MOST_WORD_BYTES: usize = 63;

/// Reads it.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub(super) fn read(table: &toml::Table) -> anyhow::Result<Grants> {
    let mut grants = Grants::default();
    for (word, value) in table {
        let capability = Capability::ALL
            .into_iter()
            .find(|capability| capability.as_str() == word);
        let Some(capability) = capability else {
            let all = Capability::ALL.map(Capability::as_str).join(", ");
            bail!("grants.{word}: there is no such grant; there are {all}");
        };
        let lent = grant(&mut grants, capability, value).with_context(|| format!("grants.{word}"));
        if lent? {
            grants.capabilities.insert(capability);
        }
    }
    Ok(grants)
}

/// Whether a capability is lent.
fn grant(grants: &mut Grants, capability: Capability, value: &toml::Value) -> anyhow::Result<bool> {
    match (capability, value) {
        (_, toml::Value::Boolean(false)) => return Ok(false),
        (Capability::Process, toml::Value::Boolean(true)) => {}
        (Capability::Process, toml::Value::Table(_)) => {
            let process: Process = value.clone().try_into()?;
            grants.programs = process.programs.map(programs).transpose()?;
        }
        (Capability::Process, _) => bail!("true, false or {{ programs = [\"/PATH\"] }}"),
        (Capability::Directories, toml::Value::Table(table)) => {
            grants.directories = directories(table)?;
        }
        (Capability::Directories, _) => {
            bail!("{{ NAME = {{ path = \"/PATH\", write = false }} }} or false")
        }
        (_, toml::Value::Boolean(true)) => {}
        _ => bail!("true or false"),
    }
    Ok(true)
}

/// `process = { .. }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    programs: Option<Vec<String>>,
}

fn programs(list: Vec<String>) -> anyhow::Result<BTreeSet<String>> {
    ensure!(
        list.len() <= MOST_PROGRAMS,
        "programs: at most {MOST_PROGRAMS}"
    );
    let relative = list.iter().find(|path| !path.starts_with('/'));
    if let Some(path) = relative {
        bail!("programs: {path:?} is no absolute path");
    }
    Ok(list.into_iter().collect())
}

/// One of `directories = { .. }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneDirectory {
    path: PathBuf,
    #[serde(default)]
    write: bool,
}

fn directories(table: &toml::Table) -> anyhow::Result<BTreeMap<String, Directory>> {
    ensure!(
        table.len() <= MOST_DIRECTORIES,
        "at most {MOST_DIRECTORIES}"
    );
    let read = |(name, value): (&String, &toml::Value)| {
        check_word(name)?;
        let one: OneDirectory = value.clone().try_into().with_context(|| name.clone())?;
        ensure!(
            one.path.is_absolute(),
            "{name}.path: {:?} is no absolute path",
            one.path
        );
        let directory = Directory {
            path: one.path,
            write: one.write,
        };
        Ok((name.clone(), directory))
    };
    table.iter().map(read).collect()
}

/// A word that stands in messages and in a plugin's code.
fn check_word(word: &str) -> anyhow::Result<()> {
    let fits = (1..=MOST_WORD_BYTES).contains(&word.len())
        && word.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
        });
    if fits {
        return Ok(());
    }
    Err(anyhow!(
        "{word:?} is no name: 1 to {MOST_WORD_BYTES} of a-z, 0-9, -, _ and . are wanted"
    ))
}

#[cfg(test)]
mod tests {
    //! What an operator may write, and what is said of a slip of the pen.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn parse(line: &str) -> anyhow::Result<Grants> {
        read(&toml::from_str(line).unwrap())
    }

    #[track_caller]
    fn refused(line: &str, place: &str) {
        let error = format!("{:#}", parse(line).unwrap_err());
        assert!(error.contains(place), "{line}: {error}");
    }

    #[test]
    fn directories_are_lent_by_name_and_for_reading_unless_it_says_otherwise() {
        let grants = parse(
            r#"directories = { models = { path = "/srv/models" }, out = { path = "/o", write = true } }"#,
        )
        .unwrap();
        assert!(grants.allows(Capability::Directories));
        let lent: Vec<_> = grants
            .directories
            .iter()
            .map(|(name, one)| (name.as_str(), one.path.to_str().unwrap(), one.write))
            .collect();
        assert_eq!(
            lent,
            [("models", "/srv/models", false), ("out", "/o", true)]
        );
        refused("directories = true", "grants.directories: { NAME =");
        refused("directories = { a = \"/x\" }", "grants.directories: a");
        refused("directories = { a = { path = \"x\" } }", "a.path: \"x\"");
        refused("directories = { a = { path = \"/x\", mode = 1 } }", "mode");
        refused("directories = { A = { path = \"/x\" } }", "no name");
    }

    #[test]
    fn programs_are_absolute() {
        let grants = parse("process = { programs = [\"/bin/sh\"] }").unwrap();
        assert!(grants.allows_program("/bin/sh") && !grants.allows_program("/bin/ls"));
        assert!(parse("process = { }").unwrap().allows_program("/bin/ls"));
        refused("process = { programs = [\"sh\"] }", "absolute");
        refused("process = { users = [] }", "grants.process: unknown field");
        refused("proces = true", "grants.proces: there is no such grant");
    }
}
