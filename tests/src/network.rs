//! Networks of namespaces: a bridge, and machines that reach each other over it and nothing else.
//!
//! Each machine is a network namespace with one interface; its other end is a port of a bridge in
//! a namespace of its own. The network of this machine is not touched. What a test program left
//! behind because it was killed, the next one removes.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};

use nix::sched::{CloneFlags, setns};

use crate::cli;
use crate::reaper::Owned;
use crate::{SOON, processes};

/// Where `ip` keeps namespaces by name.
const NAMED: &str = "/run/netns";
/// How names of ours begin; then the pid of the test program.
const PREFIX: &str = "tw-net-";
/// Machines that one network may have.
const MOST: u8 = 200;

/// A network. Dropped, it is gone, whoever still is in it.
#[derive(Debug)]
pub struct Network {
    inner: Arc<Inner>,
    machines: u8,
}

#[derive(Debug)]
struct Inner {
    /// The common part of the names.
    name: String,
}

/// A machine of a network.
#[derive(Clone, Debug)]
pub struct Machine {
    network: Arc<Inner>,
    number: u8,
}

impl Network {
    /// An empty one.
    ///
    /// # Errors
    /// A sentence that says why that is not possible here.
    pub fn new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static CLEARED: Once = Once::new();
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces are made by root".to_owned());
        }
        // Asked before the panic of a command that cannot be started.
        Owned::spawn(Command::new("ip").arg("-V").stdout(Stdio::null()))
            .map(|mut version| version.wait(SOON))
            .map_err(|error| format!("ip cannot be started (apt-get install iproute2): {error}"))?;
        CLEARED.call_once(clear_leftovers);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let inner = Arc::new(Inner { name });
        let hub = inner.hub();
        ip(&[], &format!("netns add {hub}\n"))?;
        ip(
            &["-n", &hub],
            "link add bridge type bridge\nlink set bridge up\nlink set lo up\n",
        )?;
        Ok(Self { inner, machines: 0 })
    }

    /// Adds a machine.
    ///
    /// # Errors
    /// A sentence that says why that is not possible here.
    ///
    /// # Panics
    /// When there are too many.
    pub fn machine(&mut self) -> Result<Machine, String> {
        assert!(self.machines < MOST, "a network has {MOST} machines");
        self.machines += 1;
        let machine = Machine {
            network: self.inner.clone(),
            number: self.machines,
        };
        let (name, port) = (machine.name(), machine.port());
        ip(&[], &format!("netns add {name}\n"))?;
        let join = format!(
            "link add {port} type veth peer name eth0 netns {name}\n\
             link set {port} master bridge\nlink set {port} up\n"
        );
        ip(&["-n", &self.inner.hub()], &join)?;
        let address = machine.address();
        let settle = format!("link set lo up\naddr add {address}/16 dev eth0\nlink set eth0 up\n");
        ip(&["-n", &name], &settle)?;
        Ok(machine)
    }
}

impl Inner {
    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        remove(&format!("{}-", self.name));
    }
}

impl Machine {
    fn name(&self) -> String {
        format!("{}-{}", self.network.name, self.number)
    }

    fn port(&self) -> String {
        format!("port{}", self.number)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.number).into()
    }

    /// The file that its network namespace stands behind.
    #[must_use]
    pub fn namespace(&self) -> PathBuf {
        Path::new(NAMED).join(self.name())
    }

    /// Pulls its cable out. Nobody is told: what is sent is lost.
    ///
    /// # Panics
    /// When that fails. So do its sisters below.
    pub fn cut(&self) {
        self.set(&format!("link set {} down\n", self.port()));
    }

    /// Plugs it in again.
    pub fn heal(&self) {
        self.set(&format!("link set {} up\n", self.port()));
    }

    fn set(&self, line: &str) {
        if let Err(error) = ip(&["-n", &self.network.hub()], line) {
            panic!("{line}: {error}");
        }
    }

    /// Loses everything that it sends to another, until [`Self::reach`].
    pub fn lose(&self, other: &Self) {
        self.route("add", other);
    }

    /// Reaches another again.
    pub fn reach(&self, other: &Self) {
        self.route("del", other);
    }

    fn route(&self, verb: &str, other: &Self) {
        // Answers of the other go nowhere, as if it were down.
        let line = format!("route {verb} blackhole {}/32\n", other.address());
        if let Err(error) = ip(&["-n", &self.name()], &line) {
            panic!("{line}: {error}");
        }
    }
}

/// Runs something in a network namespace, on a thread of its own. Sockets that are opened there
/// stay there.
///
/// # Panics
/// When the namespace is gone or may not be entered.
pub fn within<T: Send>(namespace: &Path, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let entered = std::fs::File::open(namespace)
                .map_err(|error| error.to_string())
                .and_then(|file| {
                    setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| error.to_string())
                });
            if let Err(error) = entered {
                panic!("enter the network namespace {namespace:?}: {error}");
            }
            run()
        });
        match inside.join() {
            Ok(answer) => answer,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A command that becomes `program` in a network namespace: the process is the program's.
#[must_use]
pub fn command(namespace: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", namespace.display()))
        .arg("--");
    command
}

/// Runs lines of `ip`, all or up to the first that fails.
fn ip(words: &[&str], lines: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(words).args(["-batch", "-"]);
    let ended = cli::finish(&mut command, lines.as_bytes(), SOON);
    match ended.code {
        0 => Ok(()),
        code => Err(format!(
            "ip {} ended with {code}: {}; of {lines}",
            words.join(" "),
            ended.stderr.trim()
        )),
    }
}

/// Removes every namespace whose name begins so.
fn remove(begin: &str) {
    let named = std::fs::read_dir(NAMED).into_iter().flatten().flatten();
    let names: Vec<String> = named
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(begin))
        .collect();
    let lines: String = names
        .iter()
        .map(|name| format!("netns del {name}\n"))
        .collect();
    if !names.is_empty()
        && let Err(error) = ip(&["-force"], &lines)
    {
        let _ = writeln!(std::io::stderr(), "namespaces of a test are left: {error}");
    }
}

/// What test programs left that live no more.
fn clear_leftovers() {
    let named = std::fs::read_dir(NAMED).into_iter().flatten().flatten();
    for name in named.filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse().ok());
        if owner.is_some_and(|pid| !processes::is_alive(pid)) {
            remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn machines_reach_each_other_until_a_cable_is_pulled_out() {
        let mut network = match Network::new() {
            Ok(network) => network,
            Err(reason) => return crate::skip(&reason),
        };
        let (one, other) = (network.machine().unwrap(), network.machine().unwrap());
        let address = SocketAddr::new(one.address(), 80);
        let listener = within(&one.namespace(), || TcpListener::bind(address)).unwrap();
        let reached = || {
            let patience = Duration::from_millis(300);
            within(&other.namespace(), || {
                TcpStream::connect_timeout(&address, patience).is_ok()
            })
        };
        crate::eventually(SOON, "it is reached", reached);
        one.cut();
        assert!(!reached());
        one.heal();
        crate::eventually(SOON, "it is reached again", reached);
        other.lose(&one);
        assert!(!reached());
        other.reach(&one);
        assert!(reached());
        drop(listener);
        let names = [one.namespace(), other.namespace()];
        drop((network, one, other));
        assert!(names.iter().all(|name| !name.exists()));
    }
}
