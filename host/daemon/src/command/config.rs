//! `taskwright config`: what is in force and who said it, and what is wrong in a file.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value as Json, json};
use taskwright_store::queue::without_password;

use crate::exit::Code;
use crate::output::style::Colours;
use crate::output::table::Table;
use crate::output::{self, Format};
use crate::settings::config::Config;
use crate::settings::flags::Flags;
use crate::settings::table::Value;
use crate::settings::{self, Resolved, Settings, Source, Sources};
use crate::units::human_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Show every setting with its value and where that comes from
    Show(ConfigArgs),
    /// Check the configuration: every problem with its line; exit code 1 if there is one
    Check(ConfigArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file, as with --config
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration file
    #[arg(long, value_name = "FILE", env = crate::env::CONFIG)]
    config: Option<PathBuf>,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    flags: Flags,
}

pub(crate) fn carry_out(verb: ConfigVerb) -> anyhow::Result<Code> {
    let (args, checking) = match &verb {
        ConfigVerb::Show(args) => (args, false),
        ConfigVerb::Check(args) => (args, true),
    };
    let settings = settings::resolve(&Sources {
        flags: &args.flags,
        config_flag: args.file.as_deref().or(args.config.as_deref()),
        variable: &settings::process_variable,
    });
    if checking {
        check(&settings, args.output)
    } else {
        show(&settings, args.output)
    }
}

fn show(settings: &Settings, format: Format) -> anyhow::Result<Code> {
    if matches!(format, Format::Json | Format::Yaml) {
        let mut all = Map::new();
        for resolved in &settings.resolved {
            let value = json!({ "value": plain(resolved), "source": source(settings, resolved) });
            all.insert(resolved.setting.key.to_owned(), value);
        }
        let tokens: Vec<Json> = settings
            .tokens
            .iter()
            .map(|token| json!({ "name": token.name, "scope": token.scope.as_str(), "sha256": "***" }))
            .collect();
        all.insert("auth.tokens".to_owned(), json!({ "value": tokens }));
        let keys: Vec<Json> = settings
            .trusted_keys
            .iter()
            .map(|key| json!({ "name": key.name, "key": key.key.to_string(), "plugins": key.plugins }))
            .collect();
        all.insert("plugins.trusted-keys".to_owned(), json!({ "value": keys }));
        output::structured(format, &Json::Object(all))?;
    } else {
        let mut table = Table::new(&["SETTING", "VALUE", "SOURCE"]);
        for resolved in &settings.resolved {
            let value = match plain(resolved) {
                Json::Null => "-".to_owned(),
                Json::String(text) => text,
                other => other.to_string(),
            };
            let said_by = source(settings, resolved);
            table.row(vec![
                resolved.setting.key.into(),
                value.into(),
                said_by.into(),
            ]);
        }
        for token in &settings.tokens {
            let value = format!("{} ({}) ***", token.name, token.scope.as_str());
            table.row(vec!["auth.tokens".into(), value.into(), "file".into()]);
        }
        for key in &settings.trusted_keys {
            let plugins = match key.plugins.as_slice() {
                [] => "all plugins".to_owned(),
                some => some.join(", "),
            };
            let value = format!("{} ({plugins}) {}", key.name, key.key);
            table.row(vec![
                "plugins.trusted-keys".into(),
                value.into(),
                "file".into(),
            ]);
        }
        output::print(&table.render(Colours::of_stdout()))?;
    }
    tell_problems(settings);
    Ok(if settings.problems.is_empty() {
        Code::DONE
    } else {
        Code::PROBLEM
    })
}

fn check(settings: &Settings, format: Format) -> anyhow::Result<Code> {
    let problems: Vec<Json> = settings
        .problems
        .iter()
        .map(|problem| json!({ "place": problem.place, "message": problem.message, "hint": problem.hint }))
        .collect();
    if output::structured(format, &json!({ "problems": problems }))? {
        return Ok(if problems.is_empty() {
            Code::DONE
        } else {
            Code::PROBLEM
        });
    }
    tell_problems(settings);
    if !problems.is_empty() {
        return Ok(Code::PROBLEM);
    }
    // What only shows once everything is put together, as a token file that is not there.
    Config::from_settings(settings)?;
    let what = match &settings.file {
        Some(file) => file.display().to_string(),
        None => "flags and environment (no configuration file)".to_owned(),
    };
    output::print(&format!("{what}: ok\n"))?;
    Ok(Code::DONE)
}

fn tell_problems(settings: &Settings) {
    for problem in &settings.problems {
        output::note(&format!("error: {problem}"));
        if let Some(hint) = &problem.hint {
            output::note(&format!("hint: {hint}"));
        }
    }
}

/// The value as JSON. Values given to tasks may be secrets and are masked.
fn plain(resolved: &Resolved) -> Json {
    match &resolved.value {
        None => Json::Null,
        Some(Value::Text(text)) => without_password(text).into(),
        Some(Value::Switch(switch)) => (*switch).into(),
        Some(Value::Number(number)) => (*number).into(),
        Some(Value::Duration(duration)) => human_duration(*duration).into(),
        Some(Value::Path(path)) => path.display().to_string().into(),
        Some(Value::List(words)) => words.iter().map(|word| mask(word)).collect(),
    }
}

fn mask(word: &str) -> String {
    match word.split_once('=') {
        Some((name, _)) => format!("{name}=***"),
        None => word.to_owned(),
    }
}

fn source(settings: &Settings, resolved: &Resolved) -> String {
    match &resolved.source {
        Source::Flag => format!("flag --{}", resolved.setting.flag),
        Source::Environment(name) => format!("environment {name}"),
        Source::File(line) => match &settings.file {
            Some(file) => format!("{}:{line}", file.display()),
            None => format!("file:{line}"),
        },
        Source::Default => "default".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_for_tasks_are_masked() {
        assert_eq!(mask("API_KEY=s3cret=x"), "API_KEY=***");
        assert_eq!(mask("HTTP_PROXY"), "HTTP_PROXY");
    }
}
