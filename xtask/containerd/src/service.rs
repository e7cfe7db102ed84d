//! Start, status, stop, wipe: one containerd in one folder.
//!
//! Every start is from nothing but the programs and the images: whatever an earlier life left
//! is taken away first. Whoever starts it may die; the containerd goes on until somebody stops it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use rustix::process::Signal;

use crate::command::{self, LOCAL, last_lines};
use crate::packages::{self, Suite, Unpacked};
use crate::place::Place;
use crate::process::Identity;
use crate::{config, images, leftovers, probe};

const READY: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// A containerd that answers.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The process.
    pub pid: u32,
    /// Whether it was there already.
    pub was_running: bool,
    /// What it was unpacked from.
    pub unpacked: Unpacked,
}

/// How a containerd is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is no process.
    Stopped,
    /// There is one, but its socket does not answer.
    Silent(u32),
    /// There is one, and it takes CRI calls.
    Answers(u32),
}

/// Starts it, unless it answers already; programs and images are got first.
///
/// # Errors
/// When this is not root on Linux, something cannot be had, or it does not get ready; nothing is
/// left of it then.
pub fn start(place: &Place, suite: &Suite) -> Result<Ready> {
    ensure!(
        cfg!(target_os = "linux") && rustix::process::geteuid().is_root(),
        "a containerd needs root on Linux: it mounts, and makes namespaces and cgroups\n\
         hint: run this as root, or in a privileged container or virtual machine of your own"
    );
    fs::create_dir_all(place.dir()).with_context(|| format!("make {}", place.dir().display()))?;
    let _lock = lock(place)?;
    if let Status::Answers(pid) = status(place)
        && place.programs().exists()
    {
        let unpacked = packages::ensure_unchanged(place, suite)?;
        return Ok(Ready {
            pid,
            was_running: true,
            unpacked,
        });
    }
    end_all(place).context("take away what an earlier containerd left")?;
    let unpacked = packages::ensure(place, suite)?;
    images::ensure(place).context("make the images")?;
    let started = launch(place);
    if started.is_err() {
        let _the_first_error_tells = end_all(place);
    }
    Ok(Ready {
        pid: started?,
        was_running: false,
        unpacked,
    })
}

/// How it is, now.
#[must_use]
pub fn status(place: &Place) -> Status {
    match Identity::read(&place.pid_file()).filter(|process| process.is_alive()) {
        None => Status::Stopped,
        Some(process) if probe::version(&place.socket()).is_ok() => Status::Answers(process.pid),
        Some(process) => Status::Silent(process.pid),
    }
}

/// Ends it and every container of it, and takes away all that it left on the machine. Programs,
/// images and its log stay. A second time does nothing.
///
/// # Errors
/// When something cannot be ended or taken away.
pub fn stop(place: &Place) -> Result<()> {
    if !place.dir().exists() {
        return Ok(());
    }
    let _lock = lock(place)?;
    end_all(place)
}

/// Stops it and removes the folder with everything in it.
///
/// # Errors
/// As [`stop`].
pub fn wipe(place: &Place) -> Result<()> {
    stop(place)?;
    match fs::remove_dir_all(place.dir()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", place.dir().display()))
        }
        _ => Ok(()),
    }
}

/// Runs containerd's own client in the namespace that CRI uses, and answers with its output.
///
/// # Errors
/// When it does not end with 0.
pub fn ctr(place: &Place, words: &[&str]) -> Result<String> {
    command::run(&mut ctr_command(place, words), LOCAL)
}

/// The same, for those who run it in a way of their own.
#[must_use]
pub fn ctr_command(place: &Place, words: &[&str]) -> Command {
    let mut command = Command::new(place.program("usr/bin/ctr"));
    command
        .arg("--address")
        .arg(place.socket())
        .args(["--namespace", "k8s.io"])
        .args(words);
    command
}

/// One start or stop at a time. The kernel lets go of it when its holder dies.
fn lock(place: &Place) -> Result<Flock<fs::File>> {
    let path = place.dir().join("lock");
    let file = fs::File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let begun = Instant::now();
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((same, _held)) if begun.elapsed() < packages::LONGEST + READY => file = same,
            Err((_, error)) => {
                return Err(error).with_context(|| format!("another start or stop holds {path:?}"));
            }
        }
        std::thread::sleep(LOOK);
    }
}

fn launch(place: &Place) -> Result<u32> {
    leftovers::note_outside(place)?;
    config::write(place)?;
    leftovers::make_bridge(place).context("make the bridge of the pods")?;
    fs::create_dir_all(place.state())?;
    fs::create_dir_all(place.root())?;
    let log = fs::File::create(place.log())?;
    // A session of its own: neither a terminal's end nor its signals reach it. `setsid` becomes
    // the program, so the child's pid is containerd's.
    let child = Command::new("setsid")
        .arg(place.program("usr/bin/containerd"))
        .arg("--config")
        .arg(place.config().join("config.toml"))
        .env_clear()
        .env("PATH", search_path(place))
        .env("LD_LIBRARY_PATH", packages::libraries(&place.programs()))
        .current_dir(place.dir())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start containerd by `setsid`")?;
    let process = Identity::of(child.id()).context("containerd ended at once")?;
    fs::write(place.pid_file(), process.written())?;
    wait_ready(place, process)?;
    let services = ctr(place, &["plugins", "ls"])?;
    if let Some(broken) = services.lines().find(|line| is_broken_cri(line)) {
        bail!("containerd runs without its CRI service: {broken}");
    }
    import(place)?;
    Ok(process.pid)
}

fn is_broken_cri(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.clone().any(|word| word == "cri") && words.next_back() != Some("ok")
}

fn wait_ready(place: &Place, process: Identity) -> Result<()> {
    let begun = Instant::now();
    loop {
        let Err(error) = probe::version(&place.socket()) else {
            return Ok(());
        };
        let log = || last_lines(&fs::read_to_string(place.log()).unwrap_or_default());
        if !process.is_alive() {
            bail!("containerd ended; the end of its log:\n{}", log());
        }
        if begun.elapsed() > READY {
            let within = READY.as_secs();
            bail!(
                "containerd did not answer within {within} s ({error}); the end of its log:\n{}",
                log()
            );
        }
        std::thread::sleep(LOOK);
    }
}

fn import(place: &Place) -> Result<()> {
    let snapshotter = config::snapshotter(place.dir());
    for (name, file) in images::ALL {
        let archive = place.images().join(file);
        let archive = archive.display().to_string();
        let words = ["images", "import", "--snapshotter", snapshotter, &archive];
        ctr(place, &words).with_context(|| format!("import the image {name}"))?;
    }
    Ok(())
}

fn search_path(place: &Place) -> std::ffi::OsString {
    let mut paths: Vec<PathBuf> = ["usr/bin", "usr/sbin", "bin"]
        .iter()
        .map(|path| place.program(path))
        .collect();
    let own = std::env::var_os("PATH").unwrap_or_default();
    paths.extend(std::env::split_paths(&own).filter(|path| path.is_absolute()));
    // Never fails: a path of the variable holds no colon, and the folder's holds none either.
    std::env::join_paths(paths).unwrap_or(own)
}

/// Ends the containers as long as somebody knows them, then containerd, then whatever is left.
fn end_all(place: &Place) -> Result<()> {
    let known = leftovers::Known::of(place);
    let process = Identity::read(&place.pid_file()).filter(|process| process.is_alive());
    if let Some(process) = process {
        if probe::version(&place.socket()).is_ok() {
            // The sweep below finds whatever this leaves.
            let _swept = end_containers(place);
        }
        process.signal(Signal::TERM);
        if !process.is_dead_within(GRACE) {
            process.signal(Signal::KILL);
            ensure!(
                process.is_dead_within(GRACE),
                "containerd, process {}, cannot be killed",
                process.pid
            );
        }
    }
    leftovers::clear(place, &known)
}

/// Through containerd, so that shims end by themselves and file systems are unmounted in order.
fn end_containers(place: &Place) -> Result<()> {
    let tasks = ctr(place, &["tasks", "ls", "--quiet"])?;
    let tasks: Vec<&str> = tasks.lines().collect();
    if !tasks.is_empty() {
        let words = [&["tasks", "rm", "--force"], tasks.as_slice()].concat();
        // A container that was frozen holds this up, and is ended by the sweep.
        command::run(&mut ctr_command(place, &words), GRACE)?;
    }
    Ok(())
}

/// The path of a socket, as a daemon's flag takes it.
#[must_use]
pub fn flags(socket: &Path) -> String {
    format!("--enable-container-mode --cri-socket {}", socket.display())
}
