//! The flags of `serve`, made from the table of settings.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::table::{Kind, Origin, SETTINGS, Setting};

/// What the command line says, by setting.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    given: Vec<(&'static Setting, Vec<String>)>,
}

impl Flags {
    /// The words given for `setting`, if it was given at all.
    pub(crate) fn get(&self, setting: &Setting) -> Option<&[String]> {
        let found = self
            .given
            .iter()
            .find(|(given, _)| given.key == setting.key);
        found.map(|(_, words)| words.as_slice())
    }

    /// Takes what a command line says of these settings.
    fn take(&mut self, matches: &ArgMatches, settings: impl Iterator<Item = &'static Setting>) {
        for setting in settings {
            if let Some(words) = matches.get_many::<String>(setting.flag) {
                self.set(setting, words.cloned().collect());
            }
        }
    }

    /// Says what a command line would say.
    pub(crate) fn set(&mut self, setting: &'static Setting, words: Vec<String>) {
        self.given.retain(|(given, _)| given.key != setting.key);
        self.given.push((setting, words));
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.take(matches, SETTINGS.iter());
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        SETTINGS
            .iter()
            .fold(command, |command, setting| command.arg(argument(setting)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The flags of `serve` for a command that speaks to a daemon too: `--token-file` names the
/// token to show there, not those that are accepted.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlagsBesideClient(pub(crate) Flags);

/// What both would claim.
const OF_THE_CLIENT: &str = "token-file";

fn beside_client() -> impl Iterator<Item = &'static Setting> {
    let settings = SETTINGS.iter();
    settings.filter(|setting| setting.flag != OF_THE_CLIENT)
}

impl FromArgMatches for FlagsBesideClient {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.take(matches, beside_client());
        Ok(())
    }
}

impl Args for FlagsBesideClient {
    fn augment_args(command: Command) -> Command {
        beside_client().fold(command, |command, setting| command.arg(argument(setting)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(setting: &'static Setting) -> Arg {
    let mut help = setting.help.to_owned();
    let notes: Vec<String> = [
        setting.variable.map(|name| format!("env: {name}")),
        setting.default.map(|value| format!("default: {value}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !notes.is_empty() {
        help.push_str(&format!(" [{}]", notes.join(", ")));
    }
    let argument = Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.kind.placeholder())
        .help(help)
        .help_heading(match setting.origin {
            Origin::Reference => "Settings as the reference executor has them",
            Origin::Ours => "Settings",
            Origin::WithoutEffect => "Accepted for compatibility",
        })
        .allow_hyphen_values(true);
    match setting.kind {
        kind if kind.is_list() => argument.action(ArgAction::Append),
        // As Go's flags: alone it means true, and a value is attached by `=`.
        Kind::Switch => argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .overrides_with(setting.flag),
        _ => argument.action(ArgAction::Set).overrides_with(setting.flag),
    }
}
