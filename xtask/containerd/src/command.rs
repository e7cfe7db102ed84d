//! Other programs, with a deadline and with what they said if they failed.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const LOOK: Duration = Duration::from_millis(2);

/// Longer than any local program of ours takes on a busy machine.
pub const LOCAL: Duration = Duration::from_secs(60);

/// Runs `command` to its end and answers with its standard output.
///
/// # Errors
/// When it cannot be started, ends with another code than 0, or not within `deadline`; it is
/// killed then, and whatever it started with it.
pub fn run(command: &mut Command, deadline: Duration) -> Result<String> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that all of it can be ended.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start `{shown}`"))?;
    let stdout = gather(child.stdout.take());
    let stderr = gather(child.stderr.take());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > deadline {
            end(&mut child);
            bail!("`{shown}` did not end within {} s", deadline.as_secs());
        }
        std::thread::sleep(LOOK);
    };
    let [stdout, stderr] = [stdout, stderr].map(|thread| thread.join().unwrap_or_default());
    if !status.success() {
        let said = if stderr.trim().is_empty() {
            &stdout
        } else {
            &stderr
        };
        bail!("`{shown}` ended with {status}: {}", last_lines(said));
    }
    Ok(stdout)
}

fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _gone_already = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _killed = child.wait();
}

fn gather(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _what_came_is_shown = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Without options of configuration, `-o NAME=VALUE`, which hide what matters.
fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    let mut arguments = command.get_args().map(|word| word.to_string_lossy());
    while let Some(word) = arguments.next() {
        if word == "-o" {
            let _its_value = arguments.next();
        } else {
            words.push(word);
        }
    }
    words.join(" ")
}

/// Enough of what a program said to see what it failed at.
#[must_use]
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let skipped = lines.len().saturating_sub(6);
    lines
        .into_iter()
        .skip(skipped)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn an_end_other_than_0_tells_what_was_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo why >&2; exit 3"]);
        let error = run(&mut command, LOCAL).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
    }

    #[test]
    fn what_takes_too_long_is_ended_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & wait"]);
        let begun = Instant::now();
        let error = run(&mut command, Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        assert!(begun.elapsed() < LOCAL / 2);
    }
}
