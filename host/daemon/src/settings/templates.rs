//! `[[queue.templates]]`: what workers of this machine run for which problem.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use taskwright_api::TaskDocuments;
use taskwright_model::TaskId;
use taskwright_queue::Json;
use taskwright_worker::template::WorkDir;
use taskwright_worker::{Assignment, Template, Templates};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{FileProblem, closest};

/// A list of tables, and so no row of the table of settings.
pub(super) const KEY: &str = "queue.templates";
const WORDS: [&str; 4] = ["problems", "task", "work-dir", "work-dir-inside"];
/// Tables within tables.
const DEEPEST: usize = 32;

/// Something wrong with one, and where in the text.
pub(super) struct TemplateProblem {
    pub(super) at: usize,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl TemplateProblem {
    /// On a line.
    pub(super) fn on(self, line: usize) -> FileProblem {
        FileProblem {
            line,
            message: self.message,
            hint: self.hint,
        }
    }
}

/// Reads all of them.
pub(super) fn read(value: &Spanned<DeValue<'_>>) -> (Vec<Template>, Vec<TemplateProblem>) {
    let mut problems = Vec::new();
    let DeValue::Array(list) = value.get_ref() else {
        let message = format!("{KEY}: a list of tables is wanted, as [[{KEY}]]");
        return (Vec::new(), vec![problem(value, message)]);
    };
    if list.len() > Templates::MOST {
        let message = format!("{KEY}: at most {}", Templates::MOST);
        problems.push(problem(value, message));
    }
    let mut templates = Vec::new();
    for element in list.iter().take(Templates::MOST) {
        match element.get_ref() {
            DeValue::Table(table) => templates.extend(read_one(element, table, &mut problems)),
            _ => {
                let message = format!("{KEY}: a table with problems and task is wanted");
                problems.push(problem(element, message));
            }
        }
    }
    (templates, problems)
}

fn read_one(
    element: &Spanned<DeValue<'_>>,
    table: &DeTable<'_>,
    problems: &mut Vec<TemplateProblem>,
) -> Option<Template> {
    let before = problems.len();
    let (mut patterns, mut task, mut outside, mut inside) = (Vec::new(), None, None, None);
    for (word, value) in table {
        let wrong = |what: &str| problem(value, format!("{KEY}.{}: {what}", word.get_ref()));
        match (word.get_ref().as_ref(), value.get_ref()) {
            ("problems", DeValue::String(text)) => patterns = vec![text.clone().into_owned()],
            ("problems", DeValue::Array(list)) => {
                let texts = list.iter().map(|one| one.get_ref().as_str());
                match texts.map(|text| text.map(str::to_owned)).collect() {
                    Some(texts) => patterns = texts,
                    None => problems.push(wrong("patterns are wanted, as [\"test-*\"]")),
                }
            }
            ("task", DeValue::Table(_)) => match json(value.get_ref(), DEEPEST) {
                Some(value) => task = Some(value),
                None => problems.push(wrong("it holds a value that no task has")),
            },
            ("work-dir", DeValue::String(text)) if text.starts_with('/') => {
                outside = Some(text.clone().into_owned());
            }
            ("work-dir-inside", DeValue::String(text)) if text.starts_with('/') => {
                inside = Some(text.clone().into_owned());
            }
            ("work-dir" | "work-dir-inside", _) => {
                problems.push(wrong("an absolute path is wanted"));
            }
            ("problems" | "task", _) => {
                problems.push(wrong("problems are patterns, task is a table"));
            }
            (other, _) => problems.push(TemplateProblem {
                at: word.span().start,
                message: format!("unknown key `{KEY}.{other}`"),
                hint: closest(other, WORDS.into_iter())
                    .map(|near| format!("did you mean `{near}`?")),
            }),
        }
    }
    if inside.is_some() && outside.is_none() {
        let message = format!("{KEY}: work-dir-inside needs work-dir, where it is on this machine");
        problems.push(problem(element, message));
    }
    let Some(task) = task else {
        if !table.contains_key("task") {
            problems.push(TemplateProblem {
                hint: Some("task.spec.process.command = [\"python3\", \"solve.py\"]".to_owned()),
                ..problem(element, format!("{KEY}: task is missing"))
            });
        }
        return None;
    };
    let work_dir = outside.map(|outside| WorkDir {
        inside: inside.unwrap_or_else(|| outside.clone()),
        outside: PathBuf::from(outside),
    });
    let made = Template::new(patterns, task, work_dir)
        .map_err(|why| vec![why])
        .and_then(|template| check(&template).map(|()| template));
    match made {
        Ok(template) if problems.len() == before => Some(template),
        Ok(_) => None,
        Err(found) => {
            let told = found
                .into_iter()
                .map(|why| problem(element, format!("{KEY}.task: {why}")));
            problems.extend(told);
            None
        }
    }
}

/// Whether a task can be made of it.
///
/// # Errors
/// Every problem of the task.
pub(crate) fn check(template: &Template) -> Result<(), Vec<String>> {
    let sample = Assignment {
        task: TaskId::from_u128(1),
        attempt: 1,
        problem: "problem".to_owned(),
        parameters: Json::empty_object(),
        time_limit: Duration::from_secs(60),
    };
    let task = template.task("template", &sample, "worker-001-kind", None);
    TaskDocuments.read(&task).map(|_| ())
}

/// The value as JSON; `None` where it nests too deep, or is a date or no number of JSON.
fn json(value: &DeValue<'_>, deep: usize) -> Option<Value> {
    let deeper = deep.checked_sub(1)?;
    Some(match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Boolean(switch) => Value::Bool(*switch),
        DeValue::Integer(number) => {
            let radix = number.radix();
            i64::from_str_radix(&number.as_str().replace('_', ""), radix)
                .ok()?
                .into()
        }
        DeValue::Float(number) => {
            let number: f64 = number.as_str().replace('_', "").parse().ok()?;
            serde_json::Number::from_f64(number)?.into()
        }
        DeValue::Array(list) => list
            .iter()
            .map(|one| json(one.get_ref(), deeper))
            .collect::<Option<Vec<_>>>()?
            .into(),
        DeValue::Table(table) => {
            let mut object = Map::new();
            for (key, value) in table {
                let value = json(value.get_ref(), deeper)?;
                object.insert(key.get_ref().clone().into_owned(), value);
            }
            object.into()
        }
        DeValue::Datetime(_) => return None,
    })
}

fn problem<T>(at: &Spanned<T>, message: String) -> TemplateProblem {
    TemplateProblem {
        at: at.span().start,
        message,
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    //! Read from the file as a whole, where lines are told.

    use super::super::file;

    #[test]
    fn templates_are_read() {
        let layer = file::read(
            "[[queue.templates]]\nproblems = ['k8s-*', 'net']\n\
             task.spec.process.command = ['python3', 'solve.py']\n\
             task.limits.runSeconds = 1_800\n\
             [[queue.templates]]\ntask = { runtime = 'sidecar', spec = { process = { command = ['x'] } } }\n\
             work-dir = '/shared'\nwork-dir-inside = '/workspace'\n",
        );
        assert_eq!(layer.problems, []);
        let templates = taskwright_worker::Templates::new(layer.templates);
        assert!(templates.of("k8s-1").is_some());
        // The second one takes every other problem.
        assert!(templates.patterns().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let task = "task.spec.process.command = ['x']";
        for (text, told) in [
            ("problems = 'a'", "1: queue.templates: task is missing"),
            ("task = 'x'", "2: queue.templates.task: problems are"),
            (
                "task.spec.process.command = []",
                "1: queue.templates.task: ",
            ),
            (
                "task.name = 'x'",
                "1: queue.templates.task: the task has a name",
            ),
            (
                &format!("problems = ['[']\n{task}"),
                "1: queue.templates.task: ",
            ),
            (
                &format!("problems = [1]\n{task}"),
                "2: queue.templates.problems: patterns",
            ),
            (
                &format!("{task}\nwork-dir = 'x'"),
                "3: queue.templates.work-dir: an absolute",
            ),
            (
                &format!("{task}\nwork-dir-inside = '/x'"),
                "1: queue.templates: work-dir-inside",
            ),
            (
                &format!("{task}\nproblem = 'x'"),
                "3: unknown key `queue.templates.problem`",
            ),
            (
                "task.limits.runSeconds = nan",
                "2: queue.templates.task: it holds",
            ),
        ] {
            let layer = file::read(&format!("[[queue.templates]]\n{text}\n"));
            let problems: Vec<String> = layer
                .problems
                .iter()
                .map(|problem| format!("{}: {}", problem.line, problem.message))
                .collect();
            let is_told = |one: &String| one.starts_with(told);
            assert!(problems.iter().any(is_told), "{text}: {problems:?}");
            assert!(layer.templates.is_empty());
        }
    }
}
