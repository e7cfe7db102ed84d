//! Logs on standard error.

use std::io::{self, IsTerminal as _, Write};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::env;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::output::style::tame;
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
        .with_ansi(colours);
    // An error means that somebody logs already, which is what is wanted.
    let _ = match format {
        LogFormat::Text => builder
            .with_writer(move || Lines {
                colours,
                behind: io::stderr(),
            })
            .try_init(),
        LogFormat::Json => builder
            .with_writer(io::stderr)
            .json()
            .flatten_event(true)
            .try_init(),
    };
    Ok(())
}

/// Writes events of the log, each in one call, so that nothing in them looks like another event:
/// plugins, tasks and clients choose their own words. A line that is not an event's first is
/// indented, and what a terminal would obey is escaped.
struct Lines<W> {
    /// Whether the escape sequences in it are ours.
    colours: bool,
    behind: W,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (text, end) = match text.strip_suffix('\n') {
            Some(text) => (text, "\n"),
            None => (&*text, ""),
        };
        let lines = text.split('\n').map(|line| match self.colours {
            true => {
                let parts = line.split('\u{1b}').map(tame);
                parts.collect::<Vec<_>>().join("\u{1b}")
            }
            false => tame(line),
        });
        let lines: Vec<String> = lines.collect();
        self.behind
            .write_all(format!("{}{end}", lines.join("\n    ")).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.behind.flush()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn check(colours: bool, event: &str, expected: &str) {
        let mut lines = Lines {
            colours,
            behind: Vec::new(),
        };
        lines.write_all(event.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(lines.behind).unwrap(), expected);
    }

    #[test]
    fn no_part_of_an_event_looks_like_another() {
        check(false, "INFO one event\n", "INFO one event\n");
        let forged = "INFO said: a\nERROR of nobody\r\u{8}\u{202e}\n";
        let tamed = "INFO said: a\n    ERROR of nobody\\r\\u{8}\\u{202e}\n";
        check(false, forged, tamed);
        let coloured = "\u{1b}[32mINFO\u{1b}[0m a\tb\n";
        check(true, coloured, "\u{1b}[32mINFO\u{1b}[0m a\\tb\n");
        check(false, "a\u{1b}[2J\n", "a\\u{1b}[2J\n");
    }
}
