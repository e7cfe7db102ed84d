//! A runtime that tries what it was lent: the task's command is a verb with arguments, as
//! `read data a/b`, and the answer is the message of the outcome, with 0 if the host did it and
//! 1 if it refused. The setting `validate` is such a command for `validate`.

mod web;

use std::time::{Duration, Instant, SystemTime};

use taskwright_plugin_sdk::command::{self, KIND};
use taskwright_plugin_sdk::{
    Description, Event, Failure, Outcome, Problem, Runtime, Step, Task, directories, export,
    secrets, settings,
};

struct Borrower;

impl Runtime for Borrower {
    fn describe() -> Description {
        Description {
            name: "borrower".to_owned(),
            version: "1".to_owned(),
            kinds: vec![KIND.to_owned()],
            config_schema: String::new(),
        }
    }

    fn probe() -> Result<(), String> {
        Ok(())
    }

    fn validate(_: Task) -> Result<(), Vec<Problem>> {
        let Some(line) = settings::get("validate") else {
            return Ok(());
        };
        let words: Vec<&str> = line.split(' ').collect();
        let told = carry_out(&words).unwrap_or_else(|refused| refused);
        Err(vec![command::problem("/process", &told)])
    }

    fn start(task: Task) -> Result<Step, Failure> {
        let process = task.process.unwrap_or_else(|| unreachable!());
        let words = process.command.iter().chain(&process.args);
        let words: Vec<&str> = words.map(String::as_str).collect();
        let (code, told) = match carry_out(&words) {
            Ok(answer) => (0, answer),
            Err(refused) => (1, refused),
        };
        Ok(Step::Done(Outcome::ExitedBecause((code, told))))
    }

    fn on_event(_: Task, _: Vec<u8>, event: Event) -> Result<Step, Failure> {
        command::hear(event)
    }
}

export!(Borrower);

fn carry_out(words: &[&str]) -> Result<String, String> {
    match words {
        ["all"] => {
            let all = directories::all().into_iter();
            let all: Vec<String> = all
                .map(|one| format!("{}:{}", one.name, one.write))
                .collect();
            Ok(all.join(" "))
        }
        ["read", directory, path] => text(directories::read(directory, path, 0, u32::MAX)),
        ["list", directory, path, after @ ..] => {
            let found = directories::list(directory, path, after.first().copied());
            let names = found.map_err(|error| format!("{error:?}"))?.into_iter();
            let names: Vec<String> = names
                .map(|entry| format!("{}:{:?}", entry.name, entry.kind))
                .collect();
            Ok(names.join(" "))
        }
        ["stat", directory, path] => {
            let found = directories::stat(directory, path).map_err(|error| format!("{error:?}"))?;
            assert!(found.changed_ms.is_some(), "it has no time");
            Ok(format!("{:?} {}", found.kind, found.size))
        }
        ["write", directory, path, text] => {
            told(directories::write(directory, path, text.as_bytes()))
        }
        ["write-many", directory, size, count] => {
            let bytes = vec![b'x'; number(size)];
            for file in 0..number(count) {
                told(directories::write(
                    directory,
                    &format!("many/{file}"),
                    &bytes,
                ))?;
            }
            Ok("done".to_owned())
        }
        ["secret", name] => text(secrets::get(name)),
        ["secret-length", name] => match secrets::get(name) {
            Ok(secret) => Ok(secret.len().to_string()),
            Err(error) => Err(format!("{error:?}")),
        },
        ["get", url] => web::get(url),
        ["post", url, size] => web::post(url, number(size)),
        ["many", url, count] => Ok(web::many(url, number(count))),
        ["clock"] => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let (first, second) = (Instant::now(), Instant::now());
            let seconds = now.unwrap_or_default().as_secs();
            Ok(format!("{seconds} {}", (second - first).as_nanos()))
        }
        ["random"] => {
            let secure = wasip2::random::random::get_random_u64();
            let insecure = wasip2::random::insecure::get_insecure_random_u64();
            Ok(format!("{secure} {insecure}"))
        }
        ["sleep", millis] => {
            std::thread::sleep(Duration::from_millis(number(millis) as u64));
            Ok("done".to_owned())
        }
        ["remove", directory, path] => told(directories::remove(directory, path)),
        other => panic!("{other:?} is no verb"),
    }
}

fn number(word: &str) -> usize {
    word.parse()
        .unwrap_or_else(|_| panic!("{word} is no number"))
}

fn told<E: std::fmt::Debug>(answer: Result<(), E>) -> Result<String, String> {
    match answer {
        Ok(()) => Ok("done".to_owned()),
        Err(error) => Err(format!("{error:?}")),
    }
}

fn text<E: std::fmt::Debug>(answer: Result<Vec<u8>, E>) -> Result<String, String> {
    let bytes = answer.map_err(|error| format!("{error:?}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
