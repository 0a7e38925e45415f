//! Columns that line up and, on a terminal, fit its width.

use super::{
    style::{Ink, Style},
    words,
};

/// Between two columns.
const GAP: usize = 2;

/// No column is made narrower than this.
const NARROWEST: usize = 10;

/// Rows under a head.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as the head.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(cells.len(), self.head.len());
        self.rows.push(cells.map(|cell| words::plain(&cell)).into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The whole, line by line. A column in which every cell is empty is left out.
    pub(crate) fn text(&self, style: Style) -> String {
        let used: Vec<usize> = (0..self.head.len())
            .filter(|&at| self.rows.iter().any(|row| !row[at].is_empty()))
            .collect();
        let mut widths: Vec<usize> = used
            .iter()
            .map(|&at| {
                let cells = self.rows.iter().map(|row| row[at].chars().count());
                cells.max().unwrap_or(0).max(self.head[at].len())
            })
            .collect();
        if let Some(width) = style.width {
            fit(&mut widths, width);
        }
        let head: Vec<&str> = used.iter().map(|&at| self.head[at]).collect();
        let mut text = style.paint(Ink::Quiet, &line(&head, &widths));
        for row in &self.rows {
            let cells: Vec<&str> = used.iter().map(|&at| row[at].as_str()).collect();
            text.push('\n');
            text.push_str(&line(&cells, &widths));
        }
        text
    }
}

/// Takes from the widest column until all of them fit.
fn fit(widths: &mut [usize], width: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    loop {
        let all: usize = widths.iter().sum();
        let Some(widest) = widths.iter_mut().max_by_key(|width| **width) else { return };
        if all + gaps <= width || *widest <= NARROWEST {
            return;
        }
        *widest -= 1;
    }
}

fn line(cells: &[&str], widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, &width) in cells.iter().zip(widths) {
        let cell = cut(cell, width);
        let space = width - cell.chars().count() + GAP;
        text.push_str(&cell);
        text.extend(std::iter::repeat_n(' ', space));
    }
    text.truncate(text.trim_end().len());
    text
}

/// A text in so many columns. What is cut out of the middle of a path is missed least.
pub(crate) fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let tail = if text.contains('/') && !text.contains(' ') { kept / 2 } else { 0 };
    let start: String = text.chars().take(kept - tail).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["RESOURCE", "HELD BY", "SLOTS", "WHY"]);
        let row = |cells: [&str; 4]| cells.map(str::to_owned);
        table.row(row(["file:src/a.rs", "ann", "", "renaming the parser"]));
        table.row(row(["file:src/very/deep/down/in/some/folder/b.rs", "bob", "", "a\x1b[2J\nb"]));
        table
    }

    #[test]
    fn columns_line_up_and_empty_ones_are_left_out() {
        assert_eq!(
            table().text(Style::PLAIN),
            "RESOURCE                                     HELD BY  WHY\n\
             file:src/a.rs                                ann      renaming the parser\n\
             file:src/very/deep/down/in/some/folder/b.rs  bob      a [2J b"
        );
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        for width in [40, 60, 80] {
            let text = table().text(Style { width: Some(width), ..Style::PLAIN });
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{width}:\n{text}");
            assert!(text.contains("b.rs") || width < 60, "the end of a path stays:\n{text}");
        }
        assert_eq!(cut("file:src/a/b.rs", 9), "file…b.rs");
        assert_eq!(cut("some words here", 9), "some wor…");
    }
}
