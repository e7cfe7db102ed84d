//! From a text or a list of lines to commands. Everything is checked before anything runs.

use std::fmt;

use serde_json::Value;

/// The most commands of a script: a shell goes through them by shifting its arguments.
const MOST_COMMANDS: usize = 10_000;
/// The longest text of one command, in bytes: the kernel takes 131071 in one argument.
const MOST_TEXT_BYTES: usize = 130_000;
/// The longest sleep, in seconds: ten years.
const MOST_SECONDS: f64 = 10.0 * 365.0 * 24.0 * 3600.0;
/// The most problems that are told; nobody reads more.
const MOST_PROBLEMS: usize = 20;

/// How important a line of the log is.
const LEVELS: [&str; 5] = ["CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"];

/// A command, with the number of its line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) act: Act,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    Echo(String),
    Sleep(f64),
    Log(&'static str, String),
    Return(i64),
    Raise,
    /// What follows is the cleanup section.
    Cleanup,
}

/// Something wrong with a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Which element of the list; `None` where the script is one text, or no script at all.
    pub(crate) index: Option<usize>,
    pub(crate) message: String,
}

/// The commands of a script.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read(script: &Value) -> Result<Vec<Command>, Vec<Wrong>> {
    let mut commands = Vec::new();
    let mut wrong = Vec::new();
    let mut cleaning = false;
    let mut take = |line: usize, index: Option<usize>, text: Option<&str>| {
        let read = text.map_or(Err("must be a text".into()), |text| {
            command(text, cleaning).map_err(|why| format!("{why}: {:?}", shown(text)))
        });
        match read {
            Ok(Some(act)) => {
                cleaning |= act == Act::Cleanup;
                commands.push(Command { line, act });
            }
            Ok(None) => {}
            Err(why) if wrong.len() < MOST_PROBLEMS => wrong.push(Wrong {
                index,
                message: format!("line {line}: {why}"),
            }),
            Err(_) => {}
        }
    };
    match script {
        Value::String(text) => {
            let lines = text.lines().enumerate();
            lines.for_each(|(index, line)| take(index + 1, None, Some(line)));
        }
        Value::Array(lines) => {
            let lines = lines.iter().enumerate();
            lines.for_each(|(index, line)| take(index + 1, Some(index), line.as_str()));
        }
        _ => wrong.push(Wrong::of_all(
            "must be a script: a text, or a list of lines",
        )),
    }
    if commands.len() > MOST_COMMANDS {
        let message = format!("has {} commands, {MOST_COMMANDS} are taken", commands.len());
        wrong.push(Wrong::of_all(&message));
    }
    if wrong.is_empty() {
        Ok(commands)
    } else {
        Err(wrong)
    }
}

impl Wrong {
    fn of_all(message: &str) -> Self {
        Self {
            index: None,
            message: message.to_owned(),
        }
    }
}

/// The command of a line, if there is one in it that does anything.
fn command(line: &str, cleaning: bool) -> Result<Option<Act>, String> {
    let said = line.split('#').next().unwrap_or_default();
    let mut words = said.split_whitespace();
    let Some(word) = words.next() else {
        return Ok(None);
    };
    let rest: Vec<&str> = words.collect();
    let only = |what: &str| match rest.as_slice() {
        [one] => Ok(*one),
        _ => Err(format!("{what}, and this has {}", rest.len())),
    };
    let act = match word.to_ascii_uppercase().as_str() {
        "USE" => return uses(&rest, cleaning).map(|()| None),
        "ECHO" if rest.is_empty() => return Err("ECHO needs a text".into()),
        "ECHO" => Act::Echo(text(&rest)?),
        "SLEEP" => Act::Sleep(seconds(only("SLEEP takes one number of seconds")?)?),
        "LOG" => match rest.split_first() {
            Some((level, said)) if !said.is_empty() => Act::Log(known_level(level)?, text(said)?),
            _ => return Err("LOG needs a level and a text".into()),
        },
        "RETURN" => {
            let number = only("RETURN takes one number")?;
            let number = number.parse().map_err(|_| "RETURN takes an integer")?;
            Act::Return(number)
        }
        "RAISE" => Act::Raise,
        "CLEANUP" => Act::Cleanup,
        _ => {
            return Err(
                "this is no command; there is USE, ECHO, SLEEP, LOG, RETURN, RAISE, CLEANUP".into(),
            );
        }
    };
    Ok(Some(act))
}

/// What a script uses is for a scheduler to know: here it is only checked.
fn uses(rest: &[&str], cleaning: bool) -> Result<(), String> {
    if cleaning {
        return Err("USE is not allowed after CLEANUP".into());
    }
    let mode = rest.first().map(|mode| mode.to_ascii_uppercase());
    match mode.as_deref() {
        Some("SHARED" | "EXCLUSIVE") if rest.len() > 1 => Ok(()),
        Some("SHARED" | "EXCLUSIVE") => Err("USE needs at least one name".into()),
        _ => Err("USE needs SHARED or EXCLUSIVE, and names".into()),
    }
}

fn seconds(number: &str) -> Result<f64, String> {
    let seconds: f64 = number.parse().map_err(|_| "SLEEP takes a number")?;
    // Neither a number nor less than 0: `NaN` is none of this.
    if (0.0..=MOST_SECONDS).contains(&seconds) {
        return Ok(seconds);
    }
    Err(format!("SLEEP takes 0 to {MOST_SECONDS} seconds"))
}

fn known_level(word: &str) -> Result<&'static str, String> {
    let wanted = word.to_ascii_uppercase();
    let known = LEVELS.into_iter().find(|level| *level == wanted);
    known.ok_or_else(|| format!("the level of LOG is one of {}", LEVELS.join(", ")))
}

fn text(words: &[&str]) -> Result<String, String> {
    let text = words.join(" ");
    if text.contains('\0') {
        return Err("a text must not hold NUL".into());
    }
    if text.len() > MOST_TEXT_BYTES {
        return Err(format!(
            "the text has {} bytes, {MOST_TEXT_BYTES} are taken",
            text.len()
        ));
    }
    Ok(text)
}

fn shown(line: &str) -> String {
    const MOST: usize = 40;
    let mut shown: String = line.trim().chars().take(MOST).collect();
    if shown.len() < line.trim().len() {
        shown.push('…');
    }
    shown
}

impl fmt::Display for Act {
    /// The argument that the program is given for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo(text) => f.write_str(text),
            // Never with an exponent, which not every `sleep` reads.
            Self::Sleep(seconds) => write!(f, "{seconds}"),
            Self::Log(level, text) => write!(f, "{level} {text}"),
            Self::Return(number) => write!(f, "{}", number.rem_euclid(256)),
            Self::Raise => write!(f, "{}", crate::decide::RAISED),
            Self::Cleanup => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
