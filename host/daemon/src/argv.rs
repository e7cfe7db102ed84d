//! Makes a command line for the reference executor one that clap reads.
//!
//! The reference executor has no verbs, and its flags are Go's: one dash or two, switches
//! as `-name` or `-name=false`. So a command line that begins with one of `serve`'s flags
//! means `serve`, and one dash becomes two.

use std::ffi::{OsStr, OsString};

use crate::settings::table::by_flag;

/// The name under which the program starts serving without a word: the reference executor's.
const REFERENCE_PROGRAM: &str = "task-executor";

/// The command line as clap is to read it. `configured` says whether the environment configures a
/// daemon in the reference's words: then no word at all means `serve`, as it does there.
pub(crate) fn normalise(
    argv: impl IntoIterator<Item = OsString>,
    configured: bool,
) -> Vec<OsString> {
    let mut argv = argv.into_iter();
    let program = argv.next().unwrap_or_else(|| "taskwright".into());
    let mut words: Vec<OsString> = argv.collect();
    let as_reference =
        std::path::Path::new(&program).file_name() == Some(REFERENCE_PROGRAM.as_ref());
    let bare = match words.first() {
        Some(first) => serve_flag(first).is_some(),
        None => as_reference || configured,
    };
    if bare {
        words.insert(0, "serve".into());
    }
    if words.first().is_some_and(|verb| verb == "serve") {
        for word in words.iter_mut().skip(1) {
            if let Some(long) = serve_flag(word) {
                *word = long;
            }
        }
    }
    let mut words = connect_flags_last(words);
    words.insert(0, program);
    words
}

/// Which daemon to speak to may be said before the verb, too: `taskwright --server URL list`.
fn connect_flags_last(mut words: Vec<OsString>) -> Vec<OsString> {
    let mut flags = Vec::new();
    while let Some(length) = words.first().and_then(|word| connect_flag(word)) {
        flags.extend(words.drain(..length.min(words.len())));
    }
    let verb = words.first().and_then(|word| word.to_str());
    let verb_words = match verb {
        Some("plugin" | "config") => 2,
        _ => 1,
    };
    let after_verb = verb_words.min(words.len());
    words.splice(after_verb..after_verb, flags);
    words
}

/// How many words this flag and its value are, if it says which daemon to speak to.
fn connect_flag(word: &OsStr) -> Option<usize> {
    let text = word.to_str()?.strip_prefix("--")?;
    let (name, has_value) = match text.split_once('=') {
        Some((name, _)) => (name, true),
        None => (text, false),
    };
    let known = matches!(name, "server" | "token" | "token-file");
    known.then_some(if has_value { 1 } else { 2 })
}

/// `word` with two dashes, if it is a flag of `serve` with one dash or two.
fn serve_flag(word: &OsStr) -> Option<OsString> {
    let text = word.to_str()?;
    let bare = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    let name = bare.split_once('=').map_or(bare, |(name, _)| name);
    let known = by_flag(name).is_some() || name == "config";
    known.then(|| format!("--{bare}").into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn check(line: &str, expected: &str) {
        let argv = line.split(' ').map(OsString::from);
        let got: Vec<String> = normalise(argv, false)
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        assert_eq!(got.join(" "), expected);
    }

    #[test]
    fn flags_alone_mean_serve() {
        check(
            "taskwright --data-dir=/x --listen-addr=0.0.0.0:5758",
            "taskwright serve --data-dir=/x --listen-addr=0.0.0.0:5758",
        );
        check(
            "taskwright -data-dir /x -enable-sidecar-mode -log-max-size=5",
            "taskwright serve --data-dir /x --enable-sidecar-mode --log-max-size=5",
        );
        check(
            "taskwright -config=/etc/x",
            "taskwright serve --config=/etc/x",
        );
    }

    #[test]
    fn the_daemon_may_be_named_before_the_verb() {
        check(
            "taskwright --server http://x list -o json",
            "taskwright list --server http://x -o json",
        );
        check(
            "taskwright --server=http://x --token t plugin inspect p",
            "taskwright plugin inspect --server=http://x --token t p",
        );
        check("taskwright --server", "taskwright --server");
    }

    #[test]
    fn serve_takes_one_dash_too() {
        check(
            "taskwright serve -enable-sidecar-mode=false",
            "taskwright serve --enable-sidecar-mode=false",
        );
    }

    #[test]
    fn other_verbs_are_left_alone() {
        check(
            "taskwright run -- ls -data-dir",
            "taskwright run -- ls -data-dir",
        );
        check("taskwright --help", "taskwright --help");
        check("taskwright -o json list", "taskwright -o json list");
        check("taskwright", "taskwright");
    }

    #[test]
    fn the_reference_name_serves() {
        check("/usr/bin/task-executor", "/usr/bin/task-executor serve");
    }

    #[test]
    fn variables_of_the_reference_alone_mean_serve() {
        let serve = |argv: &[&str]| normalise(argv.iter().map(OsString::from), true).len();
        assert_eq!(serve(&["taskwright"]), 2);
        assert_eq!(serve(&["taskwright", "list"]), 2, "a verb is a verb");
    }
}
