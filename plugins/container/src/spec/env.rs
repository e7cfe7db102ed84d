//! Variables: plain ones, and those whose value comes from elsewhere.
//!
//! A source that cannot be had here is refused by name. None is ever silently empty.

use std::collections::BTreeMap;

use taskwright_plugin_sdk::{EnvVar, Task};

use super::expand::expand;
use super::json::Object;
use super::quantity;

/// A variable of a container.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    name: String,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    /// As written; it may hold references to variables above it.
    Written(String),
    /// From a source. References in it mean nothing.
    Known(String),
    /// The address of the sandbox.
    Address,
}

/// What a variable may come from.
pub(super) struct Sources<'a> {
    pub(super) task: &'a Task,
    /// The pod's own name, where it has one.
    pub(super) name: Option<&'a str>,
    pub(super) labels: BTreeMap<&'a str, &'a str>,
    pub(super) annotations: BTreeMap<&'a str, &'a str>,
    /// Whether the sandbox can have an address of its own.
    pub(super) has_address: bool,
    /// The limits of every container, by its name.
    pub(super) limits: BTreeMap<&'a str, Limits>,
}

/// What a container is limited to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) cpu_millis: Option<u32>,
    pub(super) memory_bytes: Option<u64>,
}

/// The variables of a container.
pub(super) fn read(container: &Object<'_>, own: Limits, sources: &Sources<'_>) -> Vec<Variable> {
    let entries = container.objects("env").into_iter();
    entries
        .filter_map(|entry| variable(&entry, own, sources))
        .collect()
}

fn variable(entry: &Object<'_>, own: Limits, sources: &Sources<'_>) -> Option<Variable> {
    let name = match entry.get("name") {
        Some(node) => node.text()?,
        None => "",
    };
    if name.is_empty() {
        entry.problem("name", "must name the variable");
    }
    if name.contains('=') {
        entry.problem(
            "name",
            "must not hold =: what follows it would be the value",
        );
    }
    let written = entry.text("value");
    let from = entry.get("valueFrom");
    let value = match from {
        Some(_) if written.is_some() => {
            entry.problem("valueFrom", "contradicts value: send one of them");
            return None;
        }
        Some(from) => source(&from.object()?, own, sources)?,
        None => Value::Written(written.unwrap_or_default().to_owned()),
    };
    Some(Variable {
        name: name.to_owned(),
        value,
    })
}

fn source(from: &Object<'_>, own: Limits, sources: &Sources<'_>) -> Option<Value> {
    let mut fields = from.fields();
    let (Some((kind, node)), None) = (fields.next(), fields.next()) else {
        from.problems
            .add(&from.place, "must name one source: fieldRef for example");
        return None;
    };
    match kind {
        "fieldRef" => field(&node.object()?, sources),
        "resourceFieldRef" => resource(&node.object()?, own, sources).map(Value::Known),
        other => {
            node.problem(format!(
                "{other} cannot be resolved here, and is not silently taken as empty: send a value"
            ));
            None
        }
    }
}

fn field(from: &Object<'_>, sources: &Sources<'_>) -> Option<Value> {
    let Some(path) = from.text("fieldPath") else {
        from.problem("fieldPath", "must name a field, as metadata.name");
        return None;
    };
    let task = sources.task;
    let known = match path {
        "metadata.name" => sources.name.unwrap_or(&task.name),
        "metadata.namespace" => &task.namespace,
        "metadata.uid" => &task.id,
        "status.podIP" if sources.has_address => return Some(Value::Address),
        "status.podIP" => {
            from.problem(
                "fieldPath",
                "status.podIP is not known here: the network is not one of its own",
            );
            return None;
        }
        path => {
            let all = [
                ("metadata.labels", &sources.labels),
                ("metadata.annotations", &sources.annotations),
            ];
            let found = all.into_iter().find_map(|(field, values)| {
                let key = path.strip_prefix(field)?.strip_prefix("['")?;
                Some((field, values.get(key.strip_suffix("']")?)))
            });
            match found {
                Some((_, Some(value))) => value,
                Some((field, None)) => {
                    from.problem("fieldPath", format!("{field} has no such key"));
                    return None;
                }
                None => {
                    from.problem(
                        "fieldPath",
                        format!(
                            "{path} cannot be resolved here: metadata.name, metadata.namespace, \
                             metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'] \
                             and status.podIP can"
                        ),
                    );
                    return None;
                }
            }
        }
    };
    Some(Value::Known(known.to_owned()))
}

fn resource(from: &Object<'_>, own: Limits, sources: &Sources<'_>) -> Option<String> {
    let limits = match from.text("containerName") {
        None => own,
        Some(name) => match sources.limits.get(name) {
            Some(limits) => *limits,
            None => {
                from.problem("containerName", "names no container of this pod");
                return None;
            }
        },
    };
    let divisor = quantity::divisor(from.get("divisor").as_ref())?;
    let thousandths = match from.text("resource").unwrap_or_default() {
        "limits.cpu" => limits.cpu_millis.map(u128::from),
        "limits.memory" => limits.memory_bytes.map(|bytes| u128::from(bytes) * 1000),
        other => {
            from.problem(
                "resource",
                format!("is {other:?}; limits.cpu and limits.memory can be resolved here"),
            );
            return None;
        }
    };
    let Some(thousandths) = thousandths else {
        from.problem("resource", "is not limited, so there is no value");
        return None;
    };
    Some(thousandths.div_ceil(divisor).to_string())
}

/// The values of variables; in those of a pod with the references to those above put in.
///
/// # Errors
/// A sentence, where one wants an address and there is none.
pub(super) fn resolve(
    variables: &[Variable],
    address: Option<&str>,
    expands: bool,
) -> Result<Vec<EnvVar>, String> {
    /// Each reference may stand for a text of references: without a bound a short list of
    /// variables would fill any memory.
    const MOST_BYTES: usize = 1024 * 1024;
    let mut bytes = 0_usize;
    let mut resolved: Vec<EnvVar> = Vec::with_capacity(variables.len());
    for Variable { name, value } in variables {
        let value = match value {
            Value::Written(text) if expands => expand_in(&resolved, text),
            Value::Written(text) | Value::Known(text) => text.clone(),
            Value::Address => match address {
                Some(address) => address.to_owned(),
                None => {
                    return Err(format!(
                        "the variable {name} wants status.podIP, and the sandbox has no address: \
                         the container runtime makes no pod network"
                    ));
                }
            },
        };
        bytes = bytes.saturating_add(value.len());
        if bytes > MOST_BYTES {
            return Err(format!(
                "with what $(NAME) stands for, the variables up to {name} have more than \
                 {MOST_BYTES} bytes"
            ));
        }
        resolved.push(EnvVar {
            name: name.clone(),
            value,
        });
    }
    Ok(resolved)
}

/// A text with the references to variables put in; of two of one name the later counts.
pub(super) fn expand_in(env: &[EnvVar], text: &str) -> String {
    expand(text, |name| {
        let found = env.iter().rev().find(|variable| variable.name == name)?;
        Some(found.value.as_str())
    })
}
