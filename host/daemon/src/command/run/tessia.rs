//! `taskwright run FILE.json`: a task file of the Tessia task runner, run as that did by itself:
//! its results are kept in the current directory, as `cli.result` and `output.log`.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::{RunArgs, Signals, obey};
use crate::client::Client;
use crate::client::http::{Ask, Refused, percent_encode};
use crate::command::follow::{self, Wanted};
use crate::command::spec::TaskArgs;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::output;
use crate::tessia::HEARTBEAT;
use crate::tessia::log::{OutputLog, last_words};
use crate::tessia::result::ResultFile;

/// What a task is called that is run by itself.
const ID: &str = "cli";
/// The largest task file, in bytes.
const MOST_BYTES: u64 = 8 << 20;
/// The most bytes of `output.log`.
const MOST_LOG_BYTES: u64 = 128 << 20;
/// Where the dialect is, whatever else a daemon serves at its root.
const TASKS: &str = "/tessia/v1/tasks";
/// The exit code of a machine that failed.
const EXCEPTION: i32 = -3;

/// The task in a file, if that is what the command line names.
///
/// # Errors
/// When it names one, and it is none.
pub(super) fn task_file(args: &TaskArgs) -> anyhow::Result<Option<Value>> {
    let [word] = args.command.as_slice() else {
        return Ok(None);
    };
    let path = Path::new(word);
    let Ok(found) = std::fs::metadata(path) else {
        return Ok(None);
    };
    // A program may be called anything.
    let executable = found.permissions().mode() & 0o111 != 0;
    if !word.ends_with(".json") || !found.is_file() {
        return Ok(None);
    }
    let wrong = |why: String| {
        let sentence = anyhow!("{why}").context(format!("read the task file {word}"));
        Err(sentence).exit_with(Code::USAGE).hint(
            "a task file of the Tessia task runner is an object with `machine` and `parameters` and nothing else",
        )
    };
    if found.len() > MOST_BYTES {
        return wrong(format!(
            "it has {} bytes, {MOST_BYTES} are read",
            found.len()
        ));
    }
    let text =
        std::fs::read_to_string(path).with_context(|| format!("read the task file {word}"))?;
    let task: Value = match serde_json::from_str(&text) {
        Ok(task) => task,
        Err(_) if executable => return Ok(None),
        Err(error) => return wrong(format!("it is no JSON: {error}")),
    };
    let keys = task
        .as_object()
        .map(|object| object.keys().map(String::as_str).collect());
    match keys {
        Some(keys) if is_task(&keys) => {}
        _ if executable => return Ok(None),
        _ => return wrong("it is no task".to_owned()),
    }
    if *args != TaskArgs::of(&[word]) {
        return Err(anyhow!("a task file says everything about its task"))
            .exit_with(Code::USAGE)
            .hint("leave out the flags that describe a task");
    }
    Ok(Some(task))
}

fn is_task(keys: &Vec<&str>) -> bool {
    keys.len() == 2 && keys.contains(&"machine") && keys.contains(&"parameters")
}

/// The files of the task, as far as they are written.
struct Files {
    directory: PathBuf,
    result: ResultFile,
    log: OutputLog,
}

impl Files {
    fn begin() -> anyhow::Result<Self> {
        let directory = std::env::current_dir().context("find the current directory")?;
        let now = Timestamp::now();
        let result = ResultFile::running(ID, std::process::id(), now, now);
        let begun = OutputLog::begin(&directory, MOST_LOG_BYTES, now).and_then(|log| {
            result.write(&directory)?;
            Ok(log)
        });
        let log = begun
            .with_context(|| format!("write cli.result and output.log in {}", directory.display()))
            .hint("change to a directory that may be written: results are kept there")?;
        Ok(Self {
            directory,
            result,
            log,
        })
    }

    fn beat(&mut self) -> anyhow::Result<()> {
        let now = Timestamp::now();
        self.log.say(now, "Still running")?;
        let result = self.result.clone().alive(now);
        result.write(&self.directory).context("write cli.result")
    }

    fn finish(mut self, code: i32) -> anyhow::Result<()> {
        let now = Timestamp::now();
        self.log.say(now, last_words(code))?;
        let result = self.result.finished(now, code);
        result.write(&self.directory).context("write cli.result")
    }
}

/// Runs it to its end.
pub(super) async fn to_the_end(
    client: &Client,
    task: &Value,
    args: &RunArgs,
) -> anyhow::Result<Code> {
    let signals = Signals::new()?;
    let files = RefCell::new(Files::begin()?);
    let submitted = client.call(Ask::post(TASKS, Some(task))).await;
    let submitted = match submitted {
        Ok(submitted) => submitted,
        Err(error) => {
            files.into_inner().finish(EXCEPTION)?;
            return not_taken(error);
        }
    };
    let id = submitted.get("taskId").and_then(Value::as_str);
    let id = percent_encode(id.context("the daemon's answer names no task")?);
    let path = format!("{TASKS}/{id}");
    let output = format!("{path}/output?stream=both");
    let show = |event: &_| {
        let bytes = follow::show(event, Wanted::Both)?;
        files
            .borrow_mut()
            .log
            .add(&bytes)
            .context("write output.log")
    };
    let beats = async {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let beaten = files.borrow_mut().beat();
            if let Err(error) = beaten {
                crate::failure::report(&error);
            }
        }
    };
    let stop = async |grace: Option<Duration>| {
        let query = grace.map(|grace| format!("?grace={}", grace.as_secs_f64()));
        let path = format!("{path}/stop{}", query.unwrap_or_default());
        client.call(Ask::post(path, None)).await
    };
    let followed = tokio::select! {
        followed = follow::follow_at(client, &id, &output, show) => followed,
        () = beats => Ok(()),
        left = obey(&id, signals, stop) => return Ok(left),
    };
    if let Err(error) = followed {
        // Nobody sees what it prints any more, so it is not to go on.
        let stopped = stop(None).await;
        stopped.context(format!("stop the task after this: {error:#}"))?;
        return Err(error);
    }
    let ended = client.call(Ask::get(path.as_str())).await;
    let ended = ended.context("ask how the task ended")?;
    let code = ended.get("exitCode").and_then(Value::as_i64);
    let code = code.context("the daemon says nothing of the task's end")?;
    let code = i32::try_from(code).context("read the exit code")?;
    files.into_inner().finish(code)?;
    if code < 0 {
        let why = ended.pointer("/outcome/message").and_then(Value::as_str);
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        output::note(&format!("taskwright: the task was {}{why}", word(code)));
    }
    if args.rm {
        let mut forget = Ask::get(path.as_str());
        forget.method = Method::DELETE;
        client.call(forget).await.context("forget the task")?;
    }
    Ok(status(code))
}

/// What is wrong with the task is the task's failure, as it was when the original met it running.
fn not_taken(error: anyhow::Error) -> anyhow::Result<Code> {
    let refused = error.downcast_ref::<Refused>();
    if refused.is_some_and(|refused| refused.status == StatusCode::BAD_REQUEST) {
        crate::failure::report(&error);
        return Ok(status(EXCEPTION));
    }
    Err(error.context("submit the task"))
}

/// The exit code as a process can say it: its lowest byte.
fn status(code: i32) -> Code {
    Code(u8::try_from(code.rem_euclid(256)).unwrap_or(u8::MAX))
}

fn word(code: i32) -> &'static str {
    match code {
        -1 => "cancelled",
        -2 => "ended by a time limit",
        EXCEPTION => "not successful",
        _ => "lost",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn only_a_task_file_is_taken_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let read = |words: &[&str]| task_file(&TaskArgs::of(words));
        let task = r#"{"machine": "echo", "parameters": []}"#;
        let good = file("good.json", task);
        assert!(read(&[&good]).unwrap().is_some());
        assert!(read(&[&good, "more"]).unwrap().is_none());
        assert!(read(&[&file("good.txt", task)]).unwrap().is_none());
        assert!(read(&["/nowhere/a.json"]).unwrap().is_none());
        assert!(read(&[]).unwrap().is_none());
        let more = file(
            "more.json",
            r#"{"machine": "echo", "parameters": [], "x": 1}"#,
        );
        assert!(read(&[&more]).is_err());
        let program = file("program.json", "#!/bin/sh\n");
        assert!(read(&[&program]).is_err());
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, executable).unwrap();
        assert!(read(&[&program]).unwrap().is_none());
        let mut named = TaskArgs::of(&[&good]);
        named.name = Some("a".to_owned());
        assert!(task_file(&named).is_err());
    }

    #[test]
    fn codes_below_zero_are_what_a_process_can_say() {
        for (code, said) in [(0, 0), (7, 7), (-1, 255), (-2, 254), (-3, 253), (-99, 157)] {
            assert_eq!(status(code), Code(said));
        }
    }
}
