//! A private PostgreSQL server for tests: a folder, a socket in it, and no port unless
//! one is asked for.
//!
//! One server serves a whole test program, and ends with it: a watcher waits for the
//! end of its input, of which the test program holds the other end for as long as it
//! lives, however it dies. Tests of faults stop it and start it again on the same data, in a
//! network namespace of theirs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// Where Debian keeps each version's programs; the newest is taken.
const INSTALLED: &str = "/usr/lib/postgresql";
const PORT: u16 = 5432;
const START_TIME: Duration = Duration::from_secs(60);
/// PostgreSQL refuses to run as root: then as somebody who owns nothing else.
const NOBODY: u32 = 65534;

/// The programs of the newest version, if any is installed.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(INSTALLED)
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            let programs = path.join("bin");
            programs
                .join("postgres")
                .is_file()
                .then_some((version, programs))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, programs)| programs)
}

/// How a server is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Spares it the syncs: nothing of it outlives a test.
    pub careless: bool,
    /// A port of this machine with TLS, beside the socket.
    pub tls: Option<Tls<'a>>,
    /// A network namespace, by the file that stands for it, and an address there to listen on
    /// beside the socket. Only root may.
    pub network: Option<(&'a Path, IpAddr)>,
}

/// What a server shows of itself, in PEM form.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    /// Its certificate.
    pub certificate: &'a str,
    /// The key of that.
    pub key: &'a str,
    /// Whose signature clients need on certificates of their own, if they need one.
    pub clients: Option<&'a str>,
}

/// What the watcher does: `$1` the program, `$2` its data, `$3` its socket's folder, `$4` all of
/// it; what follows are switches.
const WATCH: &str = r#"
program=$1 data=$2 socket=$3 all=$4; shift 4
run() { "$program" -D "$data" -k "$socket" "$@" >/dev/null 2>>"$all/log" & server=$!; }
run "$@"
while read -r word; do
    case $word in
        stop) kill -QUIT $server; wait $server; echo stopped ;;
        start) run "$@"; echo started ;;
    esac
done
kill -QUIT $server 2>/dev/null; wait $server; rm -rf "$all"
"#;

/// A running server.
#[derive(Debug)]
pub struct Server {
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
    databases: AtomicU64,
    /// Where it listens beside its socket.
    address: Option<IpAddr>,
    watcher: Mutex<Watcher>,
}

/// Whoever holds the server. Its end is the server's.
#[derive(Debug)]
struct Watcher {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// The server of this test program, started when it is asked for first.
    ///
    /// # Errors
    /// Why there is none. In CI that is a failure of the test; elsewhere it is skipped.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();
        let started =
            SHARED.get_or_init(|| Self::start(true).map_err(|error| format!("{error:#}")));
        started.as_ref().map_err(|message| anyhow!("{message}"))
    }

    /// Starts a server. `careless` spares it the syncs: nothing of it outlives a test.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn start(careless: bool) -> Result<Self> {
        Self::start_as(&Wanted {
            careless,
            ..Wanted::default()
        })
    }

    /// Starts a server that is as it is wanted.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn start_as(wanted: &Wanted<'_>) -> Result<Self> {
        let programs = programs()
            .with_context(|| format!("no PostgreSQL in {INSTALLED}: apt-get install postgresql"))?;
        let directory = tempfile::Builder::new()
            .prefix("taskwright-postgres-")
            .tempdir()
            .context("make the server's folder")?
            .keep();
        let socket = directory.join("socket");
        std::fs::create_dir(&socket)?;
        if rustix::process::getuid().is_root() {
            for path in [&directory, &socket] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))?;
            }
        }
        let data = directory.join("data");
        let made = as_owner(&programs.join("initdb"), &directory)
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=tester",
                "--encoding=UTF8",
            ])
            .arg("--locale=C")
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .context("start initdb")?;
        ensure!(made.success(), "initdb ended with {made}");
        if wanted.network.is_some() {
            // Nobody else is in that network.
            let allowed = data.join("pg_hba.conf");
            let mut allowed = std::fs::File::options().append(true).open(allowed)?;
            writeln!(allowed, "host all all all trust")?;
        }
        let port = match &wanted.tls {
            Some(_) => free_port()?,
            None => PORT,
        };
        let mut switches = vec![
            format!("port={port}"),
            format!("fsync={}", if wanted.careless { "off" } else { "on" }),
            "max_connections=400".to_owned(),
            "shared_buffers=256MB".to_owned(),
        ];
        let address = wanted.network.map(|(_, address)| address);
        match &wanted.tls {
            Some(tls) => switches.extend(secure(tls, &directory, &data)?),
            None => switches.push(format!(
                "listen_addresses={}",
                address.map_or_else(String::new, |address| address.to_string())
            )),
        }
        let mut shell = match wanted.network {
            None => as_owner(Path::new("sh"), &directory),
            Some((namespace, _)) => {
                // Only root enters it, and becomes the owner there.
                let mut enter = Command::new("nsenter");
                enter.arg(format!("--net={}", namespace.display()));
                enter.args([format!("-S{NOBODY}"), format!("-G{NOBODY}")]);
                enter.args(["--", "sh"]).current_dir(&directory);
                enter
            }
        };
        let mut watcher = shell
            .args(["-c", WATCH, "sh"])
            .arg(programs.join("postgres"))
            .args([&data, &socket, &directory])
            .args(switches.iter().flat_map(|switch| ["-c", switch]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the server's watcher")?;
        let held = watcher.stdin.take().zip(watcher.stdout.take());
        let (orders, answers) = held.context("hold the server's watcher")?;
        let server = Self {
            programs,
            directory,
            port,
            databases: AtomicU64::new(0),
            address,
            watcher: Mutex::new(Watcher {
                orders,
                answers: BufReader::new(answers),
            }),
        };
        let begun = Instant::now();
        // It listens before it serves: only an answer says that it is ready.
        while let Err(error) = server.sql("postgres", "SELECT 1") {
            if let Some(ended) = watcher.try_wait()? {
                bail!("the server ended with {ended}");
            }
            let log = std::fs::read_to_string(server.directory.join("log")).unwrap_or_default();
            ensure!(
                begun.elapsed() < START_TIME,
                "the server did not start: {error:#}; its log: {log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Stops it at once, as a crash would: what was not written is written again when it starts.
    ///
    /// # Errors
    /// When its watcher is gone.
    pub fn stop(&self) -> Result<()> {
        self.order("stop")
    }

    /// Starts it again on the same data, without waiting until it answers.
    ///
    /// # Errors
    /// When its watcher is gone.
    pub fn start_again(&self) -> Result<()> {
        self.order("start")
    }

    fn order(&self, word: &str) -> Result<()> {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(watcher.orders, "{word}").context("speak to the server's watcher")?;
        let mut answer = String::new();
        watcher.answers.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "the server's watcher has ended");
        Ok(())
    }

    /// The pid of its first process, whose children are the others.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        let file = self.directory.join("data/postmaster.pid");
        let text = std::fs::read_to_string(file).context("read the server's pid")?;
        let pid = text.lines().next().unwrap_or_default();
        pid.trim().parse().context("read the server's pid")
    }

    /// Makes a new, empty database; answers its address.
    ///
    /// # Errors
    /// What the server said.
    pub fn database(&self) -> Result<String> {
        let name = format!("queue_{}", self.databases.fetch_add(1, Ordering::SeqCst));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(self.address(&name))
    }

    /// The address of a database.
    #[must_use]
    pub fn address(&self, database: &str) -> String {
        if let Some(address) = self.address {
            return format!("postgres://tester@{address}:{}/{database}", self.port);
        }
        // A path as the host has to be written so in an address.
        let socket = self.socket().display().to_string().replace('/', "%2F");
        format!("postgres://tester@{socket}:{}/{database}", self.port)
    }

    /// Its port; of the socket, where it has no other.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// The folder of its programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Runs a statement; answers what it told, without alignment.
    ///
    /// # Errors
    /// What the server said.
    pub fn sql(&self, database: &str, statement: &str) -> Result<String> {
        let ran = Command::new(self.programs.join("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "tester",
                "-d",
                database,
            ])
            .arg("-h")
            .arg(self.socket())
            .args(["-p", &self.port.to_string(), "-c", statement])
            .output()
            .context("start psql")?;
        let said = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "{statement}: {}", said.trim());
        Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
    }
}

/// A port that nobody uses now. Somebody may take it until the server does: then the server does
/// not start, and says so.
fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Writes what TLS needs into the server's folder; answers the arguments that name it.
fn secure(tls: &Tls<'_>, directory: &Path, data: &Path) -> Result<Vec<String>> {
    let asks = match tls.clients {
        Some(_) => "clientcert=verify-ca",
        None => "",
    };
    let rules = format!("local all all trust\nhostssl all all 127.0.0.1/32 trust {asks}\n");
    std::fs::write(data.join("pg_hba.conf"), rules).context("say who may connect")?;
    let files = [
        ("server.crt", Some(tls.certificate)),
        ("server.key", Some(tls.key)),
        ("clients.crt", tls.clients),
    ];
    let mut switches = vec!["listen_addresses=127.0.0.1".to_owned(), "ssl=on".to_owned()];
    for ((name, text), setting) in files.into_iter().zip(["cert", "key", "ca"]) {
        let Some(text) = text else { continue };
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {name}"))?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        if rustix::process::getuid().is_root() {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY))?;
        }
        switches.push(format!("ssl_{setting}_file={}", path.display()));
    }
    Ok(switches)
}

/// A command in the server's folder, as whoever owns it.
fn as_owner(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    if rustix::process::getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir(directory);
    command
}
