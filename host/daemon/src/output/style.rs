//! Colours: only on a terminal, and never against `NO_COLOR`.

use std::io::IsTerminal as _;

use crate::env;

/// What a word is to stand out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Not at all.
    Plain,
    /// All is well.
    Good,
    /// Under way, or worth a look.
    Busy,
    /// Something is wrong.
    Bad,
    /// Beside the point.
    Faint,
}

impl Tone {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Busy => Some("33"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
        }
    }

    /// `text` in this tone, if there are colours.
    pub(crate) fn paint(self, text: &str, colours: Colours) -> String {
        match (self.code(), colours) {
            (Some(code), Colours::Yes) => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    /// There are.
    Yes,
    /// There are none.
    No,
}

impl Colours {
    /// Those of standard output.
    pub(crate) fn of_stdout() -> Self {
        let forbidden = std::env::var_os(env::NO_COLOR).is_some_and(|value| !value.is_empty());
        if !forbidden && std::io::stdout().is_terminal() {
            Self::Yes
        } else {
            Self::No
        }
    }
}

/// `text` without anything that a terminal would obey: tasks choose their own words.
pub(crate) fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    for c in text.chars() {
        // What reverses or hides text is obeyed, too.
        let steers = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || steers {
            tamed.extend(c.escape_default());
        } else {
            tamed.push(c);
        }
    }
    tamed
}

/// `text` tamed line by line, the lines after the first indented: hints come on lines of their own.
pub(crate) fn tame_lines(text: &str) -> String {
    let mut lines = text.lines();
    let mut tamed = lines.next().map(tame).unwrap_or_default();
    for line in lines {
        tamed.push_str("\n  ");
        tamed.push_str(&tame(line.trim_start()));
    }
    tamed
}

/// `text` cut to `most` characters, with an ellipsis when something is missing.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_steered_by_what_they_show() {
        assert_eq!(tame("a\x1b[31mb\nc"), "a\\u{1b}[31mb\\nc");
        assert_eq!(tame("Grüße"), "Grüße");
        assert_eq!(tame_lines("a\x1b\n  hint: b\n"), "a\\u{1b}\n  hint: b");
    }

    #[test]
    fn long_words_are_cut() {
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("äöü", 3), "äöü");
    }
}
