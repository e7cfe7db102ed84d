//! `taskwright plugin install --locked`: the folder as its lock file has it.

use anyhow::{Context as _, anyhow, bail};
use serde_json::json;
use taskwright_model::RuntimeName;
use taskwright_package::{Digest, Entry, Kind, lock, reference};

use super::brought::{Brought, FILE_SCHEME, RegistryArgs, text_of};
use super::install::{lines_for, without_loans};
use super::place::{Held, Place};
use crate::exit::Code;
use crate::folder;
use crate::folder::rules::{read_lock, signature_file};
use crate::output::style::{Colours, Tone};
use crate::output::table::{Cell, Table};
use crate::output::{self, OutputArgs};

/// The source of what somebody put there by hand.
pub(super) const BY_HAND: &str = "by-hand";

/// What became of one plugin.
enum Became {
    /// It lay there just so.
    AsItWas,
    /// It was brought.
    Brought,
}

pub(super) async fn carry_out(
    place: &Place,
    registry: RegistryArgs,
    dry_run: bool,
    output: OutputArgs,
) -> anyhow::Result<Code> {
    let held = place.hold().await?;
    let lock = read_lock(&place.folder)?;
    if lock.iter().next().is_none() {
        let file = place.folder.join(lock::FILE);
        bail!("restore what {} names: it names nothing", file.display());
    }
    let mut results = Vec::new();
    for (name, entry) in lock.iter() {
        let became = restore(place, &held, name, entry, registry, dry_run).await;
        results.push((name, became.with_context(|| format!("restore {name}"))));
    }
    drop(held);
    let failed = results.iter().any(|(_, became)| became.is_err());
    let word = |became: &anyhow::Result<Became>| match (became, dry_run) {
        (Ok(Became::AsItWas), _) => "as locked",
        (Ok(Became::Brought), true) => "would be brought",
        (Ok(Became::Brought), false) => "brought",
        (Err(_), _) => "failed",
    };
    let why = |became: &anyhow::Result<Became>| became.as_ref().err().map(|why| format!("{why:#}"));
    let told = results.iter().map(|(name, became)| {
        json!({ "name": name.as_str(), "result": word(became), "why": why(became) })
    });
    if !output::structured(
        output.format(),
        &json!({ "items": told.collect::<Vec<_>>() }),
    )? {
        let mut table = Table::new(&["NAME", "RESULT"]);
        let mut troubles = String::new();
        for (name, became) in &results {
            let tone = if became.is_ok() {
                Tone::Good
            } else {
                Tone::Bad
            };
            table.row(vec![name.as_str().into(), Cell::toned(word(became), tone)]);
            if let Some(why) = why(became) {
                troubles.push_str(&output::style::tame(&why));
                troubles.push('\n');
            }
        }
        output::print(&(table.render(Colours::of_stdout()) + &troubles))?;
    }
    Ok(if failed { Code::PROBLEM } else { Code::DONE })
}

async fn restore(
    place: &Place,
    held: &Held,
    name: &RuntimeName,
    entry: &Entry,
    registry: RegistryArgs,
    dry_run: bool,
) -> anyhow::Result<Became> {
    let file = entry.kind.file_of(name);
    let path = place.folder.join(&file);
    let most = folder::most_bytes(entry.kind == Kind::Script);
    let there = folder::read(&path, most).ok();
    let is_there = there.is_some_and(|bytes| Digest::of(&bytes) == entry.digest);
    let toml = format!("{name}.toml");
    let lent_path = place.folder.join(&toml);
    let lent = match lent_path.symlink_metadata() {
        Ok(_) => Some(Digest::of(text_of(&lent_path)?.as_bytes())),
        Err(_) => None,
    };
    if is_there && lent == entry.lent {
        return Ok(Became::AsItWas);
    }
    if entry.source == BY_HAND {
        bail!("it was put there by hand: nobody knows where to get it");
    }
    let is_place = [reference::SCHEME, FILE_SCHEME]
        .iter()
        .any(|scheme| entry.source.starts_with(scheme));
    if !is_place {
        bail!(
            "{} has the source {:?}, which is no place to get anything from",
            lock::FILE,
            entry.source
        );
    }
    let brought = Brought::from(&entry.source, Some(name), registry).await?;
    if brought.kind != entry.kind || brought.digest() != entry.digest {
        return Err(anyhow!(
            "{} has {}, and {} is {}: it is not taken",
            lock::FILE,
            entry.digest,
            entry.source,
            brought.digest()
        ));
    }
    let checked = brought.check(&place.rules).await?;
    let mut staged = Vec::new();
    if let Some(wanted) = entry.lent.filter(|_| lent != entry.lent) {
        let suggested = brought.lent.clone().into_iter();
        let kept = suggested.clone().filter_map(|text| without_loans(&text));
        let mut texts = suggested.chain(kept).chain([lines_for(&checked.wants)]);
        let text = texts.find(|text| Digest::of(text.as_bytes()) == wanted);
        let text = text.with_context(|| {
            format!("{toml} is not {wanted}, and nobody but you can have that: put it back, or run `taskwright plugin lock {name}`")
        })?;
        staged.push(held.stage(&toml, text.as_bytes())?);
    } else if lent != entry.lent {
        bail!(
            "{} lends it something, and {} says nothing of that: remove it, or run `taskwright plugin lock {name}`",
            lent_path.display(),
            lock::FILE
        );
    }
    if dry_run {
        return Ok(Became::Brought);
    }
    let mut gone = Vec::new();
    match &brought.signature {
        Some(signature) => {
            let name = format!("{file}.sig");
            staged.push(held.stage(&name, signature.to_string().as_bytes())?);
        }
        None => gone.push(signature_file(&path)),
    }
    staged.push(held.stage(&file, &brought.bytes)?);
    held.show(staged, &gone)?;
    Ok(Became::Brought)
}
