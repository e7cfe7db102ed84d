//! The verbs, one file each. Each returns the code that the program ends with.

pub(crate) mod answer;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod delete;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod follow;
pub(crate) mod get;
mod health;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod manifest;
pub(crate) mod plugin;
pub(crate) mod policy;
pub(crate) mod progress;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod set;
pub(crate) mod spec;
pub(crate) mod stop;
pub(crate) mod submit;
pub(crate) mod version;
pub(crate) mod wait;
pub(crate) mod worker;

use anyhow::Context as _;

use crate::cli::Verb;
use crate::exit::Code;
use crate::failure;

/// Carries out `verb`.
///
/// # Errors
/// What went wrong, for [`crate::failure::report`].
pub(crate) fn carry_out(verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Serve(args) => serve::carry_out(&args),
        Verb::Worker(args) => worker::carry_out(&args),
        Verb::Run(args) => run::carry_out(args),
        Verb::Submit(args) => asking(submit::carry_out(args)),
        Verb::List(args) => asking(list::carry_out(args)),
        Verb::Get(args) => asking(get::carry_out(args)),
        Verb::Logs(args) => asking(logs::carry_out(args)),
        Verb::Exec(args) => asking(exec::carry_out(args)),
        Verb::Wait(args) => asking(wait::carry_out(args)),
        Verb::Stop(args) => asking(stop::carry_out(args)),
        Verb::Delete(args) => asking(delete::carry_out(args)),
        Verb::Approve(args) => asking(answer::carry_out(args, "approve")),
        Verb::Deny(args) => asking(answer::carry_out(args, "deny")),
        Verb::Explain(args) => asking(explain::carry_out(args)),
        Verb::Export(args) => asking(export::carry_out(args)),
        Verb::Set(args) => asking(set::carry_out(args)),
        Verb::Plugin(verb) => asking(plugin::carry_out(verb)),
        Verb::Policy(verb) => asking(policy::carry_out(verb)),
        Verb::Config(verb) => config::carry_out(verb),
        Verb::Doctor(args) => asking(doctor::carry_out(args)),
        Verb::Completion(args) => completion::carry_out(args),
        Verb::Version(args) => version::carry_out(args),
        Verb::CompileComponent => crate::serve::compile::run_child(),
    }
}

/// Does `act` for every name, and tells of each that failed. What came of the others, and the
/// code of the last failure.
async fn for_each_name<T>(
    names: &[String],
    act: impl AsyncFn(&str) -> anyhow::Result<T>,
) -> (Vec<T>, Code) {
    let mut done = Vec::with_capacity(names.len());
    let mut code = Code::DONE;
    for name in names {
        match act(name).await {
            Ok(answer) => done.push(answer),
            Err(error) => code = failure::report(&error),
        }
    }
    (done, code)
}

/// Runs a command that only asks: one thread is enough for it.
fn asking<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(work)
}
