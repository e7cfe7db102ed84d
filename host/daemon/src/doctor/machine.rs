//! The machine: what its kernel offers, and how much of it we may have.

use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};
use rustix::system::uname;

use super::Check;

/// Files that a daemon and its supervisor want to have open under load.
const FILES: u64 = 4096;
/// Watches and instances of inotify: the supervisor watches each output with a limit.
const WATCHES: u64 = 8192;
const INSTANCES: u64 = 64;
/// The first kernel that still tells of an exit once its process was waited for.
const PIDFD_INFO_EXIT: (u32, u32) = (6, 15);

/// Everything about the machine.
pub(crate) fn check() -> Vec<Check> {
    vec![pidfd(), exit_info(), subreaper(), open_files(), inotify()]
}

fn pidfd() -> Check {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Check::ok("pidfd", "ends are known at once, without polling"),
        Err(error) => Check::fail(
            "pidfd",
            format!("not available: {error}"),
            "use Linux 5.4 or newer, and allow pidfd_open in the container's seccomp profile",
        ),
    }
}

fn exit_info() -> Check {
    const SUBJECT: &str = "exit of lost children";
    let release = uname().release().to_string_lossy().into_owned();
    match version(&release) {
        Some(found) if found >= PIDFD_INFO_EXIT => {
            Check::ok(SUBJECT, format!("Linux {release} tells it by pidfd"))
        }
        _ => Check::ok(
            SUBJECT,
            format!("Linux {release} does not tell it by pidfd; the guardian process keeps it"),
        ),
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn subreaper() -> Check {
    match rustix::process::child_subreaper() {
        Ok(_) => Check::ok("subreaper", "orphans of tasks come back to us"),
        Err(error) => Check::fail(
            "subreaper",
            format!("not available: {error}"),
            "allow prctl in the container's seccomp profile",
        ),
    }
}

fn open_files() -> Check {
    const SUBJECT: &str = "open files";
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < FILES => Check::warn(
            SUBJECT,
            format!("at most {most}"),
            format!("raise the hard limit to {FILES} or more (ulimit -Hn, LimitNOFILE=)"),
        ),
        Some(most) => Check::ok(SUBJECT, format!("at most {most}")),
        None => Check::ok(SUBJECT, "no limit"),
    }
}

fn inotify() -> Check {
    const SUBJECT: &str = "inotify";
    let read = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        text.trim().parse().ok()
    };
    let (watches, instances) = (read("max_user_watches"), read("max_user_instances"));
    let told = match (watches, instances) {
        (Some(watches), Some(instances)) => format!("{watches} watches, {instances} instances"),
        _ => "its limits are not told".to_owned(),
    };
    let few = watches.is_some_and(|most| most < WATCHES)
        || instances.is_some_and(|most| most < INSTANCES);
    if few {
        return Check::warn(
            SUBJECT,
            told,
            format!(
                "sysctl fs.inotify.max_user_watches={WATCHES} fs.inotify.max_user_instances={INSTANCES}"
            ),
        );
    }
    Check::ok(SUBJECT, told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.15.2-arch1"), Some((6, 15)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("unknown"), None);
    }
}
