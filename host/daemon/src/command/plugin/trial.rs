//! `taskwright plugin test`: what a runtime answers, without a daemon and without a process.
//!
//! The component is called as a daemon calls it, lent what the file beside it says. What it asks
//! the host to start is remembered, not started, and ends as each claim wants it. The claims are
//! those of a runtime whose attempt ends as its command does; one that means to do otherwise
//! fails some, and sees here what it does.

mod stage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::{Value, json};
use taskwright_api::TaskDocuments;
use taskwright_capability::SpawnError;
use taskwright_capability::fake::Mood;
use taskwright_control::port::{PluginInfo, Role, Step, StrategyError, StrategyEvent};
use taskwright_engine::PluginSource;
use taskwright_model::{ExitStatus, Outcome, ProcessSpec, TaskName, TaskSpec, Work};

use self::stage::{Run, Stage};
use crate::command::manifest;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder;
use crate::output::style::{self, Colours, Tone};
use crate::output::{self, OutputArgs};

#[derive(Debug, Args)]
pub(crate) struct TrialArgs {
    /// The component or the script; NAME.toml beside it says what it is lent
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the tasks say in `config` that it is tried with
    #[arg(long, value_name = "JSON", default_value = "")]
    config: String,
    /// The task that it is tried with, as for `submit`, for a runtime that looks at arguments
    #[arg(long, value_name = "TASKFILE", conflicts_with = "config")]
    task: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is said of a plugin, and what it did instead.
struct Claim {
    what: String,
    held: Result<(), String>,
}

const GRACE: Duration = Duration::from_millis(1500);
const TERM: i32 = 15;
const KILL: i32 = 9;

pub(super) async fn carry_out(args: TrialArgs) -> anyhow::Result<Code> {
    let trying = || format!("test {}", args.file.display());
    check_config(&args.config)?;
    let source = folder::source_at(&args.file).with_context(trying)?;
    let model = match &args.task {
        Some(file) => Some(model_in(file).with_context(trying)?),
        None => None,
    };
    let mut stage = Stage::new(source, args.config)
        .await
        .with_context(trying)
        .exit_with(Code::PROBLEM)
        .hint("`taskwright plugin check` says what does not fit")?;
    if !stage.info.roles.contains(&Role::Runtime) {
        let file = args.file.display();
        let (what, hint) = if stage.info.roles.contains(&Role::Policy) {
            let hint = format!("`taskwright policy test {file} -f TASKFILE` says what it decides");
            ("a policy", hint)
        } else {
            let hint = "put it into a daemon's plugin folder, and see its log and \
                        `taskwright plugin list`";
            ("an observer", hint.to_owned())
        };
        return Err(anyhow!(
            "it is {what}, and no runtime that tasks could be tried with"
        ))
        .with_context(trying)
        .exit_with(Code::USAGE)
        .hint(hint);
    }
    if let Some((name, spec, command)) = model {
        stage.take_model(name, spec, command);
    }
    let claims = try_all(&mut stage).await;
    let all_held = claims.iter().all(|claim| claim.held.is_ok());
    let told = json!({
        "name": stage.info.name,
        "version": stage.info.version,
        "passed": all_held,
        "claims": claims.iter().map(Claim::to_json).collect::<Vec<_>>(),
    });
    if !output::structured(args.output.format(), &told)? {
        output::print(&describe(&claims, Colours::of_stdout()))?;
    }
    Ok(if all_held { Code::DONE } else { Code::PROBLEM })
}

/// What `--config` says is an object, as a task's `config` is. Else every claim would fail, and the
/// plugin would be to blame.
fn check_config(config: &str) -> anyhow::Result<()> {
    if config.is_empty() {
        return Ok(());
    }
    let read = serde_json::from_str::<serde_json::Map<String, Value>>(config);
    read.map(|_| ())
        .context("read --config as a JSON object")
        .exit_with(Code::USAGE)
        .hint("write it as in a task: --config '{\"level\": 10}'")
}

/// Loads a plugin as a daemon would, with nothing behind it.
///
/// # Errors
/// `LoadError`, and when there is no engine.
pub(super) async fn load(source: PluginSource) -> anyhow::Result<PluginInfo> {
    Ok(Stage::new(source, String::new()).await?.info)
}

/// The one task of a file, which has to be a command.
fn model_in(file: &Path) -> anyhow::Result<(TaskName, TaskSpec, ProcessSpec)> {
    let reading = || format!("read the task in {}", file.display());
    let tasks = manifest::read(file).exit_with(Code::USAGE)?;
    let [task] = tasks.as_slice() else {
        return Err(anyhow!("it holds {} tasks, one is wanted", tasks.len()))
            .with_context(reading)
            .exit_with(Code::USAGE);
    };
    let (name, spec) = TaskDocuments
        .read(task)
        .map_err(|problems| anyhow!(problems.join("; ")))
        .with_context(reading)
        .exit_with(Code::USAGE)?;
    match spec.work.clone() {
        Work::Process(command) => Ok((name, spec, command)),
        Work::Document { kind, .. } => Err(anyhow!("it is work of kind {kind}"))
            .with_context(reading)
            .exit_with(Code::USAGE)
            .hint("only commands can be tried, as nothing is behind it: give it a `process`"),
    }
}

impl Claim {
    fn to_json(&self) -> Value {
        match &self.held {
            Ok(()) => json!({"claim": self.what, "ok": true}),
            Err(why) => json!({"claim": self.what, "ok": false, "why": why}),
        }
    }
}

fn describe(claims: &[Claim], colours: Colours) -> String {
    let lines = claims.iter().map(|claim| {
        let what = style::tame(&claim.what);
        match &claim.held {
            Ok(()) => format!("{}      {what}\n", Tone::Good.paint("ok", colours)),
            Err(why) => format!(
                "{}  {what}: {}\n",
                Tone::Bad.paint("FAILED", colours),
                style::tame(why)
            ),
        }
    });
    let failed = claims.iter().filter(|claim| claim.held.is_err()).count();
    let sum = format!("{} claims, {failed} failed\n", claims.len());
    lines.chain([sum]).collect()
}

async fn try_all(stage: &mut Stage) -> Vec<Claim> {
    let info = &stage.info;
    let (name, version, kinds) = (&info.name, &info.version, info.kinds.join(", "));
    let mut claims = vec![Claim {
        what: format!("describe: {name} {version} takes {kinds}"),
        held: Ok(()),
    }];
    let mut add = |what: &str, held: Result<(), String>| {
        claims.push(Claim {
            what: what.to_owned(),
            held,
        });
    };
    add("probe: it can work here", stage.health().await);
    if !stage.takes_commands() {
        let why = "it takes no commands: what its attempts do is not tried";
        add("start and on-event", Err(why.to_owned()));
        return claims;
    }
    add("validate: a good task is taken", good_task(stage).await);
    add(
        "validate: a task without a program is refused at its field",
        bad_task(stage).await,
    );
    stage.forgive().await;
    add(
        "start: a unit is started",
        Run::start(stage).await.map(drop),
    );
    add(
        "start: once more, as after a crash, starts nothing else",
        start_again(stage).await,
    );
    stage.forgive().await;
    for code in [0, 1, 255] {
        let wanted = Outcome::Exited {
            code,
            message: None,
        };
        let what = format!("exited: exit code {code} is the outcome");
        add(
            &what,
            ends(stage, Some(ExitStatus::Code(code)), wanted).await,
        );
    }
    stage.forgive().await;
    let killed = ExitStatus::Signal(KILL);
    add(
        "exited: a signal is the outcome",
        ends(stage, Some(killed), Outcome::Signaled { signal: KILL }).await,
    );
    add("exited: out of memory is the outcome", starved(stage).await);
    add("exited: an end that nobody saw is lost", lost(stage).await);
    stage.forgive().await;
    add(
        "stop-requested: the unit is stopped with the grace, and its end is waited for",
        stop(stage).await,
    );
    add(
        "recovered: a restart of the daemon changes nothing",
        recovered(stage).await,
    );
    stage.forgive().await;
    add(
        "start: a program that is not there ends the attempt with 127",
        not_found(stage).await,
    );
    add(
        "start: a machine without room is told as the machine's failure",
        no_room(stage).await,
    );
    claims
}

async fn good_task(stage: &Stage) -> Result<(), String> {
    match stage.validate(stage.task()).await?.as_slice() {
        [] => Ok(()),
        problems => Err(problems.join("; ")),
    }
}

async fn bad_task(stage: &Stage) -> Result<(), String> {
    let problems = stage.validate(stage.task_without_program()).await?;
    let at_its_field = |problem: &String| problem.contains("/process");
    if problems.iter().any(at_its_field) {
        return Ok(());
    }
    Err(match problems.as_slice() {
        [] => "it was taken".to_owned(),
        others => format!(
            "no problem below /process was told, but {}",
            others.join("; ")
        ),
    })
}

async fn start_again(stage: &Stage) -> Result<(), String> {
    let run = Run::start(stage).await?;
    let before = run.running().await;
    let run = run.start_again().await?;
    let after = run.running().await;
    if before == after {
        Ok(())
    } else {
        Err(format!("first {before:?} ran, then {after:?}"))
    }
}

async fn ends(stage: &Stage, status: Option<ExitStatus>, wanted: Outcome) -> Result<(), String> {
    let found = Run::start(stage).await?.end(status, false).await?;
    same(&found, found == wanted)
}

async fn starved(stage: &Stage) -> Result<(), String> {
    let status = Some(ExitStatus::Signal(KILL));
    let found = Run::start(stage).await?.end(status, true).await?;
    same(&found, matches!(found, Outcome::OutOfMemory { .. }))
}

async fn lost(stage: &Stage) -> Result<(), String> {
    let found = Run::start(stage).await?.end(None, false).await?;
    same(&found, matches!(found, Outcome::Lost { .. }))
}

fn same(found: &Outcome, is_wanted: bool) -> Result<(), String> {
    if is_wanted {
        Ok(())
    } else {
        Err(format!("the outcome was {found:?}"))
    }
}

async fn stop(stage: &Stage) -> Result<(), String> {
    let mut run = Run::start(stage).await?;
    run.tell(StrategyEvent::StopRequested { grace: GRACE })
        .await?;
    if let Step::Done(outcome) = &run.step {
        return Err(format!("it did not wait for the end, but told {outcome:?}"));
    }
    let stopped = run.stopped();
    for unit in run.running().await {
        match stopped.iter().find(|(name, _)| *name == unit) {
            Some((_, GRACE)) => {}
            Some((_, grace)) => {
                return Err(format!("unit {unit} was given {grace:?} of {GRACE:?}"));
            }
            None => return Err(format!("unit {unit} was not stopped")),
        }
    }
    run.end(Some(ExitStatus::Signal(TERM)), false).await?;
    Ok(())
}

async fn recovered(stage: &Stage) -> Result<(), String> {
    let mut run = Run::start(stage).await?;
    let before = run.running().await;
    run.tell(StrategyEvent::Recovered).await?;
    match &run.step {
        Step::Done(outcome) => Err(format!("it ended the attempt: {outcome:?}")),
        Step::Wait { .. } if run.running().await != before => {
            Err(format!("now {:?} run", run.running().await))
        }
        Step::Wait { .. } => Ok(()),
    }
}

async fn not_found(stage: &Stage) -> Result<(), String> {
    let error = SpawnError::NotFound {
        program: stage.program.clone(),
        detail: "it is not in PATH".to_owned(),
    };
    match stage.start_in(Mood::SpawnFails(error)).await {
        Ok(Step::Done(Outcome::Exited { code: 127, .. })) => Ok(()),
        Ok(step) => Err(format!("it answered {step:?}")),
        Err(error) => Err(error.to_string()),
    }
}

async fn no_room(stage: &Stage) -> Result<(), String> {
    let error = SpawnError::NoRoom {
        detail: "too many processes".to_owned(),
    };
    match stage.start_in(Mood::SpawnFails(error)).await {
        Err(StrategyError::Host { .. }) => Ok(()),
        // It may wait and try again.
        Ok(Step::Wait {
            wake_after: Some(_),
            ..
        }) => Ok(()),
        Ok(step) => Err(format!("it answered {step:?}")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_that_is_none_is_the_callers_mistake() {
        for (config, is_one) in [("", true), ("{}", true), ("{\"a\": 1}", true)]
            .into_iter()
            .chain([("{", false), ("7", false), ("[]", false)])
        {
            assert_eq!(check_config(config).is_ok(), is_one, "{config}");
        }
    }
}
