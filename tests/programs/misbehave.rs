//! A task that misbehaves on request: `misbehave WHAT [...]`.
//!
//! | what | does |
//! |---|---|
//! | `ignore-term READY` | is deaf to TERM, makes the file READY, sleeps |
//! | `double-fork READY` | leaves a deaf grandchild in a session of its own, and ends with 0 |
//! | `family READY` | itself, a child, and a grandchild in a session of its own, all deaf; `READY.child`, `READY.grandchild` |
//! | `fork-bomb N READY` | a tree of N deaf processes; a line in READY for every leaf |
//! | `slow-exit READY CODE` | goes on working for a while after TERM, then ends with CODE |
//! | `flood BYTES` | prints numbered lines, that many bytes in all, as fast as it can |
//! | `bytes` | prints every byte from 0 to 255, and a line without an end |
//!
//! Processes start each other by running this program again and block TERM instead of
//! ignoring it, so that none of it needs unsafe code.

#![expect(
    clippy::print_stderr,
    reason = "a program for tests talks to its reader"
)]

use std::error::Error;
use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match misbehave(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("misbehave {words:?}: {error}");
            ExitCode::from(99)
        }
    }
}

fn misbehave(words: &[&str]) -> Result<ExitCode, Box<dyn Error>> {
    match words {
        ["ignore-term", ready] => {
            be_deaf()?;
            std::fs::write(ready, "")?;
            sleep();
        }
        ["double-fork", ready] => start_daemon(&["ignore-term", ready])?,
        ["family", ready] => {
            be_deaf()?;
            start_daemon(&["ignore-term", &format!("{ready}.grandchild")])?;
            start(&["ignore-term", &format!("{ready}.child")])?;
            std::fs::write(ready, "")?;
            sleep();
        }
        ["fork-bomb", count, ready] => {
            be_deaf()?;
            bomb(count.parse()?, ready)?;
            sleep();
        }
        ["slow-exit", ready, code] => {
            let term = be_deaf()?;
            std::fs::write(ready, "")?;
            term.wait()?;
            std::thread::sleep(Duration::from_millis(700));
            return Ok(ExitCode::from(code.parse::<u8>()?));
        }
        ["flood", bytes] => flood(bytes.parse()?)?,
        ["bytes"] => {
            let all: Vec<u8> = (0..=255).chain(*b"\nno end").collect();
            std::io::stdout().write_all(&all)?;
        }
        _ => return Err("no such misbehaviour".into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// From now on TERM changes nothing, here and in what is started from here.
fn be_deaf() -> nix::Result<SigSet> {
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block()?;
    Ok(term)
}

/// Long enough for every test, and not for ever if something goes wrong.
fn sleep() {
    std::thread::sleep(Duration::from_secs(300));
}

fn start(words: &[&str]) -> Result<(), Box<dyn Error>> {
    Command::new(std::env::current_exe()?).args(words).spawn()?;
    Ok(())
}

/// A grandchild in a session of its own, whose parent is gone at once.
fn start_daemon(words: &[&str]) -> Result<(), Box<dyn Error>> {
    let own = std::env::current_exe()?;
    Command::new("setsid")
        .arg("--fork")
        .arg(own)
        .args(words)
        .spawn()?
        .wait()?;
    Ok(())
}

/// This process and `count - 1` below it, in two halves.
fn bomb(count: u32, ready: &str) -> Result<(), Box<dyn Error>> {
    let below = count.saturating_sub(1);
    for part in [below / 2, below - below / 2] {
        if part > 0 {
            start(&["fork-bomb", &part.to_string(), ready])?;
        }
    }
    if below == 0 {
        // A line each, appended whole: whoever waits counts them.
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(ready)?;
        file.write_all(b"leaf\n")?;
    }
    Ok(())
}

fn flood(bytes: u64) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::with_capacity(64 * 1024, std::io::stdout());
    let (mut number, mut written) = (0_u64, 0_u64);
    while written < bytes {
        let line = format!("line {number:010}\n");
        out.write_all(line.as_bytes())?;
        written += line.len() as u64;
        number += 1;
    }
    out.flush()
}
