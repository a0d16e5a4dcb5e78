//! Tables that fit the terminal.

use std::io::{self, IsTerminal};

use rustix::termios::{Winsize, tcgetwinsize};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::color::Color;
use crate::records::printable::printable;

/// Rows that decide the widths of the columns. Later rows are printed at once.
const SAMPLE: usize = 256;

/// The widest column in a pipe. A longer cell moves the rest of its own row only.
const WIDEST: usize = 40;

/// Between two columns.
const GAP: &str = "  ";

/// A column and what happens to it if the table is too wide. By default it keeps its width.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    is_number: bool,
    least: Option<usize>,
    rank: u8,
}

/// The content of a column in one row.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    color: Option<Color>,
}

/// Columns of text. If `limit` is the width of a terminal, no line is wider: columns are shortened, then
/// left out.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    limit: Option<usize>,
    /// Until the widths are decided.
    waiting: Vec<Vec<Cell>>,
    /// `None` for a column that is left out. Empty until they are decided.
    widths: Vec<Option<usize>>,
}

impl Column {
    pub const fn new(title: &'static str) -> Self {
        Self {
            title,
            is_number: false,
            least: None,
            rank: 0,
        }
    }

    /// Aligned to the right.
    pub const fn number(title: &'static str) -> Self {
        Self {
            is_number: true,
            ..Self::new(title)
        }
    }

    /// May be shortened to `least` characters. The last one of a shortened cell is `…`.
    pub const fn shortened_to(self, least: usize) -> Self {
        Self {
            least: Some(least),
            ..self
        }
    }

    /// May be left out. Of several, the column with the highest rank goes first.
    pub const fn left_out(self, rank: u8) -> Self {
        Self { rank, ..self }
    }
}

impl Cell {
    pub fn colored(text: impl Into<String>, color: Option<Color>) -> Self {
        let text = text.into();
        Self { text, color }
    }

    fn printable(self) -> Self {
        let text = printable(&self.text);
        Self { text, ..self }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::colored(text, None)
    }
}

impl Table {
    pub fn new(columns: impl Into<Vec<Column>>, limit: Option<usize>) -> Self {
        Self {
            columns: columns.into(),
            limit,
            waiting: Vec::new(),
            widths: Vec::new(),
        }
    }

    /// Takes a row with a cell for each column. Its text may be hostile. Returns the lines that can be
    /// printed.
    pub fn push(&mut self, row: impl IntoIterator<Item: Into<Cell>>) -> Vec<String> {
        let cells = row.into_iter().map(Into::into);
        let row: Vec<Cell> = cells.map(Cell::printable).collect();
        if !self.widths.is_empty() {
            return vec![self.line(&row)];
        }
        self.waiting.push(row);
        match self.waiting.len() < SAMPLE {
            true => Vec::new(),
            false => self.finish(),
        }
    }

    /// The lines of the rows that wait. A table without rows has no head.
    pub fn finish(&mut self) -> Vec<String> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let rows = std::mem::take(&mut self.waiting);
        self.widths = self.layout(&rows);
        let titles = self.columns.iter().map(|column| column.title.to_owned());
        let head: Vec<Cell> = titles.map(Cell::from).collect();
        let rows = std::iter::once(&head).chain(&rows);
        rows.map(|row| self.line(row)).collect()
    }

    fn layout(&self, rows: &[Vec<Cell>]) -> Vec<Option<usize>> {
        let natural: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let cells = rows.iter().map(|row| row[at].text.width());
                cells.max().unwrap_or(0).max(column.title.width())
            })
            .collect();
        let Some(limit) = self.limit else {
            return natural
                .iter()
                .map(|width| Some(*width.min(&WIDEST)))
                .collect();
        };
        let mut widths: Vec<_> = natural.iter().copied().map(Some).collect();
        for (column, width) in self.columns.iter().zip(&mut widths) {
            let least = column.least.map(|least| least.max(column.title.width()));
            *width = width.map(|width| least.map_or(width, |least| width.min(least)));
        }
        while total(&widths) > limit {
            let present = (0..widths.len()).filter(|at| widths[*at].is_some());
            let next = present.max_by_key(|at| self.columns[*at].rank);
            match next.filter(|at| self.columns[*at].rank > 0) {
                Some(at) => widths[at] = None,
                None => break,
            }
        }
        // The room that is left goes to the shortened columns, from left to right.
        for at in 0..widths.len() {
            let room = limit.saturating_sub(total(&widths));
            widths[at] = widths[at].map(|width| natural[at].min(width + room));
        }
        widths
    }

    fn line(&self, row: &[Cell]) -> String {
        let mut line = String::new();
        // Only a terminal that is narrower than the columns that must stay is too narrow.
        let too_narrow = self.limit.filter(|limit| total(&self.widths) > *limit);
        for ((column, cell), width) in self.columns.iter().zip(row).zip(&self.widths) {
            let Some(width) = *width else { continue };
            if !line.is_empty() {
                line.push_str(GAP);
            }
            let text = match self.limit {
                Some(_) => cut(&cell.text, width),
                None => cell.text.clone(),
            };
            let space = " ".repeat(width.saturating_sub(text.width()));
            let text = match cell.color.filter(|_| too_narrow.is_none()) {
                Some(color) => color.paint(&text),
                None => text,
            };
            line.extend(match column.is_number {
                true => [space, text],
                false => [text, space],
            });
        }
        let line = line.trim_end();
        too_narrow.map_or_else(|| line.to_owned(), |limit| cut(line, limit))
    }
}

/// The width of the terminal on stdout; `None` if stdout isn't a terminal.
pub fn terminal_width() -> Option<usize> {
    Some(terminal_size()?.ws_col.into()).filter(|columns| *columns > 0)
}

/// The lines of the terminal on stdout; `None` if stdout isn't a terminal.
pub fn terminal_height() -> Option<usize> {
    Some(terminal_size()?.ws_row.into()).filter(|lines| *lines > 0)
}

fn terminal_size() -> Option<Winsize> {
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    is_terminal.then(|| tcgetwinsize(&stdout).ok())?
}

fn total(widths: &[Option<usize>]) -> usize {
    let present = widths.iter().flatten();
    let (columns, cells) = present.fold((0, 0), |(n, sum), width| (n + 1, sum + width));
    cells + GAP.len() * usize::saturating_sub(columns, 1)
}

/// The text, or as much of it as takes `width` columns with `…` at its end.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    let kept: String = text.chars().take_while(fits).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::new("NAME").shortened_to(6),
        Column::number("FRAMES"),
        Column::new("PROTOCOL").left_out(2),
        Column::new("OWNER").shortened_to(8).left_out(1),
    ];

    fn row(name: &str, frames: u32, owner: &str) -> Vec<String> {
        let cells = [name, &frames.to_string(), "websocket", owner];
        cells.map(str::to_owned).to_vec()
    }

    fn table(limit: Option<usize>) -> String {
        let mut table = Table::new(COLUMNS, limit);
        assert!(table.push(row("a", 7, "shop/checkout")).is_empty());
        assert!(table.push(row("somewhere", 12_345, "-")).is_empty());
        table.finish().join("\n")
    }

    #[test]
    fn a_table_that_fits_is_aligned_and_whole() {
        let whole = "\
NAME       FRAMES  PROTOCOL   OWNER
a               7  websocket  shop/checkout
somewhere   12345  websocket  -";
        assert_eq!(table(None), whole);
        assert_eq!(table(Some(43)), whole);
    }

    #[test]
    fn columns_are_shortened_and_then_left_out_by_rank() {
        let shortened = "\
NAME       FRAMES  PROTOCOL   OWNER
a               7  websocket  shop/che…
somewhere   12345  websocket  -";
        assert_eq!(table(Some(39)), shortened);
        let without_protocol = "\
NAME       FRAMES  OWNER
a               7  shop/ch…
somewhere   12345  -";
        assert_eq!(table(Some(27)), without_protocol);
        let least = "\
NAME    FRAMES
a            7
somew…   12345";
        assert_eq!(table(Some(14)), least);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 1..60 {
            let widest = table(Some(width)).lines().map(UnicodeWidthStr::width).max();
            assert!(widest <= Some(width), "{width}: {widest:?}");
        }
    }

    #[test]
    fn a_color_takes_no_room_and_is_left_out_with_its_end() {
        let colored = |limit| {
            let mut table = Table::new([Column::new("A"), Column::new("B")], Some(limit));
            let cells = [
                "x".to_owned().into(),
                Cell::colored("dead", Some(Color::Red)),
            ];
            assert!(table.push(cells).is_empty());
            table.finish()
        };
        assert_eq!(colored(7), ["A  B", "x  \x1b[31mdead\x1b[0m"]);
        assert_eq!(colored(6), ["A  B", "x  de…"]);
    }

    #[test]
    fn hostile_cells_break_neither_a_line_nor_a_terminal() {
        let mut table = Table::new([Column::new("A"), Column::new("B")], None);
        let _ = table.push(["a\n\u{1b}[2J\u{202e}", "b"].map(str::to_owned));
        assert_eq!(table.finish()[1], r"a\n\u{1b}[2J\u{202e}  b");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new(
            [Column::new("A").shortened_to(4), Column::new("B")],
            Some(7),
        );
        let _ = table.push(["漢字漢字".to_owned(), "x".to_owned()]);
        assert_eq!(table.finish(), ["A     B", "漢…   x"]);
    }

    #[test]
    fn widths_are_decided_by_the_first_rows_and_later_rows_come_at_once() {
        let mut table = Table::new([Column::new("A"), Column::new("B")], None);
        let cells = |a: &str| [a.to_owned(), "b".to_owned()];
        for _ in 1..SAMPLE {
            assert!(table.push(cells("a")).is_empty());
        }
        assert_eq!(table.push(cells("a")).len(), SAMPLE + 1);
        assert_eq!(table.push(cells("longer")), ["longer  b"]);
        assert!(table.finish().is_empty());
    }

    #[test]
    fn a_table_without_rows_is_empty() {
        assert!(Table::new(COLUMNS, None).finish().is_empty());
    }
}
