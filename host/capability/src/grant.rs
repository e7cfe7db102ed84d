//! What the operator lent to a plugin. Deny is the default.

pub mod http;
pub mod secret;
pub mod terms;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use self::http::HttpGrant;
use self::secret::SecretSource;
use self::terms::ProcessTerms;

/// One thing a plugin may be lent: an importable interface of `taskwright:plugin`, or more of one.
///
/// `types`, `units`, `status`, `settings` and `log` need no grant: they reach nothing but the
/// plugin's own and what its attempts started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Start and stop processes as children of the supervisor.
    Process,
    /// Start processes inside the namespaces of other processes.
    Namespace,
    /// With [`Capability::Namespace`]: enter user namespaces, too.
    UserNamespace,
    /// With [`Capability::Namespace`]: enter cgroup namespaces, too.
    CgroupNamespace,
    /// Images, sandboxes and containers of the machine's container runtime.
    Container,
    /// Read and write files in the task's own scratch directory.
    Files,
    /// Files in directories of the operator's, named in [`Grants::directories`].
    Directories,
    /// Values of the operator's, named in [`Grants::secrets`].
    Secrets,
    /// Requests by HTTP to the hosts of [`Grants::http`].
    Http,
    /// The time, instead of a clock that stands still.
    Clock,
    /// Random numbers, instead of those that a repeat finds again.
    Random,
}

impl Capability {
    /// Every capability there is.
    pub const ALL: [Self; 11] = [
        Self::Process,
        Self::Namespace,
        Self::UserNamespace,
        Self::CgroupNamespace,
        Self::Container,
        Self::Files,
        Self::Directories,
        Self::Secrets,
        Self::Http,
        Self::Clock,
        Self::Random,
    ];

    /// Its name in WIT and in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Namespace => "namespace",
            Self::UserNamespace => "user-namespace",
            Self::CgroupNamespace => "cgroup-namespace",
            Self::Container => "container",
            Self::Files => "files",
            Self::Directories => "directories",
            Self::Secrets => "secrets",
            Self::Http => "http",
            Self::Clock => "clock",
            Self::Random => "random",
        }
    }

    /// What the operator writes into `NAME.toml` to lend it: the line, and the table it stands in.
    #[must_use]
    pub fn line(self) -> (String, &'static str) {
        let line = match self {
            Self::Directories => "directories = { NAME = { path = \"/PATH\" } }".to_owned(),
            Self::Secrets => return ("NAME = { file = \"/PATH\" }".to_owned(), "[secrets]"),
            Self::Http => "http = { hosts = [\"HOST\"] }".to_owned(),
            plain => format!("{plain} = true"),
        };
        (line, "[grants]")
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A directory of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// Whether files in it may be written and removed.
    pub write: bool,
}

/// Everything one plugin was lent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The capabilities.
    pub capabilities: BTreeSet<Capability>,
    /// With [`Capability::Process`]: the programs that may be started, each by its absolute path.
    /// `None`: any.
    pub programs: Option<BTreeSet<String>>,
    /// With [`Capability::Process`]: on which terms they are started.
    pub process: ProcessTerms,
    /// With [`Capability::Directories`]: the directories, by the word that the plugin has for each.
    pub directories: BTreeMap<String, Directory>,
    /// With [`Capability::Secrets`]: where the values are, by the word that the plugin has for each.
    pub secrets: BTreeMap<String, SecretSource>,
    /// With [`Capability::Http`]: whom it may ask.
    pub http: HttpGrant,
    /// What the `settings` interface answers, by key.
    pub settings: BTreeMap<String, String>,
}

impl Grants {
    /// Grants of exactly these capabilities and no settings.
    #[must_use]
    pub fn of(capabilities: &[Capability]) -> Self {
        Self {
            capabilities: capabilities.iter().copied().collect(),
            ..Self::default()
        }
    }

    /// Whether this program may be started beside the daemon.
    #[must_use]
    pub fn allows_program(&self, program: &str) -> bool {
        self.programs
            .as_ref()
            .is_none_or(|programs| programs.contains(program))
    }

    /// Whether `capability` was lent.
    #[must_use]
    pub fn allows(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}
