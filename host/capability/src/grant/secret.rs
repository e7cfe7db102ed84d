//! Values that nobody is to see but the plugin they were lent to.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A value that no log, message or debugger's output holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The largest that is lent, in bytes.
    pub const MOST_BYTES: usize = 64 << 10;

    /// Keeps these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// The bytes. Whoever asks must not tell them.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, absolute.
    File(PathBuf),
    /// A variable of the daemon's environment.
    Variable {
        /// Its name.
        name: String,
        /// Its value when the plugin was read; `None` where there is none.
        value: Option<Secret>,
    },
}

#[cfg(test)]
mod tests {
    //! A secret is not told by accident.

    use super::*;

    #[test]
    fn a_secret_is_not_told() {
        let value = Some(Secret::new(b"hunter2".to_vec()));
        let name = "KEY".to_owned();
        let told = format!("{:?}", SecretSource::Variable { name, value });
        assert!(
            told.contains("KEY") && told.contains("Secret(..)"),
            "{told}"
        );
        assert!(!told.contains("hunter2") && !told.contains("104"), "{told}");
    }
}
