//! Text and numbers as the page shows them.

use std::fmt::{self, Display, Write as _};

/// Text as the content of an element or of a quoted attribute, cut after [`Escaped::LONGEST`] characters.
/// A control character is replaced, because HTML has no form for it.
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
            c if c.is_control() => f.write_char(char::REPLACEMENT_CHARACTER)?,
            c => f.write_char(c)?,
        }
    }
    match chars.next() {
        Some(_) => f.write_char('…'),
        None => Ok(()),
    }
}

/// A count with commas between thousands: `1,204`.
pub(super) struct Count(pub(super) u64);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// A count with its noun: `1 zombie`, `2 zombies`.
pub(super) struct Counted(pub(super) u64, pub(super) &'static str);

impl Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", Count(self.0), self.1)
    }
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
    fn long_text_is_cut_between_characters() {
        let long = "ß".repeat(81);
        assert_eq!(Escaped(&long).to_string(), "ß".repeat(80) + "…");
        assert_eq!(Escaped(&long[2..]).to_string(), "ß".repeat(80));
        assert_eq!(EscapedSentence(&long).to_string(), long);
    }

    #[test]
    fn counts_have_commas_and_a_plural() {
        for (count, text) in [(0, "0"), (999, "999"), (1204, "1,204")] {
            assert_eq!(Count(count).to_string(), text);
        }
        assert_eq!(Count(12_345_678).to_string(), "12,345,678");
        let zombies = [0, 1, 2].map(|count| Counted(count, "zombie").to_string());
        assert_eq!(zombies, ["0 zombies", "1 zombie", "2 zombies"]);
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
