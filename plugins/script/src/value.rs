//! What a script is told and what it answers, as its values and as the host's.

use rhai::{Array, Dynamic, ImmutableString, Map};
use serde_json::Value;
use taskwright_plugin_sdk::command::{self, KIND};
use taskwright_plugin_sdk::observer::Event;
use taskwright_plugin_sdk::policy::{Answer, Change, Denial, Question, Request, Stage, Verdict};
use taskwright_plugin_sdk::{Description, EnvVar, Problem, SpawnRequest, Task};

/// The largest whole number below which a float leaves none out.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;
/// The verdicts of a policy; all else in its answer goes with one of them.
const VERDICTS: [&str; 3] = ["change", "deny", "ask"];
/// Letters that a slip of the pen changes.
const MOST_SLIPS: usize = 2;

/// A task, as a script sees it.
///
/// # Errors
/// When the host hands over something that is no JSON.
pub(crate) fn task(task: &Task) -> Result<Map, String> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Dynamic| map.insert(key.into(), value);
    put("id", task.id.clone().into());
    put("name", task.name.clone().into());
    put("namespace", task.namespace.clone().into());
    put("attempt", i64::from(task.attempt).into());
    put("kind", task.kind.clone().into());
    let command = task.process.as_ref();
    let words = |words: Option<&Vec<String>>| -> Dynamic {
        let words = words.into_iter().flatten().cloned();
        words.map(Dynamic::from).collect::<Array>().into()
    };
    put("command", words(command.map(|command| &command.command)));
    put("args", words(command.map(|command| &command.args)));
    let env = command.into_iter().flat_map(|command| &command.env);
    let env = env.map(|variable| (variable.name.as_str().into(), variable.value.clone().into()));
    put("env", env.collect::<Map>().into());
    let directory = command.and_then(|command| command.working_dir.clone());
    put("working_dir", directory.map_or(Dynamic::UNIT, Into::into));
    let labels = task.labels.iter();
    let labels = labels.map(|(key, value)| (key.as_str().into(), value.clone().into()));
    put("labels", labels.collect::<Map>().into());
    put("config", document("config", &task.config)?);
    put("document", document("document", &task.document)?);
    Ok(map)
}

/// A JSON text that may be missing, which is an empty map then.
fn document(what: &str, text: &str) -> Result<Dynamic, String> {
    if text.is_empty() {
        return Ok(Map::new().into());
    }
    let read = serde_json::from_str(text).map_err(|error| format!("the task's {what}: {error}"))?;
    Ok(from_json(read))
}

fn from_json(value: Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(value) => value.into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(fraction)) => fraction.into(),
            (None, None) => Dynamic::UNIT,
        },
        Value::String(text) => text.into(),
        Value::Array(list) => list.into_iter().map(from_json).collect::<Array>().into(),
        Value::Object(map) => {
            let entries = map.into_iter();
            let entries = entries.map(|(key, value)| (key.into(), from_json(value)));
            entries.collect::<Map>().into()
        }
    }
}

fn to_json(value: Dynamic) -> Result<Value, String> {
    if value.is_unit() {
        return Ok(Value::Null);
    }
    let value = match value.as_bool() {
        Ok(truth) => return Ok(truth.into()),
        Err(_) => value,
    };
    if let Ok(whole) = value.as_int() {
        return Ok(whole.into());
    }
    if let Ok(number) = value.as_float() {
        return Ok(number_of(number));
    }
    if value.is_string() {
        return Ok(text("it", value)?.into());
    }
    if value.is_array() {
        let list = value.cast::<Array>();
        return list.into_iter().map(to_json).collect();
    }
    let map = map("a part of it", value)?.into_iter();
    let entries = map.map(|(key, value)| Ok((key.to_string(), to_json(value)?)));
    entries
        .collect::<Result<serde_json::Map<_, _>, String>>()
        .map(Value::Object)
}

/// A number without a fraction is written without one: who calculated 3600.0 means 3600.
fn number_of(number: f64) -> Value {
    let is_whole = number.fract() == 0.0 && number.abs() <= MOST_EXACT;
    if is_whole {
        // Within the bound nothing is cut off.
        (number as i64).into()
    } else {
        number.into()
    }
}

/// A task that is to run, as a policy sees it.
///
/// # Errors
/// When the host hands over something that is no JSON.
pub(crate) fn asked(request: &Request) -> Result<Map, String> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Dynamic| map.insert(key.into(), value);
    let stage = match request.stage {
        Stage::Submit => "submit",
        Stage::Launch => "launch",
    };
    put("stage", stage.into());
    put("id", request.id.clone().into());
    put("namespace", request.namespace.clone().into());
    put("name", request.name.clone().into());
    put("attempt", i64::from(request.attempt).into());
    put("runtime", request.runtime.clone().into());
    put("approved", request.approved.into());
    put("task", document("document", &request.task)?);
    Ok(map)
}

/// An event, as an observer sees it.
///
/// # Errors
/// When the host hands over something that is no JSON.
pub(crate) fn event(event: &Event) -> Result<Map, String> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Dynamic| map.insert(key.into(), value);
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX).into();
    put("sequence", number(event.sequence));
    put("at_ms", number(event.at_ms));
    put("kind", event.kind.clone().into());
    put("id", event.id.clone().into());
    put("namespace", event.namespace.clone().into());
    put("name", event.name.clone().into());
    put("missed", number(event.missed));
    put("document", document("event", &event.document)?);
    Ok(map)
}

/// What `review(request)` gave: nothing, or a map with one of `change`, `deny` and `ask`.
///
/// # Errors
/// What is wrong with it, to be read after `review(request)`.
pub(crate) fn verdict(said: Dynamic) -> Result<Verdict, String> {
    if said.is_unit() {
        return Ok(Verdict::Allow);
    }
    let known = [
        "change",
        "deny",
        "ask",
        "reason",
        "field",
        "within_seconds",
        "otherwise",
    ];
    let mut said = Keys::of(said, &known)?;
    let mut given = VERDICTS.into_iter().filter(|verdict| said.has(verdict));
    let verdict = match (given.next(), given.next()) {
        (Some(verdict), None) => verdict,
        (Some(one), Some(other)) => {
            return Err(format!(
                "gave `{one}` and `{other}`, of which a verdict is one"
            ));
        }
        (None, _) => return Err("gave a map without `change`, `deny` or `ask`".to_owned()),
    };
    let word = |said: &mut Keys, key: &str| match said.take(key) {
        Some(value) => text(key, value),
        None => Ok(String::new()),
    };
    let answer = if let Some(patch) = said.take("change") {
        let patch = to_json(patch).map_err(|why| format!("has a change that is no JSON: {why}"))?;
        Verdict::Change(Change {
            patch: patch.to_string(),
            reason: word(&mut said, "reason")?,
        })
    } else if let Some(reason) = said.take("deny") {
        Verdict::Deny(Denial {
            reason: text("deny", reason)?,
            field: word(&mut said, "field")?,
        })
    } else if let Some(question) = said.take("ask") {
        let seconds = said.take("within_seconds");
        let seconds = seconds.map(|value| {
            let problem = wrong("within_seconds", &value, "a whole number");
            value.as_int().map_err(|_| problem)
        });
        let seconds = seconds.transpose()?.map(|seconds| seconds.max(0) as u64);
        Verdict::Ask(Question {
            text: text("ask", question)?,
            within_ms: seconds.map(|seconds| seconds.saturating_mul(1000)),
            otherwise: match word(&mut said, "otherwise")?.as_str() {
                "" => None,
                "approve" => Some(Answer::Approve),
                "deny" => Some(Answer::Deny),
                other => {
                    return Err(format!(
                        "gave otherwise as {other:?}; there is approve, deny"
                    ));
                }
            },
        })
    } else {
        return Err("gave a map without `change`, `deny` or `ask`".to_owned());
    };
    said.end(verdict)?;
    Ok(answer)
}

/// What a script says that has nothing to say.
pub(crate) fn nothing() -> Description {
    Description {
        name: String::new(),
        version: String::new(),
        kinds: Vec::new(),
        config_schema: String::new(),
    }
}

/// What `describe()` gave. The name is that of the file.
///
/// # Errors
/// What is wrong with it, to be read after `describe()`.
pub(crate) fn description(name: &str, said: Dynamic) -> Result<Description, String> {
    let mut said = Keys::of(said, &["version", "kinds", "config_schema"])?;
    let version = match said.take("version") {
        Some(version) => text("version", version)?,
        None => return Err("lacks `version`".to_owned()),
    };
    let kinds = match said.take("kinds") {
        Some(kinds) => words("kinds", kinds)?,
        None => vec![KIND.to_owned()],
    };
    let config_schema = match said.take("config_schema") {
        None => String::new(),
        Some(schema) if schema.is_string() => text("config_schema", schema)?,
        Some(schema) => to_json(schema)
            .map_err(|why| format!("has a config_schema that is no JSON: {why}"))?
            .to_string(),
    };
    Ok(Description {
        name: name.to_owned(),
        version,
        kinds,
        config_schema,
    })
}

/// What `validate(task)` gave: a list of texts, and of maps with `field` and `message`.
///
/// # Errors
/// What is wrong with it, to be read after `validate(task)`.
pub(crate) fn problems(said: Dynamic) -> Result<Vec<Problem>, String> {
    if said.is_unit() {
        return Ok(Vec::new());
    }
    let problem = |(index, said): (usize, Dynamic)| {
        let place = format!("problem {index}");
        if said.is_string() {
            return Ok(command::problem("", &text(&place, said)?));
        }
        let mut said = Keys::of(said, &["field", "message"])?;
        let mut word = |key| match said.take(key) {
            Some(value) => text(key, value),
            None => Err(format!("gave a problem without `{key}`")),
        };
        Ok(command::problem(&word("field")?, &word("message")?))
    };
    let list = list("its answer", said)?;
    list.into_iter().enumerate().map(problem).collect()
}

/// What `start(task)` gave. What it does not say of variables and directory is the task's own.
///
/// # Errors
/// What is wrong with it, to be read after `start(task)`.
pub(crate) fn request(said: Dynamic, task: &Task) -> Result<SpawnRequest, String> {
    let mut said = Keys::of(said, &["argv", "env", "working_dir", "descendants"])?;
    let argv = match said.take("argv") {
        Some(argv) => words("argv", argv)?,
        None => return Err("lacks `argv`: what to run, as a list of texts".to_owned()),
    };
    if argv.is_empty() {
        return Err("gave an empty `argv`: its first word is the program".to_owned());
    }
    let own = task.process.as_ref();
    let env = match said.take("env") {
        None => own.map(|command| command.env.clone()).unwrap_or_default(),
        Some(env) => map("env", env)?
            .into_iter()
            .map(|(name, value)| {
                let value = word(&format!("env.{name}"), value)?;
                let name = name.to_string();
                Ok(EnvVar { name, value })
            })
            .collect::<Result<_, String>>()?,
    };
    let working_dir = match said.take("working_dir") {
        None => own.and_then(|command| command.working_dir.clone()),
        Some(directory) if directory.is_unit() => None,
        Some(directory) => Some(text("working_dir", directory)?),
    };
    let mut extra = Vec::new();
    if let Some(descendants) = said.take("descendants") {
        extra.push(("descendants".to_owned(), text("descendants", descendants)?));
    }
    Ok(SpawnRequest {
        argv,
        env,
        working_dir,
        extra,
    })
}

/// The keys of an answer, each to be taken once.
struct Keys(Map);

impl Keys {
    /// Nothing but what is known may be there, lest a slip of the pen be ignored.
    fn of(said: Dynamic, known: &[&str]) -> Result<Self, String> {
        let said = map("its answer", said)?;
        match said.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(Self(said)),
            Some(key) => Err(match nearest(key, known) {
                Some(meant) => {
                    format!("gave `{key}`, which means nothing: `{meant}` may be meant")
                }
                None => format!(
                    "gave `{key}`, which means nothing; there is {}",
                    known.join(", ")
                ),
            }),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    fn take(&mut self, key: &str) -> Option<Dynamic> {
        self.0.remove(key)
    }

    /// Nothing may be left that says nothing beside `verdict`.
    fn end(self, verdict: &str) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!(
                "gave `{key}`, which means nothing with `{verdict}`"
            )),
        }
    }
}

/// The known word that was meant, if it can be told.
fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let slips = known.iter().map(|word| (slips(given, word), *word));
    let (count, word) = slips.min()?;
    // Of a short word nothing may be left.
    (count <= MOST_SLIPS && count < word.len() / 2 + 1).then_some(word)
}

/// Letters to put in, take out or change until one word is the other.
fn slips(given: &str, word: &str) -> usize {
    let word: Vec<char> = word.chars().collect();
    let mut before: Vec<usize> = (0..=word.len()).collect();
    for (row, letter) in given.chars().enumerate() {
        let mut now = vec![row + 1];
        for (column, (wanted, corner)) in word.iter().zip(&before).enumerate() {
            let above = before
                .get(column + 1)
                .map_or(usize::MAX - 1, |above| above + 1);
            let left = now.last().map_or(usize::MAX - 1, |left| left + 1);
            now.push(above.min(left).min(corner + usize::from(letter != *wanted)));
        }
        before = now;
    }
    before.last().copied().unwrap_or(0)
}

fn wrong(place: &str, value: &Dynamic, wanted: &str) -> String {
    let kind = value.type_name();
    let kind = kind.rsplit("::").next().unwrap_or(kind);
    format!("gave {place} as {kind}, {wanted} is wanted")
}

fn map(place: &str, value: Dynamic) -> Result<Map, String> {
    let problem = wrong(place, &value, "a map");
    value.try_cast::<Map>().ok_or(problem)
}

fn list(place: &str, value: Dynamic) -> Result<Array, String> {
    let problem = wrong(place, &value, "a list");
    value.into_array().map_err(|_| problem)
}

fn text(place: &str, value: Dynamic) -> Result<String, String> {
    let problem = wrong(place, &value, "text");
    let text = value.try_cast::<ImmutableString>().ok_or(problem)?;
    Ok(text.into_owned())
}

/// A text, or a whole number as one.
fn word(place: &str, value: Dynamic) -> Result<String, String> {
    match value.as_int() {
        Ok(number) => Ok(number.to_string()),
        Err(_) => text(place, value),
    }
}

fn words(place: &str, value: Dynamic) -> Result<Vec<String>, String> {
    let list = list(place, value)?.into_iter().enumerate();
    let words = list.map(|(index, value)| word(&format!("{place}[{index}]"), value));
    words.collect()
}
