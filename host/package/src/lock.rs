//! `plugins.lock`: what belongs into a plugin folder, by digest.
//!
//! ```toml
//! version = 1
//!
//! [plugins.greeter]
//! file = "greeter.wasm"
//! digest = "sha256:024c..."
//! lent = "sha256:77aa..."
//! source = "oci://registry.example.org/team/greeter:1.2.0@sha256:91bf..."
//! version = "1.2.0"
//! signer = "ed25519:8a88..."
//! installed = "2026-01-31T12:00:00Z"
//! ```
//!
//! Sorted and written one way only, so that it can lie in version control.

use std::collections::BTreeMap;

use serde::Deserialize;
use taskwright_model::RuntimeName;

use crate::artifact::Kind;
use crate::digest::Digest;
use crate::is_version;

/// What the file is called.
pub const FILE: &str = "plugins.lock";
/// The largest that is read.
pub const MOST_BYTES: usize = 1 << 20;
/// Plugins in one.
const MOST_PLUGINS: usize = 1024;
const MOST_TEXT_BYTES: usize = 4096;
/// The edition of the file.
const VERSION: i64 = 1;

/// A lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    plugins: BTreeMap<RuntimeName, Entry>,
}

/// What is written down of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A component or a script.
    pub kind: Kind,
    /// The digest of its file.
    pub digest: Digest,
    /// The digest of `NAME.toml` beside it, if there is one.
    pub lent: Option<Digest>,
    /// Where it came from: `oci://...@sha256:...`, or `file:///...`.
    pub source: String,
    /// Its version, as whoever published it counts.
    pub version: Option<String>,
    /// The key that signed it, if that counted.
    pub signer: Option<String>,
    /// When it was put there.
    pub installed: String,
}

/// Why a text is no lock file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLock {
    /// Larger than any is.
    #[error("it has more than {MOST_BYTES} bytes")]
    TooLong,
    /// No TOML, or not this one.
    #[error("{0}")]
    Toml(String),
    /// Of a later Taskwright.
    #[error("its version is {0}, and this Taskwright reads {VERSION}")]
    Version(i64),
    /// More than a folder holds.
    #[error("it names more than {MOST_PLUGINS} plugins")]
    TooMany,
    /// A value that cannot be.
    #[error("plugins.{plugin}.{key}: {why}")]
    Value {
        /// The plugin.
        plugin: String,
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: i64,
    #[serde(default)]
    plugins: BTreeMap<String, Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    file: String,
    digest: String,
    lent: Option<String>,
    source: String,
    version: Option<String>,
    signer: Option<String>,
    installed: String,
}

impl Lock {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, with its place.
    pub fn parse(text: &str) -> Result<Self, BadLock> {
        if text.len() > MOST_BYTES {
            return Err(BadLock::TooLong);
        }
        let document: Document = toml::from_str(text).map_err(|error| told(text, &error))?;
        if document.version != VERSION {
            return Err(BadLock::Version(document.version));
        }
        if document.plugins.len() > MOST_PLUGINS {
            return Err(BadLock::TooMany);
        }
        let read = |(name, written): (String, Written)| {
            let entry = entry(&name, written)?;
            let name = RuntimeName::parse(&name).map_err(|why| value(&name, "name", &why))?;
            Ok((name, entry))
        };
        let plugins = document.plugins.into_iter().map(read);
        Ok(Self {
            plugins: plugins.collect::<Result<_, _>>()?,
        })
    }

    /// What is written down of a plugin.
    #[must_use]
    pub fn get(&self, name: &RuntimeName) -> Option<&Entry> {
        self.plugins.get(name)
    }

    /// Writes down a plugin, in place of what was there.
    pub fn put(&mut self, name: RuntimeName, entry: Entry) {
        self.plugins.insert(name, entry);
    }

    /// Takes out a plugin.
    pub fn remove(&mut self, name: &RuntimeName) -> Option<Entry> {
        self.plugins.remove(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&RuntimeName, &Entry)> {
        self.plugins.iter()
    }

    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "# What belongs into this folder. Written by `taskwright plugin install` and `plugin lock`;\n\
             # `taskwright plugin verify` compares.\nversion = {VERSION}\n"
        );
        for (name, entry) in &self.plugins {
            text.push_str(&format!("\n[plugins.{name}]\n"));
            let file = entry.kind.file_of(name);
            let (digest, lent) = (
                entry.digest.to_string(),
                entry.lent.map(|lent| lent.to_string()),
            );
            for (key, value) in [
                ("file", Some(&file)),
                ("digest", Some(&digest)),
                ("lent", lent.as_ref()),
                ("source", Some(&entry.source)),
                ("version", entry.version.as_ref()),
                ("signer", entry.signer.as_ref()),
                ("installed", Some(&entry.installed)),
            ] {
                if let Some(value) = value {
                    text.push_str(&format!("{key} = {}\n", quoted(value)));
                }
            }
        }
        text
    }
}

/// What is wrong and where, without the text itself: it may hold what a terminal obeys.
fn told(text: &str, error: &toml::de::Error) -> BadLock {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.as_bytes().get(..at).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    let message: String = error.message().chars().map(plain).collect();
    BadLock::Toml(format!("line {line}: {message}"))
}

fn entry(name: &str, written: Written) -> Result<Entry, BadLock> {
    let digest = |key, text: &str| Digest::parse(text).map_err(|why| value(name, key, &why));
    let kind = written.file.strip_prefix(name).and_then(Kind::from_end);
    let bounded = |key, text: String| {
        if text.len() > MOST_TEXT_BYTES || text.chars().any(char::is_control) {
            return Err(value(name, key, &"a line of text is wanted"));
        }
        Ok(text)
    };
    let version = written.version.map(|version| {
        if is_version(&version) {
            return Ok(version);
        }
        let wanted = "letters, digits and . - _ + are wanted";
        Err(value(name, "version", &wanted))
    });
    Ok(Entry {
        // Nothing but these two names, so no entry leads out of the folder.
        kind: kind.ok_or_else(|| {
            let wanted = format!("{name}.wasm or {name}.rhai is wanted");
            value(name, "file", &wanted)
        })?,
        digest: digest("digest", &written.digest)?,
        lent: written.lent.map(|text| digest("lent", &text)).transpose()?,
        source: bounded("source", written.source)?,
        version: version.transpose()?,
        signer: written
            .signer
            .map(|text| bounded("signer", text))
            .transpose()?,
        installed: bounded("installed", written.installed)?,
    })
}

fn value(plugin: &str, key: &'static str, why: &dyn std::fmt::Display) -> BadLock {
    BadLock::Value {
        plugin: plugin.to_owned(),
        key,
        why: why.to_string(),
    }
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    //! Written and read, and what does not pass.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn name(text: &str) -> RuntimeName {
        RuntimeName::parse(text).unwrap()
    }

    fn full() -> Entry {
        Entry {
            kind: Kind::Component,
            digest: Digest::of(b"a"),
            lent: Some(Digest::of(b"b")),
            source: "oci://example.org/a:1".to_owned(),
            version: Some("1".to_owned()),
            signer: Some("ed25519:00".to_owned()),
            installed: "2026-01-31T12:00:00Z".to_owned(),
        }
    }

    #[test]
    fn what_was_written_is_read_and_written_alike() {
        let mut lock = Lock::default();
        let bare = Entry {
            kind: Kind::Script,
            lent: None,
            version: None,
            signer: None,
            source: "file:///with \"quotes\" and \\".to_owned(),
            ..full()
        };
        lock.put(name("zebra"), full());
        lock.put(name("a-1"), bare);
        let text = lock.to_text();
        assert!(
            text.find("[plugins.a-1]") < text.find("[plugins.zebra]"),
            "{text}"
        );
        let read = Lock::parse(&text).unwrap();
        assert_eq!(read, lock);
        assert_eq!(read.to_text(), text);
        assert_eq!(Lock::parse(&Lock::default().to_text()), Ok(Lock::default()));
        lock.remove(&name("zebra"));
        assert!(lock.get(&name("zebra")).is_none() && lock.iter().count() == 1);
    }

    #[test]
    fn what_was_tampered_with_is_told_with_its_place() {
        let mut lock = Lock::default();
        lock.put(name("a"), full());
        let text = lock.to_text();
        for (from, to, place) in [
            ("version = 1", "version = 2", "its version is 2"),
            ("version = 1", "", "version"),
            ("a.wasm", "../a.wasm", "plugins.a.file"),
            ("a.wasm", "b.wasm", "plugins.a.file"),
            ("a.wasm", "a.toml", "plugins.a.file"),
            ("[plugins.a]", "[plugins.\"../a\"]", "plugins.../a"),
            (
                "digest = \"sha256:",
                "digest = \"sha256:0",
                "plugins.a.digest",
            ),
            ("lent = \"sha256:", "lent = \"", "plugins.a.lent"),
            ("version = \"1\"", "version = \"1 \"", "plugins.a.version"),
            ("example.org", "\\u001b[0m", "plugins.a.source"),
            ("signer", "signed", "unknown field `signed`"),
            ("installed", "at", "unknown field `at`"),
            ("installed", "\"\\u001b[31m\"", "unknown field ` [31m`"),
            ("version = 1", "\n\nversion = ", "line 5: "),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            let error = Lock::parse(&changed).unwrap_err().to_string();
            assert!(error.contains(place), "{place}: {error}");
        }
        assert_eq!(
            Lock::parse(&" ".repeat(MOST_BYTES + 1)),
            Err(BadLock::TooLong)
        );
        let twice = format!("{text}{}", text.split_once("\n\n").unwrap().1);
        assert!(Lock::parse(&twice).is_err(), "one plugin twice");
    }
}
