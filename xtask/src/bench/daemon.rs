//! A daemon of the benchmark's own: started in a private place, asked for what every
//! benchmark asks, ended by its process id.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::client::{Connection, Request};
use super::groups;
use super::place::{self, Home, Place};

/// How long a daemon may take to be ready, and to go down.
const LONGEST_START: Duration = Duration::from_secs(60);
const LONGEST_STOP: Duration = Duration::from_secs(60);
/// How long everything may take to be deleted: 10,000 processes are ended meanwhile.
const LONGEST_CLEARING: Duration = Duration::from_secs(180);
/// How often it is asked whether it is ready. Starting is what is measured there, so this is
/// the error of that measurement.
const READY_POLL: Duration = Duration::from_micros(500);
const POLL: Duration = Duration::from_millis(20);

/// A running daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    binary: PathBuf,
    pub(super) address: SocketAddr,
    /// From its exec to its first answer.
    pub(super) ready_after: Duration,
}

impl Daemon {
    /// Starts a daemon on the data of `place`, and returns when it is ready.
    pub(super) fn start(binary: &Path, place: &Place, flags: &[&str]) -> anyhow::Result<Self> {
        let address = free_address()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(place.path("daemon.log"))?;
        let (mark, root) = place.mark();
        let mut command = Command::new(binary);
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(data_dir(place))
            .args(["--listen-addr", &address.to_string()])
            .args(flags)
            .env(mark, root)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // Caches and sockets must not be those of other daemons.
        for variable in [
            "HOME",
            "XDG_CACHE_HOME",
            "XDG_RUNTIME_DIR",
            "XDG_STATE_HOME",
        ] {
            command.env(variable, root);
        }
        let begun = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let mut daemon = Self {
            child,
            binary: binary.to_owned(),
            address,
            ready_after: Duration::ZERO,
        };
        match daemon.wait_until_ready(begun) {
            Ok(()) => daemon.ready_after = begun.elapsed(),
            Err(error) => {
                let log = fs::read_to_string(place.path("daemon.log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                let told: Vec<&str> = last.into_iter().rev().collect();
                return Err(
                    error.context(format!("the daemon's log ends with: {}", told.join(" | ")))
                );
            }
        }
        Ok(daemon)
    }

    fn wait_until_ready(&mut self, begun: Instant) -> anyhow::Result<()> {
        let request = Request::get("/readyz");
        loop {
            if let Ok(mut connection) = Connection::open(self.address)
                && connection.ask(&request)?.status == 200
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended with {status} instead of getting ready");
            }
            ensure!(
                begun.elapsed() < LONGEST_START,
                "the daemon was not ready after {LONGEST_START:?}"
            );
            std::thread::sleep(READY_POLL);
        }
    }

    pub(super) fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.address)
    }

    /// The daemon and its supervisors.
    pub(super) fn own_processes(&self, place: &Place) -> Vec<i32> {
        place.processes(Some(&self.binary))
    }

    /// Processor time that daemon and supervisors have used, in seconds.
    pub(super) fn processor_seconds(&self, place: &Place) -> anyhow::Result<f64> {
        let own = self.own_processes(place).into_iter();
        let used = own.map(place::processor_seconds).sum::<Result<f64, _>>();
        used.context("read the processor time of daemon and supervisor")
    }

    /// Deletes every task and waits until none is on record; says how long that took.
    pub(super) fn delete_all(&self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let mut connection = self.connect()?;
        connection
            .ask(&Request::post("/setTasks", "[]"))?
            .expect(&[200])?;
        // The shortest page there is: a list of 10,000 tasks would be the larger part of the work.
        let request = Request::get("/tasks?limit=1");
        loop {
            let answer = connection.ask(&request)?;
            answer.expect(&[200])?;
            if tasks_in(&answer.json()?) == 0 {
                return Ok(begun.elapsed());
            }
            ensure!(
                begun.elapsed() < LONGEST_CLEARING,
                "tasks are still there {LONGEST_CLEARING:?} after their deletion"
            );
            std::thread::sleep(POLL);
        }
    }

    /// What `/metrics` says now.
    pub(super) fn metrics(&self) -> anyhow::Result<Metrics> {
        let mut connection = self.connect()?;
        let answer = connection.ask(&Request::get("/metrics"))?;
        answer.expect(&[200])?;
        Ok(Metrics(String::from_utf8_lossy(answer.body).into_owned()))
    }

    /// Stops the daemon, and everything else that lives in its place.
    pub(super) fn stop(mut self, place: &Place) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).context("stop the daemon")?;
        place::wait_for_death(self.child.id() as i32, LONGEST_STOP)?;
        self.child.wait()?;
        place.clear()?;
        groups::remove(&data_dir(place).join(".taskwright/supervisor"));
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After an orderly stop there is nothing to kill; otherwise something failed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a daemon of `place` keeps its tasks.
pub(super) fn data_dir(place: &Place) -> PathBuf {
    place.path("data")
}

/// The body that submits a command.
pub(super) fn task(name: &str, command: &[&str]) -> String {
    json!({ "name": name, "process": { "command": command } }).to_string()
}

/// The tasks in an answer: a list, or a page with a list in it.
fn tasks_in(answer: &Value) -> usize {
    let list = answer.as_array().or_else(|| {
        let mut fields = answer
            .as_object()
            .into_iter()
            .flat_map(|object| object.values());
        fields.find_map(Value::as_array)
    });
    list.map_or(0, Vec::len)
}

/// Whether an answer shows a task that ended well. A search in the bytes: parsing would cost
/// the load generator more than all the rest.
pub(super) fn ended_well(body: &[u8]) -> bool {
    let has = |text: &[u8]| body.windows(text.len()).any(|window| window == text);
    has(b"\"terminated\"") && has(b"\"exitCode\":0")
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?)
}

/// The text of `/metrics`.
#[derive(Debug)]
pub(super) struct Metrics(String);

impl Metrics {
    /// The sum of every sample named `name` whose labels hold all of `wanted`; 0 where there is
    /// none.
    pub(super) fn sum_of(&self, name: &str, wanted: &[&str]) -> f64 {
        let samples = self.samples(name);
        let fits = |labels: &str| wanted.iter().all(|label| labels.contains(label));
        samples
            .filter(|(labels, _)| fits(labels))
            .map(|(_, value)| value)
            .sum()
    }

    /// The upper bounds of a histogram's buckets, as they are written, smallest first.
    pub(super) fn bounds(&self, name: &str) -> Vec<String> {
        let mut bounds = Vec::new();
        for (labels, _) in self.samples(name) {
            let bound = labels
                .split_once("le=\"")
                .and_then(|(_, rest)| rest.split_once('"'));
            if let Some((bound, _)) = bound
                && !bounds.iter().any(|known| known == bound)
            {
                bounds.push(bound.to_owned());
            }
        }
        bounds
    }

    fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            let whole = labels.is_empty() || labels.starts_with('{');
            whole.then_some((labels, value.parse().ok()?))
        })
    }
}

/// Makes a copy of the binary that nobody rebuilds while it is measured.
pub(super) fn settle(binary: &Path, home: &Home) -> anyhow::Result<PathBuf> {
    let copy = home.path("taskwright");
    fs::copy(binary, &copy)
        .with_context(|| format!("copy {} to {}", binary.display(), copy.display()))?;
    Ok(copy)
}

/// Builds the product as it is released and says where it is.
pub(super) fn build(workspace: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .args(["build", "--release", "--package", "taskwright"])
        .current_dir(workspace)
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "the release build failed: see above");
    Ok(target.join("release").join("taskwright"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_label() {
        let metrics = Metrics(
            "# TYPE x_sum counter\nx_sum{f=\"start\"} 1.5\nx_sum{f=\"on-event\"} 2\nx_sum_other 7\nplain 3\n"
                .to_owned(),
        );
        assert_eq!(metrics.sum_of("x_sum", &[]), 3.5);
        assert_eq!(metrics.sum_of("x_sum", &["start"]), 1.5);
        assert_eq!(metrics.sum_of("x_sum", &["f=", "start"]), 1.5);
        assert_eq!(metrics.sum_of("plain", &[]), 3.0);
        assert_eq!(metrics.sum_of("missing", &[]), 0.0);
    }

    #[test]
    fn only_an_exit_with_zero_ends_well() {
        assert!(ended_well(
            br#"{"processStatus":{"terminated":{"exitCode":0}}}"#
        ));
        assert!(!ended_well(
            br#"{"processStatus":{"terminated":{"exitCode":1}}}"#
        ));
        assert!(!ended_well(br#"{"processStatus":{"running":{}}}"#));
    }
}
