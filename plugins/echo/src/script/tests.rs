//! Every rule of the language.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::json;

use super::*;

fn acts(script: Value) -> Vec<Act> {
    let commands = read(&script).unwrap();
    commands.into_iter().map(|command| command.act).collect()
}

fn refused(script: Value) -> Vec<String> {
    let wrong = read(&script).unwrap_err();
    wrong.into_iter().map(|wrong| wrong.message).collect()
}

#[test]
fn both_forms_say_the_same() {
    let text = "
        USE SHARED lpar01
        use exclusive guest01 guest02   # two of them
        ECHO Hello   world!             # not this
        Log info Now sleeping
        SLEEP 0.5

        RETURN 3
        CLEANUP
        echo done
    ";
    let lines: Vec<&str> = text.lines().collect();
    let read_text = read(&json!(text)).unwrap();
    assert_eq!(read_text, read(&json!(lines)).unwrap());
    assert_eq!(
        acts(json!(text)),
        [
            Act::Echo("Hello world!".to_owned()),
            Act::Log("INFO", "Now sleeping".to_owned()),
            Act::Sleep(0.5),
            Act::Return(3),
            Act::Cleanup,
            Act::Echo("done".to_owned()),
        ]
    );
    assert_eq!(read_text.first().unwrap().line, 4);
    assert_eq!(acts(json!("")), []);
    assert_eq!(acts(json!([])), []);
}

#[test]
fn the_whole_script_is_checked() {
    let told = refused(json!(
        "echo\nsleep\nsleep 1 2\nsleep soon\nsleep -1\nsleep inf\nlog hi\nlog loud hi\nreturn\nreturn x\nuse lpar\nuse shared\nshout hi"
    ));
    let expect = [
        "line 1: ECHO needs a text",
        "line 2: SLEEP takes one number of seconds, and this has 0",
        "line 3: SLEEP takes one number of seconds, and this has 2",
        "line 4: SLEEP takes a number",
        "line 5: SLEEP takes 0 to",
        "line 6: SLEEP takes 0 to",
        "line 7: LOG needs a level and a text",
        "line 8: the level of LOG is one of CRITICAL",
        "line 9: RETURN takes one number",
        "line 10: RETURN takes an integer",
        "line 11: USE needs SHARED or EXCLUSIVE",
        "line 12: USE needs at least one name",
        "line 13: this is no command",
    ];
    assert_eq!(told.len(), expect.len(), "{told:?}");
    for (told, expect) in told.iter().zip(expect) {
        assert!(told.starts_with(expect), "{told:?} {expect:?}");
    }
    let told = refused(json!("CLEANUP\nUSE SHARED x"));
    assert_eq!(
        told,
        ["line 2: USE is not allowed after CLEANUP: \"USE SHARED x\""]
    );
}

#[test]
fn what_is_no_script_is_refused() {
    assert_eq!(refused(json!(7)).len(), 1);
    assert_eq!(refused(json!({"lines": []})).len(), 1);
    let wrong = read(&json!(["echo a", 7])).unwrap_err();
    assert_eq!(wrong.first().unwrap().index, Some(1));
    assert_eq!(refused(json!("echo a\u{0}b")).len(), 1);
    assert_eq!(
        refused(json!(format!("echo {}", "x".repeat(140_000)))).len(),
        1
    );
    assert_eq!(refused(json!(vec!["echo a"; 10_001])).len(), 1);
    assert_eq!(refused(json!(vec!["shout"; 100])).len(), MOST_PROBLEMS);
}

#[test]
fn arguments_are_what_the_program_reads() {
    for (act, text) in [
        (Act::Sleep(2.5), "2.5"),
        (Act::Sleep(1e-5), "0.00001"),
        (Act::Return(256), "0"),
        (Act::Return(-3), "253"),
        (Act::Raise, "253"),
        (Act::Log("INFO", "a b".into()), "INFO a b"),
    ] {
        assert_eq!(act.to_string(), text);
    }
}
