//! Text in lines of a limited width.

use unicode_width::UnicodeWidthStr;

/// The width that fits every terminal.
pub const NARROW: usize = 80;

/// Breaks a paragraph at spaces into lines of at most `width` columns. The first line begins with `first`,
/// the others with `next`. A word that is too long has a line of its own, other words do not end a paragraph
/// alone.
pub fn wrap(text: &str, width: usize, first: &str, next: &str) -> Vec<String> {
    let mut lines: Vec<Vec<&str>> = Vec::new();
    let mut columns = 0;
    for word in text.split(' ') {
        columns += 1 + word.width();
        match lines.last_mut() {
            Some(line) if columns <= width => line.push(word),
            _ => {
                let indent = if lines.is_empty() { first } else { next };
                columns = indent.width() + word.width();
                lines.push(vec![word]);
            }
        }
    }
    if let [.., before, last] = lines.as_mut_slice()
        && last.len() == 1
        && before.len() > 2
        && let Some(word) = before.pop()
    {
        let wider = next.width() + word.width() + 1 + last[0].width();
        match wider <= width {
            true => last.insert(0, word),
            false => before.push(word),
        }
    }
    let indents = std::iter::once(first).chain(std::iter::repeat(next));
    let lines = indents.zip(lines);
    lines
        .map(|(indent, words)| format!("{indent}{}", words.join(" ")))
        .collect()
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

    #[test]
    fn a_word_is_not_left_alone_unless_nothing_else_fits() {
        assert_eq!(wrap("a b c d", 5, "", ""), ["a b", "c d"]);
        assert_eq!(wrap("a b cc dddd", 7, "", ""), ["a b", "cc dddd"]);
        assert_eq!(wrap("a b cc dddd", 6, "", ""), ["a b cc", "dddd"]);
    }
}
