//! `taskwright plugin check`: a plugin's file, and what is lent to it by the file beside it.

pub(in crate::command::plugin) mod script;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use taskwright_capability::{Capability, Grants};
use taskwright_engine::world::Refusal;

use super::read_component;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder;
use crate::output::{self, OutputArgs};

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The component or the script; NAME.toml beside it says what it is lent
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// What keeps a plugin from being loaded, and the next step where there is one.
type Fault = (String, Option<String>);

pub(super) async fn carry_out(args: CheckArgs) -> anyhow::Result<Code> {
    let file = &args.file;
    if folder::script::is_script(file) {
        return script::carry_out(args).await;
    }
    let checking = || format!("check {}", file.display());
    let name = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .with_context(checking)
        .hint("a plugin's file is called NAME.wasm")?;
    let component = read_component(file).with_context(checking)?;
    let size = component.len();
    let lent = folder::lent_beside(file).with_context(checking)?;
    let grants = lent.unwrap_or_else(Grants::default);
    let found = taskwright_engine::inspect(component.into(), name, &grants)
        .await
        .with_context(checking)
        .exit_with(Code::PROBLEM)
        .hint("a plugin is a WebAssembly component, built for wasm32-wasip2")?;
    let faults = faults(&found.refusals);
    let profile = &found.profile;
    let standing_in: Vec<Capability> = profile
        .may_use
        .iter()
        .copied()
        .filter(|capability| !grants.allows(*capability))
        .collect();
    let told = json!({
        "name": name,
        "source": file.display().to_string(),
        "size": size,
        "digest": found.digest,
        "exports": profile.exports,
        "imports": profile.imports,
        "wants": words(&profile.wants),
        "mayUse": words(&profile.may_use),
        "lent": words(&grants.capabilities.iter().copied().collect::<Vec<_>>()),
        "loads": faults.is_empty(),
        "refusals": faults.iter().map(|(what, _)| what).collect::<Vec<_>>(),
    });
    if !output::structured(args.output.format(), &told)? {
        let lines = [
            (
                "plugin",
                format!("{name}, {size} bytes, sha256 {}", found.digest),
            ),
            ("exports", list(&profile.exports)),
            ("imports", list(&profile.imports)),
            ("wants", list(&words(&profile.wants))),
        ];
        let used = [profile.wants.as_slice(), &profile.may_use].concat();
        let notes = (&*idle(&grants, &used), &*standing_in);
        output::print(&describe(name, &lines, notes, &faults))?;
    }
    Ok(verdict(&faults))
}

fn faults(refusals: &[Refusal]) -> Vec<Fault> {
    let fault = |refusal: &Refusal| (refusal.to_string(), refusal.hint());
    refusals.iter().map(fault).collect()
}

fn verdict(faults: &[Fault]) -> Code {
    if faults.is_empty() {
        Code::DONE
    } else {
        Code::PROBLEM
    }
}

/// What is lent and not used.
fn idle(grants: &Grants, wants: &[Capability]) -> Vec<Capability> {
    let lent = grants.capabilities.iter().copied();
    lent.filter(|lent| is_interface(*lent) && !wants.contains(lent))
        .collect()
}

/// Whether it is an interface by itself, not more of another.
fn is_interface(capability: Capability) -> bool {
    !matches!(
        capability,
        Capability::UserNamespace | Capability::CgroupNamespace
    )
}

/// What it gets instead of something that was not lent.
fn stands_in(capability: Capability) -> &'static str {
    match capability {
        Capability::Random => "its random numbers are the same at each repeat",
        _ => "its clock stands still",
    }
}

fn words(capabilities: &[Capability]) -> Vec<String> {
    capabilities.iter().map(ToString::to_string).collect()
}

fn list(words: &[String]) -> String {
    match words {
        [] => "nothing".to_owned(),
        words => words.join(", "),
    }
}

/// `idle` is lent and not used, `standing_in` not lent and used all the same.
fn describe(
    name: &str,
    lines: &[(&str, String)],
    (idle, standing_in): (&[Capability], &[Capability]),
    faults: &[Fault],
) -> String {
    let mut text = String::new();
    for (what, words) in lines {
        text.push_str(&format!("{what:<9}{words}\n"));
    }
    for lent in idle {
        text.push_str(&format!(
            "note     {lent} is lent in {name}.toml, and it does not use it\n"
        ));
    }
    for capability in standing_in {
        let (what, (line, table)) = (stands_in(*capability), capability.line());
        text.push_str(&format!(
            "note     {what}: add `{line}` under `{table}` in {name}.toml for the real one\n"
        ));
    }
    for (fault, hint) in faults {
        text.push_str(&format!("refused  {fault}\n"));
        if let Some(hint) = hint {
            text.push_str(&format!("  hint:  {hint}\n"));
        }
    }
    if faults.is_empty() {
        text.push_str("It would be loaded.\n");
    }
    let lines: Vec<String> = text.lines().map(output::style::tame).collect();
    lines.join("\n") + "\n"
}
