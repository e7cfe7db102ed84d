//! What a container runtime leaves: taken away after it and its containers ended, however that
//! came to be. All of it can be done again and again.
//!
//! Containers are found by what containerd recorded of them in the folder, so nothing of anybody
//! else's is touched.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use rustix::process::Signal;
use sha2::{Digest, Sha256};

use crate::command::{self, LOCAL};
use crate::place::{Place, hex};
use crate::process::{self, Identity};

/// How long killed processes may take to die on a busy machine.
const DEATH: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);
/// Where shims listen, whatever containerd is told.
const SHIM_SOCKETS: &str = "/run/containerd/s";
/// Where network plugins remember what they did, whatever containerd is told.
const NETWORK_RESULTS: &str = "/var/lib/cni/results";
/// A directory is only removed if its parent's turn comes after it.
const OUTSIDE: [&str; 4] = [
    SHIM_SOCKETS,
    "/run/containerd",
    NETWORK_RESULTS,
    "/var/lib/cni",
];

/// Notes which directories outside of the folder are not there yet, so that they can be removed
/// when they are empty again. What an earlier start noted stays true.
///
/// # Errors
/// When the note cannot be written.
pub fn note_outside(place: &Place) -> Result<()> {
    let mut made: BTreeSet<String> = fs::read_to_string(place.made_outside())
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    let missing = OUTSIDE.iter().filter(|path| !Path::new(path).exists());
    made.extend(missing.map(|path| (*path).to_owned()));
    let text: String = made.iter().map(|path| format!("{path}\n")).collect();
    fs::write(place.made_outside(), text).context("note what is made outside of the folder")
}

/// What containerd recorded of its containers. It forgets them as they end, so this is read
/// before.
#[derive(Clone, Debug, Default)]
pub struct Known {
    containers: BTreeSet<String>,
    sockets: BTreeSet<PathBuf>,
    /// Groups above those of the containers, which whoever named them may have left to us.
    parents: BTreeSet<PathBuf>,
}

impl Known {
    /// Reads it.
    #[must_use]
    pub fn of(place: &Place) -> Self {
        let containers = containers(place);
        let mut sockets = shim_sockets(place);
        sockets.extend(containers.iter().map(|id| shim_socket(place, id)));
        let groups = groups(place, &containers);
        let parents = groups.iter().flat_map(|group| group.ancestors().skip(1));
        let parents = parents.filter(|group| is_below_hierarchy(group));
        let parents = parents.map(Path::to_owned).collect();
        Self {
            containers,
            sockets,
            parents,
        }
    }
}

/// Ends what is left of containers, and takes away everything that containerd made.
///
/// # Errors
/// When something cannot be taken away; the rest is, as far as that goes.
pub fn clear(place: &Place, known: &Known) -> Result<()> {
    end_processes(place)?;
    let groups = remove_groups(place, known);
    let mounts = unmount(place);
    remove_bridge(place)?;
    for socket in &known.sockets {
        let _gone_already = fs::remove_file(socket);
    }
    remove_network_results(place, &known.containers);
    for directory in [place.state(), place.root(), place.config()] {
        remove(&directory)?;
    }
    let socket = place.socket();
    let ttrpc = socket.with_extension("sock.ttrpc");
    for file in [socket, ttrpc, place.pid_file()] {
        let _gone_already = fs::remove_file(file);
    }
    remove_outside(place);
    groups.and(mounts)
}

/// The containers and pods that containerd recorded.
fn containers(place: &Place) -> BTreeSet<String> {
    let mut folders = vec![place.state().join("io.containerd.runtime.v2.task/k8s.io")];
    for base in [place.state(), place.root()] {
        let cri = base.join("io.containerd.grpc.v1.cri");
        folders.extend([cri.join("sandboxes"), cri.join("containers")]);
    }
    folders
        .iter()
        .flat_map(|folder| entries(folder))
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        // Anything shorter is none of containerd's names, and might be somebody's cgroup.
        .filter(|name| name.len() >= 32)
        .collect()
}

/// Where the shims of its containers listen, as those wrote down.
fn shim_sockets(place: &Place) -> BTreeSet<PathBuf> {
    entries(&place.state().join("io.containerd.runtime.v2.task/k8s.io"))
        .iter()
        .flat_map(|bundle| [bundle.join("address"), bundle.join("bootstrap.json")])
        .filter_map(|file| fs::read_to_string(file).ok())
        .filter_map(|text| {
            let path = text.split_once("unix://")?.1;
            let path = path.split(['"', '\n']).next()?;
            path.starts_with(SHIM_SOCKETS).then(|| PathBuf::from(path))
        })
        .collect()
}

/// Where the shim of a pod listens, which is computed from names; a shim that was killed may
/// have left nothing else.
fn shim_socket(place: &Place, id: &str) -> PathBuf {
    let name = place.socket().join("k8s.io").join(id);
    let name = hex(&Sha256::digest(name.as_os_str().as_encoded_bytes()));
    Path::new(SHIM_SOCKETS).join(name)
}

/// Ends whatever executes one of our programs: shims, runc, network plugins, `ctr`.
fn end_processes(place: &Place) -> Result<()> {
    let begun = Instant::now();
    loop {
        let left = process::executing_below(&place.programs());
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > DEATH {
            let pids: Vec<u32> = left.iter().map(|process| process.pid).collect();
            bail!("processes that cannot be killed: {pids:?}");
        }
        for process in left {
            process.signal(Signal::KILL);
        }
        std::thread::sleep(LOOK);
    }
}

/// Kills what is left in the containers' cgroups and removes those, the lowest first.
fn remove_groups(place: &Place, known: &Known) -> Result<()> {
    let found = groups(place, &known.containers);
    // What is frozen dies only after it thaws, and nothing thaws below what is frozen.
    for group in &found {
        for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let file = group.join(file);
            if file.exists() {
                let _removal_tells = fs::write(file, thawed);
            }
        }
    }
    let deadline = Instant::now() + DEATH;
    let mut failed = Vec::new();
    for group in found.iter().rev() {
        if !end_group(group, deadline) {
            failed.push(group.display().to_string());
        }
    }
    // containerd makes the parents that a pod names, and leaves them to the caller. One that
    // holds anything is not removed by this.
    for parent in known.parents.iter().rev() {
        let _not_empty = fs::remove_dir(parent);
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("cgroups that cannot be removed: {}", failed.join(", "))
}

/// The cgroups of these containers, and the one for tests, with all below them; a group comes
/// before those in it.
fn groups(place: &Place, containers: &BTreeSet<String>) -> Vec<PathBuf> {
    let ours = |name: &str| containers.contains(name) || name == place.cgroup();
    let mut found = Vec::new();
    find_groups(Path::new("/sys/fs/cgroup"), &ours, false, &mut found);
    found.sort();
    found
}

/// Never a hierarchy's own top: `/sys/fs/cgroup/pids`.
fn is_below_hierarchy(group: &Path) -> bool {
    group
        .parent()
        .is_some_and(|parent| parent.join("cgroup.procs").exists())
}

fn find_groups(
    directory: &Path,
    ours: &dyn Fn(&str) -> bool,
    inside: bool,
    found: &mut Vec<PathBuf>,
) {
    for path in entries(directory) {
        if path.is_symlink() || !path.is_dir() {
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let inside = inside || name.is_some_and(ours);
        if inside {
            found.push(path.clone());
        }
        find_groups(&path, ours, inside, found);
    }
}

/// Whether the group is gone.
fn end_group(group: &Path, deadline: Instant) -> bool {
    loop {
        match fs::remove_dir(group) {
            Ok(()) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return true,
            Err(_busy) if Instant::now() > deadline => return false,
            Err(_busy) => {}
        }
        let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        let pids = processes.lines().filter_map(|pid| pid.parse().ok());
        for process in pids.filter_map(Identity::of) {
            process.signal(Signal::KILL);
        }
        std::thread::sleep(LOOK);
    }
}

/// Unmounts everything below the folder, the uppermost first.
fn unmount(place: &Place) -> Result<()> {
    // One mount may hide another at the same path.
    for _ in 0..4 {
        let mut points = mount_points(place.dir())?;
        if points.is_empty() {
            return Ok(());
        }
        points.sort();
        for point in points.iter().rev() {
            let _looked_at_again = umount2(point, MntFlags::MNT_DETACH);
        }
    }
    match mount_points(place.dir())?.first() {
        None => Ok(()),
        Some(point) => bail!("{} cannot be unmounted", point.display()),
    }
}

fn mount_points(directory: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    // The fifth field; the folder's path holds nothing that would be written as octal digits,
    // but what lies below it may.
    Ok(mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(plain(point)))
        .filter(|point| point.starts_with(directory))
        .collect())
}

/// A path of `/proc/self/mountinfo` without its escapes: `\040` is a blank.
fn plain(escaped: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(escaped.to_owned(), |text, (code, letter)| {
        text.replace(code, letter)
    })
}

fn remove_bridge(place: &Place) -> Result<()> {
    let bridge = place.bridge();
    if !Path::new("/sys/class/net").join(&bridge).exists() {
        return Ok(());
    }
    ip(place, &["link", "del", &bridge])
}

/// Makes the bridge of the pods, with the host's address on it.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn make_bridge(place: &Place) -> Result<()> {
    let bridge = place.bridge();
    let address = format!("{}.1/24", place.subnet());
    ip(place, &["link", "add", &bridge, "type", "bridge"])?;
    ip(place, &["addr", "add", &address, "dev", &bridge])?;
    ip(place, &["link", "set", &bridge, "up"])
}

/// Busybox has an `ip`, which the machine may lack.
fn ip(place: &Place, words: &[&str]) -> Result<()> {
    let mut command = Command::new(place.busybox());
    command::run(command.arg("ip").args(words), LOCAL).map(|_quiet| ())
}

/// They are named `NETWORK-CONTAINER-INTERFACE`; the loopback is a network of its own.
fn remove_network_results(place: &Place, containers: &BTreeSet<String>) {
    let network = format!("{}-", place.network());
    let ours = |name: &str| {
        name.starts_with(&network) || name.split('-').any(|part| containers.contains(part))
    };
    for file in entries(Path::new(NETWORK_RESULTS)) {
        let name = file.file_name().and_then(|name| name.to_str());
        if name.is_some_and(ours) {
            let _gone_already = fs::remove_file(file);
        }
    }
}

fn remove_outside(place: &Place) {
    let made = fs::read_to_string(place.made_outside()).unwrap_or_default();
    for directory in OUTSIDE {
        if made.lines().any(|line| line == directory) {
            // Another containerd may be using it by now.
            let _not_empty = fs::remove_dir(directory);
        }
    }
    let _gone_already = fs::remove_file(place.made_outside());
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_mount_points_are_undone() {
        assert_eq!(plain(r"/a\040b\134c"), r"/a b\c");
    }

    #[test]
    fn the_top_of_a_hierarchy_is_never_below_one() {
        assert!(!is_below_hierarchy(Path::new("/sys/fs/cgroup")));
        assert!(!is_below_hierarchy(Path::new("/tmp")));
    }
}
