//! Compiled components on disk, and the one unsafe block of this crate.
//!
//! `<root>/<wasmtime version>-<hash of its settings>/<sha-256 of the component>.cwasm`
//!
//! A file is a SHA-256 followed by the machine code it is the digest of: a torn
//! write or a rotten sector is noticed and compiled again. Against people, the
//! directory protects: it belongs to us, nobody else may even look into it, and
//! what does not is not read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// The version of Wasmtime, as part of the path, for people who look into the directory.
const WASMTIME: &str = "wasmtime-48";
/// Bytes of a SHA-256.
const DIGEST: usize = 32;
/// The largest file that is read: code is a few times the size of the component.
const MOST_BYTES: u64 = 512 << 20;

/// Why a directory is not used as a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It could not be made or looked at.
    #[error("open the plugin cache {}", path.display())]
    Open {
        /// Which directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else could put machine code there.
    #[error("the plugin cache {} is not ours alone: {what}", path.display())]
    NotOurs {
        /// Which directory.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Machine code that came from our compiler and from nowhere else.
///
/// Only [`Code::from_compiler`] and [`Cache::get`] make one; that is what makes
/// [`Code::load`] sound.
pub(crate) struct Code(Vec<u8>);

impl Code {
    /// Takes what [`crate::Compiler::compile`] answered.
    pub(crate) fn from_compiler(code: Vec<u8>) -> Self {
        Self(code)
    }

    /// Makes the code callable. Wasmtime refuses code of another version, of other settings
    /// or for CPU features that this machine lacks.
    pub(crate) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        #[expect(
            unsafe_code,
            reason = "loading compiled code is unsafe by nature; the argument is below"
        )]
        // SAFETY: `deserialize` asks that the bytes be what Wasmtime's own compiler wrote,
        // unchanged. `Code` is made in two places of this file only. `from_compiler` takes
        // what `compile_component` of this program wrote, in this process or in a child of
        // ours that speaks to us through a pipe. `Cache::get` takes a file that the former was
        // written to: in a directory that `Cache::open` found to be ours with no access for
        // anybody else, itself a plain file of ours, and with the digest that was written
        // with it, so that damage does not pass for code.
        unsafe {
            Component::deserialize(engine, &self.0)
        }
    }
}

/// A directory that only this user can read or write.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// Opens the part of the cache for this engine, making what is missing.
    ///
    /// # Errors
    /// [`CacheError`] when it cannot be made, or when others may write into it.
    pub(crate) fn open(root: &Path, engine: &Engine) -> Result<Self, CacheError> {
        let mut hash = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hash);
        let directory = root.join(format!("{WASMTIME}-{:016x}", hash.finish()));
        for path in [root, &directory] {
            make_private(path)?;
        }
        Ok(Self { directory })
    }

    /// The code kept for a component; `None` when there is none, or none that can be trusted.
    pub(crate) fn get(&self, component: &str) -> Option<Code> {
        let path = self.path(component);
        match read(&path) {
            Ok(code) => Some(Code(code)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled plugin is damaged and will be compiled again");
                None
            }
        }
    }

    /// Keeps code for a component. Readers see the old file or the new one.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn put(&self, component: &str, code: &Code) -> io::Result<()> {
        // The process id keeps daemons apart that share a cache.
        let path = self.path(component);
        let fresh = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = write(&fresh, &code.0).and_then(|()| fs::rename(&fresh, &path));
        if written.is_err() {
            // Best effort: what is left over is overwritten by the next try.
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    fn path(&self, component: &str) -> PathBuf {
        self.directory.join(component).with_extension("cwasm")
    }
}

/// Makes a directory, or checks that one is ours alone.
fn make_private(path: &Path) -> Result<(), CacheError> {
    let open = |source| CacheError::Open {
        path: path.to_owned(),
        source,
    };
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(open(error)),
        _ => {}
    }
    let found = fs::symlink_metadata(path).map_err(open)?;
    let what = if !found.is_dir() {
        "it is a link or a file"
    } else if found.uid() != rustix::process::geteuid().as_raw() {
        "it belongs to another user"
    } else if found.mode() & 0o077 != 0 {
        "others may enter it (chmod 700 it, or name another directory)"
    } else {
        return Ok(());
    };
    Err(CacheError::NotOurs {
        path: path.to_owned(),
        what,
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    let ours = found.is_file()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o022 == 0;
    if !ours || found.len() > MOST_BYTES {
        return Err(io::Error::other("not a plain file of our own"));
    }
    let mut digest = [0; DIGEST];
    file.read_exact(&mut digest)?;
    let mut code = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0));
    file.take(MOST_BYTES).read_to_end(&mut code)?;
    if Sha256::digest(&code)[..] == digest {
        Ok(code)
    } else {
        Err(io::Error::other("its digest does not match"))
    }
}

fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
