//! Who we are to a registry: what `docker login` and its kin wrote, or two variables.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

/// The largest file that is read.
pub const MOST_BYTES: usize = 1 << 20;

/// A user and a password. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

/// Why there are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCredentials {
    /// No such file.
    #[error("it is not what `docker login` writes: {0}")]
    Json(String),
    /// They are somewhere else.
    #[error("those for {host} are kept by the helper {helper:?}, which is not asked")]
    Helper {
        /// The registry.
        host: String,
        /// What keeps them.
        helper: String,
    },
    /// It is there and says nothing.
    #[error("those for {0} cannot be read: base64 of USER:PASSWORD is wanted")]
    Auth(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
}

impl Credentials {
    /// Those of this user.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }

    /// Those for a registry in the text of a `config.json`; `None` if it does not know it.
    ///
    /// # Errors
    /// When they are there and cannot be read.
    pub fn find(text: &str, host: &str) -> Result<Option<Self>, BadCredentials> {
        let document: Document =
            serde_json::from_str(text).map_err(|error| BadCredentials::Json(error.to_string()))?;
        let of_host = |key: &str| {
            let bare = key.strip_prefix("https://").or(key.strip_prefix("http://"));
            let bare = bare.unwrap_or(key);
            bare.split('/').next() == Some(host)
        };
        let entry = document.auths.iter().find(|(key, _)| of_host(key));
        let auth = entry.and_then(|(_, auth)| auth.auth.as_deref());
        if let Some(auth) = auth.filter(|auth| !auth.is_empty()) {
            let bad = || BadCredentials::Auth(host.to_owned());
            let pair = BASE64.decode(auth.trim()).map_err(|_| bad())?;
            let pair = String::from_utf8(pair).map_err(|_| bad())?;
            let (user, password) = pair.split_once(':').ok_or_else(bad)?;
            // Some tools pad it.
            return Ok(Some(Self::new(user, password.trim_end_matches('\0'))));
        }
        let mut helpers = document.cred_helpers.iter();
        let helper = helpers.find(|(key, _)| of_host(key)).map(|(_, name)| name);
        // The store keeps those of the registries that are named with nothing in them.
        let store = document.creds_store.as_ref().filter(|_| entry.is_some());
        match helper.or(store) {
            Some(helper) => Err(BadCredentials::Helper {
                host: host.to_owned(),
                helper: helper.clone(),
            }),
            None => Ok(None),
        }
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

#[cfg(test)]
mod tests {
    //! What is found for whom.

    use super::*;

    #[test]
    fn those_of_a_registry_are_for_that_registry() {
        let text = r#"{"auths": {
            "127.0.0.1:5000": {"auth": "bWU6c2VjcmV0Og=="},
            "https://index.example.org/v1/": {"auth": "YTpi"},
            "broken.example.org": {"auth": "!"},
            "empty.example.org": {}
        }, "credHelpers": {"cloud.example.org": "cloud"}, "other": 1}"#;
        let find = |host| Credentials::find(text, host);
        assert_eq!(
            find("127.0.0.1:5000"),
            Ok(Some(Credentials::new("me", "secret:")))
        );
        assert_eq!(
            find("index.example.org"),
            Ok(Some(Credentials::new("a", "b")))
        );
        for unknown in [
            "127.0.0.1",
            "127.0.0.1:50",
            "example.org",
            "empty.example.org",
        ] {
            assert_eq!(find(unknown), Ok(None), "{unknown}");
        }
        assert!(find("broken.example.org").is_err());
        assert!(matches!(
            find("cloud.example.org"),
            Err(BadCredentials::Helper { .. })
        ));
        let stored = r#"{"auths": {"h": {}}, "credsStore": "desktop"}"#;
        assert!(Credentials::find(stored, "h").is_err());
        assert_eq!(Credentials::find(stored, "i"), Ok(None));
        assert!(Credentials::find("[]", "h").is_err());
        let told = format!("{:?}", find("127.0.0.1:5000"));
        assert!(!told.contains("secret"), "{told}");
    }
}
