//! `taskwright policy test`: what policies would say about tasks, without submitting any.
//!
//! The policies are loaded here as a daemon would load them, and asked as it would ask them, so
//! what is told is what would happen. Questions wait for nobody, and nothing is started.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use taskwright_api::TaskDocuments;
use taskwright_control::port::{
    BUILT_IN, PluginInfo, Role, SpecProblem, Stepped, Strategies, StrategyError, StrategyEvent,
    StrategyTask,
};
use taskwright_control::review::Reviewer;
use taskwright_engine::{PluginSource, Runtimes};
use taskwright_model::{RuntimeName, TaskSpec};

use super::tried::{self, Tried};
use crate::builtin;
use crate::cli::ConnectArgs;
use crate::client::Client;
use crate::client::tasks::Selection;
use crate::command::manifest;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder;
use crate::offline::Offline;
use crate::output::style::Colours;
use crate::output::{self, OutputArgs};
use crate::serve::clock::RealClock;

/// Tasks that are tried at most.
const MOST_TASKS: usize = 10_000;
/// Tasks of one page of a daemon's.
const PAGE: usize = 500;

#[derive(Debug, Args)]
pub(crate) struct TrialArgs {
    /// The policies: components and scripts, each with NAME.toml beside it
    #[arg(required = true, value_name = "POLICY")]
    policies: Vec<PathBuf>,
    /// Tasks to ask about, as for `submit`; `-` is standard input
    #[arg(
        short,
        long = "file",
        value_name = "FILE",
        required_unless_present = "history"
    )]
    files: Vec<PathBuf>,
    /// Ask about the tasks that a daemon has on record, as they were submitted
    #[arg(long)]
    history: bool,
    /// Of those, only tasks with these labels
    #[arg(short = 'l', long, value_name = "TERMS", requires = "history")]
    selector: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn carry_out(args: TrialArgs) -> anyhow::Result<Code> {
    let offline = Offline::start().await?;
    let Offline {
        runtimes,
        processes: _processes,
        scratch: _scratch,
    } = offline;
    let runtimes = Arc::new(runtimes);
    load(&runtimes, &args.policies).await?;
    let mut tasks = Vec::new();
    for file in &args.files {
        tasks.extend(manifest::read(file)?);
    }
    if args.history {
        tasks.extend(history(&args.connect.client()?, args.selector.clone()).await?);
    }
    if tasks.len() > MOST_TASKS {
        bail!(
            "there are {} tasks, at most {MOST_TASKS} are tried",
            tasks.len()
        );
    }
    let reviewer = Reviewer::new(
        runtimes.clone(),
        Arc::new(TaskDocuments),
        Arc::new(Here(runtimes.clone())),
        Arc::new(RealClock),
    );
    let here = Here(runtimes);
    let mut tried = Vec::with_capacity(tasks.len());
    for task in &tasks {
        tried.push(Tried::asking(&here, &reviewer, task).await?);
    }
    let told = json!({ "items": tried.iter().map(Tried::to_json).collect::<Vec<_>>() });
    if !output::structured(args.output.format(), &told)? {
        output::print(&tried::describe(&tried, Colours::of_stdout()))?;
    }
    let fine = tried.iter().all(Tried::is_fine);
    Ok(if fine { Code::DONE } else { Code::PROBLEM })
}

/// Loads the policies, and the built-in runtimes that check what becomes of tasks.
async fn load(runtimes: &Runtimes, policies: &[PathBuf]) -> anyhow::Result<()> {
    for plugin in builtin::ALL {
        let source = PluginSource {
            name: plugin.name.to_owned(),
            origin: BUILT_IN.to_owned(),
            component: plugin.component.into(),
            script: None,
            grants: taskwright_capability::Grants::of(plugin.grants),
            limits: None,
            policy: None,
        };
        runtimes
            .load(source)
            .await
            .context("load the built-in plugins")?;
    }
    for path in policies {
        let loading = || format!("load the policy {}", path.display());
        let source = folder::source_at(path).with_context(loading)?;
        let info: PluginInfo = runtimes
            .load(source)
            .await
            .with_context(loading)
            .exit_with(Code::PROBLEM)
            .hint("`taskwright plugin check` says what does not fit")?;
        if !info.roles.contains(&Role::Policy) {
            bail!("{}: it is no policy, but {}", loading(), words(&info.roles));
        }
    }
    Ok(())
}

fn words(roles: &[Role]) -> String {
    let words: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    words.join(", ")
}

/// The tasks of a daemon, as they were submitted.
async fn history(client: &Client, selector: Option<String>) -> anyhow::Result<Vec<Value>> {
    let selection = Selection {
        selector,
        states: Vec::new(),
    };
    let (mut all, mut cursor) = (Vec::new(), None);
    while all.len() <= MOST_TASKS {
        let page = client.list(&selection, PAGE, cursor.as_deref()).await?;
        all.extend(page.tasks.into_iter().map(|mut task| {
            match task.pointer_mut("/review/submitted").map(Value::take) {
                Some(submitted) if submitted.is_object() => submitted,
                _ => task,
            }
        }));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(all)
}

/// The runtimes that are here. One that is not would take its tasks elsewhere, and nothing can be
/// held against them here.
pub(super) struct Here(Arc<Runtimes>);

impl Strategies for Here {
    fn resolve(&self, spec: &TaskSpec) -> Result<RuntimeName, SpecProblem> {
        match (self.0.resolve(spec), &spec.runtime) {
            (Err(_), Some(elsewhere)) => Ok(elsewhere.clone()),
            (resolved, _) => resolved,
        }
    }

    fn validate(
        &self,
        task: StrategyTask,
    ) -> BoxFuture<'_, Result<Vec<SpecProblem>, StrategyError>> {
        match self.0.resolve(&task.task.spec) {
            Ok(_) => self.0.validate(task),
            Err(_) => Box::pin(std::future::ready(Ok(Vec::new()))),
        }
    }

    fn start(&self, task: StrategyTask) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        self.0.start(task)
    }

    fn on_event(
        &self,
        task: StrategyTask,
        state: Arc<[u8]>,
        event: StrategyEvent,
    ) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        self.0.on_event(task, state, event)
    }
}
