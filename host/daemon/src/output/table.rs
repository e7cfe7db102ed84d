//! Tables: columns as wide as their widest cell, two spaces between them.

use super::style::{Colours, Tone, tame};

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell in `tone`.
    pub(crate) fn toned(text: &str, tone: Tone) -> Self {
        Self {
            text: tame(text),
            tone,
        }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// A table with a heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![
                headings
                    .iter()
                    .map(|heading| Cell::toned(heading, Tone::Faint))
                    .collect(),
            ],
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The whole table, ending in a newline.
    pub(crate) fn render(&self, colours: Colours) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                match widths.get_mut(column) {
                    Some(width) => *width = (*width).max(cell.width()),
                    None => widths.push(cell.width()),
                }
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let last = row.len().saturating_sub(1);
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                text.push_str(&cell.tone.paint(&cell.text, colours));
                if column < last {
                    let gap = width.saturating_sub(cell.width()) + 2;
                    text.extend(std::iter::repeat_n(' ', gap));
                }
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "STATE", "AGE"]);
        table.row(vec![
            "a".into(),
            Cell::toned("running", Tone::Busy),
            "3s".into(),
        ]);
        table.row(vec!["größer\n".into(), "ended".into(), "".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        assert_eq!(
            table().render(Colours::No),
            "NAME      STATE    AGE\na         running  3s\ngrößer\\n  ended\n"
        );
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let painted = table().render(Colours::Yes);
        assert!(
            painted.contains("\x1b[33mrunning\x1b[0m  3s"),
            "{painted:?}"
        );
    }
}
