//! Text of others that is safe to print.

/// Escapes what moves the cursor, breaks the line or changes the direction of a line. Quotes and
/// backslashes stay as they are, so text that was escaped before stays the same.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => printable.push(c),
            _ => printable.extend(c.escape_debug()),
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_changes_of_direction_are_escaped_once() {
        let text =
            "it's \"ü\"\n\u{1b}[2J\u{9b}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200f}\u{2028}漢";
        let safe = r#"it's "ü"\n\u{1b}[2J\u{9b}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200f}\u{2028}漢"#;
        assert_eq!(printable(text), safe);
        assert_eq!(printable(safe), safe);
    }
}
