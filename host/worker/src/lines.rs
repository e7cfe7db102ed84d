//! From what a task prints to lines of the queue's log.
//!
//! A line keeps its text. Its level is read where programs usually write one: in a JSON
//! object, as `level=warn`, or as a word among the first ones, `[ERROR]`, `WARNING:`,
//! `E1130 12:00:00` (klog), `<3>` (the kernel's and systemd's).

use serde_json::{Map, Value, json};
use taskwright_model::Timestamp;
use taskwright_queue::{Json, LogLevel, NewLogEntry};

/// A longer line is cut in pieces of so many bytes.
pub const LONGEST_LINE: usize = 64 * 1024;
/// Words at the beginning of a line that may be its level.
const FIRST_WORDS: usize = 5;
/// The largest JSON line that is taken apart.
const LARGEST_OBJECT: usize = 32 * 1024;

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct Splitter {
    rest: Vec<u8>,
}

impl Splitter {
    /// Takes more bytes; answers the lines that are whole now, without their ends.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.rest.extend_from_slice(text);
            while self.rest.len() > LONGEST_LINE {
                let left = self.rest.split_off(cut_at(&self.rest));
                lines.push(text_of(&self.rest));
                self.rest = left;
            }
            if whole {
                lines.push(text_of(self.rest.strip_suffix(b"\r").unwrap_or(&self.rest)));
                self.rest.clear();
            }
        }
        lines
    }

    /// The bytes that wait for the end of their line.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.rest.len()
    }

    /// The last line, if it has no end.
    pub fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| text_of(&rest))
    }
}

/// Where a line that is too long is cut: not within a character.
fn cut_at(bytes: &[u8]) -> usize {
    let continues = |byte: u8| byte & 0xc0 == 0x80;
    (LONGEST_LINE - 3..=LONGEST_LINE)
        .rev()
        .find(|at| bytes.get(*at).is_some_and(|byte| !continues(*byte)))
        .unwrap_or(LONGEST_LINE)
}

/// NUL cannot be kept by every store; neither can what is not UTF-8.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

/// The entry of a line, printed on `stream`.
#[must_use]
pub fn entry(line: &str, stream: &str, attempt: u32) -> NewLogEntry {
    let mut context = Map::new();
    context.insert("stream".to_owned(), stream.into());
    context.insert("attempt".to_owned(), attempt.into());
    let mut told = Told {
        level: None,
        at: None,
        message: None,
    };
    if let Some(object) = object(line) {
        told = Told::by(&object);
        if told.is_something() {
            context.insert("fields".to_owned(), Value::Object(object));
        }
    }
    let plain = without_escapes(line);
    NewLogEntry {
        at: told.at,
        level: told
            .level
            .or_else(|| level_of(&plain))
            .unwrap_or(LogLevel::Info),
        message: told.message.unwrap_or_else(|| line.to_owned()),
        context: Json::of(&Value::Object(context)),
    }
}

/// Says that not everything was kept.
#[must_use]
pub fn note(message: String, attempt: u32) -> NewLogEntry {
    NewLogEntry {
        at: None,
        level: LogLevel::Warning,
        message,
        context: Json::of(&json!({"attempt": attempt, "from": "taskwright"})),
    }
}

fn object(line: &str) -> Option<Map<String, Value>> {
    let line = line.trim();
    if !line.starts_with('{') || line.len() > LARGEST_OBJECT {
        return None;
    }
    serde_json::from_str(line).ok()
}

/// What a JSON line tells of itself.
struct Told {
    level: Option<LogLevel>,
    at: Option<Timestamp>,
    message: Option<String>,
}

impl Told {
    fn by(object: &Map<String, Value>) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| object.get(*name));
        let level = first(&["level", "severity", "levelname", "lvl", "log.level"]);
        let at = first(&["timestamp", "time", "ts", "@timestamp", "asctime"]);
        let message = first(&["message", "msg", "event"]);
        Self {
            level: level.and_then(level_of_value),
            at: at.and_then(Value::as_str).and_then(instant),
            message: message
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty() && !text.contains('\0'))
                .map(str::to_owned),
        }
    }

    fn is_something(&self) -> bool {
        self.level.is_some() || self.message.is_some()
    }
}

/// A word, or a number as bunyan and pino write it: 10, 20, ... 60.
fn level_of_value(value: &Value) -> Option<LogLevel> {
    match value {
        Value::String(word) => LogLevel::meant_by(word),
        Value::Number(number) => match number.as_u64()? {
            10..=29 => Some(LogLevel::Debug),
            30..=39 => Some(LogLevel::Info),
            40..=49 => Some(LogLevel::Warning),
            50..=59 => Some(LogLevel::Error),
            60..=69 => Some(LogLevel::Critical),
            _ => None,
        },
        _ => None,
    }
}

fn instant(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    let millis = at.as_millisecond();
    (millis >= 0).then(|| Timestamp::from_millis(millis))
}

/// The level that a line of plain text names.
fn level_of(line: &str) -> Option<LogLevel> {
    if let Some(level) = of_priority(line).or_else(|| of_klog(line)) {
        return Some(level);
    }
    line.split_whitespace()
        .take(FIRST_WORDS)
        .find_map(of_word)
        .or_else(|| of_pair(line))
}

/// `<3>`: the priorities of syslog(3).
fn of_priority(line: &str) -> Option<LogLevel> {
    let (number, _) = line.strip_prefix('<')?.split_once('>')?;
    match number.parse::<u16>().ok().filter(|_| number.len() <= 3)? & 7 {
        0..=2 => Some(LogLevel::Critical),
        3 => Some(LogLevel::Error),
        4 => Some(LogLevel::Warning),
        5 | 6 => Some(LogLevel::Info),
        _ => Some(LogLevel::Debug),
    }
}

/// `E1130 12:00:00.000000`: a letter, month and day.
fn of_klog(line: &str) -> Option<LogLevel> {
    let (word, rest) = line.split_once(' ')?;
    let letter = word.chars().next()?;
    let day = word.get(1..)?;
    let dated = day.len() == 4 && day.bytes().all(|byte| byte.is_ascii_digit());
    if !dated || !rest.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    match letter {
        'I' => Some(LogLevel::Info),
        'W' => Some(LogLevel::Warning),
        'E' => Some(LogLevel::Error),
        'F' => Some(LogLevel::Critical),
        _ => None,
    }
}

/// A word that is a level by how it is written: `ERROR`, `[info]`, `warning:`. The word alone, as
/// in `error while loading`, is a sentence.
fn of_word(word: &str) -> Option<LogLevel> {
    let opens = ['[', '(', '<'];
    let closes = [']', ')', '>', ':', '|', ',', '-'];
    // Python writes `WARNING:root:text`.
    let head = word.split_once(':').map_or(word, |(head, _)| head);
    let bare = head.trim_start_matches(opens).trim_end_matches(closes);
    let marked = word.len() != bare.len();
    let upper = bare.len() > 2 && bare.bytes().all(|byte| byte.is_ascii_uppercase());
    (marked || upper)
        .then(|| LogLevel::meant_by(bare))
        .flatten()
}

/// `level=warn`, wherever it stands.
fn of_pair(line: &str) -> Option<LogLevel> {
    line.split_whitespace().find_map(|word| {
        let (name, value) = word.split_once('=')?;
        let known = ["level", "lvl", "severity"].contains(&name);
        known
            .then(|| LogLevel::meant_by(value.trim_matches('"')))
            .flatten()
    })
}

/// Without the sequences that colour a terminal.
fn without_escapes(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c != '\u{1b}' {
            plain.push(c);
            continue;
        }
        if rest.next() == Some('[') {
            // Up to the letter that ends the sequence.
            for c in rest.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    //! Lines, however they arrive, and the levels of what programs print.
    use super::*;

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let mut splitter = Splitter::default();
        assert!(splitter.take(b"a").is_empty());
        assert_eq!(splitter.take(b"b\r\nc\n\nd"), ["ab", "c", ""]);
        assert_eq!(splitter.waiting(), 1);
        assert_eq!(splitter.finish().as_deref(), Some("d"));
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let mut splitter = Splitter::default();
        let text = format!("x{}", "\u{20ac}".repeat(LONGEST_LINE));
        let mut lines = splitter.take(text.as_bytes());
        lines.extend(splitter.finish());
        assert!(lines.iter().all(|line| line.len() <= LONGEST_LINE));
        assert_eq!(lines.concat(), text);
        // What is no text at all is cut, too.
        let lines = splitter.take(&vec![0x80; LONGEST_LINE * 2 + 1]);
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn levels_are_read_where_programs_write_them() {
        for (line, level) in [
            ("hello", LogLevel::Info),
            ("error while loading is a sentence", LogLevel::Info),
            ("Error: no such file", LogLevel::Error),
            ("[WARN] low disk", LogLevel::Warning),
            ("2026-11-30 12:00:00,123 ERROR [main] boom", LogLevel::Error),
            ("2026-11-30T12:00:00Z  INFO app: ok", LogLevel::Info),
            (
                "\u{1b}[2m2026-11-30\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m app: x",
                LogLevel::Warning,
            ),
            ("WARNING:root:deprecated", LogLevel::Warning),
            ("time=\"x\" level=fatal msg=\"gone\"", LogLevel::Critical),
            ("E1130 12:00:00.1 1 x.go:3] bad", LogLevel::Error),
            ("I love it", LogLevel::Info),
            ("<3>kernel says no", LogLevel::Error),
            ("<7>detail", LogLevel::Debug),
            ("<html>", LogLevel::Info),
            ("DEBUG x", LogLevel::Debug),
            ("a b c d e ERROR too late", LogLevel::Info),
            (r#"{"level":"warn","msg":"x"}"#, LogLevel::Warning),
            (r#"{"level":50,"msg":"x"}"#, LogLevel::Error),
            (r#"{"severity":"CRITICAL"}"#, LogLevel::Critical),
            (r#"{"x":1}"#, LogLevel::Info),
            (r#"{"level":"#, LogLevel::Info),
        ] {
            assert_eq!(entry(line, "stdout", 1).level, level, "{line}");
        }
    }

    #[test]
    fn a_json_line_is_taken_apart_and_kept() {
        let line = r#"{"level":"info","msg":"hi","time":"2026-11-30T12:00:00Z","n":1}"#;
        let entry = entry(line, "stderr", 3);
        assert_eq!(entry.message, "hi");
        assert!(entry.at.is_some());
        let context = entry.context.as_str();
        assert!(context.contains(r#""n":1"#) && context.contains(r#""stream":"stderr""#));
        // An object that is no log line stays text.
        let plain = super::entry(r#"{"answer":42}"#, "stdout", 1);
        assert_eq!(plain.message, r#"{"answer":42}"#);
        assert!(!plain.context.as_str().contains("answer"));
    }

    #[test]
    fn what_stores_cannot_keep_is_replaced() {
        let mut splitter = Splitter::default();
        let lines = splitter.take(b"a\0b\xff\n");
        assert_eq!(lines, ["a\u{fffd}b\u{fffd}"]);
    }
}
