//! `taskwright plugin check NAME.rhai`: a script, read by the engine that would run it.
//!
//! What is wrong with a text only its engine knows. So it is loaded as a daemon loads it, with
//! nothing behind it, and asked what it is.

use anyhow::Context as _;
use serde_json::{Value, json};
use taskwright_capability::Capability;
use taskwright_control::port::{PluginInfo, Role};
use taskwright_engine::world::Refusal;
use taskwright_engine::{LoadError, LoadFault, PluginSource};

use super::{CheckArgs, Fault, describe, faults, list, verdict, words};
use crate::command::plugin::trial;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder;
use crate::output;

/// What is found out of a script.
pub(in crate::command::plugin) struct Looked {
    name: String,
    origin: String,
    size: usize,
    digest: String,
    lent: Vec<Capability>,
    imports: Vec<String>,
    wants: Vec<Capability>,
    idle: Vec<Capability>,
    /// Absent when its engine refuses it.
    info: Option<PluginInfo>,
    faults: Vec<Fault>,
}

pub(super) async fn carry_out(args: CheckArgs) -> anyhow::Result<Code> {
    let checking = || format!("check {}", args.file.display());
    let source = folder::source_at(&args.file)
        .with_context(checking)
        .exit_with(Code::PROBLEM)?;
    let looked = look(source).await.with_context(checking)?;
    if !output::structured(args.output.format(), &looked.to_json())? {
        output::print(&looked.describe())?;
    }
    Ok(verdict(&looked.faults))
}

/// Looks at a script.
///
/// # Errors
/// When there is no engine to read it.
pub(in crate::command::plugin) async fn look(mut source: PluginSource) -> anyhow::Result<Looked> {
    let engine = std::sync::Arc::clone(&source.component);
    let found = taskwright_engine::inspect(engine, &source.name, &source.grants).await?;
    let text = source.script.as_ref();
    let mut looked = Looked {
        name: source.name.clone(),
        origin: source.origin.clone(),
        size: text.map_or(0, |script| script.text.len()),
        digest: text.map_or_else(String::new, |script| script.digest(&found.digest)),
        lent: source.grants.capabilities.iter().copied().collect(),
        idle: Vec::new(),
        imports: found.profile.imports,
        wants: Vec::new(),
        info: None,
        faults: Vec::new(),
    };
    let process = Capability::Process;
    let is_lent = source.grants.allows(process);
    let starts = text.is_some_and(|script| script.text.contains("fn start("));
    // What it is not lent is told below, and keeps nobody from reading it.
    source.grants.capabilities.insert(process);
    let is_runtime = match trial::load(source).await {
        Ok(info) => {
            let is_runtime = info.roles.contains(&Role::Runtime);
            looked.info = Some(info);
            is_runtime
        }
        Err(error) => {
            looked.faults.push((why(error)?, None));
            starts
        }
    };
    // Only what starts something needs anything; the rest it is denied by name when it asks.
    if is_runtime {
        looked.wants.push(process);
    }
    match (is_runtime, is_lent) {
        (true, false) => {
            let refusal = Refusal::NotGranted {
                plugin: looked.name.clone(),
                interface: "taskwright:plugin/process".to_owned(),
                capability: process,
            };
            looked.faults.extend(faults(&[refusal]));
        }
        (false, true) => looked.idle.push(process),
        _ => {}
    }
    Ok(looked)
}

/// What its engine says of it. Anything else is no fault of the script.
fn why(error: anyhow::Error) -> anyhow::Result<String> {
    match error.downcast::<LoadError>()?.fault {
        LoadFault::Describe { detail } => Ok(detail),
        other => Err(other.into()),
    }
}

impl Looked {
    /// What it wants to be lent.
    pub(in crate::command::plugin) fn wants(&self) -> &[Capability] {
        &self.wants
    }

    /// The first thing that keeps it from being loaded.
    pub(in crate::command::plugin) fn fault(&self) -> Option<&str> {
        self.faults.first().map(|(what, _)| what.as_str())
    }

    /// What there is to say of it, by key.
    pub(in crate::command::plugin) fn to_json(&self) -> Value {
        let info = self.info.as_ref();
        json!({
            "name": self.name,
            "source": self.origin,
            "size": self.size,
            "digest": self.digest,
            "engine": "built-in",
            "version": info.map(|info| &info.version),
            "kinds": info.map(|info| &info.kinds),
            "imports": self.imports,
            "wants": words(&self.wants),
            "lent": words(&self.lent),
            "loads": self.faults.is_empty(),
            "refusals": self.faults.iter().map(|(what, _)| what).collect::<Vec<_>>(),
        })
    }

    fn describe(&self) -> String {
        let Self {
            name, size, digest, ..
        } = self;
        let mut lines = vec![
            ("script", format!("{name}, {size} bytes, sha256 {digest}")),
            ("engine", "the built-in one, which has read it".to_owned()),
        ];
        if let Some(info) = &self.info {
            let version = match info.version.as_str() {
                "" => "no version".to_owned(),
                version => format!("version {version}"),
            };
            let roles: Vec<&str> = info.roles.iter().map(|role| role.as_str()).collect();
            let what = match info.kinds.as_slice() {
                [] => roles.join(", "),
                kinds => format!("takes {}", kinds.join(", ")),
            };
            lines.push(("says", format!("{version}, {what}")));
        }
        lines.push(("imports", list(&self.imports)));
        lines.push(("wants", list(&words(&self.wants))));
        describe(name, &lines, (&self.idle, &[]), &self.faults)
    }
}
