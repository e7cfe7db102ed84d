//! What the operator lent to a plugin. Deny is the default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One thing a plugin may be lent: an importable interface of `taskwright:plugin`.
///
/// `types`, `settings` and `log` need no grant: they reach nothing outside the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Start and stop processes as children of the supervisor.
    Process,
    /// Read and write files in the task's own scratch directory.
    Files,
}

impl Capability {
    /// Every capability there is.
    pub const ALL: [Self; 2] = [Self::Process, Self::Files];

    /// Its name in WIT and in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Files => "files",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything one plugin was lent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The capabilities.
    pub capabilities: BTreeSet<Capability>,
    /// What the `settings` interface answers, by key.
    pub settings: BTreeMap<String, String>,
}

impl Grants {
    /// Grants of exactly these capabilities and no settings.
    #[must_use]
    pub fn of(capabilities: &[Capability]) -> Self {
        Self {
            capabilities: capabilities.iter().copied().collect(),
            settings: BTreeMap::new(),
        }
    }

    /// Whether `capability` was lent.
    #[must_use]
    pub fn allows(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}
