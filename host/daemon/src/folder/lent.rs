//! `NAME.toml` beside a plugin: what the operator lends it.
//!
//! ```toml
//! [grants]
//! process = { programs = ["/usr/bin/bwrap"] }
//! files = true
//! directories = { models = { path = "/srv/models" }, out = { path = "/srv/out", write = true } }
//!
//! [secrets]
//! api-key = { file = "/etc/taskwright/secrets/api-key" }
//!
//! [limits]
//! memory = "64MiB"
//! cpu = "1s"
//! deadline = "10s"
//!
//! [settings]
//! level = 10
//! ```
//!
//! `[policy]` is in [`super::terms`].

mod grants;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use serde::Deserialize;
use taskwright_capability::{Capability, Grants};
use taskwright_control::port::PolicyTerms;
use taskwright_engine::{CallLimits, MOST_MEMORY_BYTES};

use super::terms;
use crate::units::{parse_bytes, parse_duration};

const LEAST_MEMORY: usize = 1 << 20;
const MOST_CPU: Duration = Duration::from_secs(60);
const MOST_DEADLINE: Duration = Duration::from_secs(120);
const MOST_SETTINGS: usize = 256;

/// What a plugin is lent.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Lent {
    pub(crate) grants: Grants,
    /// `None`: those of every plugin.
    pub(crate) limits: Option<CallLimits>,
    /// What is said of it as a policy.
    pub(crate) policy: Option<PolicyTerms>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    grants: toml::Table,
    limits: Option<Limits>,
    policy: Option<terms::Written>,
    secrets: Option<toml::Table>,
    #[serde(default)]
    settings: toml::Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    memory: Option<String>,
    cpu: Option<String>,
    deadline: Option<String>,
}

/// Reads such a file.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub(crate) fn parse(text: &str) -> anyhow::Result<Lent> {
    let document: Document = toml::from_str(text).map_err(|error| told(text, error))?;
    let mut grants = grants::read(&document.grants)?;
    ensure!(
        document.settings.len() <= MOST_SETTINGS,
        "settings: at most {MOST_SETTINGS}"
    );
    grants.settings = settings(document.settings)?;
    if let Some(table) = &document.secrets {
        grants.secrets = grants::secrets(table)?;
        grants.capabilities.insert(Capability::Secrets);
    }
    Ok(Lent {
        grants,
        limits: document.limits.map(limits).transpose()?,
        policy: document.policy.map(terms::read).transpose()?,
    })
}

/// What is wrong with a text that could not be read. The line itself is shown only where it can be
/// no secret that somebody wrote down by mistake.
fn told(text: &str, error: toml::de::Error) -> anyhow::Error {
    if !text.contains("secrets") {
        return error.into();
    }
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.unwrap_or_default().matches('\n').count() + 1;
    anyhow!("line {line}: it is no TOML, or not of this form")
}

/// Settings are text to a plugin, whatever they are to the operator.
fn settings(table: toml::Table) -> anyhow::Result<BTreeMap<String, String>> {
    table
        .into_iter()
        .map(|(key, value)| {
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Array(_) | toml::Value::Table(_) => {
                    bail!("settings.{key}: a text, a number or true/false is wanted")
                }
                plain => plain.to_string(),
            };
            Ok((key, text))
        })
        .collect()
}

fn limits(read: Limits) -> anyhow::Result<CallLimits> {
    let mut limits = CallLimits::default();
    if let Some(text) = read.memory {
        let bytes = parse_bytes(&text).map_err(|why| anyhow!("limits.memory: {why}"))?;
        limits.memory_bytes = usize::try_from(bytes)
            .ok()
            .filter(|bytes| (LEAST_MEMORY..=MOST_MEMORY_BYTES).contains(bytes))
            .ok_or_else(|| anyhow!("limits.memory: from 1MiB to 256MiB"))?;
    }
    let time = |key: &str, text: Option<String>, otherwise: Duration, most: Duration| {
        let Some(text) = text else {
            return Ok(otherwise);
        };
        let time = parse_duration(&text).map_err(|why| anyhow!("limits.{key}: {why}"))?;
        let fits = !time.is_zero() && time <= most;
        ensure!(
            fits,
            "limits.{key}: more than 0 and at most {} s",
            most.as_secs()
        );
        Ok(time)
    };
    limits.cpu = time("cpu", read.cpu, limits.cpu, MOST_CPU)?;
    limits.deadline = time("deadline", read.deadline, limits.deadline, MOST_DEADLINE)?;
    Ok(limits)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everything_can_be_lent() {
        let lent = parse(
            r#"
            [grants]
            process = { programs = ["/usr/bin/bwrap"] }
            files = true
            container = false
            [limits]
            memory = "128MiB"
            cpu = "200ms"
            [settings]
            level = 10
            polite = true
            name = "x"
            "#,
        )
        .unwrap();
        let wanted = [Capability::Process, Capability::Files];
        assert_eq!(lent.grants.capabilities, BTreeSet::from(wanted));
        assert!(lent.grants.allows_program("/usr/bin/bwrap"));
        assert!(!lent.grants.allows_program("/bin/sh"));
        let settings: Vec<_> = lent.grants.settings.into_iter().collect();
        let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            settings,
            [
                text("level", "10"),
                text("name", "x"),
                text("polite", "true")
            ]
        );
        let limits = lent.limits.unwrap();
        assert_eq!(limits.memory_bytes, 128 << 20);
        assert_eq!(limits.cpu, Duration::from_millis(200));
        assert_eq!(limits.deadline, CallLimits::default().deadline);
        assert_eq!(parse("").unwrap(), Lent::default());
    }

    #[test]
    fn a_secret_that_was_written_down_by_mistake_is_not_told() {
        for text in [
            "[grants]\n[secrets]\nkey = hunter2",
            "[grants]\n\nsecrets = \"hunter2\"\n",
            "[grants]\n[secrets]\nkey = \"hunter2\"",
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
            let place = error.contains("line 3") || error.contains("secrets");
            assert!(place, "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, place) in [
            ("[grants]\nproces = true", "grants.proces: there is no such"),
            ("[grants]\nprocess = 1", "grants.process: true"),
            ("[grants]\nfiles = \"/\"", "grants.files: true or false"),
            (
                "[grants]\nprocess = { users = [] }",
                "unknown field `users`",
            ),
            ("[grants]\nprocess = { programs = [\"sh\"] }", "absolute"),
            ("[grant]\nprocess = true", "unknown field `grant`"),
            ("[limits]\nmemory = \"1GiB\"", "limits.memory: from"),
            ("[limits]\ncpu = \"1h\"", "limits.cpu: more than 0"),
            ("[limits]\ndeadline = \"soon\"", "limits.deadline"),
            ("[settings]\nlist = [1]", "settings.list"),
            ("settings", "expected"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(place), "{text}: {error}");
        }
    }
}
