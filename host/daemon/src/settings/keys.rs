//! `[[plugins.trusted-keys]]`: whose signatures of plugins count.

use taskwright_package::TrustedKey;
use taskwright_package::signature::PublicKey;
use taskwright_package::trust::{MOST_KEYS, MOST_PATTERNS, is_pattern};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::closest;

/// A list of tables, and so no row of the table of settings.
pub(super) const KEY: &str = "plugins.trusted-keys";
const WORDS: [&str; 3] = ["name", "key", "plugins"];

/// Something wrong with one, and where in the text.
pub(super) struct KeyProblem {
    pub(super) at: usize,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Reads all of them.
pub(super) fn read(value: &Spanned<DeValue<'_>>) -> (Vec<TrustedKey>, Vec<KeyProblem>) {
    let mut problems = Vec::new();
    let DeValue::Array(list) = value.get_ref() else {
        let message = format!("{KEY}: a list of tables is wanted, as [[{KEY}]]");
        return (Vec::new(), vec![problem(value, message)]);
    };
    let mut keys = Vec::new();
    if list.len() > MOST_KEYS {
        problems.push(problem(value, format!("{KEY}: at most {MOST_KEYS}")));
    }
    for element in list.iter().take(MOST_KEYS) {
        let DeValue::Table(table) = element.get_ref() else {
            let message = format!("{KEY}: a table with name, key and plugins is wanted");
            problems.push(problem(element, message));
            continue;
        };
        keys.extend(read_one(element, table, keys.len() + 1, &mut problems));
    }
    (keys, problems)
}

fn read_one(
    element: &Spanned<DeValue<'_>>,
    table: &DeTable<'_>,
    number: usize,
    problems: &mut Vec<KeyProblem>,
) -> Option<TrustedKey> {
    let (mut name, mut key, mut plugins) = (format!("key {number}"), None, Vec::new());
    for (word, value) in table {
        match (word.get_ref().as_ref(), value.get_ref()) {
            ("name", DeValue::String(text)) => name = text.clone().into_owned(),
            ("key", DeValue::String(text)) => match PublicKey::parse(text) {
                Ok(read) => key = Some(read),
                Err(why) => problems.push(problem(value, format!("{KEY}.key: {why}"))),
            },
            ("plugins", DeValue::Array(list)) => {
                match patterns(list.iter().map(Spanned::get_ref)) {
                    Ok(read) => plugins = read,
                    Err(why) => problems.push(problem(value, format!("{KEY}.plugins: {why}"))),
                }
            }
            (text @ ("name" | "key"), _) => {
                problems.push(problem(value, format!("{KEY}.{text}: a text is wanted")));
            }
            ("plugins", _) => {
                let message = format!("{KEY}.plugins: a list of names is wanted, as [\"acme-*\"]");
                problems.push(problem(value, message));
            }
            (other, _) => problems.push(KeyProblem {
                at: word.span().start,
                message: format!("unknown key `{KEY}.{other}`"),
                hint: closest(other, WORDS.into_iter())
                    .map(|near| format!("did you mean `{near}`?")),
            }),
        }
    }
    if key.is_none() && !table.contains_key("key") {
        problems.push(KeyProblem {
            hint: Some("openssl pkey -in KEY.pem -pubout".to_owned()),
            ..problem(element, format!("{KEY}: key is missing"))
        });
    }
    Some(TrustedKey {
        name,
        key: key?,
        plugins,
    })
}

fn patterns<'a>(list: impl Iterator<Item = &'a DeValue<'a>>) -> Result<Vec<String>, String> {
    let list: Vec<_> = list.take(MOST_PATTERNS + 1).collect();
    match list.len() {
        0 => return Err("an empty list allows nothing: leave it out for all plugins".to_owned()),
        count if count > MOST_PATTERNS => return Err(format!("at most {MOST_PATTERNS}")),
        _ => {}
    }
    let pattern = |value: &&DeValue<'_>| {
        let text = value.as_str().filter(|text| is_pattern(text));
        let wanted = || "names of plugins are wanted, with `*` for any letters".to_owned();
        text.map(str::to_owned).ok_or_else(wanted)
    };
    list.iter().map(pattern).collect()
}

fn problem<T>(at: &Spanned<T>, message: String) -> KeyProblem {
    KeyProblem {
        at: at.span().start,
        message,
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    //! Read from the file as a whole, where lines are told.

    use super::super::file;

    const LINE: &str = "MCowBQYDK2VwAyEAiojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=";

    #[test]
    fn keys_are_read() {
        let text = format!(
            "[plugins]\nlock = 'enforce'\n[[plugins.trusted-keys]]\nname = 'acme'\nkey = '{LINE}'\n\
             plugins = ['acme-*']\n[[plugins.trusted-keys]]\n\
             key = '''\n-----BEGIN PUBLIC KEY-----\n{LINE}\n-----END PUBLIC KEY-----\n'''\n"
        );
        let layer = file::read(&text);
        assert_eq!(layer.problems, []);
        let names: Vec<_> = layer.trusted_keys.iter().map(|key| &*key.name).collect();
        assert_eq!(names, ["acme", "key 2"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, told) in [
            ("key = 'x'", "2: plugins.trusted-keys.key: it is no ed25519"),
            ("name = 'x'", "1: plugins.trusted-keys: key is missing"),
            ("name = 1", "2: plugins.trusted-keys.name: a text"),
            ("plugins = 'a'", "2: plugins.trusted-keys.plugins: a list"),
            ("plugins = []", "2: plugins.trusted-keys.plugins: an empty"),
            (
                "plugins = ['A b']",
                "2: plugins.trusted-keys.plugins: names",
            ),
            (
                "plugin = ['a']",
                "2: unknown key `plugins.trusted-keys.plugin`",
            ),
        ] {
            let layer = file::read(&format!("[[plugins.trusted-keys]]\n{text}\n"));
            let problems: Vec<String> = layer
                .problems
                .iter()
                .map(|problem| format!("{}: {}", problem.line, problem.message))
                .collect();
            let is_told = |one: &String| one.starts_with(told);
            assert!(problems.iter().any(is_told), "{problems:?}");
            assert!(layer.trusted_keys.is_empty());
        }
        let layer = file::read("plugins.trusted-keys = 1\n");
        assert_eq!(layer.problems.len(), 1, "{:?}", layer.problems);
    }
}
