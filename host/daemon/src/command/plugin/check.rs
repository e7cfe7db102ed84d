//! `taskwright plugin check`: a component file, and what is lent to it by the file beside it.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use taskwright_capability::{Capability, Grants};
use taskwright_engine::Inspection;

use super::read_component;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder;
use crate::output::{self, OutputArgs};

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The component; NAME.toml beside NAME.wasm says what it is lent
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn carry_out(args: CheckArgs) -> anyhow::Result<Code> {
    let file = &args.file;
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
    let fits = found.refusals.is_empty();
    let idle: Vec<Capability> = grants
        .capabilities
        .iter()
        .copied()
        .filter(|lent| is_interface(*lent) && !found.profile.wants.contains(lent))
        .filter(|lent| !found.profile.may_use.contains(lent))
        .collect();
    let standing_in: Vec<Capability> = found
        .profile
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
        "exports": found.profile.exports,
        "imports": found.profile.imports,
        "wants": words(&found.profile.wants),
        "mayUse": words(&found.profile.may_use),
        "lent": words(&grants.capabilities.iter().copied().collect::<Vec<_>>()),
        "loads": fits,
        "refusals": found.refusals.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    if !output::structured(args.output.format(), &told)? {
        output::print(&describe(name, size, &found, &idle, &standing_in))?;
    }
    Ok(if fits { Code::DONE } else { Code::PROBLEM })
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

fn describe(
    name: &str,
    size: usize,
    found: &Inspection,
    idle: &[Capability],
    standing_in: &[Capability],
) -> String {
    let list = |words: &[String]| match words {
        [] => "nothing".to_owned(),
        words => words.join(", "),
    };
    let mut text = format!(
        "plugin   {name}, {size} bytes, sha256 {}\nexports  {}\nimports  {}\nwants    {}\n",
        found.digest,
        list(&found.profile.exports),
        list(&found.profile.imports),
        list(&words(&found.profile.wants)),
    );
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
    for refusal in &found.refusals {
        text.push_str(&format!("refused  {refusal}\n"));
        if let Some(hint) = refusal.hint() {
            text.push_str(&format!("  hint:  {hint}\n"));
        }
    }
    if found.refusals.is_empty() {
        text.push_str("It would be loaded.\n");
    }
    let lines: Vec<String> = text.lines().map(output::style::tame).collect();
    lines.join("\n") + "\n"
}
