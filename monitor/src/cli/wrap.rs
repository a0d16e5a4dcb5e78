//! Text in lines of a limited width.

use unicode_width::UnicodeWidthStr;

/// The width that fits every terminal.
pub const NARROW: usize = 80;

/// Breaks a paragraph at spaces into lines of at most `width` columns. The first line begins with `first`,
/// the others with `next`. A word that is too long has a line of its own.
pub fn wrap(text: &str, width: usize, first: &str, next: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("{next}{word}")),
            None => lines.push(format!("{first}{word}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces_and_long_words_are_not() {
        assert_eq!(wrap("a bb ccc", 10, "  ", "    "), ["  a bb ccc"]);
        assert_eq!(wrap("a bb ccc", 8, "  ", "    "), ["  a bb", "    ccc"]);
        assert_eq!(
            wrap("a http://example.org b", 8, "", "  "),
            ["a", "  http://example.org", "  b"]
        );
        assert_eq!(wrap("", 8, "  ", ""), ["  "]);
    }
}
