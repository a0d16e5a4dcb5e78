//! JSON that a terminal can show: text of others in it reaches no terminal as a control character.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};

use crate::diagnostics::control_character::is_control_character;

/// Writes a record as JSON on one line. JSON requires escapes for the control characters of ASCII only;
/// here those of Unicode that end a line, move the cursor or reverse text are escaped too.
pub(crate) fn write(record: &impl Serialize, to: impl Write) -> serde_json::Result<()> {
    record.serialize(&mut Serializer::with_formatter(to, Printable))
}

/// The same as text.
pub(crate) fn to_string(record: &impl Serialize) -> serde_json::Result<String> {
    let mut text = Vec::new();
    write(record, &mut text)?;
    String::from_utf8(text).map_err(serde::ser::Error::custom)
}

struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W>(&mut self, to: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_control_character) {
            let (before, after) = rest.split_at(at);
            to.write_all(before.as_bytes())?;
            let mut chars = after.chars();
            // All of them are in the basic plane, so one escape each is enough.
            if let Some(control) = chars.next() {
                write!(to, "\\u{:04x}", u32::from(control))?;
            }
            rest = chars.as_str();
        }
        to.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_read_back_the_same() {
        let text = "a\n\x1b\x7f\u{9b}b\u{2028}\u{202e}\u{2066}c\"ä€\u{fffd}\u{1f600}";
        let json = to_string(&[text]).unwrap();
        let expected = concat!(
            r#"["a\n\u001b\u007f\u009bb\u2028\u202e\u2066c\"ä€"#,
            "\u{fffd}\u{1f600}\"]"
        );
        assert_eq!(json, expected);
        let [back]: [String; 1] = serde_json::from_str(&json).unwrap();
        assert_eq!(back, text);
    }
}
