//! The configuration file: TOML, read into words for the table of settings.
//!
//! Every problem is reported with its line, not only the first: whoever mends a file wants
//! to see them all. An unknown key is a problem, with the key that may have been meant.

use std::borrow::Cow;

use taskwright_api::Scope;
use taskwright_package::TrustedKey;
use taskwright_worker::Template;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::table::{SETTINGS, Setting, Value};
use super::templates;
use super::tokens::TokenEntry;

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct FileLayer {
    /// Values by setting, with their lines.
    pub(crate) values: Vec<(&'static Setting, Value, usize)>,
    /// `[[auth.tokens]]`.
    pub(crate) tokens: Vec<TokenEntry>,
    /// `[[plugins.trusted-keys]]`.
    pub(crate) trusted_keys: Vec<TrustedKey>,
    /// `[[queue.templates]]`.
    pub(crate) templates: Vec<Template>,
    /// What is wrong with it, in order of lines.
    pub(crate) problems: Vec<FileProblem>,
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileProblem {
    /// The line, from 1.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) message: String,
    /// What may have been meant.
    pub(crate) hint: Option<String>,
}

/// The key of the tokens: a list of tables, and so no row of the table of settings.
const TOKENS: &str = "auth.tokens";

/// Reads a file's text.
pub(crate) fn read(text: &str) -> FileLayer {
    let mut reader = Reader {
        text,
        layer: FileLayer::default(),
    };
    match DeTable::parse(text) {
        Ok(document) => reader.table("", document.get_ref()),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            reader.problem(at, error.message().to_owned(), None);
        }
    }
    let mut layer = reader.layer;
    layer.problems.sort_by_key(|problem| problem.line);
    layer
}

struct Reader<'a> {
    text: &'a str,
    layer: FileLayer,
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn problem(&mut self, at: usize, message: String, hint: Option<String>) {
        let line = self.line(at);
        self.layer.problems.push(FileProblem {
            line,
            message,
            hint,
        });
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            if path == TOKENS {
                self.tokens(value);
            } else if path == keys::KEY {
                self.trusted_keys(value);
            } else if path == templates::KEY {
                self.templates(value);
            } else if let Some(setting) = super::table::by_key(&path) {
                self.setting(setting, value);
            } else if let (true, DeValue::Table(inner)) = (is_section(&path), value.get_ref()) {
                self.table(&format!("{path}."), inner);
            } else {
                let hint = nearest(&path).map(|near| format!("did you mean `{near}`?"));
                self.problem(key.span().start, format!("unknown key `{path}`"), hint);
            }
        }
    }

    fn setting(&mut self, setting: &'static Setting, value: &Spanned<DeValue<'_>>) {
        let at = value.span().start;
        let parsed = words(value.get_ref()).and_then(|words| setting.kind.parse(&words));
        match parsed {
            Ok(parsed) => {
                let line = self.line(at);
                self.layer.values.push((setting, parsed, line));
            }
            Err(message) => self.problem(at, format!("{}: {message}", setting.key), None),
        }
    }

    fn tokens(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Array(list) = value.get_ref() else {
            let message = format!("{TOKENS}: a list of tables is wanted, as [[{TOKENS}]]");
            return self.problem(value.span().start, message, None);
        };
        for element in list.iter() {
            match element.get_ref() {
                DeValue::Table(table) => self.token(element.span().start, table),
                _ => self.problem(
                    element.span().start,
                    format!("{TOKENS}: a table with name, sha256 and scope is wanted"),
                    None,
                ),
            }
        }
    }

    fn trusted_keys(&mut self, value: &Spanned<DeValue<'_>>) {
        let (keys, problems) = keys::read(value);
        self.layer.trusted_keys = keys;
        for problem in problems {
            self.problem(problem.at, problem.message, problem.hint);
        }
    }

    fn templates(&mut self, value: &Spanned<DeValue<'_>>) {
        let (templates, problems) = templates::read(value);
        self.layer.templates = templates;
        for problem in problems {
            let line = self.line(problem.at);
            self.layer.problems.push(problem.on(line));
        }
    }

    fn token(&mut self, at: usize, table: &DeTable<'_>) {
        let (mut name, mut digest, mut scope) = (None, None, Scope::Admin);
        for (key, value) in table {
            let start = value.span().start;
            let Some(text) = value.get_ref().as_str() else {
                self.problem(
                    start,
                    format!("{TOKENS}.{}: a text is wanted", key.get_ref()),
                    None,
                );
                continue;
            };
            match key.get_ref().as_ref() {
                "name" => name = Some(text.to_owned()),
                "sha256" => match super::tokens::parse_digest(text) {
                    Ok(parsed) => digest = Some(parsed),
                    Err(message) => {
                        self.problem(start, format!("{TOKENS}.sha256: {message}"), None)
                    }
                },
                "scope" => match Scope::parse(text) {
                    Ok(parsed) => scope = parsed,
                    Err(error) => self.problem(start, format!("{TOKENS}.scope: {error}"), None),
                },
                other => {
                    let near = closest(other, ["name", "sha256", "scope"].into_iter());
                    let hint = near.map(|near| format!("did you mean `{near}`?"));
                    self.problem(
                        key.span().start,
                        format!("unknown key `{TOKENS}.{other}`"),
                        hint,
                    );
                }
            }
        }
        match digest {
            Some(sha256) => self.layer.tokens.push(TokenEntry {
                name: name.unwrap_or_else(|| format!("token {}", self.layer.tokens.len() + 1)),
                sha256,
                scope,
            }),
            None if !table.contains_key("sha256") => self.problem(
                at,
                format!("{TOKENS}: sha256 is missing"),
                Some("printf %s TOKEN | sha256sum".to_owned()),
            ),
            None => {}
        }
    }
}

/// The words of a value, as a command line would give them.
fn words(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) => Ok(number.as_str().replace('_', "")),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(switch) => Ok(switch.to_string()),
        other => Err(format!("a {} is not a value for it", other.type_str())),
    };
    match value {
        DeValue::Array(list) => list.iter().map(|element| one(element.get_ref())).collect(),
        other => one(other).map(|word| vec![word]),
    }
}

fn is_section(path: &str) -> bool {
    let begins = format!("{path}.");
    SETTINGS
        .iter()
        .any(|setting| setting.key.starts_with(&begins))
}

/// The key that was probably meant: by its whole path, or by its last word alone.
fn nearest(path: &str) -> Option<&'static str> {
    let last = |key: &'static str| key.rsplit_once('.').map_or(key, |(_, last)| last);
    let word = path.rsplit_once('.').map_or(path, |(_, last)| last);
    // Somebody may write underscores, or leave out the section.
    let dashed: Cow<'_, str> = word.replace('_', "-").into();
    let all = || SETTINGS.iter().map(|setting| setting.key);
    all()
        .find(|key| last(key) == dashed)
        .or_else(|| {
            SETTINGS
                .iter()
                .find(|setting| setting.flag == dashed)
                .map(|found| found.key)
        })
        .or_else(|| closest(path, all().chain([TOKENS, keys::KEY, templates::KEY])))
}

/// The candidate most like `word`, if one is like it at all.
pub(crate) fn closest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let told = |problem: FileProblem| {
            let hint = problem.hint.unwrap_or_default();
            format!("{}: {} {hint}", problem.line, problem.message)
                .trim_end()
                .to_owned()
        };
        read(text).problems.into_iter().map(told).collect()
    }

    #[test]
    fn values_are_read_with_their_lines() {
        let layer = read("data-dir = '/x'\n\n[limits]\nmax-running = 1_000\noutput-cap = '1MiB'\n");
        assert_eq!(layer.problems, []);
        let told: Vec<_> = layer
            .values
            .iter()
            .map(|(setting, value, line)| (setting.key, value.clone(), *line))
            .collect();
        assert!(told.contains(&("data-dir", Value::Path("/x".into()), 1)));
        assert!(told.contains(&("limits.max-running", Value::Number(1000), 4)));
        assert!(told.contains(&("limits.output-cap", Value::Number(1 << 20), 5)));
    }

    #[test]
    fn unknown_keys_are_told_with_what_may_be_meant() {
        assert_eq!(
            problems("data_dir = '/x'\n[limits]\nmax-runing = 5\n[lmits]\nzebra = 1\n"),
            [
                "1: unknown key `data_dir` did you mean `data-dir`?",
                "3: unknown key `limits.max-runing` did you mean `limits.max-running`?",
                "4: unknown key `lmits`",
            ]
        );
        assert_eq!(
            problems("max-running = 5\nenable-sidecar-mode = true"),
            [
                "1: unknown key `max-running` did you mean `limits.max-running`?",
                "2: unknown key `enable-sidecar-mode` did you mean `sidecar.enabled`?",
            ]
        );
    }

    #[test]
    fn every_problem_is_told() {
        let found =
            problems("reconcile-interval = 'soon'\n[limits]\nmax-running = 0\nmax-body = [1]\n");
        assert_eq!(found.len(), 2, "{found:?}");
        let found = problems("data-dir = \n");
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn tokens_need_a_digest() {
        let digest = "0".repeat(64);
        let layer = read(&format!(
            "[[auth.tokens]]\nname = 'ci'\nsha256 = '{digest}'\nscope = 'read'\n"
        ));
        assert_eq!(layer.problems, []);
        assert_eq!(layer.tokens.len(), 1);
        let found = problems("[[auth.tokens]]\nname = 'ci'\n[[auth.tokens]]\nsha256 = 'x'\n");
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
