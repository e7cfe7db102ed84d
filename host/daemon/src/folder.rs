//! The plugin folders: what is in them, what it is lent, and what becomes of a change.
//!
//! `NAME.wasm` or the script `NAME.rhai` is the plugin NAME; `NAME.toml` beside it says what the
//! operator lends it. The names of the files are the operator's word: a component that calls
//! itself something else is refused, so that no file takes the place or the grants of another.

pub(crate) mod lent;
pub(crate) mod rules;
pub(crate) mod script;
mod terms;
mod watch;

use std::collections::BTreeMap;
use std::fs::{Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustix::fs::OFlags;
use taskwright_capability::Grants;
use taskwright_engine::{PluginSource, Runtimes};
use tokio_util::sync::CancellationToken;

use self::lent::Lent;
use self::rules::{Bytes, Pin};
pub(crate) use self::rules::{LockMode, Rules};
use crate::failure::Advise as _;
use crate::settings::config::PluginConfig;

/// Plugins in all folders together. Further files are told of and not loaded.
const MOST_PLUGINS: usize = 128;
/// Entries of one folder that are looked at.
const MOST_ENTRIES: usize = 4096;
/// The largest component file that is read.
pub(crate) const MOST_COMPONENT_BYTES: u64 = taskwright_engine::MOST_COMPONENT_BYTES as u64;
/// The largest `NAME.toml` that is read.
const MOST_LENT_BYTES: u64 = 256 << 10;

/// A plugin as it lies in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// The component or the script.
    component: PathBuf,
    lent: Option<PathBuf>,
    /// What the lock file says of it.
    pin: Pin,
    /// Changes whenever a file does.
    stamps: [Option<Stamp>; 3],
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What puts a plugin back that a file took the place of, by its name.
pub(crate) type Replaced = BTreeMap<String, PluginSource>;

/// The folders of a daemon, and what was loaded from them.
pub(crate) struct Folders {
    folders: Vec<PathBuf>,
    rules: Arc<Rules>,
    runtimes: Arc<Runtimes>,
    replaced: Replaced,
    seen: BTreeMap<String, Found>,
}

impl Folders {
    /// Folders of which nothing was loaded yet.
    ///
    /// # Errors
    /// When one is no folder, or anybody may put something into it.
    pub(crate) fn new(
        config: &PluginConfig,
        runtimes: Arc<Runtimes>,
        replaced: Replaced,
    ) -> anyhow::Result<Self> {
        for folder in &config.folders {
            check_folder(folder)
                .with_context(|| format!("use the plugin folder {}", folder.display()))?;
        }
        Ok(Self {
            folders: config.folders.clone(),
            rules: Arc::new(config.rules.clone()),
            runtimes,
            replaced,
            seen: BTreeMap::new(),
        })
    }

    /// Loads what is new or was changed, and retires what is gone. What cannot be loaded is told
    /// of and leaves what was there before.
    pub(crate) async fn load_changes(&mut self) {
        if let Some(found) = self.look().await {
            self.load(found).await;
        }
    }

    /// `None`: the look itself failed, which leaves everything as it is.
    async fn look(&self) -> Option<BTreeMap<String, Found>> {
        let (folders, rules) = (self.folders.clone(), Arc::clone(&self.rules));
        let looked = tokio::task::spawn_blocking(move || look(&folders, &rules)).await;
        looked
            .inspect_err(|error| tracing::error!(%error, "look at the plugin folders"))
            .ok()
    }

    async fn load(&mut self, found: BTreeMap<String, Found>) {
        let gone: Vec<String> = self.seen.keys().cloned().collect();
        for name in gone.into_iter().filter(|name| !found.contains_key(name)) {
            self.seen.remove(&name);
            self.take_out(&name).await;
        }
        for (name, found) in found {
            if self.seen.get(&name) == Some(&found) {
                continue;
            }
            self.take_in(&name, &found).await;
            self.seen.insert(name, found);
        }
    }

    async fn take_in(&self, name: &str, found: &Found) {
        let (owned, found, rules) = (name.to_owned(), found.clone(), Arc::clone(&self.rules));
        let origin = found.component.display().to_string();
        let lent = found.lent.clone();
        let read = tokio::task::spawn_blocking(move || source(&owned, &found, &rules)).await;
        let loaded = match read {
            Ok(Ok(source)) => self.runtimes.load(source).await.map_err(Into::into),
            Ok(Err(error)) => {
                let message = format!("{error:#}");
                // It may be a policy all the same, and then its tasks must not pass unseen.
                let terms = lent.and_then(|path| read_lent(&path).ok()?.policy);
                self.runtimes.refuse(name, &origin, message, terms);
                Err(error)
            }
            Err(error) => Err(error.into()),
        };
        match loaded {
            Ok(info) => tracing::info!(
                plugin = info.name,
                version = info.version,
                digest = info.digest,
                file = origin,
                "a plugin serves"
            ),
            Err(error) => tracing::error!(
                plugin = name,
                file = origin,
                "a plugin file is not used; what served before goes on: {error:#}"
            ),
        }
    }

    async fn take_out(&self, name: &str) {
        let Some(source) = self.replaced.get(name) else {
            self.runtimes.retire(name);
            tracing::info!(
                plugin = name,
                "a plugin's file is gone: it begins no further task"
            );
            return;
        };
        match self.runtimes.load(source.clone()).await {
            Ok(_) => tracing::info!(
                plugin = name,
                "a plugin's file is gone: the built-in one serves again"
            ),
            Err(error) => tracing::error!(plugin = name, "{:#}", anyhow::Error::from(error)),
        }
    }

    /// Follows what happens in the folders until `shutdown`.
    pub(crate) async fn follow(mut self, shutdown: CancellationToken) {
        if self.folders.is_empty() {
            return;
        }
        let mut watch = watch::Watch::start(&self.folders);
        while shutdown
            .run_until_cancelled(watch.changed())
            .await
            .is_some()
        {
            if let Some(found) = self.settled().await {
                self.load(found).await;
            }
        }
    }

    /// What is there once nobody writes any more, or for long: a file that is being copied changes
    /// all the time.
    async fn settled(&self) -> Option<BTreeMap<String, Found>> {
        let mut before = self.look().await;
        for _ in 0..watch::MOST_SETTLING {
            tokio::time::sleep(watch::SETTLING).await;
            let now = self.look().await;
            if before == now {
                break;
            }
            before = now;
        }
        before
    }
}

/// Every plugin of the folders, by name. Of two of one name the first folder's counts, and in one
/// folder the component's.
fn look(folders: &[PathBuf], rules: &Rules) -> BTreeMap<String, Found> {
    let mut all = BTreeMap::new();
    for folder in folders {
        let pin = rules.pins(folder);
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "a plugin folder cannot be read");
                continue;
            }
        };
        let paths = entries
            .flatten()
            .take(MOST_ENTRIES)
            .map(|entry| entry.path());
        let mut components: Vec<PathBuf> = paths.filter(|path| is_plugin(path)).collect();
        components.sort_by_cached_key(|path| (script::is_script(path), path.clone()));
        for component in components {
            let Some(name) = component.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            if all.contains_key(name) {
                continue;
            }
            if all.len() >= MOST_PLUGINS {
                tracing::warn!(file = %component.display(), "more than {MOST_PLUGINS} plugins: it is left out");
                continue;
            }
            let lent = component.with_extension("toml");
            let signature = rules.look_at_signatures();
            let signature = signature.then(|| stamp(&rules::signature_file(&component)));
            let stamps = [stamp(&component), stamp(&lent), signature.flatten()];
            let found = Found {
                lent: stamps[1].map(|_| lent),
                component: component.clone(),
                pin: pin(name),
                stamps,
            };
            all.insert(name.to_owned(), found);
        }
    }
    all
}

fn is_plugin(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let is_component = path.extension().is_some_and(|end| end == "wasm");
    !hidden && (is_component || script::is_script(path))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// The files of the plugins in one folder, by name.
pub(crate) fn plugins_in(folder: &Path) -> BTreeMap<String, PathBuf> {
    let found = look(&[folder.to_owned()], &Rules::default()).into_iter();
    found.map(|(name, found)| (name, found.component)).collect()
}

/// Reads a plugin and what it is lent, if the rules let it in.
fn source(name: &str, found: &Found, rules: &Rules) -> anyhow::Result<PluginSource> {
    let path = &found.component;
    let lent_path = found.lent.as_deref();
    let lent = lent_path
        .map(|path| read(path, MOST_LENT_BYTES))
        .transpose()?;
    let is_script = script::is_script(path);
    let bytes = read(path, most_bytes(is_script))?;
    let whole = Bytes {
        plugin: &bytes,
        lent: lent.as_deref(),
    };
    rules.check(name, path, &found.pin, whole)?;
    let lent = match (lent_path, lent) {
        (Some(path), Some(bytes)) => parse_lent(path, bytes)?,
        _ => Lent::default(),
    };
    let (component, script) = if is_script {
        script::check_lent(&lent.grants)?;
        (script::engine(), Some(script::script(path, bytes)?))
    } else {
        (bytes.into(), None)
    };
    Ok(PluginSource {
        name: name.to_owned(),
        origin: path.display().to_string(),
        component,
        script,
        grants: lent.grants,
        limits: lent.limits,
        policy: lent.policy,
    })
}

/// The largest file of a plugin that is read.
pub(crate) fn most_bytes(is_script: bool) -> u64 {
    if is_script {
        script::MOST_BYTES
    } else {
        MOST_COMPONENT_BYTES
    }
}

/// Reads what a component file's plugin is lent by the file beside it, if there is one.
///
/// # Errors
/// What is wrong with that file.
pub(crate) fn lent_beside(component: &Path) -> anyhow::Result<Option<Grants>> {
    let beside = component.with_extension("toml");
    match beside.try_exists() {
        Ok(true) => Ok(Some(read_lent(&beside)?.grants)),
        _ => Ok(None),
    }
}

/// Reads a component file as it would be read from a folder, with what it is lent.
///
/// # Errors
/// What is wrong with either file.
pub(crate) fn source_at(component: &Path) -> anyhow::Result<PluginSource> {
    let name = component.file_stem().and_then(|stem| stem.to_str());
    let name = name
        .context("it has no name")
        .hint("a plugin's file is called NAME.wasm")?;
    let lent = component.with_extension("toml");
    let found = Found {
        lent: lent.exists().then_some(lent),
        component: component.to_owned(),
        pin: Pin::Free,
        stamps: [None; 3],
    };
    source(name, &found, &Rules::default())
}

fn read_lent(path: &Path) -> anyhow::Result<Lent> {
    parse_lent(path, read(path, MOST_LENT_BYTES)?)
}

fn parse_lent(path: &Path, bytes: Vec<u8>) -> anyhow::Result<Lent> {
    let text = String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("it is no UTF-8"));
    text.and_then(|text| lent::parse(&text))
        .with_context(|| format!("read {}", path.display()))
}

/// Reads a file whole that nobody but its owner may write.
pub(crate) fn read(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let read = || {
        // Opening a pipe would wait for whoever writes into it.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)?;
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "it is no file");
        check_writers(&metadata)?;
        ensure!(
            metadata.len() <= most,
            "it has {} bytes, at most {most} are read",
            metadata.len()
        );
        let mut bytes = Vec::new();
        // It may grow meanwhile.
        file.take(most + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 <= most, "it has more than {most} bytes");
        Ok(bytes)
    };
    read().with_context(|| format!("read {}", path.display()))
}

pub(crate) fn check_folder(folder: &Path) -> anyhow::Result<()> {
    let metadata = std::fs::metadata(folder).hint("make it, or leave it out of plugin-dir")?;
    ensure!(metadata.is_dir(), "it is no folder");
    check_writers(&metadata)
}

/// Whoever may write a plugin acts with its grants.
fn check_writers(metadata: &Metadata) -> anyhow::Result<()> {
    let mode = metadata.permissions().mode();
    ensure!(
        mode & 0o002 == 0,
        "everybody may write it (mode {:o}), so anybody could run as this daemon: chmod o-w",
        mode & 0o7777
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that cannot go on has failed"
    )]

    use super::*;

    #[test]
    fn a_folder_holds_components_and_what_they_are_lent() {
        let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for name in [
            "b.wasm",
            "b.toml",
            "a.wasm",
            ".hidden.wasm",
            "notes.txt",
            "c.toml",
            "a.rhai",
            "e.rhai",
        ] {
            std::fs::write(first.path().join(name), name).unwrap();
        }
        std::fs::write(second.path().join("a.wasm"), "another").unwrap();
        std::fs::write(second.path().join("d.wasm"), "d").unwrap();
        let folders = [first.path().to_owned(), second.path().to_owned()];
        let found = look(&folders, &Rules::default());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b", "d", "e"]);
        assert_eq!(found["a"].component, first.path().join("a.wasm"));
        assert_eq!(found["b"].lent, Some(first.path().join("b.toml")));
        assert_eq!(found["a"].lent, None);
        let source = source("a", &found["a"], &Rules::default()).unwrap();
        assert_eq!(
            (&*source.component, &source.script),
            (&b"a.wasm"[..], &None)
        );
        std::fs::write(first.path().join("b.toml"), "changed").unwrap();
        let changed = look(&folders, &Rules::default());
        assert_ne!(changed["b"], found["b"]);
        assert_eq!(changed["a"], found["a"]);
    }

    #[test]
    fn only_files_are_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.wasm");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let directory = folder.path().join("directory.wasm");
        std::fs::create_dir(&directory).unwrap();
        for other in [pipe, directory] {
            let error = read(&other, 1).unwrap_err();
            assert!(format!("{error:#}").contains("no file"), "{error:#}");
        }
    }

    #[test]
    fn a_script_comes_with_its_engine_and_under_settings_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
        put("a.rhai", b"fn start(task) {}");
        put("a.toml", b"[settings]\nlevel = 3\n");
        let rules = Rules::default();
        let look = || look(&[folder.path().to_owned()], &rules);
        let read = || source("a", &look()["a"], &rules);
        let source = read().unwrap();
        assert_eq!(&*source.component, crate::builtin::SCRIPT_ENGINE);
        let script = source.script.unwrap();
        assert_eq!(
            (&*script.file, &*script.text),
            ("a.rhai", "fn start(task) {}")
        );
        for (name, text, why) in [
            (
                "a.toml",
                &b"[settings]\nscript = \"x\"\n"[..],
                "settings.script is",
            ),
            (
                "a.toml",
                b"[settings]\nscript-file = \"x\"\n",
                "settings.script-file is",
            ),
            ("a.toml", b"", ""),
            ("a.rhai", b"\xff", "a.rhai is no UTF-8"),
            ("a.rhai", &[b' '; 200 << 10], "at most 131072 are read"),
        ] {
            put(name, text);
            let told = read().err().map(|error| format!("{error:#}"));
            assert!(told.unwrap_or_default().contains(why), "{why}");
        }
    }

    #[test]
    fn what_everybody_may_write_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.wasm");
        std::fs::write(&file, "a").unwrap();
        assert!(read(&file, 1).is_ok());
        assert!(read(&file, 0).is_err(), "it is too large");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
        let error = read(&file, 1).unwrap_err();
        assert!(format!("{error:#}").contains("chmod o-w"), "{error:#}");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(check_folder(folder.path()).is_err());
    }
}
