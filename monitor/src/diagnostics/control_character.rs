//! Characters that must not reach a terminal as they are.

/// Control characters of Unicode, the separators of lines and paragraphs, and the marks of direction.
pub(crate) fn is_control_character(c: char) -> bool {
    let is_mark = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
    );
    c.is_control() || is_mark || matches!(c, '\u{2066}'..='\u{2069}')
}
