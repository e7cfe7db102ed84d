//! `[policy]` in `NAME.toml` beside a plugin: what the operator says of a policy.
//!
//! ```toml
//! [policy]
//! order = 10
//! mode = "warn"
//! on-error = "open"
//! ask-timeout = "1h"
//! ask-default = "approve"
//! namespaces = ["team-*"]
//! runtimes = ["container"]
//! labels = ["gpu", "tier!=test"]
//! ```

use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use serde::Deserialize;
use taskwright_control::port::{OnError, PolicyScope, PolicyTerms};
use taskwright_control::request::LabelMatch;
use taskwright_model::review::LONGEST_ASK;
use taskwright_model::{Answer, Mode};

use crate::units::parse_duration;

/// Patterns and terms of one kind in a scope.
const MOST_WORDS: usize = 64;
/// Bytes of one of them.
const MOST_WORD_BYTES: usize = 1024;

/// The table as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Written {
    #[serde(default)]
    order: i32,
    #[serde(default)]
    mode: WrittenMode,
    #[serde(default)]
    on_error: WrittenOnError,
    ask_timeout: Option<String>,
    ask_default: Option<WrittenAnswer>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    runtimes: Vec<String>,
    #[serde(default)]
    labels: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WrittenMode {
    #[default]
    Enforce,
    Warn,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WrittenOnError {
    #[default]
    Closed,
    Open,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WrittenAnswer {
    Approve,
    Deny,
}

/// What is written means.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub(super) fn read(written: Written) -> anyhow::Result<PolicyTerms> {
    let ask_within = written
        .ask_timeout
        .as_deref()
        .map(ask_timeout)
        .transpose()?;
    let labels = words("labels", written.labels)?;
    Ok(PolicyTerms {
        order: written.order,
        mode: match written.mode {
            WrittenMode::Enforce => Mode::Enforce,
            WrittenMode::Warn => Mode::Warn,
        },
        on_error: match written.on_error {
            WrittenOnError::Closed => OnError::Closed,
            WrittenOnError::Open => OnError::Open,
        },
        ask_within,
        ask_otherwise: written.ask_default.map(|answer| match answer {
            WrittenAnswer::Approve => Answer::Approve,
            WrittenAnswer::Deny => Answer::Deny,
        }),
        scope: PolicyScope {
            namespaces: words("namespaces", written.namespaces)?,
            runtimes: words("runtimes", written.runtimes)?,
            labels: labels
                .iter()
                .map(|term| label(term))
                .collect::<Result<_, _>>()?,
        },
    })
}

fn ask_timeout(text: &str) -> anyhow::Result<Duration> {
    let time = parse_duration(text).map_err(|why| anyhow!("policy.ask-timeout: {why}"))?;
    let fits = !time.is_zero() && time <= LONGEST_ASK;
    ensure!(fits, "policy.ask-timeout: more than 0 and at most 30 days");
    Ok(time)
}

fn words(key: &str, words: Vec<String>) -> anyhow::Result<Vec<String>> {
    ensure!(
        words.len() <= MOST_WORDS,
        "policy.{key}: at most {MOST_WORDS}"
    );
    let odd = |word: &String| word.is_empty() || word.len() > MOST_WORD_BYTES;
    if words.iter().any(odd) {
        bail!("policy.{key}: each has 1 to {MOST_WORD_BYTES} bytes");
    }
    Ok(words)
}

/// One term: `key`, `!key`, `key=value` or `key!=value`.
fn label(term: &str) -> anyhow::Result<LabelMatch> {
    let split = |by| {
        term.split_once(by)
            .map(|(key, value): (&str, &str)| (key.trim(), value.trim()))
    };
    let (found, key) = if let Some((key, value)) = split("!=") {
        (LabelMatch::Differs(key.to_owned(), value.to_owned()), key)
    } else if let Some((key, value)) = split("=") {
        (LabelMatch::Equals(key.to_owned(), value.to_owned()), key)
    } else if let Some(key) = term.trim().strip_prefix('!') {
        (LabelMatch::Missing(key.to_owned()), key)
    } else {
        (LabelMatch::Exists(term.trim().to_owned()), term.trim())
    };
    ensure!(!key.is_empty(), "policy.labels: {term:?} names no label");
    Ok(found)
}

#[cfg(test)]
mod tests {
    //! Every word, and what is no word.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn parse(text: &str) -> anyhow::Result<PolicyTerms> {
        read(toml::from_str(text)?)
    }

    #[test]
    fn everything_can_be_said_and_nothing_must() {
        assert_eq!(parse("").unwrap(), PolicyTerms::default());
        let terms = parse(
            r#"
            order = -5
            mode = "warn"
            on-error = "open"
            ask-timeout = "1h"
            ask-default = "approve"
            namespaces = ["team-*"]
            runtimes = ["container"]
            labels = ["gpu", "!old", "tier!=test", "a=b"]
            "#,
        )
        .unwrap();
        let owned = str::to_owned;
        let labels = vec![
            LabelMatch::Exists(owned("gpu")),
            LabelMatch::Missing(owned("old")),
            LabelMatch::Differs(owned("tier"), owned("test")),
            LabelMatch::Equals(owned("a"), owned("b")),
        ];
        let wanted = PolicyTerms {
            order: -5,
            mode: Mode::Warn,
            on_error: OnError::Open,
            ask_within: Some(Duration::from_secs(3600)),
            ask_otherwise: Some(Answer::Approve),
            scope: PolicyScope {
                namespaces: vec![owned("team-*")],
                runtimes: vec![owned("container")],
                labels,
            },
        };
        assert_eq!(terms, wanted);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, place) in [
            ("mode = \"watch\"", "unknown variant `watch`"),
            ("on-error = 1", "on-error"),
            ("ask-timeout = \"soon\"", "policy.ask-timeout"),
            ("ask-timeout = \"60d\"", "policy.ask-timeout"),
            ("labels = [\"=x\"]", "names no label"),
            ("labels = [\"\"]", "policy.labels"),
            ("scope = 1", "unknown field `scope`"),
        ] {
            let told = format!("{:#}", parse(text).unwrap_err());
            assert!(told.contains(place), "{text}: {told}");
        }
    }
}
