//! How far a file goes that an export left when it was cut off.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use super::Format;

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// That of the last whole row.
    pub(super) cursor: Option<String>,
    /// How many whole rows there are, where that matters.
    pub(super) rows: u64,
    /// How many bytes hold whole lines.
    pub(super) bytes: u64,
    /// Whether there is anything at all.
    pub(super) begun: bool,
}

/// How much is read at a time.
const PIECE: usize = 64 * 1024;
/// A row's cursor is at its beginning.
const MOST_HEAD: u64 = 256;

impl Kept {
    /// Looks at a file of lines.
    pub(super) fn of(file: &mut File, format: Format) -> io::Result<Self> {
        if format == Format::Parquet {
            // Its rows are known by its end alone.
            return Ok(Self::default());
        }
        // Where the last whole line begins and ends.
        let (mut begin, mut end, mut lines) = (0_u64, 0_u64, 0_u64);
        let mut at = 0_u64;
        let mut piece = vec![0; PIECE];
        file.seek(SeekFrom::Start(0))?;
        loop {
            let read = file.read(&mut piece)?;
            let Some(read) = piece.get(..read).filter(|read| !read.is_empty()) else {
                break;
            };
            for (place, byte) in read.iter().enumerate() {
                if *byte == b'\n' {
                    begin = end;
                    end = at + place as u64 + 1;
                    lines += 1;
                }
            }
            at += read.len() as u64;
        }
        if lines == 0 {
            return Ok(Self::default());
        }
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(begin))?;
        file.by_ref()
            .take(MOST_HEAD.min(end - begin))
            .read_to_end(&mut head)?;
        if format == Format::Aiopslab && head.starts_with(b"]") {
            // The end of the whole: it is told again, by an export of nothing more.
            file.set_len(begin)?;
            return Self::of(file, format);
        }
        // A document's first line is no row.
        let rows = match format {
            Format::Aiopslab => lines - 1,
            Format::Chat | Format::Tasks | Format::Parquet => lines,
        };
        Ok(Self {
            cursor: cursor_at(&head),
            rows,
            bytes: end,
            begun: true,
        })
    }
}

/// The cursor at the beginning of a row.
fn cursor_at(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let head = head.strip_prefix(',').unwrap_or(&head);
    let (cursor, _) = head.strip_prefix("{\"cursor\":\"")?.split_once('"')?;
    Some(cursor.to_owned())
}

#[cfg(test)]
mod tests {
    //! What of a file is whole.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io::Write as _;

    use super::*;

    fn check(text: &str, format: Format, cursor: Option<&str>, rows: u64, bytes: usize) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let kept = Kept::of(&mut file, format).unwrap();
        assert_eq!(kept.cursor.as_deref(), cursor, "{text:?}");
        assert_eq!((kept.rows, kept.bytes), (rows, bytes as u64), "{text:?}");
    }

    #[test]
    fn what_follows_the_last_whole_line_does_not_count() {
        let row = "{\"cursor\":\"7\",\"a\":1}\n";
        check("", Format::Chat, None, 0, 0);
        check("{\"cursor\":\"7\"", Format::Chat, None, 0, 0);
        check(row, Format::Chat, Some("7"), 1, row.len());
        let cut = format!("{row}{{\"cursor\":\"8\",\"a");
        check(&cut, Format::Tasks, Some("7"), 1, row.len());
        let head = "{\"exported_at\":\"x\",\"tasks\":[\n";
        check(head, Format::Aiopslab, None, 0, head.len());
        let two = format!("{head}{row},{{\"cursor\":\"9\"}}\n,{{\"cur");
        check(
            &two,
            Format::Aiopslab,
            Some("9"),
            2,
            two.len() - ",{\"cur".len(),
        );
        let ended = format!("{head}{row}],\"cursor\":\"7\"}}\n");
        check(
            &ended,
            Format::Aiopslab,
            Some("7"),
            1,
            head.len() + row.len(),
        );
        check("PAR1...", Format::Parquet, None, 0, 0);
    }
}
