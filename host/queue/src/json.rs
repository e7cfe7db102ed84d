//! Documents that the queue keeps and does not read.

use std::fmt;
use std::sync::Arc;

/// The text of one JSON value, as it was given and known to be well-formed.
///
/// Kept as text, because a result may be megabytes long and is only ever handed on.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Arc<str>);

impl Json {
    /// Takes a text that is one JSON value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<serde::de::IgnoredAny>(text)?;
        Ok(Self(text.trim().into()))
    }

    /// The text of a value.
    #[must_use]
    pub fn of(value: &serde_json::Value) -> Self {
        Self(value.to_string().into())
    }

    /// `{}`.
    #[must_use]
    pub fn empty_object() -> Self {
        Self("{}".into())
    }

    /// What a store of ours wrote, and this type had checked before.
    #[must_use]
    pub fn from_store(text: String) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value; null where a store was tampered with.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
