//! `cargo xtask run`: from a clean clone to a first task that ended.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::containerd::flags_if_running;
use crate::shell::{cargo, daemon, root, step};

const ADDRESS: &str = "127.0.0.1:5758";
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Builds the daemon, starts it in the background, runs a first task to its end. Containers are
/// taken if the private containerd runs.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let data_dir = match words {
        [] => root().join("target/taskwright"),
        [flag, dir] if flag == "--data-dir" => PathBuf::from(dir),
        _ => bail!("usage: cargo xtask run [--data-dir DIR]"),
    };
    step(
        "build the daemon",
        &mut cargo(&["build", "--package", "taskwright", "--locked"]),
    )?;
    fs::create_dir_all(&data_dir).with_context(|| format!("make {}", data_dir.display()))?;
    if is_ready() {
        println!("a daemon answers at http://{ADDRESS} already: it is used");
    } else {
        let mut child = start(&data_dir)?;
        wait_until_ready(&mut child, &data_dir)?;
        println!(
            "the daemon answers at http://{ADDRESS} (process {}, data in {})",
            child.id(),
            data_dir.display()
        );
    }
    let program = daemon();
    let greeting = "echo \"Hello from process $$.\"; sleep 1; echo \"Done.\"";
    println!("\n$ taskwright run -- sh -c '{greeting}'");
    let first = Command::new(&program)
        .args([
            "--server",
            &format!("http://{ADDRESS}"),
            "run",
            "--",
            "sh",
            "-c",
            greeting,
        ])
        .status()
        .context("run the first task")?;
    if !first.success() {
        bail!("the first task ended with {first}");
    }
    println!(
        "\nThe first task ran to its end. See it again, and go on with the tour of the README:"
    );
    println!("  curl http://{ADDRESS}/getTasks");
    println!("  {} list", program.display());
    println!(
        "Stop the daemon with: kill $(cat {})",
        data_dir.join("daemon.pid").display()
    );
    Ok(())
}

fn start(data_dir: &std::path::Path) -> Result<Child> {
    let log = fs::File::create(data_dir.join("daemon.log"))?;
    let containers = flags_if_running().unwrap_or_default();
    let child = Command::new(daemon())
        .args(["serve", "--listen-addr", ADDRESS, "--data-dir"])
        .arg(data_dir.join("tasks"))
        .args(containers)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the daemon")?;
    fs::write(data_dir.join("daemon.pid"), format!("{}\n", child.id()))?;
    Ok(child)
}

fn wait_until_ready(child: &mut Child, data_dir: &std::path::Path) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    while Instant::now() < deadline {
        if is_ready() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(data_dir.join("daemon.log")).unwrap_or_default();
            bail!("the daemon ended with {status}:\n{log}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!(
        "the daemon did not answer within {} s; see {}",
        READY_WITHIN.as_secs(),
        data_dir.join("daemon.log").display()
    )
}

fn is_ready() -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(ADDRESS)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = [0; 64];
        let length = stream.read(&mut answer)?;
        let head = answer.get(..length).unwrap_or_default();
        Ok(head.starts_with(b"HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
