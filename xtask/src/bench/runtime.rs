//! The container runtime of the benchmarks: a containerd in a folder of its own.
//!
//! It is started for one benchmark and stopped with all its containers when that is over, failed
//! or interrupted. Its programs and images stay below the target directory, as what cargo builds
//! does: fetching them takes longer than measuring.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use taskwright_test_containerd::{
    Place as Folder, Suite, environment, images, packages, process, service,
};

use super::{Bench, Skipped};
use crate::containerd::stop_at_signals;

/// The image of every container: a shell and the usual small programs.
pub(super) const IMAGE: &str = images::BUSYBOX;

/// A containerd that answers. Dropped, it is stopped.
#[derive(Debug)]
pub(super) struct Runtime {
    folder: Folder,
    pid: u32,
    /// What it is, for people.
    pub(super) version: String,
    running: bool,
}

impl Runtime {
    /// Starts it; where that is impossible the benchmark is skipped, except in CI.
    pub(super) fn start(bench: &Bench) -> anyhow::Result<Self> {
        let folder = folder(bench)?;
        stop_at_signals(&folder)?;
        // One of a run that was killed has containers of that run.
        let ready = service::stop(&folder).and_then(|()| service::start(&folder, &Suite::Best));
        let ready = ready.map_err(skipped)?;
        Ok(Self {
            folder,
            pid: ready.pid,
            version: ready.unpacked.version,
            running: true,
        })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.socket()
    }

    /// The cgroup that everything is put under. It is removed with all that is left in it.
    pub(super) fn cgroup(&self) -> String {
        format!("/{}", self.folder.cgroup())
    }

    /// What a daemon is told to use it.
    pub(super) fn flags(&self) -> Vec<String> {
        let mut flags: Vec<String> = ["--enable-container-mode", "--container-host-network"]
            .map(str::to_owned)
            .into();
        let socket = self.socket().display().to_string();
        flags.extend(["--cri-socket".to_owned(), socket]);
        flags.extend(["--container-cgroup-parent".to_owned(), self.cgroup()]);
        flags
    }

    /// The process of containerd itself.
    pub(super) fn pid(&self) -> i32 {
        self.pid as i32
    }

    /// How many processes run its programs beside itself: one for each sandbox.
    pub(super) fn shims(&self) -> usize {
        let all = process::executing_below(&self.folder.programs());
        all.iter().filter(|one| one.pid != self.pid).count()
    }

    /// Stops it, with every container.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.running = false;
        service::stop(&self.folder).context("stop containerd")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.running {
            // Something failed already and is being told; the next start takes away what is left.
            let _ = service::stop(&self.folder);
        }
    }
}

/// A static busybox, from the same packages; no containerd is started for it.
pub(super) fn busybox(bench: &Bench) -> anyhow::Result<PathBuf> {
    let folder = folder(bench)?;
    let unpack = || {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "a main container needs root"
        );
        fs::create_dir_all(folder.dir())?;
        packages::ensure(&folder, &Suite::Best)
    };
    unpack().map_err(skipped)?;
    Ok(folder.busybox())
}

fn folder(bench: &Bench) -> anyhow::Result<Folder> {
    let near: &Path = &bench.target.join("taskwright/bench-containerd");
    Folder::near(near)
}

fn skipped(error: anyhow::Error) -> anyhow::Error {
    if environment::is_ci() {
        return error;
    }
    anyhow!(Skipped(format!("{error:#}").replace('\n', "; ")))
}
