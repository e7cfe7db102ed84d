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
use taskwright_control::port::PolicyTerms;
use taskwright_engine::{PluginSource, Runtimes};
use tokio_util::sync::CancellationToken;

use self::lent::Lent;
use self::rules::{Bytes, Pin};
pub(crate) use self::rules::{LockMode, Rules};
use crate::failure::Advise as _;
use crate::settings::config::PluginConfig;

/// Plugins in all folders together. Further files are told of and not loaded.
const MOST_PLUGINS: usize = 128;
/// Entries of one folder, plugins or not; a folder with more is not looked at.
const MOST_ENTRIES: usize = 1_000_000;
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

    /// Loads what is there. What cannot be loaded is told of.
    ///
    /// # Errors
    /// When a folder cannot be looked at: a policy in it must not be missed.
    pub(crate) async fn load_all(&mut self) -> anyhow::Result<()> {
        let found = self.look().await?;
        self.load(found).await;
        Ok(())
    }

    async fn look(&self) -> anyhow::Result<BTreeMap<String, Found>> {
        let (folders, rules) = (self.folders.clone(), Arc::clone(&self.rules));
        tokio::task::spawn_blocking(move || look(&folders, &rules)).await?
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
        let (owned, rules) = (name.to_owned(), Arc::clone(&self.rules));
        let origin = found.component.display().to_string();
        let its = found.clone();
        let read = tokio::task::spawn_blocking(move || source(&owned, &its, &rules)).await;
        let read = read.map_err(anyhow::Error::from).flatten();
        let loaded = match read {
            Ok(source) => self.runtimes.load(source).await.map_err(Into::into),
            Err(error) => Err(error),
        };
        if let Err(error) = &loaded {
            // It may be a policy all the same, and then its tasks must not pass unseen. What served
            // before goes on, as what it was.
            let its = found.clone();
            let serves = self.runtimes.serves(name);
            let terms = tokio::task::spawn_blocking(move || terms_of_refused(&its)).await;
            let terms = terms.unwrap_or_else(|_| Some(PolicyTerms::default()));
            let terms = terms.filter(|_| !serves);
            let message = format!("{error:#}");
            self.runtimes.refuse(name, &origin, message, terms);
        }
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
            match self.settled().await {
                Ok(found) => self.load(found).await,
                Err(error) => tracing::error!(
                    "the plugin folders cannot be looked at, and all plugins stay as they are: \
                     {error:#}"
                ),
            }
        }
    }

    /// What is there once nobody writes any more, or for long: a file that is being copied changes
    /// all the time.
    async fn settled(&self) -> anyhow::Result<BTreeMap<String, Found>> {
        let mut before = self.look().await;
        for _ in 0..watch::MOST_SETTLING {
            tokio::time::sleep(watch::SETTLING).await;
            let now = self.look().await;
            if let (Ok(before), Ok(now)) = (&before, &now)
                && before == now
            {
                break;
            }
            before = now;
        }
        before
    }
}

/// Every plugin of the folders, by name. Of two of one name the first folder's counts, and in one
/// folder the component's.
///
/// # Errors
/// When not all of it can be seen. A plugin that was not seen is not gone: it may be the policy
/// that everything depends on.
fn look(folders: &[PathBuf], rules: &Rules) -> anyhow::Result<BTreeMap<String, Found>> {
    let mut all = BTreeMap::new();
    for folder in folders {
        let pin = rules.pins(folder);
        let reading = || format!("read the plugin folder {}", folder.display());
        let mut components: Vec<PathBuf> = Vec::new();
        for (count, entry) in std::fs::read_dir(folder).with_context(reading)?.enumerate() {
            ensure!(
                count < MOST_ENTRIES,
                "{}: it has too many entries",
                reading()
            );
            let path = entry.with_context(reading)?.path();
            if is_plugin(&path) {
                components.push(path);
            }
        }
        components.sort_by_cached_key(|path| (script::is_script(path), path.clone()));
        for component in components {
            let Some(name) = component.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            if all.contains_key(name) {
                continue;
            }
            ensure!(
                all.len() < MOST_PLUGINS,
                "{}: more than {MOST_PLUGINS} plugins are too many",
                reading()
            );
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
    Ok(all)
}

/// The terms of a plugin that is refused, if it may be a policy; then nothing of its scope passes.
/// Where a lock file is followed, only what it names is believed: whoever changed the file beside
/// a plugin must not let it fail open.
fn terms_of_refused(found: &Found) -> Option<PolicyTerms> {
    let is_script = script::is_script(&found.component);
    // Only looked at: whoever may have written it.
    let bytes = read_if(&found.component, most_bytes(is_script), |_| Ok(())).ok();
    let word: &[u8] = if is_script {
        b"fn review"
    } else {
        b"taskwright:plugin/policy"
    };
    let exports = bytes.map(|bytes| bytes.windows(word.len()).any(|part| part == word));
    let closed = || Some(PolicyTerms::default());
    let lent = found.lent.as_deref().map(read_lent);
    match (exports, lent) {
        // What says that it is one, and is believed.
        (
            _,
            Some(Ok(Lent {
                policy: Some(terms),
                ..
            })),
        ) => match found.pin {
            Pin::Free => Some(terms),
            Pin::To(_) | Pin::Missing | Pin::Unreadable(_) => closed(),
        },
        (Some(true), _) => closed(),
        (Some(false), _) | (None, None | Some(Ok(_))) => None,
        // Neither can be read: nobody knows.
        (None, Some(Err(_))) => closed(),
    }
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
///
/// # Errors
/// When not all of them can be seen.
pub(crate) fn plugins_in(folder: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let found = look(&[folder.to_owned()], &Rules::default())?.into_iter();
    Ok(found.map(|(name, found)| (name, found.component)).collect())
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
    read_if(path, most, check_writers)
}

/// Reads a file whole whose metadata passes.
fn read_if(
    path: &Path,
    most: u64,
    passes: impl FnOnce(&Metadata) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<u8>> {
    let read = || {
        // Opening a pipe would wait for whoever writes into it.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)?;
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "it is no file");
        passes(&metadata)?;
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
        let found = look(&folders, &Rules::default()).unwrap();
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
        let changed = look(&folders, &Rules::default()).unwrap();
        assert_ne!(changed["b"], found["b"]);
        assert_eq!(changed["a"], found["a"]);
    }

    #[test]
    fn a_look_that_misses_something_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        assert!(look(&[gone], &Rules::default()).is_err());
        for number in 0..=MOST_PLUGINS {
            std::fs::write(folder.path().join(format!("a{number}.wasm")), "").unwrap();
        }
        let folders = [folder.path().to_owned()];
        let error = look(&folders, &Rules::default()).unwrap_err();
        assert!(format!("{error:#}").contains("too many"), "{error:#}");
    }

    #[test]
    fn what_may_be_a_policy_is_one_when_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let terms = |pin: Pin| {
            let found = look(&[folder.path().to_owned()], &Rules::default()).unwrap();
            terms_of_refused(&Found {
                pin,
                ..found["a"].clone()
            })
        };
        put("a.rhai", "fn start(task) {");
        assert_eq!(terms(Pin::Free), None, "a runtime");
        put("a.rhai", "fn review(request) {");
        assert_eq!(terms(Pin::Free), Some(PolicyTerms::default()));
        put("a.toml", "[policy]\nmode = \"warn\"\n");
        assert_eq!(terms(Pin::Free).unwrap().mode, taskwright_model::Mode::Warn);
        assert_eq!(
            terms(Pin::Missing),
            Some(PolicyTerms::default()),
            "nobody vouches for it"
        );
        put("a.toml", "x = [");
        assert_eq!(terms(Pin::Free), Some(PolicyTerms::default()));
        put("a.rhai", "fn start(task) {}");
        assert_eq!(terms(Pin::Free), None);
        std::fs::remove_file(folder.path().join("a.rhai")).unwrap();
        std::fs::create_dir(folder.path().join("a.rhai")).unwrap();
        assert_eq!(
            terms(Pin::Free),
            Some(PolicyTerms::default()),
            "nobody knows"
        );
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
        let look = || look(&[folder.path().to_owned()], &rules).unwrap();
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
