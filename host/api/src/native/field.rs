//! Reading a JSON tree field by field: every problem is kept with the place it
//! was found at, and `null` is the same as nothing, as Go clients write it.

use serde_json::{Map, Value};

use crate::problem::FieldProblem;

/// A place in the body. Costs nothing until somebody asks for its text.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    above: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    pub(crate) const ROOT: Path<'static> = Path {
        above: None,
        step: Step::Root,
    };

    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Self {
            above: Some(self),
            step: Step::Key(key),
        }
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self {
            above: Some(self),
            step: Step::Index(index),
        }
    }

    /// As a JSON pointer (RFC 6901).
    pub(crate) fn pointer(&self) -> String {
        let mut text = self.above.map(Path::pointer).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Key(key) => {
                text.push('/');
                text.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Step::Index(index) => {
                text.push('/');
                text.push_str(&index.to_string());
            }
        }
        text
    }
}

/// The most problems that are told about one task; nobody reads more.
const MOST_PROBLEMS: usize = 20;

/// What was found wrong so far.
#[derive(Default)]
pub(crate) struct Problems(Vec<FieldProblem>);

impl Problems {
    pub(crate) fn add(&mut self, path: &Path<'_>, message: impl Into<String>) {
        if self.0.len() < MOST_PROBLEMS {
            self.0.push(FieldProblem::new(path.pointer(), message));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<FieldProblem> {
        self.0
    }

    fn wrong_type(&mut self, path: &Path<'_>, wanted: &str, found: &Value) {
        self.add(path, format!("must be {wanted}, not {}", kind_of(found)));
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// An object under the eyes of a reader.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    pub(crate) map: &'a Map<String, Value>,
    pub(crate) path: &'a Path<'a>,
}

impl<'a> Object<'a> {
    /// `value` as an object, or a problem.
    pub(crate) fn of(
        value: &'a Value,
        path: &'a Path<'a>,
        problems: &mut Problems,
    ) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { map, path }),
            other => {
                problems.wrong_type(path, "an object", other);
                None
            }
        }
    }

    /// The value under `key`, if there is one that is not `null`.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, key: &str, problems: &mut Problems) -> Option<&'a str> {
        let value = self.get(key)?;
        let text = value.as_str();
        if text.is_none() {
            problems.wrong_type(&self.path.key(key), "a text", value);
        }
        text
    }

    pub(crate) fn list(&self, key: &str, problems: &mut Problems) -> Option<&'a [Value]> {
        let value = self.get(key)?;
        let list = value.as_array();
        if list.is_none() {
            problems.wrong_type(&self.path.key(key), "a list", value);
        }
        list.map(Vec::as_slice)
    }

    /// A list of texts; empty where there is none.
    pub(crate) fn texts(&self, key: &str, problems: &mut Problems) -> Vec<String> {
        let list = self.list(key, problems).unwrap_or_default();
        let mut texts = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            match value {
                Value::String(text) => texts.push(text.clone()),
                other => {
                    let of = self.path.key(key);
                    problems.wrong_type(&of.index(index), "a text", other);
                }
            }
        }
        texts
    }

    /// A whole number; `5.0` is one.
    pub(crate) fn integer(&self, key: &str, problems: &mut Problems) -> Option<i64> {
        let value = self.get(key)?;
        let whole = value.as_i64().or_else(|| {
            let number = value.as_f64()?;
            // Beyond 2^53 a float does not name one whole number.
            let exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
            exact.then_some(number as i64)
        });
        if whole.is_none() {
            problems.wrong_type(&self.path.key(key), "a whole number", value);
        }
        whole
    }

    pub(crate) fn switch(&self, key: &str, problems: &mut Problems) -> Option<bool> {
        let value = self.get(key)?;
        let switch = value.as_bool();
        if switch.is_none() {
            problems.wrong_type(&self.path.key(key), "true or false", value);
        }
        switch
    }

    pub(crate) fn number(&self, key: &str, problems: &mut Problems) -> Option<f64> {
        let value = self.get(key)?;
        let number = value.as_f64();
        if number.is_none() {
            problems.wrong_type(&self.path.key(key), "a number", value);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_place_is_told_as_a_json_pointer() {
        let root = Path::ROOT;
        let labels = root.key("labels");
        assert_eq!(labels.key("a/b~c").pointer(), "/labels/a~1b~0c");
        assert_eq!(root.index(3).pointer(), "/3");
        assert_eq!(root.pointer(), "");
    }

    #[test]
    fn null_is_the_same_as_nothing() {
        let body = json!({"a": null});
        let mut problems = Problems::default();
        let object = Object::of(&body, &Path::ROOT, &mut problems).unwrap();
        assert_eq!(object.text("a", &mut problems), None);
        assert_eq!(object.list("a", &mut problems), None);
        assert_eq!(object.integer("a", &mut problems), None);
        assert!(problems.is_empty());
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        let body = json!({"five": 5.0, "half": 0.5, "huge": 1e300});
        let mut problems = Problems::default();
        let object = Object::of(&body, &Path::ROOT, &mut problems).unwrap();
        assert_eq!(object.integer("five", &mut problems), Some(5));
        assert_eq!(object.integer("half", &mut problems), None);
        assert_eq!(object.integer("huge", &mut problems), None);
        assert_eq!(problems.into_vec().len(), 2);
    }
}
