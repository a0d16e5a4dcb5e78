//! Which colours and characters the terminal shows.

use std::env;

use ratatui::{
    buffer::{Buffer, Cell},
    style::{Color, Modifier, Style},
};

use crate::{
    cli::color::{self, ColorArgs},
    records::printable::printable,
};

/// The view is drawn with colours and Unicode. This takes away what the terminal cannot show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appearance {
    pub(super) has_color: bool,
    pub(super) has_unicode: bool,
}

pub(super) const HEADING: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);
pub(super) const CONFIRMED: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
pub(super) const WARNING: Style = Style::new().fg(Color::Yellow);
pub(super) const HEALTHY: Style = Style::new().fg(Color::Green);

/// The style of a verdict with this certainty.
pub(super) fn verdict_style(certainty: &str) -> Style {
    match color::Color::of_certainty(certainty) {
        Some(color::Color::Red) => CONFIRMED,
        Some(color::Color::Yellow) | None => WARNING,
    }
}

/// A verdict in a narrow column: `expired?` is suspected, `expired!` is confirmed.
pub(super) fn short_verdict(kind: &str, certainty: &str) -> String {
    let mark = match certainty {
        "confirmed" => '!',
        _ => '?',
    };
    format!("{}{mark}", printable(kind))
}

impl Appearance {
    /// That of stdout, by the flag and the locale.
    pub(super) fn of_stdout(color: ColorArgs) -> Self {
        Self {
            has_color: color.is_on(),
            has_unicode: is_utf8(|name| env::var(name).ok()),
        }
    }

    pub(super) fn apply(self, buffer: &mut Buffer) {
        for cell in &mut buffer.content {
            if !self.has_color {
                cell.set_style(Style::reset());
            }
            if !self.has_unicode {
                to_ascii(cell);
            }
        }
    }
}

/// Whether the locale's characters are UTF-8, by the first variable that is set (locale(7)).
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable)
        .find(|value| !value.is_empty());
    set.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.ends_with("utf-8") || locale.ends_with("utf8")
    })
}

fn to_ascii(cell: &mut Cell) {
    let ascii = match cell.symbol() {
        symbol if symbol.is_ascii() => return,
        "█" => "#",
        "░" => ".",
        "…" => "~",
        _ => "?",
    };
    cell.set_symbol(ascii);
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;

    use super::*;

    #[test]
    fn the_first_variable_that_is_set_decides_the_characters() {
        let of = |set: &[(&str, &str)]| {
            is_utf8(|name| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(of(&[("LANG", "en_GB.UTF-8")]));
        assert!(of(&[("LANG", "C"), ("LC_CTYPE", "C.utf8")]));
        assert!(of(&[("LC_ALL", ""), ("LANG", "de_DE.UTF-8")]));
        assert!(!of(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")]));
        assert!(!of(&[("LANG", "de_DE.ISO-8859-1")]));
        assert!(!of(&[]));
    }

    #[test]
    fn what_the_terminal_cannot_show_is_replaced() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 6, 1));
        buffer.set_string(0, 0, "█░…é a", CONFIRMED);
        let plain = Appearance {
            has_color: false,
            has_unicode: false,
        };
        plain.apply(&mut buffer);
        let text: String = buffer.content.iter().map(Cell::symbol).collect();
        assert_eq!(text, "#.~? a");
        let unstyled = Buffer::empty(buffer.area).content[0].style();
        assert!(buffer.content.iter().all(|cell| cell.style() == unstyled));
    }
}
