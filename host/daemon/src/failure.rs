//! Errors for people: what was tried, why it failed, what to do next.
//!
//! ```text
//! error: connect to the daemon at http://127.0.0.1:5758: connection refused
//! hint: start one with `taskwright serve`, or run the task here with `taskwright run --local`
//! ```

use std::fmt;
use std::io::Write;

use crate::exit::Code;
use crate::output::style::tame_lines;

/// Whoever read our output has left.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub(crate) struct OutputGone;

/// An error that carries a next step, an exit code, or both.
#[derive(Debug)]
struct Advised {
    error: anyhow::Error,
    hint: Option<String>,
    code: Option<Code>,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl std::error::Error for Advised {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Adds advice to a failure on its way up.
pub(crate) trait Advise<T> {
    /// Adds the next step. The innermost hint wins: it knows most.
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;

    /// Sets the exit code that the program is to end with.
    fn exit_with(self, code: Code) -> anyhow::Result<T>;
}

/// `error` with a next step.
pub(crate) fn advised(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Advised {
        error: error.into(),
        hint: Some(hint.into()),
        code: None,
    })
}

impl<T, E: Into<anyhow::Error>> Advise<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| advised(error, hint))
    }

    fn exit_with(self, code: Code) -> anyhow::Result<T> {
        self.map_err(|error| {
            anyhow::Error::new(Advised {
                error: error.into(),
                hint: None,
                code: Some(code),
            })
        })
    }
}

/// Tells `error` on standard error and answers with the exit code it deserves.
pub(crate) fn report(error: &anyhow::Error) -> Code {
    let (text, code) = describe(error);
    // Nobody is left to tell when standard error itself is gone.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    code
}

/// The text for `error`, and its exit code.
fn describe(error: &anyhow::Error) -> (String, Code) {
    if broken_pipe(error) {
        // The reader of our output has left, as `head` does. That is no failure to talk about.
        return (String::new(), Code::signal(13));
    }
    let (mut hints, mut code) = (Vec::new(), None);
    let mut told: Vec<String> = Vec::new();
    for cause in error.chain() {
        collect_advice(cause, &mut hints, &mut code);
        let text = cause.to_string();
        // Libraries repeat their source in their own text; say it once.
        if !told.last().is_some_and(|last| last.ends_with(&text)) {
            told.push(text);
        }
    }
    // Tasks, policies and servers choose their own words.
    let mut text = format!("error: {}\n", tame_lines(&told.join(": ")));
    if let Some(hint) = hints.last() {
        text.push_str(&format!("hint: {}\n", tame_lines(hint)));
    }
    (text, code.unwrap_or(Code::OURS))
}

/// Takes the advice of `cause` and of what it wraps directly.
fn collect_advice(
    cause: &(dyn std::error::Error + 'static),
    hints: &mut Vec<String>,
    code: &mut Option<Code>,
) {
    let mut present = cause.downcast_ref::<Advised>();
    while let Some(advised) = present {
        hints.extend(advised.hint.clone());
        *code = advised.code.or(*code);
        present = advised.error.downcast_ref::<Advised>();
    }
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<OutputGone>())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use anyhow::Context as _;

    use super::*;

    #[test]
    fn chain_is_told_once_with_the_innermost_hint() {
        let refused: Result<(), _> = Err(std::io::Error::from_raw_os_error(111));
        let error = refused
            .hint("start it")
            .context("connect to the daemon")
            .hint("never mind")
            .unwrap_err();
        let (text, code) = describe(&error);
        assert_eq!(
            text,
            "error: connect to the daemon: Connection refused (os error 111)\nhint: start it\n"
        );
        assert_eq!(code, Code::OURS);
    }

    #[test]
    fn exit_code_survives_context_and_hints() {
        let refused: Result<(), _> = Err(anyhow::anyhow!("no"));
        let error = refused
            .exit_with(Code::PROBLEM)
            .hint("try")
            .context("start")
            .unwrap_err();
        let (text, code) = describe(&error);
        assert_eq!(text, "error: start: no\nhint: try\n");
        assert_eq!(code, Code::PROBLEM);
    }
}
