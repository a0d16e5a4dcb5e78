//! Colours on a terminal.

use std::{env, io::IsTerminal};

/// Whether a stream gets colours without a flag that says so.
pub fn is_wanted(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && allows_color(|name| env::var(name))
}

/// Whether the environment allows colours on a terminal (<https://no-color.org>).
fn allows_color(var: impl Fn(&str) -> Result<String, env::VarError>) -> bool {
    let is_set = |text: String| !text.is_empty();
    !var("NO_COLOR").is_ok_and(is_set) && var("TERM").is_ok_and(|term| term != "dumb")
}

/// A colour for what needs attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Something is wrong.
    Red,
    /// Something may be wrong.
    Yellow,
}

impl Color {
    /// That of a verdict, by its certainty.
    pub fn of_certainty(certainty: &str) -> Option<Self> {
        match certainty {
            "confirmed" => Some(Self::Red),
            "suspected" | "inferred" => Some(Self::Yellow),
            _ => None,
        }
    }

    pub fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Red => 31,
            Self::Yellow => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use monitor_core::Certainty;

    #[test]
    fn the_environment_can_refuse_colors() {
        let allowed = |set: &[(&str, &str)]| {
            allows_color(|name| {
                let found = set.iter().find(|(known, _)| *known == name);
                let value = found.map(|(_, value)| (*value).to_owned());
                value.ok_or(env::VarError::NotPresent)
            })
        };
        assert!(allowed(&[("TERM", "xterm")]));
        assert!(allowed(&[("TERM", "xterm"), ("NO_COLOR", "")]));
        assert!(!allowed(&[("TERM", "xterm"), ("NO_COLOR", "1")]));
        assert!(!allowed(&[("TERM", "dumb")]));
        assert!(!allowed(&[]), "not a terminal with known abilities");
    }

    #[test]
    fn every_certainty_has_a_color() {
        let color = |certainty: Certainty| Color::of_certainty(certainty.as_str());
        assert_eq!(color(Certainty::Confirmed), Some(Color::Red));
        assert_eq!(color(Certainty::Suspected), Some(Color::Yellow));
        assert_eq!(color(Certainty::Inferred), Some(Color::Yellow));
        assert_eq!(Color::of_certainty("-"), None);
        assert_eq!(Color::Red.paint("a"), "\x1b[31ma\x1b[0m");
    }
}
