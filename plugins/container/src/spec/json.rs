//! A document of the task, read with every problem at once and each at its place.
//!
//! `null` is the same as absent everywhere, because clients in Go send it for what they leave
//! out. Unknown keys are nobody's business here.

use std::cell::RefCell;

use serde_json::{Map, Value};
use taskwright_plugin_sdk::Problem;

/// What was found to be wrong so far.
#[derive(Default)]
pub(crate) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// Notes a problem. A field that is read twice has it once.
    pub(crate) fn add(&self, place: &str, message: impl Into<String>) {
        let problem = Problem {
            field: place.to_owned(),
            message: message.into(),
        };
        let mut found = self.0.borrow_mut();
        if !found.contains(&problem) {
            found.push(problem);
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    pub(crate) value: &'a Value,
    pub(crate) place: String,
    pub(crate) problems: &'a Problems,
}

impl<'a> Node<'a> {
    pub(crate) fn problem(&self, message: impl Into<String>) {
        self.problems.add(&self.place, message);
    }

    fn wrong(&self, wanted: &str) {
        let given = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a truth value",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.problem(format!("must be {wanted}, not {given}"));
    }

    pub(crate) fn object(self) -> Option<Object<'a>> {
        let Value::Object(map) = self.value else {
            self.wrong("an object");
            return None;
        };
        Some(Object {
            map,
            place: self.place,
            problems: self.problems,
        })
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        match self.value {
            Value::String(text) if text.contains('\0') => {
                self.problem("must not hold NUL: the kernel would end the text there");
                None
            }
            Value::String(text) => Some(text),
            _ => {
                self.wrong("a text");
                None
            }
        }
    }

    /// A number that may name a user or a group.
    pub(crate) fn id(&self) -> Option<u32> {
        let id = self.value.as_u64().filter(|id| *id <= MOST_ID);
        if id.is_none() {
            self.problem(format!("must be a whole number from 0 to {MOST_ID}"));
        }
        id.and_then(|id| u32::try_from(id).ok())
    }
}

/// The largest number of a user or a group, as Kubernetes has it.
pub(crate) const MOST_ID: u64 = i32::MAX as u64;

/// An object and where it stands.
#[derive(Clone)]
pub(crate) struct Object<'a> {
    map: &'a Map<String, Value>,
    pub(crate) place: String,
    pub(crate) problems: &'a Problems,
}

impl<'a> Object<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<Node<'a>> {
        let value = self.map.get(key).filter(|value| !value.is_null())?;
        Some(Node {
            value,
            place: self.at(key),
            problems: self.problems,
        })
    }

    /// The place of a field, whether it is there or not.
    pub(crate) fn at(&self, key: &str) -> String {
        let key = key.replace('~', "~0").replace('/', "~1");
        format!("{}/{key}", self.place)
    }

    pub(crate) fn problem(&self, key: &str, message: impl Into<String>) {
        self.problems.add(&self.at(key), message);
    }

    /// The fields that are there.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'a str, Node<'a>)> + '_ {
        let keys = self.map.keys();
        keys.filter_map(|key| Some((key.as_str(), self.get(key)?)))
    }

    pub(crate) fn object(&self, key: &str) -> Option<Object<'a>> {
        self.get(key)?.object()
    }

    /// A text; one that is empty says nothing, as with clients that know no absence.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key)?.text().filter(|text| !text.is_empty())
    }

    pub(crate) fn is_true(&self, key: &str) -> bool {
        self.flag(key) == Some(true)
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        let flag = node.value.as_bool();
        if flag.is_none() {
            node.wrong("true or false");
        }
        flag
    }

    pub(crate) fn id(&self, key: &str) -> Option<u32> {
        self.get(key)?.id()
    }

    pub(crate) fn list(&self, key: &str) -> Vec<Node<'a>> {
        let Some(node) = self.get(key) else {
            return Vec::new();
        };
        let Value::Array(values) = node.value else {
            node.wrong("a list");
            return Vec::new();
        };
        let nodes = values.iter().enumerate().map(|(index, value)| Node {
            value,
            place: format!("{}/{index}", node.place),
            problems: self.problems,
        });
        nodes.collect()
    }

    pub(crate) fn objects(&self, key: &str) -> Vec<Object<'a>> {
        let nodes = self.list(key).into_iter();
        nodes.filter_map(Node::object).collect()
    }

    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        let nodes = self.list(key).into_iter();
        nodes
            .filter_map(|node| node.text().map(str::to_owned))
            .collect()
    }
}
