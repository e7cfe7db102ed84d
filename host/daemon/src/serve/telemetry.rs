//! Logs on standard error.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::env;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::settings::config::LogFormat;

/// Begins logging. Once per process; a second time changes nothing.
///
/// # Errors
/// When `level` is neither a level nor a list of directives.
pub(crate) fn start(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level)
        .with_context(|| format!("read the log level {level:?}"))
        .exit_with(Code::PROBLEM)
        .hint(
            "write error, warn, info, debug or trace, or directives as taskwright_store=debug,info",
        )?;
    let colours = std::env::var_os(env::NO_COLOR).is_none_or(|value| value.is_empty())
        && std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours);
    // An error means that somebody logs already, which is what is wanted.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
