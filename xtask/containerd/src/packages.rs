//! The programs: packages of the distribution, downloaded with its own tools and unpacked into
//! the folder. Nothing is installed, and the machine's package lists and settings stay as they are.
//!
//! The preferred containerd is one with container events, which the machine's own suite may not
//! have. It comes from the same mirror and is verified by the same keys, with lists in the folder
//! that only this download reads. All that must fit the machine's libraries is of its own suite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::command::{self, LOCAL};
use crate::place::Place;

/// Has containerd 1.7.24 or later, which links no newer C library than bookworm has.
const PREFERRED: &str = "trixie";
/// A slow mirror is waited for, one that does not answer is not.
const DOWNLOAD: Duration = Duration::from_secs(240);
/// What all of it may take together, for those who wait for it.
pub(crate) const LONGEST: Duration = Duration::from_secs(600);
/// What is needed of the machine's own suite; containerd is fetched apart.
const OWN: [&str; 4] = [
    "runc",
    "containernetworking-plugins",
    "busybox-static",
    // For runc; a small machine may lack it.
    "libseccomp2",
];
const NEEDED: [&str; 6] = [
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr",
    "usr/sbin/runc",
    "usr/lib/cni/bridge",
    "usr/lib/cni/host-local",
];

/// Which suite containerd comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Suite {
    /// The preferred one, or else the machine's own.
    #[default]
    Best,
    /// The machine's own.
    Own,
    /// The one with this name, and no other.
    Named(String),
}

impl Suite {
    /// As a person writes it: `best`, `own`, or a suite's name.
    ///
    /// # Errors
    /// When that can be no suite's name.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "best" => Ok(Self::Best),
            "own" => Ok(Self::Own),
            name => {
                let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
                ensure!(
                    !name.is_empty() && name.chars().all(plain),
                    "{name:?} can be no suite: say `best`, `own`, or a name as `{PREFERRED}`"
                );
                Ok(Self::Named(name.to_owned()))
            }
        }
    }
}

/// What is unpacked in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The suite containerd is from; `own` is the machine's.
    pub suite: String,
    /// What containerd says about itself.
    pub version: String,
    /// Why it is not the preferred one.
    pub fallback: Option<String>,
}

/// Unpacks the programs, unless they are there.
///
/// # Errors
/// When they cannot be had; it says what was tried, why that failed, and what to do.
pub fn ensure(place: &Place, suite: &Suite) -> Result<Unpacked> {
    let marker = place.programs().join(".unpacked");
    if let Some(there) = read(&marker)
        && fits(&there, suite)
    {
        return Ok(there);
    }
    for (tool, package) in [("apt-get", "apt"), ("dpkg-deb", "dpkg")] {
        if command::run(Command::new(tool).arg("--version"), LOCAL).is_err() {
            bail!(
                "no `{tool}` (package {package}): containerd for tests is unpacked from packages \
                 of Debian or its kin\nhint: run this on such a machine, or in a container of one"
            );
        }
    }
    // What is half done is never taken for whole.
    let fresh = place.dir().join("rt.part");
    remove(&fresh)?;
    let debs = place.dir().join("debs");
    remove(&debs)?;
    fs::create_dir_all(&fresh)?;
    fs::create_dir_all(&debs)?;

    let mut own = Apt::of_the_machine(place.dir());
    own.fetch(&OWN, &debs)
        .context("get the packages of the machine's own suite")
        .map_err(|error| hinted(&error))?;
    let unpacked = containerd(place, &mut own, suite, &debs).map_err(|error| hinted(&error))?;
    for deb in files(&debs)? {
        command::run(
            Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&fresh),
            LOCAL,
        )?;
    }
    for file in NEEDED {
        ensure!(fresh.join(file).exists(), "the packages lack {file}");
    }
    let version = version(&fresh)?;
    let unpacked = Unpacked {
        version,
        ..unpacked
    };
    fs::write(fresh.join(".unpacked"), written(&unpacked))?;
    remove(&place.programs())?;
    fs::rename(&fresh, place.programs())?;
    remove(&debs)?;
    remove(&place.dir().join("apt"))?;
    Ok(unpacked)
}

/// What is unpacked, if it is what is wanted: a containerd that runs is not replaced.
///
/// # Errors
/// When it is another.
pub(crate) fn ensure_unchanged(place: &Place, suite: &Suite) -> Result<Unpacked> {
    match read(&place.programs().join(".unpacked")) {
        Some(there) if fits(&there, suite) => Ok(there),
        Some(there) => bail!(
            "a containerd of the suite {} runs in {}\nhint: stop it first",
            there.suite,
            place.dir().display()
        ),
        None => bail!("it is not known what runs in {}", place.dir().display()),
    }
}

/// What to do comes last, after the whole chain of what failed.
fn hinted(error: &anyhow::Error) -> anyhow::Error {
    anyhow!(
        "containerd for tests could not be had: {error:#}\n\
         hint: see whether `apt-get download runc` works here; behind a proxy set http_proxy; \
         with `--suite own` nothing but the machine's own suite is asked"
    )
}

/// Downloads containerd from the suite that is wanted.
fn containerd(place: &Place, own: &mut Apt, suite: &Suite, debs: &Path) -> Result<Unpacked> {
    let unpacked = |suite: &str, fallback| Unpacked {
        suite: suite.to_owned(),
        version: String::new(),
        fallback,
    };
    let from_own = |own: &mut Apt| {
        own.fetch(&["containerd"], debs)
            .context("get containerd of the machine's own suite")
    };
    let named = |own: &mut Apt, name: &str| {
        Apt::of_suite(place, own, name)
            .and_then(|mut apt| apt.fetch(&["containerd"], debs))
            .with_context(|| format!("get containerd of the suite {name}"))
    };
    match suite {
        Suite::Own => from_own(own).map(|()| unpacked("own", None)),
        Suite::Named(name) => named(own, name).map(|()| unpacked(name, None)),
        Suite::Best => match named(own, PREFERRED) {
            Ok(()) => Ok(unpacked(PREFERRED, None)),
            Err(why) => {
                from_own(own).with_context(|| format!("after this: {why:#}"))?;
                Ok(unpacked("own", Some(format!("{why:#}"))))
            }
        },
    }
}

/// The distribution's package tool with one set of lists.
#[derive(Debug)]
pub(crate) struct Apt {
    options: Vec<String>,
    /// Lists of our own, which have been fetched.
    fresh: bool,
    folder: PathBuf,
}

impl Apt {
    /// With the machine's sources and, as long as they do, its lists.
    pub(crate) fn of_the_machine(dir: &Path) -> Self {
        Self {
            options: Vec::new(),
            fresh: false,
            folder: dir.join("apt/own"),
        }
    }

    /// With the machine's mirror and keys, but another suite, and lists of its own.
    fn of_suite(place: &Place, own: &mut Self, suite: &str) -> Result<Self> {
        let mirror = match own.mirror() {
            // Whose packages a mirror has is known from its lists alone.
            Err(_no_lists) if !own.fresh => {
                own.update()?;
                own.mirror()?
            }
            found => found?,
        };
        let folder = place.dir().join("apt").join(suite);
        remove(&folder)?;
        fs::create_dir_all(folder.join("none"))?;
        let sources = folder.join("sources.list");
        fs::write(&sources, format!("deb {mirror} {suite} main\n"))?;
        let none = folder.join("none");
        let mut apt = Self {
            options: vec![
                format!("Dir::Etc::sourcelist={}", sources.display()),
                format!("Dir::Etc::sourceparts={}", none.display()),
                format!("Dir::Etc::preferencesparts={}", none.display()),
                "Dir::Etc::preferences=/dev/null".to_owned(),
                format!("APT::Default-Release={suite}"),
                // There is one source, so a part of it is not enough.
                "APT::Update::Error-Mode=any".to_owned(),
            ],
            fresh: false,
            folder,
        };
        apt.update()?;
        Ok(apt)
    }

    /// Where the machine has its own packages from, with the key that signs them if it is named.
    fn mirror(&self) -> Result<String> {
        let mut command = self.command();
        command.args([
            "indextargets",
            "--format",
            "$(REPO_URI)|$(SIGNED-BY)",
            "Created-By: Packages",
            "Component: main",
            "Origin: Debian",
            "Label: Debian",
        ]);
        let targets = command::run(&mut command, LOCAL)?;
        let first = targets.lines().next().context(
            "the machine's package sources name no Debian mirror that another suite could come from",
        )?;
        let (mirror, key) = first.split_once('|').unwrap_or((first, ""));
        // A field that is not set stays as it was written.
        if key.is_empty() || key.starts_with("$(") {
            let keyring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
            if keyring.is_file() {
                return Ok(format!("[signed-by={}] {mirror}", keyring.display()));
            }
            return Ok(mirror.to_owned());
        }
        Ok(format!("[signed-by={key}] {mirror}"))
    }

    /// Downloads packages into a directory. The machine's lists may be missing or name versions
    /// that are gone; then fresh ones are fetched into our folder.
    pub(crate) fn fetch(&mut self, packages: &[&str], into: &Path) -> Result<()> {
        match self.download(packages, into) {
            Err(first) if !self.fresh => self
                .update()
                .and_then(|()| self.download(packages, into))
                .with_context(|| format!("a first attempt, with the lists there are: {first:#}; then, with fresh ones")),
            done => done,
        }
    }

    fn download(&self, packages: &[&str], into: &Path) -> Result<()> {
        let mut command = self.command();
        command.current_dir(into).arg("download").args(packages);
        command::run(&mut command, DOWNLOAD).map(|_quiet| ())
    }

    fn update(&mut self) -> Result<()> {
        let lists = self.folder.join("lists");
        let cache = self.folder.join("cache");
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(cache.join("archives/partial"))?;
        self.options.extend([
            format!("Dir::State::lists={}", lists.display()),
            format!("Dir::Cache={}", cache.display()),
        ]);
        self.fresh = true;
        let mut command = self.command();
        command.arg("update");
        command::run(&mut command, DOWNLOAD).map(|_quiet| ())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        let common = [
            "APT::Sandbox::User=root",
            "Acquire::Retries=2",
            "Acquire::http::Timeout=20",
            "Acquire::https::Timeout=20",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ];
        command.env("LC_ALL", "C").arg("-qq");
        for option in common {
            command.args(["-o", option]);
        }
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

/// Whether what is there is what is wanted.
fn fits(there: &Unpacked, wanted: &Suite) -> bool {
    match wanted {
        Suite::Best => there.suite == PREFERRED || there.fallback.is_some(),
        Suite::Own => there.suite == "own",
        Suite::Named(name) => there.suite == *name,
    }
}

fn version(programs: &Path) -> Result<String> {
    let mut command = Command::new(programs.join("usr/bin/containerd"));
    let said = command::run(command.arg("--version"), LOCAL)
        .context("containerd does not run on this machine")?;
    // containerd NAME VERSION ...
    let version = said.split_whitespace().nth(2);
    let mut command = Command::new(programs.join("usr/sbin/runc"));
    command.env("LD_LIBRARY_PATH", libraries(programs));
    command::run(command.arg("--version"), LOCAL).context("runc does not run on this machine")?;
    Ok(version.unwrap_or("unknown").to_owned())
}

/// Where the unpacked libraries lie.
#[must_use]
pub fn libraries(programs: &Path) -> PathBuf {
    programs.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))
}

fn written(unpacked: &Unpacked) -> String {
    let fallback = unpacked.fallback.as_deref().unwrap_or_default();
    format!(
        "{}\n{}\n{}\n",
        unpacked.suite,
        unpacked.version,
        fallback.replace('\n', " ")
    )
}

fn read(marker: &Path) -> Option<Unpacked> {
    let text = fs::read_to_string(marker).ok()?;
    let mut lines = text.lines();
    Some(Unpacked {
        suite: lines.next()?.to_owned(),
        version: lines.next()?.to_owned(),
        fallback: lines
            .next()
            .filter(|why| !why.is_empty())
            .map(str::to_owned),
    })
}

pub(crate) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        found.push(entry?.path());
    }
    Ok(found)
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn there(suite: &str, fallback: Option<&str>) -> Unpacked {
        Unpacked {
            suite: suite.to_owned(),
            version: "1".to_owned(),
            fallback: fallback.map(str::to_owned),
        }
    }

    #[test]
    fn a_suite_is_parsed() {
        assert_eq!(Suite::parse("best").unwrap(), Suite::Best);
        assert_eq!(Suite::parse("own").unwrap(), Suite::Own);
        assert_eq!(
            Suite::parse("forky").unwrap(),
            Suite::Named("forky".to_owned())
        );
        assert!(Suite::parse("").is_err());
        assert!(Suite::parse("a b").is_err());
    }

    #[test]
    fn only_what_is_wanted_fits() {
        assert!(fits(&there(PREFERRED, None), &Suite::Best));
        assert!(fits(&there("own", Some("why")), &Suite::Best));
        // Asked for by hand before; the preferred one has not been tried yet.
        assert!(!fits(&there("own", None), &Suite::Best));
        assert!(!fits(&there(PREFERRED, None), &Suite::Own));
        assert!(fits(
            &there("forky", None),
            &Suite::Named("forky".to_owned())
        ));
    }

    #[test]
    fn what_was_unpacked_is_read_again() {
        let file = std::env::temp_dir().join(format!("taskwright-marker-{}", std::process::id()));
        for one in [there("own", None), there("own", Some("two words"))] {
            fs::write(&file, written(&one)).unwrap();
            assert_eq!(read(&file), Some(one));
        }
        fs::remove_file(file).unwrap();
    }
}
