//! A plugin's JSON Schema, and tasks' configurations held against it.
//!
//! The schema is the plugin's, so it is hostile until proven small: what checking a
//! configuration can cost is bounded before the schema is taken. Recursion is refused, and so
//! are references that do not lead to a place in the schema itself.

use std::collections::HashMap;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use taskwright_control::port::SpecProblem;

use crate::convert;

/// Nodes of a schema with every reference replaced by what it leads to.
const MOST_NODES: u64 = 5_000;
/// Bytes of a configuration.
const MOST_CONFIG_BYTES: usize = 64 << 10;
/// Problems that are told of one configuration.
const MOST_PROBLEMS: usize = 32;
/// Keywords by which a schema can be recursive beyond what is looked at here.
const DYNAMIC: [&str; 2] = ["$dynamicRef", "$recursiveRef"];

/// A schema that can be checked against.
pub(crate) struct Schema(Validator);

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let schema: Value =
            serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
        let mut weigher = Weigher {
            root: &schema,
            known: HashMap::new(),
        };
        weigher.weigh(&schema)?;
        jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(&schema)
            .map(Self)
            .map_err(|error| format!("{error}, at {:?}", error.schema_path().to_string()))
    }

    /// What is wrong with a configuration, each problem at its place in the task.
    pub(crate) fn problems(&self, config: &str) -> Vec<SpecProblem> {
        if config.len() > MOST_CONFIG_BYTES {
            let message = format!(
                "has {} bytes, at most {MOST_CONFIG_BYTES} are taken",
                config.len()
            );
            return vec![problem("", message)];
        }
        let config = match serde_json::from_str::<Value>(config) {
            Ok(config) => config,
            Err(error) => return vec![problem("", format!("is no JSON: {error}"))],
        };
        let errors = self.0.iter_errors(&config).take(MOST_PROBLEMS);
        errors
            .map(|error| problem(&error.instance_path().to_string(), error.to_string()))
            .collect()
    }
}

fn problem(place: &str, message: String) -> SpecProblem {
    SpecProblem {
        field: convert::text(format!("/config{place}")),
        message: convert::text(message),
    }
}

/// How large a schema is once every reference is replaced.
struct Weigher<'a> {
    root: &'a Value,
    /// By reference; `None` while it is being weighed.
    known: HashMap<&'a str, Option<u64>>,
}

impl<'a> Weigher<'a> {
    fn weigh(&mut self, value: &'a Value) -> Result<u64, String> {
        let children: Box<dyn Iterator<Item = &'a Value>> = match value {
            Value::Object(fields) => {
                if let Some(word) = DYNAMIC.into_iter().find(|word| fields.contains_key(*word)) {
                    return Err(format!("{word} is not taken"));
                }
                Box::new(fields.values())
            }
            Value::Array(elements) => Box::new(elements.iter()),
            _ => Box::new(std::iter::empty()),
        };
        let mut weight = 1_u64;
        if let Some(Value::String(reference)) = value.get("$ref") {
            weight += self.referred(reference)?;
        }
        for child in children {
            weight += self.weigh(child)?;
            if weight > MOST_NODES {
                return Err(format!(
                    "with its references replaced it has more than {MOST_NODES} nodes"
                ));
            }
        }
        Ok(weight)
    }

    fn referred(&mut self, reference: &'a str) -> Result<u64, String> {
        match self.known.get(reference) {
            Some(Some(weight)) => return Ok(*weight),
            Some(None) => return Err(format!("{reference:?} refers to itself")),
            None => {}
        }
        let target = reference
            .strip_prefix('#')
            .and_then(|pointer| self.root.pointer(pointer))
            .ok_or_else(|| {
                format!("{reference:?} leads nowhere: a reference is taken as #/path/in/the/schema")
            })?;
        self.known.insert(reference, None);
        let weight = self.weigh(target)?;
        self.known.insert(reference, Some(weight));
        Ok(weight)
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that cannot go on has failed"
    )]

    use serde_json::json;

    use super::*;

    fn refusal(schema: &Value) -> String {
        let parsed = Schema::parse(&schema.to_string());
        parsed.err().unwrap()
    }

    #[test]
    fn problems_are_told_at_their_places() {
        let schema = json!({
            "type": "object",
            "properties": {"level": {"$ref": "#/$defs/level"}, "name": {}},
            "required": ["name"],
            "additionalProperties": false,
            "$defs": {"level": {"type": "integer", "maximum": 19}},
        });
        let schema = Schema::parse(&schema.to_string()).unwrap();
        assert_eq!(schema.problems(r#"{"name": 1, "level": 3}"#), Vec::new());
        let found = schema.problems(r#"{"level": 20, "nice": 1}"#);
        let told: Vec<_> = found.iter().map(|it| (&*it.field, &*it.message)).collect();
        assert!(
            told.contains(&("/config/level", "20 is greater than the maximum of 19")),
            "{told:?}"
        );
        assert!(
            told.iter()
                .any(|(_, message)| message.contains("\"name\" is a required"))
        );
        assert!(told.iter().any(|(_, message)| message.contains("'nice'")));
        let huge = format!("\"{}\"", "x".repeat(MOST_CONFIG_BYTES));
        assert!(schema.problems(&huge)[0].message.contains("bytes"));
    }

    #[test]
    fn schemas_that_cost_more_than_they_say_are_refused() {
        let doubling: serde_json::Map<String, Value> = (0..40)
            .map(|n| {
                let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
                (format!("d{n}"), json!({"allOf": [next, next]}))
            })
            .chain([("d40".to_owned(), json!({}))])
            .collect();
        let bomb = json!({"$ref": "#/$defs/d0", "$defs": doubling});
        assert!(refusal(&bomb).contains("nodes"));
        let recursive = json!({"properties": {"x": {"$ref": "#"}}});
        assert!(refusal(&recursive).contains("refers to itself"));
        assert!(refusal(&json!({"$dynamicRef": "#x"})).contains("$dynamicRef"));
        let away = json!({"$ref": "https://schemas.test/x"});
        assert!(refusal(&away).contains("leads nowhere"));
        let backtracking = json!({"pattern": "(?=a)b"});
        assert!(refusal(&backtracking).contains("regex"));
        assert!(refusal(&json!({"type": "nonsense"})).contains("nonsense"));
    }
}
