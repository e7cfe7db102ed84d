//! How a supervisor is started: the hidden verb's options, written and read in one place.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use taskwright_native::TreeLevel;

/// What each output file keeps at most, if nothing else is said.
pub const DEFAULT_OUTPUT_CAP: u64 = 64 * 1024 * 1024;
/// How long a child that somebody else could stop may take to its program.
pub const DEFAULT_START_PATIENCE: Duration = Duration::from_secs(5);
/// The hidden verb of the binary.
pub const VERB: &str = "supervise";

/// The options of one supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperviseOptions {
    /// Where its log, lock and socket are. One supervisor per directory.
    pub state_dir: PathBuf,
    /// How many bytes of disk one output file may take.
    pub output_cap: u64,
    /// The way trees are kept together, if not the best there is.
    pub tree_level: Option<TreeLevel>,
    /// The soft limit of open files for tasks, if not the one the supervisor was started with.
    pub open_files: Option<u64>,
    /// How long a child that enters another process's namespaces, takes on another user or sees
    /// paths read-only may take to its program. In whole milliseconds.
    pub start_patience: Duration,
}

impl SuperviseOptions {
    /// The options for `state_dir` with every default.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            output_cap: DEFAULT_OUTPUT_CAP,
            tree_level: None,
            open_files: None,
            start_patience: DEFAULT_START_PATIENCE,
        }
    }

    /// Reads what [`Self::to_arguments`] wrote, without the verb.
    ///
    /// # Errors
    /// Which argument is wrong, for people.
    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let mut options = Self::new(PathBuf::new());
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{} needs a value", name.display()))?;
            let number = || {
                value
                    .to_str()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| format!("{} is no number", value.display()))
            };
            match name.to_str() {
                Some("--state-dir") => options.state_dir = PathBuf::from(&value),
                Some("--output-cap") => options.output_cap = number()?,
                Some("--open-files") => options.open_files = Some(number()?),
                Some("--start-patience") => {
                    options.start_patience = Duration::from_millis(number()?);
                }
                Some("--tree-level") => {
                    options.tree_level = Some(value.to_string_lossy().parse()?);
                }
                _ => return Err(format!("unknown option {}", name.display())),
            }
        }
        if !options.state_dir.is_absolute() {
            return Err("--state-dir must be an absolute path".to_owned());
        }
        Ok(options)
    }

    /// The options as arguments after the verb.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--state-dir".into()];
        arguments.push(self.state_dir.clone().into());
        arguments.push("--output-cap".into());
        arguments.push(self.output_cap.to_string().into());
        if let Some(level) = self.tree_level {
            arguments.push("--tree-level".into());
            arguments.push(level.as_str().into());
        }
        if let Some(open_files) = self.open_files {
            arguments.push("--open-files".into());
            arguments.push(open_files.to_string().into());
        }
        if self.start_patience != DEFAULT_START_PATIENCE {
            arguments.push("--start-patience".into());
            arguments.push(self.start_patience.as_millis().to_string().into());
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_command_line() {
        let options = SuperviseOptions {
            state_dir: PathBuf::from("/data/.taskwright/supervisor"),
            output_cap: 4096,
            tree_level: Some(TreeLevel::Cgroup1),
            open_files: Some(1024),
            start_patience: Duration::from_millis(1500),
        };
        let read = SuperviseOptions::from_arguments(options.to_arguments());
        assert_eq!(read, Ok(options));
    }

    #[test]
    fn a_wrong_option_is_named() {
        let arguments = ["--state-dir", "/x", "--tree-level", "magic"].map(OsString::from);
        let refused = SuperviseOptions::from_arguments(arguments);
        assert!(refused.is_err_and(|text| text.contains("magic")));
    }
}
