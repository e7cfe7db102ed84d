//! A main container for the tests of sidecars, made without any container runtime: namespaces
//! and a root file system of its own, and a first process that knows its name.
//!
//! What is mounted is mounted in its own namespace alone and ends with it. Dropped, its processes
//! are dead and its directory is gone.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use taskwright_test_containerd::images;
use tempfile::TempDir;

use crate::containerd::busybox;
use crate::processes::{self, Process};
use crate::reaper::{self, Owned};
use crate::{SOON, cli, eventually_some};

/// The variable by which a sidecar finds its main container.
pub const VARIABLE: &str = "SANDBOX_MAIN_CONTAINER";

/// What every main container has of its own; a user namespace only if that is asked for.
pub const NAMESPACES: [&str; 5] = ["pid", "mnt", "net", "uts", "ipc"];

/// Where root of a user namespace is outside of it, and how many follow.
const SHIFTED: u32 = 100_000;
const SHIFTED_COUNT: u32 = 65_536;

/// What [`ENTER`] and the namespaces need, if another user than root makes them.
const MAKER_NEEDS: [&str; 3] = ["sys_admin", "net_admin", "dac_override"];

/// Gives itself a root file system, then becomes the command. `$1` is a busybox of the machine,
/// `$2` the new root, `$3` the busybox in there, `$4` the host's name.
const ENTER: &str = r#"
set -e
outer=$1 root=$2 inner=$3 name=$4
shift 4
"$outer" mount -o bind "$root" "$root"
"$outer" mount -t proc proc "$root/proc"
"$outer" mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero urandom; do
    : > "$root/dev/$device"
    "$outer" mount -o bind "/dev/$device" "$root/dev/$device"
done
"$outer" hostname "$name"
"$outer" ip link set lo up
cd "$root"
"$outer" pivot_root . .old
"/.old$outer" umount -l /.old
"$inner" rmdir /.old
exec "$@"
"#;

/// Reaps, and waits for the end of its input, which this process holds: one whose test was killed
/// does not live on.
const HOLD: &str = "trap 'exit 0' TERM; exec 3<&0; cat <&3 >/dev/null & wait";

/// How a main container is made.
#[derive(Clone, Debug)]
pub struct MainOptions {
    name: String,
    kind: Kind,
    user: User,
    variables: Vec<(String, String)>,
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Busybox,
    Distroless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    Root,
    Numbered(u32),
    Namespace,
}

impl MainOptions {
    /// With a shell and the usual programs, of root, with [`VARIABLE`] set to `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: Kind::Busybox,
            user: User::Root,
            variables: Vec::new(),
            command: Vec::new(),
        }
    }

    /// With one static program, `/busybox`, and neither a shell nor any other file.
    #[must_use]
    pub fn distroless(mut self) -> Self {
        self.kind = Kind::Distroless;
        self
    }

    /// Of this user and the group of that number, without any privilege.
    #[must_use]
    pub fn user(mut self, uid: u32) -> Self {
        self.user = User::Numbered(uid);
        self
    }

    /// Of root in a user namespace of its own, who is nobody outside of it.
    #[must_use]
    pub fn user_namespace(mut self) -> Self {
        self.user = User::Namespace;
        self
    }

    /// With one more variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Running this instead of waiting; the first word is a path in the container.
    #[must_use]
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts it. Where that is impossible, this says that the test is skipped, and why.
    ///
    /// # Panics
    /// When it does not start, or in CI as root when it is impossible.
    #[must_use]
    pub fn start(self) -> Option<MainContainer> {
        if !rustix::process::geteuid().is_root() {
            crate::skip("a main container needs root");
            return None;
        }
        let Some(outer) = busybox() else {
            crate::skip(
                "no static busybox: `cargo xtask containerd start` gets one, or the package \
                 busybox-static",
            );
            return None;
        };
        Some(MainContainer::make(self, outer))
    }

    fn inner(&self) -> &'static str {
        match self.kind {
            Kind::Busybox => "/bin/busybox",
            Kind::Distroless => "/busybox",
        }
    }

    /// What becomes the first process, seen from inside.
    fn first_process(&self) -> Vec<String> {
        if !self.command.is_empty() {
            return self.command.clone();
        }
        let words: &[&str] = match self.kind {
            Kind::Busybox => &["/bin/sh", "-c", HOLD],
            Kind::Distroless => &["/busybox", "cat"],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

/// A main container, with a process until it is killed.
#[derive(Debug)]
pub struct MainContainer {
    options: MainOptions,
    outer: PathBuf,
    running: Option<Running>,
    // After the process, whose root it is.
    directory: TempDir,
}

#[derive(Debug)]
struct Running {
    first: Process,
    /// The parent of the first one, which made the namespaces.
    maker: Owned,
}

impl MainContainer {
    /// One as most are: with a shell, of root.
    #[must_use]
    pub fn start(name: &str) -> Option<Self> {
        MainOptions::new(name).start()
    }

    /// Its first process, as this machine sees it.
    ///
    /// # Panics
    /// When it was killed.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match &self.running {
            Some(running) => running.first.pid,
            None => panic!("the main container {:?} was killed", self.options.name),
        }
    }

    /// Its root file system as this machine sees it, without what is mounted in there.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Kills its first process, and with it everything in it; waits until that is dead.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            reaper::kill(&running.first);
            running.maker.kill();
        }
    }

    /// Starts it again with the same files: another process in other namespaces.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    fn make(options: MainOptions, outer: PathBuf) -> Self {
        let directory = match tempfile::Builder::new().prefix("tw-main-").tempdir() {
            Ok(directory) => directory,
            Err(error) => panic!("make a directory for a main container: {error}"),
        };
        let mut container = Self {
            options,
            outer,
            running: None,
            directory,
        };
        if let Err(error) = container.fill() {
            panic!("make the files of a main container: {error:#}");
        }
        container.launch();
        container
    }

    fn fill(&self) -> Result<(), Box<dyn std::error::Error>> {
        let root = self.root();
        // Root of a user namespace is another user out here.
        fs::set_permissions(self.directory.path(), Permissions::from_mode(0o755))?;
        match self.options.kind {
            Kind::Busybox => {
                let list = cli::finish(Command::new(&self.outer).arg("--list"), b"", SOON);
                let names = list.expect(0).stdout;
                let names: Vec<&str> = names.lines().collect();
                images::busybox_tree(&self.outer, &names, &root)?;
            }
            Kind::Distroless => images::distroless_tree(&self.outer, &root)?,
        }
        // The maker's programs are of this machine, and may lie where only root may go.
        let copy = self.directory.path().join("busybox");
        fs::copy(&self.outer, &copy)?;
        fs::set_permissions(copy, Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn launch(&mut self) {
        let root = self.root();
        // Where the old root is for a moment.
        let made = fs::create_dir_all(root.join(".old"));
        let owned = match self.options.user {
            User::Namespace => shift(&root),
            User::Root | User::Numbered(_) => Ok(()),
        };
        if let Err(error) = made.and(owned) {
            panic!("prepare the files of a main container: {error}");
        }
        let mut maker = match Owned::spawn(&mut self.maker()) {
            Ok(maker) => maker,
            Err(error) => panic!("start a main container by `unshare`: {error}"),
        };
        if self.options.user == User::Namespace {
            map_users(&mut maker);
        }
        let wanted = format!("{VARIABLE}={}", self.options.name);
        let what = "the main container runs";
        let first = eventually_some(SOON, what, || {
            assert!(
                maker.ended().is_none(),
                "the main container ended at its start: {}",
                fs::read_to_string(self.log()).unwrap_or_default()
            );
            let mut children = processes::living();
            children.retain(|process| process.parent == maker.pid());
            let first = children.pop()?;
            // Set by its last step only.
            let variables = processes::environment(first.pid);
            variables.contains(&wanted).then_some(first)
        });
        self.running = Some(Running { first, maker });
    }

    /// What makes the namespaces and, in them, runs [`ENTER`].
    fn maker(&self) -> Command {
        let options = &self.options;
        let copy = self.directory.path().join("busybox");
        let copy = copy.display().to_string();
        let inner = options.inner();
        let mut enter: Vec<String> = [
            "--mount",
            "--pid",
            "--net",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            &copy,
            "sh",
            "-c",
            ENTER,
            "main-container",
            &copy,
            &self.root().display().to_string(),
            inner,
            &options.name,
        ]
        .map(str::to_owned)
        .into();
        if matches!(options.user, User::Numbered(_)) {
            // What its maker needed goes with the next program.
            let dropped = MAKER_NEEDS.map(|name| format!("-{name}")).join(",");
            let drop: [&str; 5] = [
                "setpriv",
                "--inh-caps",
                &dropped,
                "--ambient-caps",
                &dropped,
            ];
            enter.push(inner.to_owned());
            enter.extend(drop.map(str::to_owned));
        }
        enter.extend([inner, "env", "-i", "PATH=/bin"].map(str::to_owned));
        enter.push(format!("{VARIABLE}={}", options.name));
        let variables = options.variables.iter();
        enter.extend(variables.map(|(name, value)| format!("{name}={value}")));
        enter.extend(options.first_process());

        let mut command = match options.user {
            User::Root | User::Namespace => Command::new("unshare"),
            // A user from the beginning: no program in there could become one. These privileges
            // are kept over programs until they are dropped.
            User::Numbered(uid) => {
                let kept = MAKER_NEEDS.map(|name| format!("+{name}")).join(",");
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={uid}"))
                    .arg(format!("--regid={uid}"))
                    .arg("--clear-groups")
                    .arg(format!("--inh-caps={kept}"))
                    .arg(format!("--ambient-caps={kept}"))
                    .arg("unshare");
                command
            }
        };
        if options.user == User::Namespace {
            // Its users are mapped from outside, by whom they are outside.
            // By the machine's shell: busybox would take its own `unshare`.
            command.args(["--user", "--keep-caps", "sh", "-c"]);
            command.arg(r#"read _mapped && exec unshare --setuid 0 --setgid 0 "$@""#);
            command.arg("main-container");
        }
        command.args(enter);
        // Closed by the kernel when this process dies, however that comes.
        command.stdin(Stdio::piped());
        command.current_dir("/");
        match fs::File::create(self.log()).and_then(|log| Ok((log.try_clone()?, log))) {
            Ok((out, err)) => command.stdout(out).stderr(err),
            Err(error) => panic!("open the log of a main container: {error}"),
        };
        command
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for MainContainer {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            // Not by `kill`: a failed test must not fail twice. The maker ends with its child,
            // and the kernel unmounts what nobody sees any more.
            reaper::send(running.first.pid, rustix::process::Signal::KILL);
        }
    }
}

/// Gives a root file system to the users of a user namespace.
fn shift(path: &Path) -> std::io::Result<()> {
    if path.is_symlink() {
        return Ok(());
    }
    chown(path, Some(SHIFTED), Some(SHIFTED))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            shift(&entry?.path())?;
        }
    }
    Ok(())
}

/// Maps the users of the maker's new user namespace and lets it go on.
fn map_users(maker: &mut Owned) {
    let pid = maker.pid();
    eventually_some(SOON, "the user namespace is made", || {
        let own = namespace(std::process::id(), "user")?;
        (namespace(pid, "user")? != own).then_some(())
    });
    let map = format!("0 {SHIFTED} {SHIFTED_COUNT}\n");
    for file in ["uid_map", "gid_map"] {
        if let Err(error) = fs::write(format!("/proc/{pid}/{file}"), &map) {
            panic!("write {file} of a main container: {error}");
        }
    }
    // Kept open: its end would be the end of the container.
    let pipe = maker.child().stdin.as_mut();
    let told = pipe.map(|pipe| pipe.write_all(b"\n"));
    assert!(
        matches!(told, Some(Ok(()))),
        "the maker of a main container hung up: {told:?}"
    );
}

/// Which namespace of a kind, `net`, a process is in: equal for two that share it. `None`: the
/// process is dead, or nobody may look.
#[must_use]
pub fn namespace(pid: u32, kind: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    Some(link.display().to_string())
}

/// All of [`NAMESPACES`] that a process is in, by kind.
///
/// # Panics
/// When the process is dead.
#[must_use]
pub fn namespaces(pid: u32) -> BTreeMap<&'static str, String> {
    NAMESPACES
        .into_iter()
        .map(|kind| match namespace(pid, kind) {
            Some(namespace) => (kind, namespace),
            None => panic!("process {pid} has no {kind} namespace to look at"),
        })
        .collect()
}

/// The kinds of [`NAMESPACES`] that two processes share.
///
/// # Panics
/// When one of them is dead.
#[must_use]
pub fn shared_namespaces(one: u32, other: u32) -> Vec<&'static str> {
    let other = namespaces(other);
    let mut shared = namespaces(one);
    shared.retain(|kind, namespace| other.get(kind) == Some(namespace));
    shared.into_keys().collect()
}

#[cfg(test)]
mod tests;
