//! A PostgreSQL server of the tests' own: a folder, a socket in it, no port.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

/// Where Debian keeps each version's programs; the newest is taken.
const INSTALLED: &str = "/usr/lib/postgresql";
const DEADLINE: Duration = Duration::from_secs(60);

struct Server {
    directory: PathBuf,
}

static SERVER: OnceCell<Server> = OnceCell::const_new();

/// The address of a new, empty database.
pub(super) async fn database() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let server = SERVER.get_or_init(|| async { start() }).await;
    let name = format!("queue_{}", NUMBER.fetch_add(1, Ordering::SeqCst));
    let socket = server.directory.join("socket");
    let address =
        |database: &str| format!("host={} user=tester dbname={database}", socket.display());
    let (client, connection) = tokio_postgres::connect(&address("postgres"), tokio_postgres::NoTls)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    client
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .await
        .unwrap();
    drop(client);
    let _ = connection.await;
    address(&name)
}

fn programs() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(INSTALLED)
        .unwrap_or_else(|_| panic!("no PostgreSQL in {INSTALLED}: install Debian's postgresql"))
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .collect();
    versions.sort();
    versions.pop().expect("a version of PostgreSQL").1
}

/// Starts the server. It ends with this process: a watcher waits for the end of its input, of
/// which the other end is ours.
fn start() -> Server {
    let programs = programs();
    let directory = tempfile::Builder::new()
        .prefix("taskwright-postgres-")
        .tempdir()
        .unwrap()
        .keep();
    let data = directory.join("data");
    let socket = directory.join("socket");
    std::fs::create_dir(&socket).unwrap();
    let user = unprivileged();
    if let Some((uid, gid)) = user {
        std::os::unix::fs::chown(&directory, Some(uid), Some(gid)).unwrap();
        std::os::unix::fs::chown(&socket, Some(uid), Some(gid)).unwrap();
    }
    let as_user = |program: &Path| {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        command.current_dir(&directory).stdout(Stdio::null());
        command
    };
    let made = as_user(&programs.join("initdb"))
        .args([
            "--no-sync",
            "--auth=trust",
            "--username=tester",
            "--encoding=UTF8",
            "--locale=C",
        ])
        .arg("-D")
        .arg(&data)
        .status()
        .unwrap();
    assert!(made.success(), "initdb: {made}");
    // `sh` ends the server and removes the folder once nobody holds its input open any more.
    let script = r#""$1" -D "$2" -k "$3" -c listen_addresses= -c fsync=off -c max_connections=400 \
        -c shared_buffers=64MB & server=$!
        cat >/dev/null; kill -QUIT $server; wait $server; rm -rf "$4""#;
    let mut watcher = as_user(Path::new("sh"));
    watcher
        .args(["-c", script, "sh"])
        .arg(programs.join("postgres"))
        .arg(&data)
        .arg(&socket)
        .arg(&directory)
        .stdin(Stdio::piped())
        .stderr(std::fs::File::create(directory.join("log")).unwrap());
    let mut watcher = watcher.spawn().unwrap();
    // Held open for as long as this process lives.
    std::mem::forget(watcher.stdin.take());
    let begun = Instant::now();
    while std::os::unix::net::UnixStream::connect(socket.join(".s.PGSQL.5432")).is_err() {
        assert!(
            watcher.try_wait().unwrap().is_none(),
            "PostgreSQL ended at once"
        );
        assert!(begun.elapsed() < DEADLINE, "PostgreSQL did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Server { directory }
}

/// PostgreSQL refuses to run as root: then somebody else, who owns nothing else.
fn unprivileged() -> Option<(u32, u32)> {
    const NOBODY: (u32, u32) = (65534, 65534);
    rustix::process::getuid().is_root().then_some(NOBODY)
}
