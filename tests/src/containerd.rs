//! The containerd that was started for the tests: its socket, its images, what it holds.
//!
//! `cargo xtask test` starts one and says where by variables; by hand, `cargo xtask containerd
//! start` does and prints them. The client in here is containerd's own, so a test sees what is
//! there, not what the product says of it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use taskwright_test_containerd::{Place, environment, image, images, probe, service};

pub use taskwright_test_containerd::Registry;

use crate::cli;

/// `ctr` takes some milliseconds; a busy machine takes more.
const PATIENCE: Duration = Duration::from_secs(30);

/// A containerd that answers CRI calls.
#[derive(Debug)]
pub struct Containerd {
    place: Place,
}

/// A container or the pause container of a pod, as containerd has it on record.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its identity.
    pub id: String,
    /// What CRI and its client wrote down about it.
    pub labels: Value,
    /// The image it is made from.
    pub image: String,
    /// Its first process, as this machine sees it, if it was started and not yet removed.
    pub pid: Option<u32>,
    /// What containerd says of that: `RUNNING`, `STOPPED`.
    pub status: String,
}

impl Object {
    /// Whether it is the pause container, which stands for its pod.
    #[must_use]
    pub fn is_pod(&self) -> bool {
        self.label("io.cri-containerd.kind") == "sandbox"
    }

    /// A label, or nothing.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels[name].as_str().unwrap_or_default()
    }
}

impl Containerd {
    /// The one of this run. Where there is none, this says that the test is skipped, and why.
    ///
    /// # Panics
    /// In CI, where there must be one.
    #[must_use]
    pub fn get() -> Option<&'static Self> {
        static FOUND: OnceLock<Result<Containerd, String>> = OnceLock::new();
        match FOUND.get_or_init(find) {
            Ok(containerd) => Some(containerd),
            Err(reason) if environment::is_ci() => {
                panic!("in CI there must be a containerd: {reason}")
            }
            Err(reason) => {
                crate::tell_skipped(reason);
                None
            }
        }
    }

    /// Where it answers.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.place.socket()
    }

    /// What a daemon is told so that it uses it, flag by flag.
    #[must_use]
    pub fn flags(&self) -> [String; 2] {
        [
            "--enable-container-mode".to_owned(),
            format!("--cri-socket={}", self.socket().display()),
        ]
    }

    /// An image with a shell and the usual small programs, which is there.
    #[must_use]
    pub fn image(&self) -> &'static str {
        images::BUSYBOX
    }

    /// An image with `/busybox` and no shell, which is there.
    #[must_use]
    pub fn distroless_image(&self) -> &'static str {
        images::DISTROLESS
    }

    /// A name that leads to this machine and to nobody who listens: a pull of it fails at once.
    #[must_use]
    pub fn absent_image(&self) -> &'static str {
        "nobody.test/absent:1"
    }

    /// A cgroup for pods, absolute in its hierarchies; what a test leaves in it is removed when
    /// the run ends.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("/{}", self.place.cgroup())
    }

    /// A registry of this test's own, empty, which pulls of its name reach.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn registry(&self) -> Registry {
        match Registry::start(&self.place) {
            Ok(registry) => registry,
            Err(error) => panic!("start a registry: {error:#}"),
        }
    }

    /// The busybox image with an identity of its own, as `path` of a registry; answers with the
    /// name to pull.
    ///
    /// # Panics
    /// When its archive is gone.
    #[must_use]
    pub fn serve(&self, registry: &Registry, path: &str) -> String {
        let serve = || {
            let archive = std::fs::read(self.place.images().join("busybox.tar"))?;
            let name = format!("{}/{path}", registry.name());
            registry.add(path, &image::relabel(&archive, &name, &name)?)
        };
        match serve() {
            Ok(name) => name,
            Err(error) => panic!("serve {path}: {error:#}"),
        }
    }

    /// Whether an image of this name is there.
    #[must_use]
    pub fn has_image(&self, name: &str) -> bool {
        let images = self.ctr(&["images", "ls", "--quiet"]);
        images.lines().any(|image| image == name)
    }

    /// Runs `ctr` with these words in the namespace of CRI and answers with what it wrote.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    #[track_caller]
    pub fn ctr(&self, words: &[&str]) -> String {
        self.try_ctr(words).expect(0).stdout
    }

    /// The same, whatever comes of it.
    #[must_use]
    pub fn try_ctr(&self, words: &[&str]) -> cli::Finished {
        cli::finish(&mut service::ctr_command(&self.place, words), b"", PATIENCE)
    }

    /// Every container and pod that is on record, whoever made it.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        let tasks = self.ctr(&["tasks", "ls"]);
        let ids = self.ctr(&["containers", "ls", "--quiet"]);
        ids.lines()
            .filter_map(|id| self.object(id, &tasks))
            .collect()
    }

    /// Those whose label has this value.
    #[must_use]
    pub fn labelled(&self, name: &str, value: &str) -> Vec<Object> {
        let mut found = self.objects();
        found.retain(|object| object.label(name) == value);
        found
    }

    /// `None`: it was removed while we looked.
    fn object(&self, id: &str, tasks: &str) -> Option<Object> {
        let info = self.try_ctr(&["containers", "info", id]);
        if info.code != 0 {
            assert!(info.stderr.contains("not found"), "{}", info.stderr);
            return None;
        }
        let info = info.json();
        // TASK PID STATUS
        let task: Option<Vec<&str>> = tasks
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(&id));
        let word = |index: usize| task.as_ref().and_then(|words| words.get(index).copied());
        Some(Object {
            id: id.to_owned(),
            labels: info["Labels"].clone(),
            image: info["Image"].as_str().unwrap_or_default().to_owned(),
            pid: word(1).and_then(|pid| pid.parse().ok()),
            status: word(2).unwrap_or_default().to_owned(),
        })
    }
}

/// Whether a process executes a program of the run's containerd: itself, a shim, `runc`.
#[must_use]
pub fn is_of_the_run(pid: u32) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    let place = std::env::var_os(environment::DIR).and_then(|dir| Place::new(dir).ok());
    match (program, place) {
        (Ok(program), Some(place)) => program.starts_with(place.programs()),
        _ => false,
    }
}

/// The static busybox of the run's packages, or the machine's own.
#[must_use]
pub fn busybox() -> Option<PathBuf> {
    let unpacked = std::env::var_os(environment::DIR)
        .and_then(|dir| Place::new(dir).ok())
        .map(|place| place.busybox());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join("busybox"));
    unpacked
        .into_iter()
        .chain(installed)
        .find(|file| is_static(file))
}

/// A program that names no loader needs none, nor any library.
fn is_static(file: &Path) -> bool {
    const LOADER: &[u8] = b"/ld-linux";
    std::fs::read(file).is_ok_and(|bytes| {
        let mut names = bytes.windows(LOADER.len());
        bytes.starts_with(b"\x7fELF") && !names.any(|name| name == LOADER)
    })
}

fn find() -> Result<Containerd, String> {
    if let Some(reason) = std::env::var_os(environment::NONE) {
        return Err(reason.to_string_lossy().into_owned());
    }
    let Some(dir) = std::env::var_os(environment::DIR) else {
        return Err(format!(
            "no containerd: {} is not set; run `cargo xtask test`, or `cargo xtask containerd \
             start` and what it says about tests",
            environment::DIR
        ));
    };
    let place = Place::new(dir).map_err(|error| format!("{}: {error:#}", environment::DIR))?;
    probe::version(&place.socket())
        .map_err(|error| format!("{} does not answer: {error}", place.socket().display()))?;
    Ok(Containerd { place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_of_the_tests_are_there() {
        let Some(containerd) = Containerd::get() else {
            return;
        };
        for image in [containerd.image(), containerd.distroless_image()] {
            assert!(containerd.has_image(image), "{image}");
        }
        assert!(!containerd.has_image(containerd.absent_image()));
    }

    #[test]
    fn an_image_is_pulled_from_a_registry_of_its_own() {
        let Some(containerd) = Containerd::get() else {
            return;
        };
        let registry = containerd.registry();
        let name = containerd.serve(&registry, "team/app:1");
        let hosts = containerd.place.registries().display().to_string();
        let words = ["images", "pull", "--hosts-dir", &hosts, &name];
        let _shown = containerd.ctr(&words);
        assert!(containerd.has_image(&name));
        // The manifest by its tag, then three blobs.
        assert!(registry.requests() >= 4, "{}", registry.requests());
        let _shown = containerd.ctr(&["images", "rm", "--sync", &name]);
        assert!(containerd.has_image(containerd.image()), "its twin stays");
    }
}
