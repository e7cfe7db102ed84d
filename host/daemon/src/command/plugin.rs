//! `taskwright plugin`: the plugins of a daemon, what a component file holds, new ones, and their
//! way from whoever makes them into a plugin folder.

mod brought;
mod check;
mod install;
mod locked;
mod new;
mod place;
mod publish;
mod replay;
mod trial;
mod verify;

use std::path::Path;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use taskwright_capability::{Capability, Grants};

use self::check::CheckArgs;
use self::install::InstallArgs;
use self::new::NewArgs;
use self::publish::{PushArgs, SignArgs};
use self::replay::ReplayArgs;
use self::trial::TrialArgs;
use self::verify::{LockArgs, VerifyArgs};
use super::health;
use crate::cli::ConnectArgs;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder;
use crate::output::style::Colours;
use crate::output::table::Table;
use crate::output::{self, Format, OutputArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum PluginVerb {
    /// List the daemon's plugins
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a plugin of the daemon by its name, or a plugin's file without any daemon
    Inspect(InspectArgs),
    /// Say whether a component or a script would be loaded as it lies there, without any daemon
    Check(CheckArgs),
    /// Call a runtime as a daemon would, with nothing behind it, and say what it does wrong
    Test(TrialArgs),
    /// Repeat the calls that a daemon recorded of a plugin, and say where it does otherwise now
    Replay(ReplayArgs),
    /// Make a folder with a small plugin that works, to begin with
    New(NewArgs),
    /// Put a plugin into a plugin folder, from a file or a registry, and write it down there
    Install(InstallArgs),
    /// Compare a plugin folder with its lock file, and look at the signatures
    Verify(VerifyArgs),
    /// Write what lies in a plugin folder into its lock file, as it lies there
    Lock(LockArgs),
    /// Sign a component or a script, for those who trust your key
    Sign(SignArgs),
    /// Publish a component or a script in a registry
    Push(PushArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A plugin's name, or the path of its file (with a slash, or ending in .wasm or .rhai)
    #[arg(value_name = "NAME|FILE")]
    plugin: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// The largest component file that is read.
const MOST_BYTES: u64 = 256 << 20;

pub(crate) async fn carry_out(verb: PluginVerb) -> anyhow::Result<Code> {
    match verb {
        PluginVerb::List(args) => list(args).await,
        PluginVerb::Inspect(args) => inspect(args).await,
        PluginVerb::Check(args) => check::carry_out(args).await,
        PluginVerb::Test(args) => trial::carry_out(args).await,
        PluginVerb::Replay(args) => replay::carry_out(args).await,
        PluginVerb::New(args) => new::carry_out(&args),
        PluginVerb::Install(args) => install::carry_out(args).await,
        PluginVerb::Verify(args) => verify::verify(&args),
        PluginVerb::Lock(args) => verify::write(args).await,
        PluginVerb::Sign(args) => publish::sign(&args),
        PluginVerb::Push(args) => publish::push(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<Code> {
    let answer = args.connect.client()?.plugins().await?;
    let format = args.output.format();
    if output::structured(format, &answer)? {
        return Ok(Code::DONE);
    }
    let listed = answer
        .get("items")
        .or(Some(&answer))
        .and_then(Value::as_array);
    let plugins: Vec<&Value> = listed.into_iter().flatten().collect();
    if format == Format::Name {
        let names: String = plugins
            .iter()
            .flat_map(|plugin| [text(plugin, "name"), "\n".into()])
            .collect();
        output::print(&names)?;
        return Ok(Code::DONE);
    }
    let mut table = Table::new(&[
        "NAME", "VERSION", "KINDS", "SOURCE", "HEALTH", "CALLS", "FAULTS",
    ]);
    let mut troubles = String::new();
    for plugin in plugins {
        troubles.push_str(&health::lines(plugin));
        table.row(vec![
            text(plugin, "name").into(),
            text(plugin, "version").into(),
            kinds(plugin).into(),
            text(plugin, "source").into(),
            health::cell(plugin),
            text(plugin, "calls").into(),
            text(plugin, "faults").into(),
        ]);
    }
    output::print(&(table.render(Colours::of_stdout()) + &troubles))?;
    Ok(Code::DONE)
}

/// The kinds of work that it takes; of what takes none, what it is instead.
fn kinds(plugin: &Value) -> String {
    match text(plugin, "kinds") {
        kinds if kinds.is_empty() => match text(plugin, "roles") {
            roles if roles.is_empty() => roles,
            roles => format!("({roles})"),
        },
        kinds => kinds,
    }
}

async fn inspect(args: InspectArgs) -> anyhow::Result<Code> {
    let path = Path::new(&args.plugin);
    let is_script = folder::script::is_script(path);
    let is_component = path.extension().is_some_and(|end| end == "wasm");
    let found = if is_script {
        inspect_script(path).await?
    } else if args.plugin.contains('/') || is_component {
        inspect_file(path).await?
    } else {
        args.connect.client()?.plugin(&args.plugin).await?
    };
    if !output::structured(args.output.format(), &found)? {
        output::print(&describe(&found))?;
    }
    Ok(Code::DONE)
}

async fn inspect_file(path: &Path) -> anyhow::Result<Value> {
    let bytes =
        read_component(path).with_context(|| format!("read the component {}", path.display()))?;
    let name = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    // What it wants is shown; whether an operator lends it is not the file's business.
    let grants = Grants::of(&Capability::ALL);
    let found = taskwright_engine::inspect(bytes.into(), &name.unwrap_or_default(), &grants)
        .await
        .with_context(|| format!("inspect {}", path.display()))
        .hint("a plugin is a WebAssembly component, built for wasm32-wasip2")?;
    let refusals = found.refusals.iter().map(ToString::to_string);
    let wants = found.profile.wants.iter().map(ToString::to_string);
    Ok(json!({
        "source": path.display().to_string(),
        "digest": found.digest,
        "exports": found.profile.exports,
        "imports": found.profile.imports,
        "wants": wants.collect::<Vec<_>>(),
        "refusals": refusals.collect::<Vec<_>>(),
    }))
}

async fn inspect_script(path: &Path) -> anyhow::Result<Value> {
    let inspecting = || format!("inspect {}", path.display());
    let mut source = folder::source_at(path).with_context(inspecting)?;
    // As with a component: whether an operator lends it is not the file's business.
    source.grants.capabilities.extend(Capability::ALL);
    let looked = check::script::look(source).await.with_context(inspecting)?;
    let mut found = looked.to_json();
    if let Some(fields) = found.as_object_mut() {
        for of_the_folder in ["lent", "loads"] {
            fields.remove(of_the_folder);
        }
    }
    Ok(found)
}

pub(super) fn read_component(path: &Path) -> anyhow::Result<Vec<u8>> {
    let size = std::fs::metadata(path)?.len();
    anyhow::ensure!(
        size <= MOST_BYTES,
        "it has {size} bytes, which is too large"
    );
    Ok(std::fs::read(path)?)
}

/// One line for each field, lists indented below their names.
fn describe(plugin: &Value) -> String {
    let mut text = String::new();
    for (key, value) in plugin.as_object().into_iter().flatten() {
        match value {
            Value::Array(list) if list.is_empty() => text.push_str(&format!("{key}: none\n")),
            Value::Array(list) => {
                text.push_str(&format!("{key}:\n"));
                for element in list {
                    text.push_str(&format!("  {}\n", output::style::tame(&plain(element))));
                }
            }
            other => text.push_str(&format!("{key}: {}\n", output::style::tame(&plain(other)))),
        }
    }
    text
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::Array(list)) => list.iter().map(plain).collect::<Vec<_>>().join(","),
        Some(other) => plain(other),
    }
}
