//! Names and ids: parsed once at the edge, valid for ever after.
//!
//! A [`TaskName`] becomes a directory below the data directory, so what it may
//! hold is a security decision: see [`TaskName::parse`].

use std::fmt;
use std::sync::Arc;

/// Why a text is not a name. The message says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// There is nothing to name anything by.
    #[error("a {what} must not be empty")]
    Empty {
        /// Which kind of name was parsed.
        what: &'static str,
    },
    /// Longer than file systems and headers take.
    #[error("a {what} has at most {most} bytes, this one has {length}")]
    TooLong {
        /// Which kind of name was parsed.
        what: &'static str,
        /// The limit in bytes.
        most: usize,
        /// The length found, in bytes.
        length: usize,
    },
    /// A character that could leave the data directory or confuse a reader.
    #[error("a {what} must not hold {found:?}: {allowed}")]
    BadCharacter {
        /// Which kind of name was parsed.
        what: &'static str,
        /// The offending character.
        found: char,
        /// What is allowed instead.
        allowed: &'static str,
    },
    /// The first character has a stricter rule than the rest.
    #[error("a {what} must not begin with {found:?}: {allowed}")]
    BadStart {
        /// Which kind of name was parsed.
        what: &'static str,
        /// The offending character.
        found: char,
        /// What is allowed instead.
        allowed: &'static str,
    },
    /// Not the written form of an id.
    #[error("{text:?} is not a task id: 32 hexadecimal digits in groups of 8-4-4-4-12")]
    NotAnId {
        /// What was given, cut to a readable length.
        text: String,
    },
}

/// The longest [`TaskName`], in bytes. File systems take 255; the rest is room
/// for suffixes of our own.
pub const MOST_NAME_BYTES: usize = 200;
/// The longest [`Namespace`], [`RuntimeName`] and [`UnitName`], in bytes.
pub const MOST_LABEL_BYTES: usize = 63;

/// What a submitter calls a task, unique in its [`Namespace`].
///
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskName(Arc<str>);

impl TaskName {
    /// Letters and digits of any script, and `-` `_` `.` `@` `:` `+` `=` `~`, up to
    /// [`MOST_NAME_BYTES`] bytes, beginning with a letter, a digit or `_`.
    ///
    /// So a name is always exactly one path component, is never `.` or `..`, is never
    /// hidden, and never meets a file of ours (those begin with a dot).
    ///
    /// # Errors
    /// [`IdError`] with what is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        const WHAT: &str = "task name";
        const ALLOWED: &str = "letters and digits of any script and - _ . @ : + = ~ are allowed";
        check_length(WHAT, text, MOST_NAME_BYTES)?;
        for (index, found) in text.chars().enumerate() {
            if index == 0 && !(found.is_alphanumeric() || found == '_') {
                let allowed = "begin with a letter, a digit or _";
                return Err(IdError::BadStart {
                    what: WHAT,
                    found,
                    allowed,
                });
            }
            if !(found.is_alphanumeric() || "-_.@:+=~".contains(found)) {
                return Err(IdError::BadCharacter {
                    what: WHAT,
                    found,
                    allowed: ALLOWED,
                });
            }
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_length(what: &'static str, text: &str, most: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if text.len() > most {
        return Err(IdError::TooLong {
            what,
            most,
            length: text.len(),
        });
    }
    Ok(())
}

/// Lower-case label: `[a-z0-9]` then `[a-z0-9-]*`.
fn parse_label(what: &'static str, text: &str) -> Result<Arc<str>, IdError> {
    check_length(what, text, MOST_LABEL_BYTES)?;
    for (index, found) in text.chars().enumerate() {
        let plain = found.is_ascii_lowercase() || found.is_ascii_digit();
        if index == 0 && !plain {
            let allowed = "begin with a-z or 0-9";
            return Err(IdError::BadStart {
                what,
                found,
                allowed,
            });
        }
        if !plain && found != '-' {
            let allowed = "a-z, 0-9 and - are allowed";
            return Err(IdError::BadCharacter {
                what,
                found,
                allowed,
            });
        }
    }
    Ok(text.into())
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// `a-z`, `0-9` and `-`, beginning with no `-`, up to [`MOST_LABEL_BYTES`] bytes.
            ///
            /// # Errors
            /// [`IdError`] with what is wrong and what is allowed.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                parse_label($what, text).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

label!(
    /// Where task names are unique. Each dialect has its own; the native one is `default`.
    Namespace,
    "namespace"
);
label!(
    /// The name a plugin gives to the runtime it provides, as `process`.
    RuntimeName,
    "runtime name"
);
label!(
    /// A strategy's own word for one of the things it started for an attempt, as `main`.
    UnitName,
    "unit name"
);

impl Namespace {
    /// The namespace of the native dialect.
    #[must_use]
    pub fn native() -> Self {
        Self("default".into())
    }

    /// The namespace of the Tessia dialect.
    #[must_use]
    pub fn tessia() -> Self {
        Self("tessia".into())
    }

    /// The namespace of what workers of the queue run on this machine.
    #[must_use]
    pub fn queue() -> Self {
        Self("queue".into())
    }
}

/// What identifies a task for ever: names are used again, ids are not.
///
/// A UUID (RFC 9562); version 7 in practice, so ids sort by time of submission.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u128);

impl TaskId {
    /// The id with these 128 bits.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// Reads the written form, `8-4-4-4-12` hexadecimal digits.
    ///
    /// # Errors
    /// [`IdError::NotAnId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let fault = || IdError::NotAnId {
            text: text.chars().take(64).collect(),
        };
        let groups: Vec<&str> = text.split('-').collect();
        if groups.iter().map(|group| group.len()).ne([8, 4, 4, 4, 12]) {
            return Err(fault());
        }
        let digits = groups.concat();
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(fault());
        }
        u128::from_str_radix(&digits, 16)
            .map(Self)
            .map_err(|_| fault())
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            bits >> 96,
            (bits >> 80) & 0xffff,
            (bits >> 64) & 0xffff,
            (bits >> 48) & 0xffff,
            bits & 0xffff_ffff_ffff
        )
    }
}

/// Which try of a task: 1 for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptNumber(pub u32);

/// A task by the names people use.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// Where the name is unique.
    pub namespace: Namespace,
    /// The name.
    pub name: TaskName,
}

/// One thing a strategy started: the key under which asking twice finds the first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitKey {
    /// Whose it is.
    pub task: TaskId,
    /// In which attempt it was started.
    pub attempt: AttemptNumber,
    /// The strategy's word for it.
    pub unit: UnitName,
}

macro_rules! text_form {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    )*};
}
text_form!(TaskName, Namespace, RuntimeName, UnitName);

macro_rules! debug_is_display {
    ($($name:ty),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
debug_is_display!(TaskId, TaskKey, UnitKey);

impl fmt::Display for AttemptNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for UnitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.task, self.attempt, self.unit)
    }
}
