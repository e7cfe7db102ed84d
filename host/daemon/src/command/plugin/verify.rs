//! `taskwright plugin verify` and `taskwright plugin lock`: a plugin folder against its lock file,
//! and the lock file made to be what lies there.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::json;
use taskwright_model::RuntimeName;
use taskwright_package::trust::{Distrust, Verdict};
use taskwright_package::{Digest, Entry, Kind, Lock, lock};

use super::brought::{name_of, text_of};
use super::install::{now, signed};
use super::locked::BY_HAND;
use super::place::{Place, PlaceArgs};
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder;
use crate::folder::rules::{kind_of, read_lock, signature_beside};
use crate::output::style::{Colours, Tone};
use crate::output::table::{Cell, Table};
use crate::output::{self, OutputArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskwright plugin verify --plugin-dir /etc/taskwright/plugins
  taskwright plugin verify -o json      # for a program; exit code 1 if anything differs")]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskwright plugin lock                # all of the folder, and what is gone is taken out
  taskwright plugin lock greeter        # after you changed greeter.toml")]
pub(crate) struct LockArgs {
    /// The plugins to write down [default: all that lie there]
    #[arg(value_name = "NAME", value_parser = |text: &str| RuntimeName::parse(text))]
    names: Vec<RuntimeName>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// A plugin as it lies in a folder.
struct Lying {
    kind: Kind,
    digest: Digest,
    lent: Option<Digest>,
    verdict: anyhow::Result<Verdict>,
    /// The key and the version of its signature.
    signed: Option<(String, String)>,
}

/// One line of what is found.
struct Line {
    name: String,
    state: &'static str,
    signed: String,
    version: String,
    why: Option<String>,
}

pub(super) fn verify(args: &VerifyArgs) -> anyhow::Result<Code> {
    let place = args.place.settle()?;
    let lock = read_lock(&place.folder).exit_with(Code::PROBLEM)?;
    let there = folder::plugins_in(&place.folder)?;
    let locked = lock.iter().map(|(name, _)| name.to_string());
    let names: BTreeSet<String> = there.keys().cloned().chain(locked).collect();
    let lines: Vec<Line> = names
        .into_iter()
        .map(|name| compare(&place, &lock, there.get(&name), name))
        .collect();
    let good = lines.iter().all(|line| line.why.is_none());
    let told = lines.iter().map(|line| {
        json!({
            "name": line.name, "state": line.state, "signed": line.signed,
            "version": line.version, "why": line.why,
        })
    });
    let told = json!({ "items": told.collect::<Vec<_>>(), "verified": good });
    if !output::structured(args.output.format(), &told)? {
        let mut table = Table::new(&["NAME", "STATE", "SIGNED", "VERSION"]);
        let mut troubles = String::new();
        for line in &lines {
            let tone = if line.why.is_none() {
                Tone::Good
            } else {
                Tone::Bad
            };
            table.row(vec![
                line.name.as_str().into(),
                Cell::toned(line.state, tone),
                line.signed.as_str().into(),
                line.version.as_str().into(),
            ]);
            if let Some(why) = &line.why {
                let told = format!("{}: {why}", line.name);
                troubles.push_str(&output::style::tame(&told));
                troubles.push('\n');
            }
        }
        output::print(&(table.render(Colours::of_stdout()) + &troubles))?;
    }
    Ok(if good { Code::DONE } else { Code::PROBLEM })
}

fn compare(place: &Place, lock: &Lock, path: Option<&PathBuf>, name: String) -> Line {
    let parsed = RuntimeName::parse(&name).ok();
    let entry = parsed.as_ref().and_then(|name| lock.get(name));
    let version = entry.and_then(|entry| entry.version.clone());
    let mut line = Line {
        state: "as locked",
        signed: String::new(),
        version: version.unwrap_or_default(),
        why: None,
        name,
    };
    let Some(path) = path else {
        line.state = "missing";
        line.why =
            Some("it is gone; `taskwright plugin install --locked` brings it back".to_owned());
        return line;
    };
    let lying = match lying(place, path) {
        Ok(lying) => lying,
        Err(error) => {
            line.state = "unreadable";
            line.why = Some(format!("{error:#}"));
            return line;
        }
    };
    (line.signed, line.why) = match &lying.verdict {
        Ok(verdict) => (signed(verdict), None),
        Err(error) => {
            let how = match error.downcast_ref::<Distrust>() {
                Some(Distrust::Unsigned) => "unsigned",
                Some(Distrust::UnknownKey { .. } | Distrust::NotForThis { .. }) => {
                    "by somebody else"
                }
                // It was changed, or is no signature at all.
                Some(_) | None => "wrongly",
            };
            (how.to_owned(), Some(format!("{error:#}")))
        }
    };
    if line.why.is_some() {
        line.state = "not trusted";
        return line;
    }
    let changed = |what: &str, wanted: &str, found: &str| {
        Some(format!(
            "{what}: {} has {wanted}, it is {found}",
            lock::FILE
        ))
    };
    let none = || "none".to_owned();
    match entry {
        None => {
            line.state = "not locked";
            line.why = Some(format!("it does not stand in {}", lock::FILE));
        }
        Some(entry) if entry.kind != lying.kind || entry.digest != lying.digest => {
            line.state = "changed";
            let (wanted, found) = (entry.digest.to_string(), lying.digest.to_string());
            line.why = changed("changed", &wanted, &found);
        }
        Some(entry) if entry.lent != lying.lent => {
            line.state = "lent otherwise";
            let told = |digest: Option<Digest>| digest.map_or_else(none, |one| one.to_string());
            line.why = changed("what it is lent", &told(entry.lent), &told(lying.lent));
        }
        Some(_) => {}
    }
    line
}

fn lying(place: &Place, path: &std::path::Path) -> anyhow::Result<Lying> {
    let (name, kind) = (name_of(path)?, kind_of(path)?);
    let bytes = folder::read(path, folder::most_bytes(kind == Kind::Script))?;
    let beside = path.with_extension("toml");
    let lent = match beside.symlink_metadata() {
        Ok(_) => Some(Digest::of(text_of(&beside)?.as_bytes())),
        Err(_) => None,
    };
    let signature = signature_beside(path);
    let signed = signature.as_ref().ok().and_then(|signature| {
        let signature = signature.as_ref()?;
        let version = signature.statement.version.clone();
        Some((signature.key.to_string(), version))
    });
    let rules = &place.rules;
    let verdict =
        signature.and_then(|signature| rules.judge(&name, kind, &bytes, signature.as_ref()));
    Ok(Lying {
        kind,
        digest: Digest::of(&bytes),
        lent,
        verdict,
        signed,
    })
}

pub(super) async fn write(args: LockArgs) -> anyhow::Result<Code> {
    let place = args.place.settle()?;
    let held = place.hold().await?;
    let mut lock = read_lock(&place.folder).exit_with(Code::PROBLEM)?;
    let there = folder::plugins_in(&place.folder)?;
    let names = match args.names.as_slice() {
        [] => {
            let locked: Vec<RuntimeName> = lock.iter().map(|(name, _)| name.clone()).collect();
            for gone in locked
                .iter()
                .filter(|name| !there.contains_key(name.as_str()))
            {
                lock.remove(gone);
                output::note(&format!("{gone} is gone, and taken out of {}", lock::FILE));
            }
            there.keys().cloned().collect()
        }
        names => names.iter().map(ToString::to_string).collect::<Vec<_>>(),
    };
    for name in names {
        let trying = || format!("write {name} into {}", lock::FILE);
        let path = there.get(&name);
        let path = path
            .ok_or_else(|| anyhow!("{} holds no plugin of this name", place.folder.display()))
            .with_context(trying)
            .exit_with(Code::PROBLEM)
            .hint("`taskwright plugin verify` tells what lies there")?;
        let lying = lying(&place, path).with_context(trying)?;
        let verdict = lying
            .verdict
            .with_context(trying)
            .exit_with(Code::PROBLEM)?;
        let name = name_of(path)?;
        let entry = match lock.get(&name) {
            // Where it came from is still true.
            Some(entry) if entry.digest == lying.digest && entry.kind == lying.kind => Entry {
                lent: lying.lent,
                ..entry.clone()
            },
            _ => Entry {
                kind: lying.kind,
                digest: lying.digest,
                lent: lying.lent,
                source: BY_HAND.to_owned(),
                version: lying.signed.as_ref().map(|(_, version)| version.clone()),
                signer: lying
                    .signed
                    .filter(|_| matches!(verdict, Verdict::Trusted { .. }))
                    .map(|(key, _)| key),
                installed: now(),
            },
        };
        output::print(&format!("{name} {}\n", entry.digest))?;
        lock.put(name, entry);
    }
    let staged = held.stage(lock::FILE, lock.to_text().as_bytes())?;
    held.show(vec![staged], &[])?;
    Ok(Code::DONE)
}
