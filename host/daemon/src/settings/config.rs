//! The settings as typed values: what the rest of the daemon is built from.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use taskwright_package::Trust;

use super::queue::QueueSettings;
use super::queue_api::QueueApiSettings;
use super::table::Value;
use super::tokens::{self, TokenEntry};
use super::{Settings, Source};
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder::{LockMode, Rules};

/// Everything that `serve` is told.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Records and output.
    pub(crate) data_dir: PathBuf,
    /// Address of the API; `None`: no TCP.
    pub(crate) listen_addr: Option<String>,
    /// Unix socket of the API.
    pub(crate) unix_socket: Option<PathBuf>,
    /// Time for requests in flight when the daemon stops.
    pub(crate) drain_timeout: Duration,
    /// How many tasks run at once.
    pub(crate) max_running: usize,
    /// How many tasks are kept on record.
    pub(crate) max_tasks: usize,
    /// How much of each output stream is kept.
    pub(crate) output_cap: u64,
    /// The largest request body.
    pub(crate) max_body: usize,
    /// The tokens that the API accepts. Empty: everybody may do everything.
    pub(crate) tokens: Vec<TokenEntry>,
    /// Folders with plugins, and which of their files are taken.
    pub(crate) plugins: PluginConfig,
    /// Where the calls of plugins are recorded; `None`: they are not.
    pub(crate) record_plugins: Option<PathBuf>,
    /// Where the files of Tessia tasks are; `None`: beside the task's output.
    pub(crate) tessia_work_root: Option<PathBuf>,
    /// Tasks that wait for workers.
    pub(crate) queue: QueueSettings,
    /// What their API does beside it.
    pub(crate) queue_api: QueueApiSettings,
    /// What tasks inherit or are given.
    pub(crate) task_env: Vec<String>,
    /// Whether commands belong into the main container.
    pub(crate) sidecar: bool,
    /// What the sidecar runtime is told and lent.
    pub(crate) sidecar_runtime: SidecarConfig,
    /// Containers; `None`: not in container mode.
    pub(crate) container: Option<ContainerConfig>,
    /// What is logged.
    pub(crate) log_level: String,
    /// How log lines look.
    pub(crate) log_format: LogFormat,
    /// What was asked for and is not there: told once at start.
    pub(crate) notes: Vec<String>,
}

/// Folders with plugins, and which of their files are taken.
#[derive(Clone, Debug)]
pub(crate) struct PluginConfig {
    /// The folders.
    pub(crate) folders: Vec<PathBuf>,
    /// What a file must be like.
    pub(crate) rules: Rules,
}

/// What the sidecar runtime is told and lent.
#[derive(Clone, Debug)]
pub(crate) struct SidecarConfig {
    /// The main container's name.
    pub(crate) main_container: String,
    /// `daemon` or `target`.
    pub(crate) identity: String,
    /// `own` or `target`.
    pub(crate) cgroup: String,
    /// How long a main container is waited for.
    pub(crate) wait: Duration,
    /// Further namespaces that may be entered: `user`, `cgroup`.
    pub(crate) namespaces: Vec<String>,
}

/// Where containers come from, and what they are allowed.
#[derive(Clone, Debug)]
pub(crate) struct ContainerConfig {
    /// The runtime's socket.
    pub(crate) socket: PathBuf,
    /// How long a runtime that is away is waited for.
    pub(crate) wait: Duration,
    /// Under which cgroup they are put, if not where the runtime puts them.
    pub(crate) cgroup_parent: Option<String>,
    /// The runtime's handler without a network.
    pub(crate) loopback_handler: Option<String>,
    /// Paths of this machine that may be mounted.
    pub(crate) host_paths: Vec<PathBuf>,
    /// Whether they may use the machine's own network.
    pub(crate) host_network: bool,
    /// Whether they may have further privileges.
    pub(crate) privileged: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs: one object on each line.
    Json,
}

impl Config {
    /// Makes the configuration, and reads the token file it names.
    ///
    /// # Errors
    /// Every problem that was found, together.
    pub(crate) fn from_settings(settings: &Settings) -> anyhow::Result<Self> {
        settings.check()?;
        let mut tokens = settings.tokens.clone();
        if let Some(path) = settings.path("auth.token-file")? {
            tokens.extend(tokens::read_file(&path).exit_with(Code::PROBLEM)?);
        }
        Ok(Self {
            data_dir: settings.path("data-dir")?.context("data-dir is not set")?,
            listen_addr: listen_address(&settings.text("listen-addr")?),
            unix_socket: settings.path("unix-socket")?,
            drain_timeout: settings.duration("drain-timeout")?,
            max_running: settings.count("limits.max-running")?,
            max_tasks: settings.count("limits.max-tasks")?,
            output_cap: settings.number("limits.output-cap")?,
            max_body: settings.count("limits.max-body")?,
            tokens,
            plugins: PluginConfig::from_settings(settings)?,
            record_plugins: settings.path("record-plugins")?,
            tessia_work_root: settings.path("tessia.work-root")?,
            queue: QueueSettings::from_settings(settings)?,
            queue_api: QueueApiSettings::from_settings(settings)?,
            task_env: settings.list("tasks.env")?,
            sidecar: settings.switch("sidecar.enabled")?,
            sidecar_runtime: SidecarConfig {
                main_container: settings.text("sidecar.main-container-name")?,
                identity: settings.text("sidecar.identity")?,
                cgroup: settings.text("sidecar.cgroup")?,
                wait: settings.duration("sidecar.wait")?,
                namespaces: settings.list("sidecar.namespaces")?,
            },
            container: settings.container()?,
            log_level: settings.text("log.level")?,
            log_format: match settings.text("log.format")?.as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            notes: settings.notes()?,
        })
    }
}

impl PluginConfig {
    /// Makes it alone, for whoever needs nothing else of the configuration.
    ///
    /// # Errors
    /// Every problem that was found, together.
    pub(crate) fn from_settings(settings: &Settings) -> anyhow::Result<Self> {
        settings.check()?;
        let folders = settings.list("plugin-dir")?.into_iter();
        Ok(Self {
            folders: folders.map(PathBuf::from).collect(),
            rules: Rules {
                lock: match settings.text("plugins.lock")?.as_str() {
                    "enforce" => LockMode::Enforce,
                    _ => LockMode::Off,
                },
                trust: Trust {
                    required: settings.switch("plugins.require-signature")?,
                    keys: settings.trusted_keys.clone(),
                },
            },
        })
    }
}

/// As Go reads it: `:5758` means every address; `none` is ours and means no TCP.
fn listen_address(text: &str) -> Option<String> {
    match text {
        "none" => None,
        port if port.starts_with(':') => Some(format!("0.0.0.0{port}")),
        address => Some(address.to_owned()),
    }
}

impl Settings {
    fn check(&self) -> anyhow::Result<()> {
        let [first, rest @ ..] = self.problems.as_slice() else {
            return Ok(());
        };
        let told: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        let hint = match (&first.hint, rest) {
            (Some(hint), []) => hint.clone(),
            _ => "`taskwright config check` tells every problem with its line".to_owned(),
        };
        Err(anyhow::anyhow!(
            "read the configuration: {}",
            told.join("; ")
        ))
        .exit_with(Code::PROBLEM)
        .hint(hint)
    }

    fn container(&self) -> anyhow::Result<Option<ContainerConfig>> {
        if !self.switch("container.enabled")? {
            return Ok(None);
        }
        let paths = self.list("container.host-paths")?;
        Ok(Some(ContainerConfig {
            socket: self
                .path("container.cri-socket")?
                .context("container.cri-socket is not set")?,
            wait: self.duration("container.wait")?,
            cgroup_parent: Some(self.text("container.cgroup-parent")?)
                .filter(|path| !path.is_empty()),
            loopback_handler: match self.value("container.loopback-handler") {
                Some(Value::Text(text)) if !text.is_empty() => Some(text.clone()),
                _ => None,
            },
            host_paths: paths.into_iter().map(PathBuf::from).collect(),
            host_network: self.switch("container.host-network")?,
            privileged: self.switch("container.privileged")?,
        }))
    }

    /// What was asked for and has no effect, or not yet.
    fn notes(&self) -> anyhow::Result<Vec<String>> {
        let mut notes = Vec::new();
        for key in [
            "reconcile-interval",
            "log.dir",
            "log.max-size",
            "log.max-backups",
            "log.max-age",
        ] {
            let said = self
                .source(key)
                .is_some_and(|source| *source != Source::Default);
            if let (true, Some(setting)) = (said, super::table::by_key(key)) {
                notes.push(format!("{key}: {}", setting.help.to_lowercase()));
            }
        }
        Ok(notes)
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        let found = self
            .resolved
            .iter()
            .find(|resolved| resolved.setting.key == key);
        found.and_then(|resolved| resolved.value.as_ref())
    }

    pub(super) fn text(&self, key: &str) -> anyhow::Result<String> {
        match self.value(key) {
            Some(Value::Text(text)) => Ok(text.clone()),
            other => bail!("setting {key} is {other:?}, not a text"),
        }
    }

    pub(super) fn switch(&self, key: &str) -> anyhow::Result<bool> {
        match self.value(key) {
            Some(Value::Switch(switch)) => Ok(*switch),
            other => bail!("setting {key} is {other:?}, not a switch"),
        }
    }

    pub(super) fn number(&self, key: &str) -> anyhow::Result<u64> {
        match self.value(key) {
            Some(Value::Number(number)) => Ok(*number),
            other => bail!("setting {key} is {other:?}, not a number"),
        }
    }

    pub(super) fn count(&self, key: &str) -> anyhow::Result<usize> {
        usize::try_from(self.number(key)?).with_context(|| format!("setting {key}"))
    }

    pub(super) fn duration(&self, key: &str) -> anyhow::Result<Duration> {
        match self.value(key) {
            Some(Value::Duration(duration)) => Ok(*duration),
            other => bail!("setting {key} is {other:?}, not a duration"),
        }
    }

    pub(super) fn path(&self, key: &str) -> anyhow::Result<Option<PathBuf>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Path(path)) => Ok(Some(path.clone())),
            other => bail!("setting {key} is {other:?}, not a path"),
        }
    }

    pub(super) fn list(&self, key: &str) -> anyhow::Result<Vec<String>> {
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(Value::List(list)) => Ok(list.clone()),
            other => bail!("setting {key} is {other:?}, not a list"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::path::Path;

    use super::super::flags::Flags;
    use super::super::{Sources, resolve, table};
    use super::*;

    fn config(flags: &[(&str, &str)]) -> anyhow::Result<Config> {
        let mut given = Flags::default();
        for (flag, word) in flags {
            given.set(table::by_flag(flag).unwrap(), vec![(*word).to_owned()]);
        }
        Config::from_settings(&resolve(&Sources {
            flags: &given,
            config_flag: Some(Path::new("/dev/null")),
            variable: &|_| None,
        }))
    }

    #[test]
    fn defaults_are_those_of_the_reference_executor() {
        let config = config(&[]).unwrap();
        assert_eq!(config.data_dir, Path::new("/var/lib/sandbox/tasks"));
        assert_eq!(config.listen_addr.as_deref(), Some("0.0.0.0:5758"));
        assert_eq!(config.max_running, 10_000);
        assert_eq!(config.notes, Vec::<String>::new());
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let config = config(&[("reconcile-interval", "1s")]).unwrap();
        assert_eq!(config.notes.len(), 1, "{:?}", config.notes);
    }

    #[test]
    fn modes_are_off_and_careful_until_somebody_says_otherwise() {
        let plain = config(&[]).unwrap();
        assert!(!plain.sidecar && plain.container.is_none());
        assert_eq!(plain.sidecar_runtime.main_container, "main");
        let container = config(&[
            ("enable-container-mode", "true"),
            ("cri-socket", "/run/x.sock"),
        ]);
        let container = container.unwrap().container.unwrap();
        assert_eq!(container.socket, Path::new("/run/x.sock"));
        assert!(!container.host_network && !container.privileged);
        assert!(config(&[("sidecar-identity", "root")]).is_err());
        assert!(config(&[("container-host-paths", "relative")]).is_err());
        assert!(config(&[("sidecar-namespaces", "time")]).is_err());
    }

    #[test]
    fn addresses_are_read_as_go_reads_them() {
        assert_eq!(
            config(&[("listen-addr", ":80")])
                .unwrap()
                .listen_addr
                .as_deref(),
            Some("0.0.0.0:80")
        );
        assert_eq!(
            config(&[("listen-addr", "none")]).unwrap().listen_addr,
            None
        );
    }

    #[test]
    fn problems_stop_the_start() {
        let error = config(&[("max-tasks", "0")]).unwrap_err().to_string();
        assert!(error.contains("--max-tasks"), "{error}");
    }

    #[test]
    fn the_example_file_is_read() {
        let path = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../deploy/config.example.toml"
        ));
        let text = std::fs::read_to_string(path).unwrap();
        // As shipped, and with every comment that holds a setting made one.
        let uncommented: String = text
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        assert_eq!(super::super::file::read(&text).problems, []);
        let layer = super::super::file::read(&uncommented);
        assert_eq!(layer.problems, []);
        assert_eq!(layer.tokens.len(), 1);
        let missing: Vec<_> = table::SETTINGS
            .iter()
            .filter(|row| row.origin != table::Origin::WithoutEffect)
            .filter(|row| layer.values.iter().all(|(found, ..)| found.key != row.key))
            .map(|row| row.key)
            .collect();
        assert_eq!(
            missing,
            Vec::<&str>::new(),
            "the example must show every setting"
        );
    }
}
