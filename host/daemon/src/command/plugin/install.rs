//! `taskwright plugin install`: a plugin into a plugin folder, whole or not at all.
//!
//! What it wants to be lent is told, and lent only on request: the grants are the operator's word.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::{Value, json};
use taskwright_capability::Capability;
use taskwright_model::RuntimeName;
use taskwright_package::trust::Verdict;
use taskwright_package::{Digest, Entry, Kind, Lock, lock};

use super::brought::{self, Brought, Checked, RegistryArgs};
use super::locked;
use super::place::{Held, Place, PlaceArgs};
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder::rules::{read_lock, signature_file};
use crate::folder::{self, lent};
use crate::output::{self, Format, OutputArgs};

const EXAMPLES: &str = "\
Examples:
  taskwright plugin install greeter.wasm --plugin-dir /etc/taskwright/plugins
  taskwright plugin install oci://registry.example.org/team/greeter:1.2.0 --lend
  taskwright plugin install oci://registry.example.org/team/greeter@sha256:91bf...
  taskwright plugin install --locked    # exactly what plugins.lock names, nothing else

It wants to be lent something: without --lend the lines for NAME.toml are printed, and
nothing is lent. A NAME.toml that is there is never changed.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InstallArgs {
    /// A component (.wasm) or a script (.rhai); or its place in a registry
    #[arg(
        value_name = "FILE|oci://REGISTRY/REPOSITORY[:TAG|@DIGEST]",
        required_unless_present = "locked"
    )]
    source: Option<String>,
    /// Bring the folder to what its plugins.lock names, from where that says
    #[arg(long, conflicts_with_all = ["source", "name", "lend", "force"])]
    locked: bool,
    /// What it is called here [default: as its file, or as it was published]
    #[arg(long, value_name = "NAME", value_parser = |text: &str| RuntimeName::parse(text))]
    name: Option<RuntimeName>,
    /// Lend it what it asks for: the NAME.toml that comes along, or all that it imports
    #[arg(long)]
    lend: bool,
    /// Replace a plugin of this name, or a built-in one
    #[arg(long)]
    force: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn carry_out(args: InstallArgs) -> anyhow::Result<Code> {
    let place = args.place.settle()?;
    let Some(source) = &args.source else {
        return locked::carry_out(&place, args.registry, args.dry_run, args.output).await;
    };
    let trying = || format!("install {source}");
    let brought = Brought::from(source, args.name.as_ref(), args.registry)
        .await
        .with_context(trying)?;
    let checked = brought.check(&place.rules).await.with_context(trying)?;
    let held = place.hold().await?;
    let install = Install {
        brought: &brought,
        checked: &checked,
        place: &place,
        args: &args,
    };
    let done = install.carry_out(&held).with_context(trying)?;
    drop(held);
    let format = args.output.format();
    if format == Format::Name {
        output::print(&format!("{}\n", brought.name))?;
    } else if !output::structured(format, &install.to_json(&done))? {
        output::print(&install.describe(&done))?;
    }
    Ok(Code::DONE)
}

struct Install<'a> {
    brought: &'a Brought,
    checked: &'a Checked,
    place: &'a Place,
    args: &'a InstallArgs,
}

/// What became of it.
struct Done {
    entry: Entry,
    lending: Lending,
    /// Whether its file lay there already, just so.
    was_there: bool,
}

/// What becomes of `NAME.toml`.
enum Lending {
    /// It wants nothing.
    Nothing,
    /// There is one, which is the operator's. What it wants and is not lent by it.
    Kept(Vec<Capability>),
    /// This is written.
    Written(String),
    /// This would be written with `--lend`; what is no loan of it is written anyway.
    Shown { text: String, kept: Option<String> },
}

impl Install<'_> {
    fn carry_out(&self, held: &Held) -> anyhow::Result<Done> {
        let was_there = self.may_replace()?;
        let (lending, lent) = self.lending()?;
        let entry = self.entry(lent);
        let mut lock = read_lock(&self.place.folder)
            .exit_with(Code::PROBLEM)
            .hint("mend it, or remove it and let `taskwright plugin lock` write it anew")?;
        lock.put(self.brought.name.clone(), entry.clone());
        if !self.args.dry_run {
            self.write(held, &lending, &lock)?;
        }
        Ok(Done {
            entry,
            lending,
            was_there,
        })
    }

    /// Whether it is there already. What another would lose by it has to be asked for.
    fn may_replace(&self) -> anyhow::Result<bool> {
        let (name, force) = (&self.brought.name, self.args.force);
        let force_it = "--force replaces it, --name NAME gives this one another name";
        if self.brought.is_builtin() && !force {
            return Err(anyhow!("{name} is the name of a built-in runtime"))
                .exit_with(Code::PROBLEM)
                .hint(force_it);
        }
        let other = self.path(&self.other_kind().file_of(name));
        if other.symlink_metadata().is_ok() && !force {
            return Err(anyhow!("{} is a plugin of this name", other.display()))
                .exit_with(Code::PROBLEM)
                .hint(force_it);
        }
        let path = self.path(&self.brought.file());
        if path.symlink_metadata().is_err() {
            return Ok(false);
        }
        let most = folder::most_bytes(self.brought.kind == Kind::Script);
        let there = folder::read(&path, most).ok();
        let there = there.map(|bytes| Digest::of(&bytes));
        if there == Some(self.brought.digest()) {
            return Ok(true);
        }
        if force {
            return Ok(false);
        }
        let found = there.map_or("cannot be read".to_owned(), |digest| format!("is {digest}"));
        let lock = read_lock(&self.place.folder).unwrap_or_default();
        let version = lock.get(name).and_then(|entry| entry.version.clone());
        Err(anyhow!(
            "{} is there and {found}{}; this one is {}{}",
            path.display(),
            in_version(version.as_deref()),
            self.brought.digest(),
            in_version(self.brought.version().as_deref())
        ))
        .exit_with(Code::PROBLEM)
        .hint(force_it)
    }

    /// What becomes of `NAME.toml`, and the digest of what lies there in the end.
    fn lending(&self) -> anyhow::Result<(Lending, Option<Digest>)> {
        let path = self.path(&format!("{}.toml", self.brought.name));
        let there = path.symlink_metadata().is_ok();
        let text = if there {
            brought::text_of(&path)?
        } else {
            String::new()
        };
        // What an earlier installation left there without lending anything, it may lend now.
        let ours = self.brought.lent.as_deref().and_then(without_loans);
        let is_ours = self.args.lend && ours.as_deref() == Some(text.as_str());
        if there && !is_ours {
            let digest = Digest::of(text.as_bytes());
            let lent = lent::parse(&text).with_context(|| format!("read {}", path.display()))?;
            let wants = self.checked.wants.iter().copied();
            let lacking = wants.filter(|one| !lent.grants.capabilities.contains(one));
            return Ok((Lending::Kept(lacking.collect()), Some(digest)));
        }
        let text = match &self.brought.lent {
            Some(text) => text.clone(),
            None if self.checked.wants.is_empty() => return Ok((Lending::Nothing, None)),
            None => lines_for(&self.checked.wants),
        };
        let kept = without_loans(&text);
        let digest = |text: &str| Digest::of(text.as_bytes());
        if !self.args.lend && kept.as_deref() != Some(text.as_str()) {
            let lent = kept.as_deref().map(digest);
            return Ok((Lending::Shown { text, kept }, lent));
        }
        let lent = digest(&text);
        Ok((Lending::Written(text), Some(lent)))
    }

    fn entry(&self, lent: Option<Digest>) -> Entry {
        let signer = match (&self.checked.verdict, &self.brought.signature) {
            (Verdict::Trusted { .. }, Some(signature)) => Some(signature.key.to_string()),
            _ => None,
        };
        Entry {
            kind: self.brought.kind,
            digest: self.brought.digest(),
            lent,
            source: self.brought.source.clone(),
            version: self.brought.version(),
            signer,
            installed: now(),
        }
    }

    /// All of it is on the disk before any of it is seen. The plugin comes last: if this ends in
    /// between, the lock file names it already, and `--locked` finishes the work.
    fn write(&self, held: &Held, lending: &Lending, lock: &Lock) -> anyhow::Result<()> {
        let file = self.brought.file();
        let mut staged = vec![held.stage(lock::FILE, lock.to_text().as_bytes())?];
        let other = self.path(&self.other_kind().file_of(&self.brought.name));
        let mut gone = vec![signature_file(&other), other];
        match &self.brought.signature {
            Some(signature) => {
                let name = format!("{file}.sig");
                staged.push(held.stage(&name, signature.to_string().as_bytes())?);
            }
            None => gone.push(signature_file(&self.path(&file))),
        }
        let written = match lending {
            Lending::Written(text) => Some(text),
            Lending::Shown { kept, .. } => kept.as_ref(),
            Lending::Nothing | Lending::Kept(_) => None,
        };
        if let Some(text) = written {
            let name = format!("{}.toml", self.brought.name);
            staged.push(held.stage(&name, text.as_bytes())?);
        }
        staged.push(held.stage(&file, &self.brought.bytes)?);
        held.show(staged, &gone)
    }

    /// What to type once the operator changed what it is lent.
    fn lock_command(&self) -> String {
        let folder = self.place.folder.display();
        format!(
            "taskwright plugin lock {} --plugin-dir {folder}",
            self.brought.name
        )
    }

    fn path(&self, file: &str) -> PathBuf {
        self.place.folder.join(file)
    }

    fn other_kind(&self) -> Kind {
        match self.brought.kind {
            Kind::Component => Kind::Script,
            Kind::Script => Kind::Component,
        }
    }

    fn to_json(&self, done: &Done) -> Value {
        let (text, lends) = match &done.lending {
            Lending::Written(text) => (Some(text), true),
            Lending::Shown { text, .. } => (Some(text), false),
            Lending::Nothing | Lending::Kept(_) => (None, false),
        };
        let lacking: Vec<String> = match &done.lending {
            Lending::Kept(lacking) => lacking.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        json!({
            "name": self.brought.name.as_str(),
            "kind": self.brought.kind.to_string(),
            "version": done.entry.version,
            "digest": done.entry.digest.to_string(),
            "size": self.brought.bytes.len(),
            "source": done.entry.source,
            "signedBy": signed_by(&self.checked.verdict),
            "signer": done.entry.signer,
            "file": self.path(&self.brought.file()).display().to_string(),
            "wants": self.checked.wants.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "lacks": lacking,
            "toLend": text,
            "lent": lends && !self.args.dry_run,
            "wasThere": done.was_there,
            "installed": !self.args.dry_run,
        })
    }

    fn describe(&self, done: &Done) -> String {
        let name = &self.brought.name;
        let what = match (self.args.dry_run, done.was_there) {
            (true, _) => "would be installed",
            (false, true) => "was there already",
            (false, false) => "installed",
        };
        let version = in_version(done.entry.version.as_deref());
        let mut text = format!(
            "plugin   {name}, {} of {} bytes{version}, {}\nfrom     {}\nsigned   {}\nfile     {}\n",
            self.brought.kind,
            self.brought.bytes.len(),
            done.entry.digest,
            done.entry.source,
            signed(&self.checked.verdict),
            self.path(&self.brought.file()).display(),
        );
        let toml = self.path(&format!("{name}.toml"));
        let words = |all: &[Capability]| {
            let words: Vec<String> = all.iter().map(ToString::to_string).collect();
            if words.is_empty() {
                "nothing".to_owned()
            } else {
                words.join(", ")
            }
        };
        text.push_str(&format!(
            "wants    {}\n{what}\n",
            words(&self.checked.wants)
        ));
        match &done.lending {
            Lending::Nothing => {}
            Lending::Kept(lacking) if lacking.is_empty() => {
                text.push_str(&format!("It is lent what {} says.\n", toml.display()));
            }
            Lending::Kept(lacking) => text.push_str(&format!(
                "{} does not lend it all: add {} and then run `{}`\n",
                toml.display(),
                words(lacking),
                self.lock_command()
            )),
            Lending::Written(lines) => {
                text.push_str(&format!("It is lent this, by {}:\n", toml.display()));
                text.push_str(&indented(lines));
            }
            Lending::Shown { text: lines, kept } => {
                if kept.is_some() {
                    let there = toml.display();
                    text.push_str(&format!("What it is told and is no loan is in {there}.\n"));
                }
                text.push_str(&format!(
                    "It is lent nothing, and asks for this. Put it into {}\n\
                     and run `{}`, or install again with --lend:\n",
                    toml.display(),
                    self.lock_command()
                ));
                text.push_str(&indented(lines));
            }
        }
        let lines: Vec<String> = text.lines().map(output::style::tame).collect();
        lines.join("\n") + "\n"
    }
}

/// What is written down as the time of it.
pub(super) fn now() -> String {
    let now = jiff::Timestamp::now();
    let whole = jiff::Timestamp::from_second(now.as_second());
    whole.unwrap_or(now).to_string()
}

/// The lines that lend all of these. Where the operator has to say more than that it is lent, the
/// line is a comment: nobody lends a directory without naming it.
pub(super) fn lines_for(wants: &[Capability]) -> String {
    let mut text = "[grants]\n".to_owned();
    let mut tables = String::new();
    for capability in wants {
        match capability.line() {
            (line, "[grants]") if line.ends_with("= true") => text.push_str(&format!("{line}\n")),
            (line, "[grants]") => text.push_str(&format!("# {line}\n")),
            (line, table) => tables.push_str(&format!("# {table}\n# {line}\n")),
        }
    }
    text + &tables
}

/// What a `NAME.toml` says besides what is lent: how a policy is asked, and its settings. `None`
/// where it says nothing else; the text itself where nothing is lent.
pub(super) fn without_loans(text: &str) -> Option<String> {
    const NO_LOANS: [&str; 2] = ["policy", "settings"];
    let table: toml::Table = text.parse().ok()?;
    if table.keys().all(|key| NO_LOANS.contains(&key.as_str())) {
        return Some(text.to_owned()).filter(|_| !table.is_empty());
    }
    let kept = table
        .into_iter()
        .filter(|(key, _)| NO_LOANS.contains(&key.as_str()));
    let kept: toml::Table = kept.collect();
    toml::to_string(&kept).ok().filter(|text| !text.is_empty())
}

/// Who signed it, if that counts.
pub(super) fn signed_by(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Trusted { by, .. } => Some(by),
        Verdict::Unsigned | Verdict::Unknown { .. } => None,
    }
}

/// The same for people.
pub(super) fn signed(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Trusted { by, .. } => format!("by {by}"),
        Verdict::Unsigned => "by nobody".to_owned(),
        Verdict::Unknown { key } => format!("by {key}, which is not trusted for it"),
    }
}

fn in_version(version: Option<&str>) -> String {
    version.map_or_else(String::new, |version| format!(", version {version}"))
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect()
}
