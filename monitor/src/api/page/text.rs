//! Text and durations as the page shows them.

use std::fmt::{self, Display, Write as _};

/// Text as the content of an element or of a quoted attribute, cut after [`Escaped::LONGEST`] characters.
/// An unprintable character is replaced: HTML has no form for a control character, and a format character
/// such as U+202E changes how the text around it reads.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Escaped<'_> {
    /// Characters. Keeps the size of the page bounded whatever a name or a sentence holds.
    const LONGEST: usize = 80;
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0, Self::LONGEST)
    }
}

/// The same for a sentence, which may be longer.
pub(super) struct EscapedSentence<'a>(pub(super) &'a str);

impl EscapedSentence<'_> {
    const LONGEST: usize = 400;
}

impl Display for EscapedSentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0, Self::LONGEST)
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str, longest: usize) -> fmt::Result {
    let mut chars = text.chars();
    for c in chars.by_ref().take(longest) {
        match c {
            '&' => f.write_str("&amp;")?,
            '<' => f.write_str("&lt;")?,
            '>' => f.write_str("&gt;")?,
            '"' => f.write_str("&quot;")?,
            '\'' => f.write_str("&#39;")?,
            c if is_unprintable(c) => f.write_char(char::REPLACEMENT_CHARACTER)?,
            c => f.write_char(c)?,
        }
    }
    match chars.next() {
        Some(_) => f.write_char('…'),
        None => Ok(()),
    }
}

/// Whether Rust would escape it inside a string: control, format and private-use characters, and line and
/// paragraph separators.
fn is_unprintable(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    // Alone, a combining mark would be escaped too.
    let pair = String::from_iter(['a', c]);
    pair.escape_debug().nth(1) == Some('\\')
}

/// Seconds, which may be negative: `0.4 s`, `22 s`, `−1.5 s`, `5 min 50 s`, `2 h`, `3 d 4 h`.
pub(super) struct Seconds(pub(super) f64);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0.0 {
            f.write_char('−')?;
        }
        let seconds = self.0.abs();
        if seconds < 10.0 {
            let tenths = (seconds * 10.0).round() / 10.0;
            return write!(f, "{tenths} s");
        }
        let whole = seconds.round() as u64;
        let units = [
            (whole / 86_400, "d"),
            (whole / 3600 % 24, "h"),
            (whole / 60 % 60, "min"),
            (whole % 60, "s"),
        ];
        // Two units say enough.
        let first = units.iter().position(|(number, _)| *number > 0);
        let shown = units[first.unwrap_or(3)..].iter().take(2);
        let shown = shown.filter(|(number, _)| *number > 0);
        for (index, (number, unit)) in shown.enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(f, "{space}{number} {unit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_control_characters_become_text() {
        let hostile = "<a href='x' b=\"&\">\u{0}\u{1b}[2J";
        let expected = "&lt;a href=&#39;x&#39; b=&quot;&amp;&quot;&gt;\u{fffd}\u{fffd}[2J";
        assert_eq!(Escaped(hostile).to_string(), expected);
    }

    #[test]
    fn characters_that_reorder_or_hide_text_are_replaced() {
        let bidi = ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
        for c in bidi.chain(['\u{2028}', '\u{2029}', '\u{200b}', '\u{feff}', '\u{85}']) {
            let text = format!("a{c}b");
            assert_eq!(Escaped(&text).to_string(), "a\u{fffd}b", "{c:?}");
            assert_eq!(EscapedSentence(&text).to_string(), "a\u{fffd}b", "{c:?}");
        }
        for text in ["a\\b", "größer", "e\u{301}", "हिन्दी", "日本語"] {
            assert_eq!(Escaped(text).to_string(), text);
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let long = "ß".repeat(81);
        assert_eq!(Escaped(&long).to_string(), "ß".repeat(80) + "…");
        assert_eq!(Escaped(&long[2..]).to_string(), "ß".repeat(80));
        assert_eq!(EscapedSentence(&long).to_string(), long);
    }

    #[test]
    fn seconds_have_at_most_two_units() {
        for (seconds, text) in [
            (0.0, "0 s"),
            (0.44, "0.4 s"),
            (-1.5, "−1.5 s"),
            (9.97, "10 s"),
            (59.7, "1 min"),
            (350.0, "5 min 50 s"),
            (-61.0, "−1 min 1 s"),
            (7200.0, "2 h"),
            (274_000.0, "3 d 4 h"),
            (86_401.0, "1 d"),
        ] {
            assert_eq!(Seconds(seconds).to_string(), text);
        }
    }
}
