//! What does not fit, and what to do about it, in words for an operator.

use std::fmt;

use taskwright_capability::Capability;

use super::{OURS, ROLES};

/// One thing that does not fit. What to do about it, if anything, is in [`Refusal::hint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no kind of plugin that this host calls.
    NoKind {
        /// What it exports.
        exports: Vec<String>,
    },
    /// It speaks another version of an interface.
    Version {
        /// `imports` or `exports`.
        side: Side,
        /// The interface, without version.
        interface: String,
        /// The version it was built with.
        theirs: String,
        /// The version that this host has.
        ours: String,
    },
    /// It needs an interface that this host does not have.
    UnknownImport {
        /// The interface.
        interface: String,
    },
    /// It calls a function that came later than this host.
    NewerFunction {
        /// The interface, with the version it was built with.
        interface: String,
        /// The function.
        function: String,
        /// The version that this host has.
        ours: String,
    },
    /// It lacks a function that this host calls.
    MissingFunction {
        /// The interface.
        interface: String,
        /// The function.
        function: String,
    },
    /// A function is `async` on its side and plain on ours.
    AsyncFunction {
        /// The interface.
        interface: String,
        /// The function.
        function: String,
    },
    /// A type of a function has another shape.
    Shape {
        /// The interface.
        interface: String,
        /// The function.
        function: String,
        /// Where, and what each side has.
        difference: String,
    },
    /// The operator did not lend it what it needs.
    NotGranted {
        /// The plugin, as the configuration names it.
        plugin: String,
        /// The interface.
        interface: String,
        /// The capability.
        capability: Capability,
    },
}

/// Which side of a component an interface is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It needs it.
    Imports,
    /// It offers it.
    Exports,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Imports => "imports",
            Self::Exports => "exports",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKind { exports } => {
                match exports.is_empty() {
                    true => f.write_str("it exports nothing")?,
                    false => {
                        let all = exports.join("`, `");
                        write!(f, "it exports `{all}`, none of which this host calls")?;
                    }
                }
                let wanted =
                    ROLES.map(|(interface, role)| format!("{} `{interface}`", role.with_article()));
                write!(f, "; {}", wanted.join(", "))
            }
            Self::Version {
                side,
                interface,
                theirs,
                ours,
            } => {
                match theirs.is_empty() {
                    true => write!(f, "it {side} `{interface}` without a version")?,
                    false => write!(f, "it {side} `{interface}@{theirs}`")?,
                }
                write!(f, ", but this host speaks `{interface}@{ours}`")
            }
            Self::UnknownImport { interface } => {
                write!(f, "it imports `{interface}`, which this host does not have")
            }
            Self::NewerFunction {
                interface,
                function,
                ours,
            } => write!(
                f,
                "it calls `{interface}#{function}`, which this host (version {ours}) does not have yet"
            ),
            Self::MissingFunction {
                interface,
                function,
            } => write!(f, "its `{interface}` lacks the function `{function}`"),
            Self::AsyncFunction {
                interface,
                function,
            } => write!(
                f,
                "its `{interface}#{function}` is an async func, but this host has a plain func"
            ),
            Self::Shape {
                interface,
                function,
                difference,
            } => write!(
                f,
                "its `{interface}#{function}` does not fit this host's: {difference}"
            ),
            Self::NotGranted {
                interface,
                capability,
                ..
            } => write!(f, "it imports `{interface}` and may not use `{capability}`"),
        }
    }
}

impl Refusal {
    /// The next step, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotGranted {
                plugin, capability, ..
            } => {
                let (line, table) = capability.line();
                Some(format!(
                    "add `{line}` under `{table}` in {plugin}.toml beside it to lend it"
                ))
            }
            Self::Version { .. } | Self::Shape { .. } | Self::MissingFunction { .. } => {
                Some("build it against the WIT of this host".to_owned())
            }
            Self::AsyncFunction { .. } => {
                Some("build it against the WIT of this host, which has no async func".to_owned())
            }
            Self::NewerFunction { .. } => {
                Some("update this host, or build against its WIT".to_owned())
            }
            Self::UnknownImport { interface } if interface.starts_with("wasi:") => Some(
                "plugins get requests by wasi:http 0.2 and nothing else of the network, and no files by \
                 WASI: build it without, or stub it"
                    .to_owned(),
            ),
            Self::UnknownImport { interface } if interface.starts_with(OURS) => Some(
                "update this host, or build it without: `taskwright version` says what this one has"
                    .to_owned(),
            ),
            Self::UnknownImport { .. } => {
                Some("build it without: plugins import `taskwright:plugin` and WASI only".to_owned())
            }
            Self::NoKind { .. } => Some(
                "export one of them, as a project made by `taskwright plugin new` does".to_owned(),
            ),
        }
    }
}
