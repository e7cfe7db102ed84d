#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use taskwright_plugin_sdk::{Command, EnvVar};

use super::*;

const POLITE: &str = include_str!("../../../../examples/scripts/polite.rhai");
const BWRAP: &str = include_str!("../../../../examples/scripts/bwrap.rhai");

fn task(command: &[&str], config: &str) -> Task {
    let variable = EnvVar {
        name: "COLOUR".to_owned(),
        value: "blue".to_owned(),
    };
    Task {
        id: "0198b0e5-0000-7000-8000-000000000001".to_owned(),
        namespace: "default".to_owned(),
        name: "build".to_owned(),
        attempt: 1,
        kind: KIND.to_owned(),
        process: Some(Command {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            args: vec!["last".to_owned()],
            env: vec![variable],
            working_dir: None,
        }),
        document: String::new(),
        labels: vec![("team".to_owned(), "red".to_owned())],
        config: config.to_owned(),
        extra: Vec::new(),
    }
}

fn read_with(text: &str, setting: fn(&str) -> Option<String>) -> Result<Script, Fault> {
    let surroundings = Surroundings {
        setting,
        file: |directory, path| Ok(format!("{directory}:{path}").into_bytes()),
        secret: |name| match name {
            "odd" => Ok(vec![0xff]),
            "none" => Err("no such secret".to_owned()),
            name => Ok(name.as_bytes().to_vec()),
        },
        now: || Err("no clock was lent".to_owned()),
    };
    Script::read(
        engine(surroundings),
        "test.rhai".to_owned(),
        text.to_owned(),
    )
}

fn read(text: &str) -> Result<Script, Fault> {
    read_with(text, |_| None)
}

/// A script that starts what this expression says.
fn starting(expression: &str) -> Script {
    let text = format!(
        "fn describe() {{ #{{ version: \"1\" }} }}\nfn start(task) {{\n    {expression}\n}}\n"
    );
    read(&text).unwrap()
}

fn argv(script: &Script, task: &Task) -> String {
    script.request(task).unwrap().argv.join(" ")
}

fn check_broken(expression: &str, expected: &str) {
    match starting(expression).request(&task(&["true"], "")) {
        Err(Fault::Broken(sentence)) => {
            assert!(sentence.contains(expected), "{expression}: {sentence}");
        }
        other => assert!(
            matches!(other, Err(Fault::Broken(_))),
            "{expression}: {other:?}"
        ),
    }
}

#[test]
fn a_script_turns_a_command_into_another() {
    let script = starting(
        r#"#{ argv: ["wrap", task.name, task.namespace, task.labels.team, task.attempt]
                + task.command + task.args + [task.env.COLOUR, task.config.level],
              env: #{ WHO: task.id }, working_dir: "/tmp", descendants: "kill" }"#,
    );
    let request = script
        .request(&task(&["a", "b"], r#"{"level": 3}"#))
        .unwrap();
    assert_eq!(
        request.argv.join(" "),
        "wrap build default red 1 a b last blue 3"
    );
    let env: Vec<_> = request
        .env
        .iter()
        .map(|one| (&*one.name, &*one.value))
        .collect();
    assert_eq!(env, [("WHO", "0198b0e5-0000-7000-8000-000000000001")]);
    assert_eq!(request.working_dir.as_deref(), Some("/tmp"));
    let kill = ("descendants".to_owned(), "kill".to_owned());
    assert_eq!(request.extra, [kill]);
}

#[test]
fn what_was_lent_is_had_as_text_and_what_was_not_is_told() {
    let script = starting(r#"#{ argv: ["a", read_file("models", "x"), secret("key")] }"#);
    assert_eq!(argv(&script, &task(&["a"], "")), "a models:x key");
    check_broken(r#"#{ argv: [secret("none")] }"#, "no such secret");
    check_broken(r#"#{ argv: [secret("odd")] }"#, "it is no UTF-8");
    check_broken("#{ argv: [now()] }", "no clock was lent");
}

#[test]
fn what_a_start_does_not_say_is_the_tasks_own() {
    let mut given = task(&["a"], "");
    given.process.as_mut().unwrap().working_dir = Some("/srv".to_owned());
    let request = starting("#{ argv: task.command }").request(&given).unwrap();
    assert_eq!(request.env, given.process.as_ref().unwrap().env);
    assert_eq!(request.working_dir.as_deref(), Some("/srv"));
    let request = starting("#{ argv: [\"a\"], env: #{}, working_dir: () }").request(&given);
    let request = request.unwrap();
    assert!(request.env.is_empty() && request.working_dir.is_none());
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_the_line() {
    let text =
        "fn describe() { #{ version: \"1\" } }\n\nfn start(task) {\n    let argv = [1, 2;\n}\n";
    let told = read(text).err().unwrap().to_string();
    assert!(told.starts_with("test.rhai:4:"), "{told}");
    assert!(told.ends_with(": `let argv = [1, 2;`"), "{told}");
    let text = "fn describe() { #{ version: \"1\" } }\nfn start(task) { #{ argv: [nam] } }";
    let told = read(text).err().unwrap().to_string();
    assert!(
        told.starts_with("test.rhai:2:") && told.contains("nam"),
        "{told}"
    );
    check_broken(
        "nice(3)",
        "test.rhai:3:5: Function not found: nice (i64): `nice(3)`",
    );
    check_broken("let a = [1]; a[7]", "test.rhai:3:");
    check_broken("throw #{ odd: 1 }", "test.rhai:3:5: ");
    check_broken("fail(task)", "Function not found: fail");
}

#[test]
fn an_error_is_told_where_it_is_not_where_it_was_called_from() {
    let text = "fn inner(x) {\n    x.absent()\n}\nfn start(task) {\n    inner(3)\n}\n";
    let told = read(text)
        .unwrap()
        .request(&task(&["true"], ""))
        .unwrap_err();
    assert!(told.to_string().starts_with("test.rhai:2:"), "{told}");
}

#[test]
fn an_answer_of_another_form_is_told() {
    check_broken(
        "7",
        "test.rhai: start(task) gave its answer as i64, a map is wanted",
    );
    check_broken("#{}", "lacks `argv`");
    check_broken("#{ argv: [] }", "empty `argv`");
    check_broken("#{ argv: \"ls\" }", "gave argv as string, a list is wanted");
    check_broken(
        "#{ argv: [\"a\", task.nmae] }",
        "gave argv[1] as (), text is wanted",
    );
    check_broken(
        "#{ argv: [\"a\"], en: 1 }",
        "gave `en`, which means nothing: `env` may be meant",
    );
    check_broken(
        "#{ argvs: [\"a\"] }",
        "gave `argvs`, which means nothing: `argv`",
    );
    check_broken("#{ argv: [\"a\"], env: #{ A: [] } }", "gave env.A as array");
}

#[test]
fn a_script_stays_within_its_bounds() {
    for (expression, expected) in [
        ("loop {}", "operations"),
        ("let s = \"x\"; loop { s += s; }", "ength of string"),
        ("let a = [1]; loop { a += a; }", "rray"),
        ("let a = []; loop { a = [a, a]; }", "too large"),
    ] {
        check_broken(expression, expected);
    }
    let endless = read("fn again(n) { again(n + 1) } fn start(task) { again(1) }").unwrap();
    let told = endless
        .request(&task(&["true"], ""))
        .unwrap_err()
        .to_string();
    assert!(told.contains("tack overflow"), "{told}");
}

#[test]
fn there_is_nothing_but_the_language() {
    for beyond in [
        "import \"other\" as o;",
        "eval(\"1\")",
        "let x = timestamp();",
        "let f = open_file(\"/etc/passwd\");",
        "sleep(1)",
        "rand()",
    ] {
        let text = format!("fn start(task) {{ {beyond} }}");
        let asked = read(&text).and_then(|script| script.request(&task(&["true"], "")));
        assert!(
            matches!(asked, Err(Fault::Broken(_))),
            "{beyond}: {asked:?}"
        );
    }
}

#[test]
fn a_description_has_the_name_of_the_file_and_its_schema_as_text() {
    let described = read(POLITE).unwrap().describe().unwrap();
    assert_eq!((&*described.name, &*described.version), ("test", "1"));
    assert_eq!(described.kinds, [KIND]);
    let schema: serde_json::Value = serde_json::from_str(&described.config_schema).unwrap();
    let maximum = schema.pointer("/properties/nice/maximum").unwrap();
    assert_eq!(maximum, 19);
}

#[test]
fn a_script_that_could_never_start_anything_is_told_of_when_it_is_read() {
    for (text, expected) in [
        ("", "test.rhai: there is none of `fn start(task)`"),
        ("fn start(t) {}", "test.rhai: there is no `fn describe()`"),
        (
            "let x = 1;\nfn describe() {}",
            "test.rhai:1:1: stands beside functions",
        ),
        (
            "fn describe() {} fn start(t) {}",
            "describe() gave its answer as (), a map is wanted",
        ),
        (
            "fn describe() { #{} } fn start(t) {}",
            "describe() lacks `version`",
        ),
        (
            "fn describe() { #{ version: \"1\", kind: 1 } } fn start(t) {}",
            "describe() gave `kind`, which means nothing",
        ),
    ] {
        let told = read(text).unwrap().describe().unwrap_err().to_string();
        assert!(told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn problems_are_the_commands_the_scripts_and_what_it_throws() {
    let problems = |text: &str, task: &Task| -> Vec<String> {
        let text = format!("fn describe() {{ #{{ version: \"1\" }} }}\n{text}");
        let found = read(&text).unwrap().problems(task).unwrap();
        let told = found
            .iter()
            .map(|one| format!("{}: {}", one.field, one.message));
        told.collect()
    };
    let start = "fn start(task) { #{ argv: task.command } }";
    assert!(problems(start, &task(&["a"], "")).is_empty());
    let found = problems(start, &task(&["a"], "{\"x\":1}"));
    assert!(
        matches!(found.as_slice(), [one] if one.starts_with("/config: ")),
        "{found:?}"
    );
    let found = problems(start, &task(&[""], ""));
    assert!(matches!(found.as_slice(), [one] if one.starts_with("/process/command/0")));
    let text = r#"fn validate(task) { ["one", #{ field: "/config/x", message: "two" }] }"#;
    let found = problems(&format!("{text} {start}"), &task(&["a"], "{\"x\":1}"));
    assert_eq!(found, [": one", "/config/x: two"]);
    let thrown = "fn start(task) { throw `not ${task.name}`; }";
    assert_eq!(problems(thrown, &task(&["a"], "")), [": not build"]);
}

#[test]
fn polite_takes_the_tasks_word_then_the_operators_then_its_own() {
    let silent = task(&["make"], "");
    let script = read(POLITE).unwrap();
    assert_eq!(script.problems(&silent), Ok(Vec::new()));
    assert_eq!(argv(&script, &silent), "nice -n 10 ionice -c 3 make last");
    let said = task(
        &["make"],
        r#"{"nice": 19, "io": "best-effort", "cpus": "0-3,8"}"#,
    );
    assert_eq!(
        argv(&script, &said),
        "nice -n 19 ionice -c 2 taskset -c 0-3,8 make last"
    );
    let set = read_with(POLITE, |key| (key == "nice").then(|| "5".to_owned())).unwrap();
    assert_eq!(argv(&set, &silent), "nice -n 5 ionice -c 3 make last");
}

#[test]
fn bwrap_puts_a_sandbox_around_the_command() {
    let script = read(BWRAP).unwrap();
    let given = task(&["make"], "");
    assert_eq!(script.problems(&given), Ok(Vec::new()));
    let without = argv(&script, &given);
    assert!(without.starts_with("/usr/bin/bwrap --unshare-all --new-session --ro-bind /usr"));
    assert!(
        without.ends_with("--bind . /work --chdir /work -- make last"),
        "{without}"
    );
    let with = argv(&script, &task(&["make"], r#"{"network": true}"#));
    assert!(with.contains(" --share-net "), "{with}");
    let mut elsewhere = given;
    elsewhere.process.as_mut().unwrap().working_dir = Some("/srv".to_owned());
    let found = script.problems(&elsewhere).unwrap();
    assert!(matches!(found.as_slice(), [one] if one.field == "/process/workingDir"));
}

const GUARDRAILS: &str = include_str!("../../../../examples/scripts/guardrails.rhai");

fn request(task: &str) -> Request {
    Request {
        stage: taskwright_plugin_sdk::policy::Stage::Submit,
        id: "0198b0e5-0000-7000-8000-000000000001".to_owned(),
        namespace: "default".to_owned(),
        name: "build".to_owned(),
        attempt: 1,
        runtime: "process".to_owned(),
        task: task.to_owned(),
        approved: false,
        extra: Vec::new(),
    }
}

/// A policy whose review is this expression.
fn reviewing(expression: &str) -> Script {
    read(&format!("fn review(request) {{ {expression} }}")).unwrap()
}

#[test]
fn a_script_is_what_its_functions_make_it() {
    let policy = reviewing("()");
    assert_eq!(policy.describe().unwrap().name, "", "it is no runtime");
    let (name, version) = policy.describe_as("review").unwrap();
    assert_eq!((&*name, &*version), ("test", ""));
    assert_eq!(policy.describe_as("notice").unwrap().0, "");
    let neither = read("fn other() {}").unwrap();
    let Err(Fault::Broken(told)) = neither.describe() else {
        panic!("a script without a role");
    };
    assert!(told.contains("fn review(request)"), "{told}");
}

#[test]
fn a_verdict_is_nothing_or_one_of_three() {
    let said = |expression: &str| reviewing(expression).verdict(&request("{}"));
    assert_eq!(said("()"), Ok(Verdict::Allow));
    let Ok(Verdict::Change(change)) = said("#{ change: #{ a: #{ b: 1 } }, reason: \"x\" }") else {
        panic!("a change");
    };
    assert_eq!((&*change.patch, &*change.reason), (r#"{"a":{"b":1}}"#, "x"));
    let Ok(Verdict::Change(change)) = said("#{ change: #{ a: 3600.0, b: 0.5 } }") else {
        panic!("a change");
    };
    assert_eq!(change.patch, r#"{"a":3600,"b":0.5}"#);
    let Ok(Verdict::Ask(question)) =
        said("#{ ask: \"?\", within_seconds: 60, otherwise: \"approve\" }")
    else {
        panic!("a question");
    };
    assert_eq!(question.within_ms, Some(60_000));
    assert!(matches!(
        said("#{ deny: \"no\", field: \"/x\" }"),
        Ok(Verdict::Deny(_))
    ));
    assert_eq!(said("throw \"no\""), Err(Fault::Refused("no".to_owned())));
    for (expression, why) in [
        ("1", "a map is wanted"),
        ("#{}", "without `change`"),
        ("#{ deny: 1 }", "text is wanted"),
        ("#{ deny: \"no\", because: \"x\" }", "`because`"),
        ("#{ denyy: \"no\" }", "`denyy`, which means nothing: `deny`"),
        (
            "#{ ask: \"?\", withinSeconds: 1 }",
            "`within_seconds` may be meant",
        ),
        ("#{ ask: \"?\", deny: \"no\" }", "`deny` and `ask`"),
        (
            "#{ deny: \"no\", otherwise: \"deny\" }",
            "nothing with `deny`",
        ),
        ("#{ ask: \"?\", otherwise: \"maybe\" }", "maybe"),
        ("request.task.split()", "test.rhai:1"),
    ] {
        let Err(Fault::Broken(told)) = said(expression) else {
            panic!("{expression} was taken");
        };
        assert!(told.contains(why), "{expression}: {told}");
    }
}

#[test]
fn guardrails_cap_time_and_know_images() {
    let settings = |key: &str| match key {
        "most-seconds" => Some("60".to_owned()),
        "images" => Some("docker.io/library/ quay.io/ours/".to_owned()),
        _ => None,
    };
    let script = read_with(GUARDRAILS, settings).unwrap();
    let said = |task: &str| script.verdict(&request(task)).unwrap();
    let capped = said(r#"{"limits": {}, "process": {"command": ["true"]}}"#);
    let Verdict::Change(change) = &capped else {
        panic!("{capped:?}");
    };
    assert_eq!(change.patch, r#"{"limits":{"runSeconds":60}}"#);
    assert_eq!(said(r#"{"limits": {"runSeconds": 60.0}}"#), Verdict::Allow);
    let image = |image: &str| {
        format!(
            r#"{{"limits": {{"runSeconds": 1}}, "spec": {{"container": {{"image": "{image}"}}}}}}"#
        )
    };
    assert_eq!(said(&image("quay.io/ours/x:1")), Verdict::Allow);
    let Verdict::Deny(denial) = said(&image("quay.io/theirs/x:1")) else {
        panic!("it was allowed");
    };
    assert_eq!(denial.field, "/spec/container/image");
    let pod = r#"{"limits": {"runSeconds": 1}, "podTemplateSpec": {"spec": {"containers":
        [{"image": "quay.io/ours/x"}, {"image": "evil"}]}}}"#;
    let Verdict::Deny(denial) = said(pod) else {
        panic!("it was allowed");
    };
    assert_eq!(denial.field, "/podTemplateSpec/spec/containers/1/image");
}
