//! How long a spawn of `true` takes until it executes, plain or inside the namespaces of a process:
//! `cargo run --example spawn-times [ROUNDS [PID]]`.

use std::ffi::CString;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use taskwright_native::target::Pinned;
use taskwright_native::{Command, Enter, Isolation, exit, process, spawn};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds: usize = std::env::args()
        .nth(1)
        .map_or(Ok(2000), |text| text.parse())?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    let argv = [CString::new("/bin/true")?];
    let command = Command {
        argv: &argv,
        env: &[],
        working_dir: c"/",
        stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
        cgroup: None,
        join: &[],
        open_files: Some((1024, 1024)),
        oom_score: None,
        limits: &[],
        no_new_privileges: false,
        isolation: None,
    };
    let target: Option<i32> = std::env::args()
        .nth(2)
        .map(|text| text.parse())
        .transpose()?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        let child = match target {
            None => spawn::spawn(&command)?,
            Some(pid) => spawn_inside(&command, pid)?,
        };
        times.push(begun.elapsed());
        exit::reap_within(&child.pidfd, Duration::from_secs(5))?;
    }
    times.sort_unstable();
    let at = |part: usize| times.get(rounds * part / 100).copied().unwrap_or_default();
    writeln!(
        std::io::stdout(),
        "p10 {:?}, p50 {:?}, p90 {:?}",
        at(10),
        at(50),
        at(90)
    )?;
    Ok(())
}

/// With all that is looked at of a target for one spawn.
fn spawn_inside(
    command: &Command<'_>,
    pid: i32,
) -> Result<taskwright_native::Child, Box<dyn std::error::Error>> {
    let target = Pinned::open(pid, process::stat(pid)?.start_ticks)?;
    let enter = Enter {
        pidfd: target.pidfd(),
        namespaces: target.other_namespaces()?,
        pid_namespace: target.has_other_pid_namespace()?,
        root: target.root(),
    };
    target.environment()?;
    let isolation = Isolation {
        enter: Some(enter),
        read_only: &[],
        user: None,
        capabilities: None,
        patience: Duration::from_secs(5),
    };
    Ok(spawn::spawn(&Command {
        isolation: Some(&isolation),
        ..*command
    })?)
}
