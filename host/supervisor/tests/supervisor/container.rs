//! A target as a container is one: namespaces and a root of its own, made with `unshare`.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use taskwright_capability::{Inside, Namespaces};
use taskwright_model::ProcessIdentity;
use taskwright_native::process;

use crate::harness::{KILL, eventually};

/// What `unshare` is told for every container.
const NAMESPACES: &[&str] = &[
    "--pid",
    "--fork",
    "--kill-child",
    "--mount",
    "--uts",
    "--ipc",
    "--net",
];

/// A root with the programs of this machine, read-only, and directories of its own.
const FULL_ROOT: &str = r#"
    for name in usr etc; do mkdir "$root/$name"; mount --rbind -o ro "/$name" "$root/$name"; done
    for name in bin sbin lib lib64; do
        if [ -L "/$name" ]; then cp -P "/$name" "$root/$name"
        elif [ -d "/$name" ]; then mkdir "$root/$name"; mount --rbind -o ro "/$name" "$root/$name"; fi
    done
    mkdir "$root/only-inside" "$root/tmp"
    chmod 1777 "$root/tmp"
"#;

/// A root with three programs and what they link to: no shell.
const BARE_ROOT: &str = r#"
    mkdir "$root/bin"
    for name in env sleep true; do
        file=/bin/$name
        cp -L "$file" "$root/bin/$name"
        for library in $(ldd "$file" | grep -o '/[^ ]*'); do
            mkdir -p "$root/$(dirname "$library")"
            cp -L "$library" "$root/$library"
        done
    done
"#;

/// The root becomes that of the mount namespace, as container runtimes do it.
const PIVOT: &str = "cd \"$root\"; pivot_root . old; umount -l old; exec";
/// The root is only that of the process.
const CHROOT: &str = "exec chroot \"$root\"";

/// A container, ended with the test.
pub(crate) struct Container {
    unshare: Child,
    pub(crate) init: ProcessIdentity,
    /// The value of `SANDBOX_MAIN_CONTAINER` in it.
    pub(crate) name: String,
    _place: tempfile::TempDir,
}

impl Container {
    /// One with the programs of this machine; `None` where that cannot be made.
    pub(crate) fn full() -> Option<Self> {
        Self::start(FULL_ROOT, PIVOT, &[], "")
    }

    /// One without a shell.
    pub(crate) fn bare() -> Option<Self> {
        Self::start(BARE_ROOT, CHROOT, &[], "")
    }

    /// One whose main process is started by `wrapper`, as `setpriv` with its options.
    pub(crate) fn started_by(wrapper: &str) -> Option<Self> {
        Self::start(FULL_ROOT, PIVOT, &[], wrapper)
    }

    /// One with a user namespace of its own, too.
    pub(crate) fn with_users() -> Option<Self> {
        Self::start(FULL_ROOT, PIVOT, &["--user", "--map-root-user"], "")
    }

    fn start(root: &str, enter: &str, further: &[&str], wrapper: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let name = place.path().file_name().unwrap().display().to_string();
        let script = format!(
            r#"exec 2>&1
            set -e
            root={}
            mount --make-rprivate /
            mount -t tmpfs none "$root"
            {root}
            mkdir "$root/proc" "$root/dev" "$root/old"
            mount -t proc proc "$root/proc"
            for name in null zero; do : > "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
            hostname inside-"{name}" 2> /dev/null || :
            {enter} env -i PATH=/usr/bin:/bin FROM_TARGET=yes OVERRIDDEN=no \
                SANDBOX_MAIN_CONTAINER="{name}" {wrapper} sleep 1000"#,
            place.path().display()
        );
        let unshare = Command::new("unshare")
            .args(NAMESPACES)
            .args(further)
            .args(["sh", "-c", &script])
            .stdin(Stdio::null())
            // Some versions complain of a signal mask and go on; the script's own go to stdout.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = unshare.id();
        let init = eventually("the container's main process runs", || {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let init: i32 = children.ok()?.split_whitespace().next()?.parse().ok()?;
            let command = process::command_line(init).ok()?;
            let start_ticks = process::stat(init).ok()?.start_ticks;
            command.starts_with(b"sleep").then_some(ProcessIdentity {
                pid: init.cast_unsigned(),
                start_ticks,
            })
        });
        Some(Self {
            unshare,
            init,
            name,
            _place: place,
        })
    }

    pub(crate) fn inside(&self) -> Inside {
        Inside {
            target: self.init,
            further: Namespaces::default(),
            identity: false,
            cgroup: false,
        }
    }

    /// The path of something in the container, as it is seen from here.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/{path}", self.init.pid))
    }

    pub(crate) fn namespace(&self, name: &str) -> String {
        let path = format!("/proc/{}/ns/{name}", self.init.pid);
        std::fs::read_link(path).unwrap().display().to_string()
    }

    /// Ends its main process, and with it everything inside.
    pub(crate) fn end(&mut self) {
        let init = (self.init.pid.cast_signed(), self.init.start_ticks);
        if let Some(pidfd) = process::open_if_same(init.0, init.1) {
            let _has_ended = process::signal(&pidfd, KILL);
        }
        let _status = self.unshare.wait();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether this test may make containers; says so where it may not.
pub(crate) fn is_root() -> bool {
    let root = taskwright_native::daemonize::this_user() == 0;
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}
