//! `secrets`: values that the operator lent by reference.
//!
//! A file is read anew each time: a value that was changed there counts from then on, and none of
//! it is kept. What people are told names the secret and where it comes from, never what it is.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use taskwright_capability::{Grants, Secret, SecretSource};

use crate::bindings::secrets::{Error, Host};
use crate::call::CallState;
use crate::convert;

impl Host for CallState {
    async fn get(&mut self, name: String) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        let Some(source) = self.plugin.grants.secrets.get(&name).cloned() else {
            let plugin = &self.plugin.name;
            return Ok(Err(Error::Denied(convert::text(format!(
                "plugin {plugin} was lent no secret {name:?}: add `{name} = {{ file = \"/PATH\" }}` \
                 under `[secrets]` in {plugin}.toml"
            )))));
        };
        self.outlast("secrets.get", async move {
            let read = tokio::task::spawn_blocking(move || read(&source)).await;
            match read {
                Ok(Ok(secret)) => Ok(secret.reveal().to_vec()),
                Ok(Err(sentence)) => Err(Error::Unavailable(format!("secret {name}: {sentence}"))),
                Err(error) => Err(Error::Other(error.to_string())),
            }
        })
        .await
    }
}

/// Whether each secret can be had; the sentence says which cannot, and why.
pub(crate) async fn check(grants: &Grants) -> Result<(), String> {
    if grants.secrets.is_empty() {
        return Ok(());
    }
    let secrets = grants.secrets.clone();
    let checked = tokio::task::spawn_blocking(move || {
        secrets.iter().try_for_each(|(name, source)| {
            let read = read(source);
            read.map(drop)
                .map_err(|sentence| format!("secret {name}: {sentence}"))
        })
    });
    checked
        .await
        .unwrap_or_else(|_| Err("reading the secrets failed".to_owned()))
}

fn read(source: &SecretSource) -> Result<Secret, String> {
    match source {
        SecretSource::File(path) => {
            read_file(path).map_err(|why| format!("{}: {why}", path.display()))
        }
        SecretSource::Variable { name, value } => match value {
            None => Err(format!(
                "the daemon was started without the variable {name}: set it, or lend a file"
            )),
            Some(value) if value.reveal().len() > Secret::MOST_BYTES => {
                Err(format!("the variable {name} {}", too_large()))
            }
            Some(value) => Ok(value.clone()),
        },
    }
}

fn too_large() -> String {
    format!("holds more than {} bytes", Secret::MOST_BYTES)
}

fn read_file(path: &Path) -> Result<Secret, String> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        // Opening a pipe would wait for whoever writes into it.
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|error| error.to_string())?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is no file".to_owned());
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(format!(
            "everybody may read or write it (mode {mode:o}), so it is no secret: chmod o-rwx"
        ));
    }
    let mut bytes = Vec::new();
    let most = Secret::MOST_BYTES as u64;
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() > Secret::MOST_BYTES {
        return Err(format!("it {}", too_large()));
    }
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    //! What is taken for a secret, and what is said of the rest.
    #![expect(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test that cannot go on has failed"
    )]

    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_a_secret_only_if_nobody_else_can_have_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let source = SecretSource::File(file.clone());
        assert!(read(&source).unwrap_err().contains("No such file"));
        for (bytes, mode, expected) in [
            (&b"hunter2\n"[..], 0o600, None),
            (b"hunter2\n", 0o440, None),
            (b"hunter2\n", 0o604, Some("mode 604")),
            (b"hunter2\n", 0o602, Some("chmod o-rwx")),
            (&[b'x'; 64 << 10], 0o600, None),
            (&[b'x'; (64 << 10) + 1], 0o600, Some("more than 65536")),
        ] {
            let _ = std::fs::remove_file(&file);
            std::fs::write(&file, bytes).unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            match (read(&source), expected) {
                (Ok(secret), None) => assert_eq!(secret.reveal(), bytes),
                (Err(told), Some(expected)) => {
                    assert!(told.contains(expected), "{told}");
                    assert!(!told.contains("hunter2"), "{told}");
                }
                (found, _) => panic!("{mode:o}: {found:?}"),
            }
        }
        assert!(read(&SecretSource::File("/dev/zero".into())).is_err());
    }

    #[test]
    fn a_variable_that_is_not_there_is_told_by_its_name() {
        let name = "KEY".to_owned();
        let absent = SecretSource::Variable { name, value: None };
        assert!(read(&absent).unwrap_err().contains("variable KEY"));
    }
}
