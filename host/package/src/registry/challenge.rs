//! What a registry asks for: `WWW-Authenticate`.

/// The longest that is read.
const MOST_BYTES: usize = 8 << 10;
const MOST_PARAMETERS: usize = 16;

/// How it wants to know who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// By user and password.
    Basic,
    /// By a token from somewhere.
    Bearer(Bearer),
}

/// Where the token is to be had, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
}

impl Challenge {
    /// Reads one. `None`: it is of another kind, or cannot be read.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > MOST_BYTES {
            return None;
        }
        let text = text.trim();
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = rest.trim_start();
        for _ in 0..MOST_PARAMETERS {
            let Some((key, after)) = rest.split_once('=') else {
                break;
            };
            let (value, after) = value(after)?;
            match key.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
            rest = after.trim_start_matches([',', ' ']);
        }
        Some(Self::Bearer(Bearer {
            realm: realm?,
            service,
            scope,
        }))
    }
}

/// A value, quoted or not, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        let (value, after) = text.split_at_checked(end)?;
        return Some((value.to_owned(), after));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(letters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    //! Challenges of registries, and what is none.

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer(Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
            }))
        };
        for (text, wanted) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://h/token\",service=\"s\",scope=\"repository:a:pull,push\"",
                bearer("https://h/token", Some("s"), Some("repository:a:pull,push")),
            ),
            ("bearer realm=x, service=y", bearer("x", Some("y"), None)),
            ("Bearer realm=\"a\\\"b\"", bearer("a\"b", None, None)),
            ("Bearer service=\"s\"", None),
            ("Bearer realm=\"open", None),
            ("Bearer", None),
            ("Digest realm=\"x\"", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_the_reader(text in "[Bb]earer .{0,80}") {
            let _either = Challenge::parse(&text);
        }
    }
}
