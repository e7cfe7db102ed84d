//! The form of a CRI log: `TIME stdout|stderr P|F TEXT`, one entry a line.
//!
//! `F` ends a line of what was printed, `P` does not: the newline after a `P` entry belongs to
//! the log alone. Entries are taken apart as they come, so a line may be of any length, and what
//! is no entry is passed over up to its newline.

use taskwright_capability::OutputStream;

/// Longer than any time, stream and tag.
const MOST_HEADER_BYTES: usize = 128;

/// Takes a log apart, however it is cut.
#[derive(Clone, Debug)]
pub(crate) struct LogReader {
    place: Place,
    /// How much was fed since the line's first byte.
    in_line: u64,
    /// How much of what was printed the line has told so far.
    told: u64,
    /// Lines that were no entries.
    garbage: u64,
}

#[derive(Clone, Debug)]
enum Place {
    Header(Vec<u8>),
    Text { stream: OutputStream, ends: Ends },
    Garbage,
}

/// Whether an entry ends a line of what was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Line,
    Part,
}

impl LogReader {
    /// At the beginning of a line.
    pub(crate) fn new() -> Self {
        Self {
            place: Place::Header(Vec::new()),
            in_line: 0,
            told: 0,
            garbage: 0,
        }
    }

    /// How many bytes of the log the last, unfinished line has so far, and how much of what was
    /// printed they told.
    pub(crate) fn unfinished(&self) -> (u64, u64) {
        (self.in_line, self.told)
    }

    /// How many lines were no entries.
    pub(crate) fn garbage(&self) -> u64 {
        self.garbage
    }

    /// Goes on with `bytes` of the log, and tells what was printed.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(OutputStream, &[u8])) {
        while let Some(first) = bytes.first() {
            if let Place::Header(header) = &mut self.place {
                self.in_line += 1;
                if *first == b'\n' {
                    self.end_line(&mut tell);
                } else {
                    header.push(*first);
                    if let Some(place) = after(header) {
                        self.place = place;
                    }
                }
                bytes = bytes.get(1..).unwrap_or_default();
                continue;
            }
            let newline = bytes.iter().position(|byte| *byte == b'\n');
            let (text, rest) = bytes.split_at(newline.unwrap_or(bytes.len()));
            self.in_line += text.len() as u64;
            if let Place::Text { stream, .. } = self.place
                && !text.is_empty()
            {
                self.told += text.len() as u64;
                tell(stream, text);
            }
            bytes = rest.get(1..).unwrap_or_default();
            if newline.is_some() {
                self.end_line(&mut tell);
            }
        }
    }

    fn end_line(&mut self, tell: &mut impl FnMut(OutputStream, &[u8])) {
        match &self.place {
            Place::Text { stream, ends } => {
                if *ends == Ends::Line {
                    tell(*stream, b"\n");
                }
            }
            // An entry of no text may lack the space before it.
            Place::Header(header) => match after(&[header.as_slice(), b" "].concat()) {
                Some(Place::Text { stream, ends }) => {
                    if ends == Ends::Line {
                        tell(stream, b"\n");
                    }
                }
                Some(Place::Garbage | Place::Header(_)) | None => self.garbage += 1,
            },
            Place::Garbage => self.garbage += 1,
        }
        self.place = Place::Header(Vec::new());
        self.in_line = 0;
        self.told = 0;
    }
}

/// What follows these first bytes of a line, if they are enough to know.
fn after(header: &[u8]) -> Option<Place> {
    if header.last() != Some(&b' ') {
        return (header.len() >= MOST_HEADER_BYTES).then_some(Place::Garbage);
    }
    let mut words = header.split(|byte| *byte == b' ');
    let (_time, stream, tags) = (words.next()?, words.next()?, words.next()?);
    // Three spaces are needed: after the tags comes what was printed.
    words.next()?;
    let stream = match stream {
        b"stdout" => OutputStream::Stdout,
        b"stderr" => OutputStream::Stderr,
        _ => return Some(Place::Garbage),
    };
    // Further tags may follow the first after a colon.
    let ends = match tags.split(|byte| *byte == b':').next() {
        Some(b"F") => Ends::Line,
        Some(b"P") => Ends::Part,
        Some(_) | None => return Some(Place::Garbage),
    };
    Some(Place::Text { stream, ends })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>, u64) {
        let mut reader = LogReader::new();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for piece in pieces {
            reader.feed(piece, |stream, bytes| match stream {
                OutputStream::Stdout => stdout.extend_from_slice(bytes),
                OutputStream::Stderr => stderr.extend_from_slice(bytes),
            });
        }
        (stdout, stderr, reader.garbage())
    }

    fn check(log: &str, stdout: &str, stderr: &str) {
        let told = read(&[log.as_bytes()]);
        assert_eq!(
            (told.0.as_slice(), told.1.as_slice()),
            (stdout.as_bytes(), stderr.as_bytes())
        );
    }

    #[test]
    fn full_entries_are_lines_and_parts_are_not() {
        check(
            "T stdout F one\nT stdout P tw\nT stdout F o\n",
            "one\ntwo\n",
            "",
        );
        check("T stdout P no newline\n", "no newline", "");
        check(
            "T stdout F a\nT stderr F b\nT stdout F c\n",
            "a\nc\n",
            "b\n",
        );
    }

    #[test]
    fn empty_lines_and_spaces_are_kept() {
        check("T stdout F \nT stdout F  x \n", "\n x \n", "");
        check("T stdout F\n", "\n", "");
    }

    #[test]
    fn further_tags_are_passed_over() {
        check("T stdout P:x a\nT stdout F:y:z b\n", "ab\n", "");
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        check(
            "hello\n\nT stdin F x\nT stdout Q x\nT stdout F ok\n",
            "ok\n",
            "",
        );
        let long = format!("{}\nT stdout F ok\n", "x".repeat(100_000));
        check(&long, "ok\n", "");
    }

    #[test]
    fn an_unfinished_line_tells_what_is_there() {
        let mut reader = LogReader::new();
        let mut told = Vec::new();
        reader.feed(b"T stdout F a\nT stdout F hel", |_, bytes| {
            told.extend_from_slice(bytes);
        });
        assert_eq!(told, b"a\nhel");
        assert_eq!(reader.unfinished(), (14, 3));
    }

    /// What a runtime does with what was printed: lines, and parts of `most` bytes.
    fn log_of(printed: &[u8], most: usize) -> Vec<u8> {
        let mut log = Vec::new();
        for line in printed.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match line.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (line, false),
            };
            let mut parts: Vec<&[u8]> = text.chunks(most).collect();
            if parts.is_empty() {
                parts.push(b"");
            }
            let last = parts.len() - 1;
            for (index, part) in parts.into_iter().enumerate() {
                let tag = if index == last && ends { "F" } else { "P" };
                log.extend_from_slice(format!("2026-11-25T14:02:40.1Z stdout {tag} ").as_bytes());
                log.extend_from_slice(part);
                log.push(b'\n');
            }
        }
        log
    }

    proptest! {
        #[test]
        fn what_was_printed_comes_out_however_the_log_is_cut(
            printed in prop::collection::vec(
                prop_oneof![3 => any::<u8>(), 1 => Just(b'\n'), 1 => Just(b' ')], 0..2000),
            most in 1_usize..40,
            cut in 1_usize..50,
        ) {
            let log = log_of(&printed, most);
            let pieces: Vec<&[u8]> = log.chunks(cut).collect();
            let (stdout, stderr, garbage) = read(&pieces);
            prop_assert_eq!(stdout, printed);
            prop_assert_eq!((stderr.len(), garbage), (0, 0));
        }

        #[test]
        fn any_bytes_cut_anyhow_come_out_the_same(
            log in prop::collection::vec(
                prop_oneof![2 => any::<u8>(), 1 => Just(b'\n'), 1 => Just(b' ')], 0..2000),
            cut in 1_usize..50,
        ) {
            let pieces: Vec<&[u8]> = log.chunks(cut).collect();
            prop_assert_eq!(read(&pieces), read(&[log.as_slice()]));
        }
    }
}
