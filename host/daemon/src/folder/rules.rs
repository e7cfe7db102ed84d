//! Which files of a plugin folder are taken: those that its lock file names, and those that a
//! trusted key signed, as far as the operator asks for either.
//!
//! Judged are the very bytes that are loaded, never a file that is read again.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use taskwright_model::RuntimeName;
use taskwright_package::trust::{Subject, Verdict};
use taskwright_package::{Digest, Entry, Kind, Lock, Signature, Trust, lock, signature};

use super::read;

/// Whether a lock file is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LockMode {
    /// It is for people and for `plugin install` alone.
    #[default]
    Off,
    /// What it does not name is not loaded.
    Enforce,
}

/// What a plugin's files must be like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) lock: LockMode,
    pub(crate) trust: Trust,
}

/// What a folder's lock file says of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    /// Nobody asks for it.
    Free,
    /// It has to be so.
    To(Box<Entry>),
    /// It is not named.
    Missing,
    /// The lock file itself cannot be read.
    Unreadable(String),
}

/// The bytes of a plugin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a> {
    /// The component or the script.
    pub(crate) plugin: &'a [u8],
    /// `NAME.toml`.
    pub(crate) lent: Option<&'a [u8]>,
}

impl Rules {
    /// What the lock file of a folder says, as a question for each name.
    pub(super) fn pins(&self, folder: &Path) -> impl Fn(&str) -> Pin + use<> {
        let lock = match self.lock {
            LockMode::Off => None,
            LockMode::Enforce => Some(read_lock(folder).map_err(|error| format!("{error:#}"))),
        };
        move |name| match (&lock, RuntimeName::parse(name)) {
            (None, _) => Pin::Free,
            (Some(Err(why)), _) => Pin::Unreadable(why.clone()),
            (Some(Ok(lock)), Ok(name)) => match lock.get(&name) {
                Some(entry) => Pin::To(Box::new(entry.clone())),
                None => Pin::Missing,
            },
            (Some(Ok(_)), Err(_)) => Pin::Missing,
        }
    }

    /// Whether a signature beside a file counts for anything.
    pub(super) fn look_at_signatures(&self) -> bool {
        self.trust.required || !self.trust.keys.is_empty()
    }

    /// Checks a plugin of a folder before it is loaded.
    ///
    /// # Errors
    /// Why it is not taken, with the next step.
    pub(super) fn check(
        &self,
        name: &str,
        file: &Path,
        pin: &Pin,
        bytes: Bytes<'_>,
    ) -> anyhow::Result<()> {
        check_pin(name, file, pin, bytes)?;
        if !self.look_at_signatures() {
            return Ok(());
        }
        let name = RuntimeName::parse(name)?;
        let signature = signature_beside(file)?;
        self.judge(&name, kind_of(file)?, bytes.plugin, signature.as_ref())
            .map(drop)
    }

    /// Whether a plugin may be taken with this signature.
    ///
    /// # Errors
    /// Why not, with the next step.
    pub(crate) fn judge(
        &self,
        name: &RuntimeName,
        kind: Kind,
        plugin: &[u8],
        signature: Option<&Signature>,
    ) -> anyhow::Result<Verdict> {
        let subject = Subject {
            name,
            kind,
            digest: Digest::of(plugin),
        };
        let judged = self.trust.judge(subject, signature);
        judged.with_context(|| format!("the plugin {name} is not trusted"))
    }
}

fn check_pin(name: &str, file: &Path, pin: &Pin, bytes: Bytes<'_>) -> anyhow::Result<()> {
    let accept = format!("`taskwright plugin lock {name}` takes it as it lies there");
    let entry = match pin {
        Pin::Free => return Ok(()),
        Pin::To(entry) => entry,
        Pin::Missing => bail!(
            "it does not stand in {}, and the daemon takes nothing else (plugins.lock = \"enforce\"); {accept}",
            lock::FILE
        ),
        Pin::Unreadable(why) => {
            bail!("{why}; nothing of this folder is taken until it can be read")
        }
    };
    if kind_of(file)? != entry.kind {
        bail!("{} has a {} of this name; {accept}", lock::FILE, entry.kind);
    }
    let found = Digest::of(bytes.plugin);
    if found != entry.digest {
        bail!(
            "{} has {}, and it is {found}; `taskwright plugin install --locked` brings the former \
             back, {accept}",
            lock::FILE,
            entry.digest
        );
    }
    let lent = bytes.lent.map(Digest::of);
    if lent != entry.lent {
        let told = |digest: Option<Digest>| digest.map_or("none".to_owned(), |one| one.to_string());
        bail!(
            "what it is lent was changed: {} has {name}.toml as {}, and it is {}; {accept}",
            lock::FILE,
            told(entry.lent),
            told(lent)
        );
    }
    Ok(())
}

/// What a plugin's file is, by its name.
///
/// # Errors
/// When it is neither.
pub(crate) fn kind_of(file: &Path) -> anyhow::Result<Kind> {
    let end = file.extension().and_then(|end| end.to_str());
    end.and_then(Kind::from_word)
        .ok_or_else(|| anyhow!("a plugin's file is called NAME.wasm or NAME.rhai"))
}

/// Where the signature of a file lies.
pub(crate) fn signature_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// The signature beside a file, if there is one.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn signature_beside(file: &Path) -> anyhow::Result<Option<Signature>> {
    let file = signature_file(file);
    let Some(text) = read_text(&file, signature::MOST_BYTES)? else {
        return Ok(None);
    };
    let signature = Signature::parse(&text);
    Ok(Some(signature.with_context(|| {
        format!("read the signature {}", file.display())
    })?))
}

/// The lock file of a folder; an empty one, if there is none.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read_lock(folder: &Path) -> anyhow::Result<Lock> {
    let file = folder.join(lock::FILE);
    let Some(text) = read_text(&file, lock::MOST_BYTES)? else {
        return Ok(Lock::default());
    };
    let lock = Lock::parse(&text);
    lock.with_context(|| format!("read the lock file {}", file.display()))
}

fn read_text(file: &Path, most: usize) -> anyhow::Result<Option<String>> {
    match read(file, most as u64) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes);
            let text = text.with_context(|| format!("read {}: it is no UTF-8", file.display()))?;
            Ok(Some(text))
        }
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    //! What a lock file lets in.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    const ENTRY: &str = "plugins.lock";

    fn told(pin: &Pin, file: &str, plugin: &[u8], lent: Option<&[u8]>) -> String {
        let bytes = Bytes { plugin, lent };
        match check_pin("a", Path::new(file), pin, bytes) {
            Ok(()) => "taken".to_owned(),
            Err(why) => format!("{why:#}"),
        }
    }

    #[test]
    fn what_is_pinned_is_taken_as_it_was_pinned_and_not_otherwise() {
        let entry = Entry {
            kind: Kind::Component,
            digest: Digest::of(b"plugin"),
            lent: Some(Digest::of(b"lent")),
            source: String::new(),
            version: None,
            signer: None,
            installed: String::new(),
        };
        let pin = Pin::To(Box::new(entry.clone()));
        let bare = Pin::To(Box::new(Entry {
            lent: None,
            ..entry
        }));
        let lent = Some(&b"lent"[..]);
        assert_eq!(told(&pin, "a.wasm", b"plugin", lent), "taken");
        assert_eq!(told(&bare, "a.wasm", b"plugin", None), "taken");
        assert_eq!(told(&Pin::Free, "a.wasm", b"any", None), "taken");
        let changed = told(&pin, "a.wasm", b"other", lent);
        for digest in [Digest::of(b"plugin"), Digest::of(b"other")] {
            assert!(changed.contains(&digest.to_string()), "{changed}");
        }
        for (pin, file, lent) in [
            (&pin, "a.wasm", None),
            (&pin, "a.wasm", Some(&b"more"[..])),
            (&bare, "a.wasm", lent),
            (&bare, "a.rhai", None),
            (&Pin::Missing, "a.wasm", None),
        ] {
            let told = told(pin, file, b"plugin", lent);
            assert!(told.contains("plugin lock a"), "{told}");
        }
        let unreadable = Pin::Unreadable("why".to_owned());
        assert!(told(&unreadable, "a.wasm", b"plugin", None).starts_with("why"));
    }

    #[test]
    fn a_lock_file_that_is_broken_or_open_to_all_lets_nothing_in() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let rules = Rules {
            lock: LockMode::Enforce,
            ..Rules::default()
        };
        let pin = |name: &str| rules.pins(folder.path())(name);
        assert_eq!(pin("a"), Pin::Missing, "there is none yet");
        let file = folder.path().join(ENTRY);
        std::fs::write(&file, Lock::default().to_text()).unwrap();
        assert_eq!(pin("a"), Pin::Missing);
        assert_eq!(pin("../a"), Pin::Missing);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
        assert!(matches!(pin("a"), Pin::Unreadable(_)));
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "version = ").unwrap();
        assert!(matches!(pin("a"), Pin::Unreadable(_)));
        assert_eq!(Rules::default().pins(folder.path())("a"), Pin::Free);
    }
}
