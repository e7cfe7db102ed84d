//! What the policy answers, as plain functions of what it was told.
//!
//! A denial comes first, then a question, then a change. A task that was asked about is reviewed
//! again before it is launched, approved by then, and it is then that it is changed: so nothing is
//! forgotten for want of a second answer.

use serde_json::{Value, json};

use crate::bindings::exports::taskwright::plugin::policy::{
    Change, Denial, Question, Request, Verdict,
};

/// What the operator wrote under `[settings]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Rules {
    /// The programs that may be run; absent: all.
    programs: Option<Vec<String>>,
    /// Bytes; absent: as many as a task wants.
    most_memory: Option<u64>,
    /// Whether a task that names no user runs as root.
    nobody_is_root: bool,
}

impl Rules {
    /// Reads the settings. What cannot be understood is no rule: without a verdict, tasks wait
    /// until it is mended.
    pub fn read(setting: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
        let most_memory = setting("most-memory").map(|text| {
            let wanted = "write a number of bytes, or one with Ki, Mi or Gi";
            bytes(&text).ok_or_else(|| {
                format!("the setting most-memory is {text:?}, which is no amount: {wanted}")
            })
        });
        let nobody_is_root = match setting("nobody-is-root").as_deref() {
            None | Some("true") => true,
            Some("false") => false,
            Some(other) => {
                return Err(format!(
                    "the setting nobody-is-root is {other:?}: write true or false"
                ));
            }
        };
        Ok(Self {
            programs: setting("programs").map(words),
            most_memory: most_memory.transpose()?,
            nobody_is_root,
        })
    }
}

/// An amount of memory in bytes: `1048576`, `512Mi`, `2Gi`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|one: char| !one.is_ascii_digit());
    let times = match text.strip_prefix(digits)? {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(times)
}

/// The verdict about one task.
pub fn verdict(rules: &Rules, request: &Request) -> Result<Verdict, String> {
    let task: Value = serde_json::from_str(&request.task)
        .map_err(|error| format!("the task cannot be read: {error}"))?;
    let verdict = denied(rules, &task)
        .or_else(|| asked(rules, &task, request))
        .or_else(|| capped(rules, &task));
    Ok(verdict.unwrap_or(Verdict::Allow))
}

/// Only programs of the list. What runs in a container is its image's, and not looked at here.
fn denied(rules: &Rules, task: &Value) -> Option<Verdict> {
    let programs = rules.programs.as_ref()?;
    let program = task.pointer("/process/command/0")?;
    let is_listed = |program: &str| programs.iter().any(|listed| listed == program);
    if program.as_str().is_some_and(is_listed) {
        return None;
    }
    Some(Verdict::Deny(Denial {
        reason: format!(
            "{program} may not be run here: use one of {}, or have it added to `programs`",
            programs.join(", ")
        ),
        field: "/process/command/0".to_owned(),
    }))
}

/// Root without a container is for somebody to decide.
fn asked(rules: &Rules, task: &Value, request: &Request) -> Option<Verdict> {
    task.get("process")?;
    let is_root = match task.pointer("/user/uid") {
        Some(uid) => uid == 0,
        None => rules.nobody_is_root,
    };
    (is_root && !request.approved).then(|| {
        let name = &request.name;
        Verdict::Ask(Question {
            text: format!("may {name} run as root, without a container?"),
            // As the operator says in gatekeeper.toml.
            within_ms: None,
            otherwise: None,
        })
    })
}

/// No more memory than the rules say, and that where the task says nothing.
fn capped(rules: &Rules, task: &Value) -> Option<Verdict> {
    let most = rules.most_memory?;
    let wanted = task.pointer("/resources/memory").and_then(Value::as_u64);
    if wanted.is_some_and(|wanted| wanted <= most) {
        return None;
    }
    Some(Verdict::Change(Change {
        patch: json!({"resources": {"memory": most}}).to_string(),
        reason: format!("a task may have {most} bytes of memory"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::taskwright::plugin::policy::Stage;

    const SETTINGS: &[(&str, &str)] = &[("programs", "/bin/a /bin/b"), ("most-memory", "64Mi")];

    fn rules(settings: &[(&str, &str)]) -> Result<Rules, String> {
        Rules::read(|key| {
            let found = settings.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn review(approved: bool, task: Value) -> Verdict {
        let request = Request {
            stage: Stage::Submit,
            id: "01980000-0000-7000-8000-000000000000".to_owned(),
            namespace: "default".to_owned(),
            name: "build".to_owned(),
            attempt: 1,
            runtime: "process".to_owned(),
            task: task.to_string(),
            approved,
            extra: Vec::new(),
        };
        verdict(&rules(SETTINGS).unwrap(), &request).unwrap()
    }

    fn task(program: &str, uid: u32, memory: u64) -> Value {
        json!({
            "name": "build", "process": {"command": [program, "x"]},
            "user": {"uid": uid, "gid": uid}, "resources": {"memory": memory},
        })
    }

    #[test]
    fn what_keeps_to_the_rules_is_allowed() {
        let verdict = review(false, task("/bin/b", 1000, 64 << 20));
        assert!(matches!(verdict, Verdict::Allow));
    }

    #[test]
    fn only_listed_programs_run_whoever_approved() {
        for program in ["/bin/c", "a", "/bin/a /bin/b", ""] {
            let Verdict::Deny(denial) = review(true, task(program, 1000, 1)) else {
                panic!("{program} is not denied");
            };
            assert_eq!(denial.field, "/process/command/0");
            assert!(denial.reason.contains("/bin/a, /bin/b"));
        }
    }

    #[test]
    fn root_is_asked_about_once_and_capped_then() {
        let mut unnamed = task("/bin/a", 0, 1 << 40);
        for _ in 0..2 {
            assert!(matches!(review(false, unnamed.clone()), Verdict::Ask(_)));
            assert!(matches!(review(true, unnamed.clone()), Verdict::Change(_)));
            unnamed.as_object_mut().unwrap().remove("user");
        }
    }

    #[test]
    fn root_in_a_container_is_not_asked_about() {
        let verdict = review(
            false,
            json!({
                "name": "build", "spec": {"container": {"image": "x", "command": ["/bin/c"]}},
                "resources": {"memory": 1},
            }),
        );
        assert!(matches!(verdict, Verdict::Allow));
    }

    #[test]
    fn memory_is_capped_and_given_where_none_is_named() {
        let mut silent = task("/bin/a", 1000, 1);
        silent.as_object_mut().unwrap().remove("resources");
        for task in [task("/bin/a", 1000, (64 << 20) + 1), silent] {
            let Verdict::Change(change) = review(false, task) else {
                panic!("it is not changed");
            };
            assert_eq!(change.patch, r#"{"resources":{"memory":67108864}}"#);
        }
    }

    #[test]
    fn settings_that_are_misspelled_are_no_rules() {
        assert_eq!(
            rules(&[("most-memory", "10")]).unwrap().most_memory,
            Some(10)
        );
        assert_eq!(rules(&[]).unwrap().programs, None);
        for (key, value) in [
            ("most-memory", "lots"),
            ("most-memory", "64MB"),
            ("most-memory", "Mi"),
            ("most-memory", "99999999999Gi"),
            ("nobody-is-root", "perhaps"),
        ] {
            let why = rules(&[(key, value)]).unwrap_err();
            assert!(why.contains(key) && why.contains(value), "{why}");
        }
    }
}
