//! Labelled lines of a page.

use crate::{cli::screen::wrapped, records::printable::printable};

/// In front of the lines of a field after its first.
pub(super) const INDENT: &str = "             ";

/// The lines of a page, made field by field. Lines of a field are wrapped at words if the page has a
/// width.
pub(super) struct Fields {
    lines: Vec<String>,
    width: Option<usize>,
}

impl Fields {
    pub(super) fn new(title: String, width: Option<usize>) -> Self {
        let lines = vec![title];
        Self { lines, width }
    }

    /// Adds a field of these lines, which may be hostile text. One without lines is left out.
    pub(super) fn add(&mut self, label: &str, lines: impl IntoIterator<Item: AsRef<str>>) {
        let width = self.width.map(|width| width.saturating_sub(INDENT.len()));
        let mut margin = format!("  {label:<9}  ");
        for line in lines {
            let line = &printable(line.as_ref());
            let wrapped = match width {
                Some(width) => wrapped(line, "", width),
                None => vec![line.clone()],
            };
            for line in wrapped {
                self.lines.push(margin + &line);
                margin = INDENT.to_owned();
            }
        }
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_wrapped_at_words_below_their_beginning() {
        let mut fields = Fields::new("connection 7".to_owned(), Some(33));
        fields.add("reason", ["idle 10.2 s on a path that forgets", "ab"]);
        fields.add("none", Vec::<String>::new());
        fields.add("word", ["abcdefghijklmnopqrstuvwxyz a"]);
        assert_eq!(
            fields.into_lines(),
            [
                "connection 7",
                "  reason     idle 10.2 s on a",
                "             path that forgets",
                "             ab",
                "  word       abcdefghijklmnopqrstuvwxyz",
                "             a",
            ]
        );
    }

    #[test]
    fn hostile_lines_break_neither_the_page_nor_a_terminal() {
        let mut fields = Fields::new("connection 7".to_owned(), None);
        fields.add("reason", ["a\n\u{1b}[2J\u{2028}"]);
        assert_eq!(
            fields.into_lines()[1..],
            [r"  reason     a\n\u{1b}[2J\u{2028}"]
        );
    }

    #[test]
    fn without_a_width_lines_are_whole() {
        let long = "a ".repeat(100);
        let mut fields = Fields::new(String::new(), None);
        fields.add("reason", [&long]);
        assert_eq!(fields.into_lines()[1], format!("  reason     {long}"));
    }
}
