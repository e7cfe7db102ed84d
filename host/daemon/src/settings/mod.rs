//! The daemon's settings: flag over environment over file over default.
//!
//! | module | about |
//! |---|---|
//! | [`table`] | one row for each setting |
//! | [`flags`] | the flags of `serve`, made from the table |
//! | [`mod@file`] | the TOML file, with lines and suggestions |
//! | [`tokens`] | the tokens that the API accepts |
//! | [`keys`] | the keys whose signatures of plugins count |
//! | [`templates`] | what workers of this machine run for which problem |
//! | [`queue`], [`queue_api`] | the queue's settings, and those of its API |
//! | `others` | variables of other programs that say the same |
//! | [`config`] | the settings as typed values |
//!
//! Everything is read and checked before anything is opened, and all that is wrong is told
//! at once.

pub(crate) mod config;
pub(crate) mod file;
pub(crate) mod flags;
mod keys;
mod others;
pub(crate) mod queue;
pub(crate) mod queue_api;
pub(crate) mod table;
pub(crate) mod templates;
pub(crate) mod tokens;

use std::path::{Path, PathBuf};

pub(crate) use config::Config;
use flags::Flags;
use others::Rank;
use table::{Kind, SETTINGS, Setting, Value};
use taskwright_package::TrustedKey;
use taskwright_worker::Template;
use tokens::TokenEntry;

use crate::env;

/// The file that is read where none is named, if it is there.
const DEFAULT_FILE: &str = "/etc/taskwright/config.toml";
/// The largest configuration file that is read.
const MOST_FILE_BYTES: u64 = 4 << 20;

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment(&'static str),
    /// This line of the configuration file.
    File(usize),
    /// Nobody.
    Default,
}

/// A setting with its value and who said it.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// Which setting.
    pub(crate) setting: &'static Setting,
    /// Its value; `None`: it is off.
    pub(crate) value: Option<Value>,
    /// Who said it.
    pub(crate) source: Source,
}

/// All settings, and what was wrong on the way.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// Every row of the table, in its order.
    pub(crate) resolved: Vec<Resolved>,
    /// Tokens from `[[auth.tokens]]`.
    pub(crate) tokens: Vec<TokenEntry>,
    /// Keys from `[[plugins.trusted-keys]]`.
    pub(crate) trusted_keys: Vec<TrustedKey>,
    /// Templates from `[[queue.templates]]`.
    pub(crate) templates: Vec<Template>,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    /// What is wrong, for people. A daemon does not start with any.
    pub(crate) problems: Vec<Problem>,
}

/// Something wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where it was said: a flag, a variable, a file or a line in it.
    pub(crate) place: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Where settings come from, beside the table. Tests bring their own.
pub(crate) struct Sources<'a> {
    /// The command line.
    pub(crate) flags: &'a Flags,
    /// `--config`.
    pub(crate) config_flag: Option<&'a Path>,
    /// Reads an environment variable.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Resolves every setting.
pub(crate) fn resolve(sources: &Sources<'_>) -> Settings {
    let mut settings = Settings::default();
    let layer = read_file(sources, &mut settings);
    for setting in SETTINGS {
        let from_file = layer
            .values
            .iter()
            .find(|(found, ..)| found.key == setting.key);
        let (value, source) = if let Some(words) = sources.flags.get(setting) {
            let place = format!("--{}", setting.flag);
            (settings.parse(setting, words, place), Source::Flag)
        } else if let Some((name, text)) = variable_of(setting, sources) {
            settings.parse_variable(setting, name, &text)
        } else if let Some((_, value, line)) = from_file {
            (Some(value.clone()), Source::File(*line))
        } else if let Some((name, text)) = others::said(setting, Rank::AfterFile, sources.variable)
        {
            settings.parse_variable(setting, name, &text)
        } else {
            let words = setting.default.map(|text| [text.to_owned()]);
            let value = words.and_then(|words| {
                settings.parse(setting, &words, format!("default of {}", setting.key))
            });
            (value, Source::Default)
        };
        settings.resolved.push(Resolved {
            setting,
            value,
            source,
        });
    }
    settings.tokens = layer.tokens;
    settings.trusted_keys = layer.trusted_keys;
    settings.templates = layer.templates;
    settings
}

/// The environment of this process, for [`Sources::variable`].
pub(crate) fn process_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Settings {
    fn parse_variable(
        &mut self,
        setting: &Setting,
        name: &'static str,
        text: &str,
    ) -> (Option<Value>, Source) {
        let words = words_of_variable(setting.kind, text);
        let value = self.parse(setting, &words, name.to_owned());
        (value, Source::Environment(name))
    }

    fn parse(&mut self, setting: &Setting, words: &[String], place: String) -> Option<Value> {
        match setting.kind.parse(words) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problems.push(Problem {
                    place,
                    message,
                    hint: None,
                });
                None
            }
        }
    }

    /// Who said the setting with this key.
    pub(crate) fn source(&self, key: &str) -> Option<&Source> {
        let found = self
            .resolved
            .iter()
            .find(|resolved| resolved.setting.key == key);
        found.map(|resolved| &resolved.source)
    }
}

/// The variable of a setting and what it says. An empty one says nothing, as in the
/// reference executor.
fn variable_of(setting: &Setting, sources: &Sources<'_>) -> Option<(&'static str, String)> {
    let ours = || {
        let name = setting.variable?;
        let text = (sources.variable)(name)?;
        (!text.is_empty()).then_some((name, text))
    };
    others::said(setting, Rank::BeforeOurs, sources.variable).or_else(ours)
}

fn words_of_variable(kind: Kind, text: &str) -> Vec<String> {
    if kind.is_list() {
        // Some programs write lists so.
        if let Ok(words) = serde_json::from_str::<Vec<String>>(text) {
            return words;
        }
        text.split(',').map(str::to_owned).collect()
    } else {
        vec![text.to_owned()]
    }
}

fn read_file(sources: &Sources<'_>, settings: &mut Settings) -> file::FileLayer {
    let named = sources.config_flag.map(Path::to_owned).or_else(|| {
        (sources.variable)(env::CONFIG)
            .filter(|text| !text.is_empty())
            .map(PathBuf::from)
    });
    let path = match named {
        Some(path) => path,
        None if Path::new(DEFAULT_FILE).exists() => DEFAULT_FILE.into(),
        None => return file::FileLayer::default(),
    };
    let place = path.display().to_string();
    let layer = match read_bounded(&path) {
        Ok(text) => file::read(&text),
        Err(error) => {
            settings.problems.push(Problem {
                place,
                message: format!("the configuration file cannot be read: {error}"),
                hint: None,
            });
            return file::FileLayer::default();
        }
    };
    for problem in &layer.problems {
        settings.problems.push(Problem {
            place: format!("{place}:{}", problem.line),
            message: problem.message.clone(),
            hint: problem.hint.clone(),
        });
    }
    settings.file = Some(path);
    layer
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > MOST_FILE_BYTES {
        return Err(std::io::Error::other("it is too large"));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn flags(given: &[(&str, &str)]) -> Flags {
        let mut flags = Flags::default();
        for (flag, word) in given {
            flags.set(table::by_flag(flag).unwrap(), vec![(*word).to_owned()]);
        }
        flags
    }

    fn settle(given: &[(&str, &str)], variables: &[(&str, &str)], file: Option<&Path>) -> Settings {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| (*text).to_owned())
        };
        resolve(&Sources {
            flags: &flags(given),
            config_flag: Some(file.unwrap_or(Path::new("/dev/null"))),
            variable: &variable,
        })
    }

    fn get<'a>(settings: &'a Settings, key: &str) -> (&'a Option<Value>, &'a Source) {
        let found = settings.resolved.iter().find(|one| one.setting.key == key);
        found.map(|one| (&one.value, &one.source)).unwrap()
    }

    #[test]
    fn flag_wins_over_environment_over_file_over_default() {
        let folder =
            std::env::temp_dir().join(format!("taskwright-settings-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.toml");
        std::fs::write(
            &file,
            "data-dir = '/file'\nlisten-addr = 'file:1'\n[limits]\nmax-tasks = 7\n",
        )
        .unwrap();
        let settings = settle(
            &[("data-dir", "/flag")],
            &[
                ("DATA_DIR", "/env"),
                ("LISTEN_ADDR", "env:1"),
                ("MAIN_CONTAINER_NAME", ""),
            ],
            Some(&file),
        );
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(settings.problems, []);
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        assert_eq!(
            get(&settings, "data-dir"),
            (&Some(Value::Path("/flag".into())), &Source::Flag)
        );
        assert_eq!(
            get(&settings, "listen-addr"),
            (&text("env:1"), &Source::Environment("LISTEN_ADDR"))
        );
        assert_eq!(
            get(&settings, "limits.max-tasks"),
            (&Some(Value::Number(7)), &Source::File(4))
        );
        assert_eq!(
            get(&settings, "sidecar.main-container-name"),
            (&text("main"), &Source::Default)
        );
    }

    #[test]
    fn every_wrong_word_is_told_with_its_place() {
        let settings = settle(
            &[("max-running", "many")],
            &[("ENABLE_SIDECAR_MODE", "yes")],
            Some(Path::new("/nonexistent/config.toml")),
        );
        let places: Vec<_> = settings
            .problems
            .iter()
            .map(|one| one.place.as_str())
            .collect();
        assert_eq!(
            places,
            [
                "/nonexistent/config.toml",
                "--max-running",
                "ENABLE_SIDECAR_MODE"
            ]
        );
    }

    #[test]
    fn names_of_many_programs_count_less_than_ours() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, "listen-addr = 'file:1'\n").unwrap();
        let others = [
            ("PORT", "8000"),
            ("LOG_LEVEL", "DEBUG"),
            ("WORKER_OFFLINE_THRESHOLD", "120"),
            ("DEFAULT_AGENT_MODEL", "c"),
            ("OPENAI_MODEL", "b"),
        ];
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        let settings = settle(&[], &others, Some(&file));
        assert_eq!(get(&settings, "listen-addr").0, &text("file:1"));
        assert_eq!(get(&settings, "queue.default-agent-model").0, &text("b"));
        let silent = Some(Value::Duration(std::time::Duration::from_secs(120)));
        assert_eq!(get(&settings, "queue.worker-heartbeat-timeout").0, &silent);
        let settings = settle(&[], &others, None);
        assert_eq!(
            get(&settings, "listen-addr"),
            (&text("0.0.0.0:8000"), &Source::Environment("PORT"))
        );
        assert_eq!(get(&settings, "log.level").0, &text("debug"));
        let ours = [
            others[1],
            ("RUST_LOG", "trace"),
            others[2],
            ("WORKER_HEARTBEAT_TIMEOUT", "7"),
        ];
        let settings = settle(&[], &ours, None);
        assert_eq!(get(&settings, "log.level").0, &text("trace"));
        let silent = Some(Value::Duration(std::time::Duration::from_secs(7)));
        assert_eq!(get(&settings, "queue.worker-heartbeat-timeout").0, &silent);
    }

    #[test]
    fn a_list_may_be_a_json_array() {
        let origins = r#"["https://a.example.org", "http://localhost:3000"]"#;
        let settings = settle(&[], &[("CORS_ORIGINS", origins)], None);
        let expected = ["https://a.example.org", "http://localhost:3000"].map(str::to_owned);
        let expected = Some(Value::List(expected.to_vec()));
        assert_eq!(get(&settings, "api.cors-origins").0, &expected);
        let settings = settle(&[], &[("CORS_ORIGINS", "pages")], None);
        assert_eq!(
            settings.problems.first().map(|one| one.place.as_str()),
            Some("CORS_ORIGINS")
        );
    }

    #[test]
    fn lists_from_the_environment_are_split_at_commas() {
        let settings = settle(&[], &[("TASKWRIGHT_TASK_ENV", "HTTP_PROXY,A=b")], None);
        let expected = Value::List(vec!["HTTP_PROXY".into(), "A=b".into()]);
        assert_eq!(get(&settings, "tasks.env").0, &Some(expected));
    }
}
