//! Problems in a configuration file, and their positions.

use std::{fmt, ops::Range};

use crate::{
    config::profiles::{did_you_mean, nearest},
    diagnostics::control_character::is_control_character,
};

/// One error or probable mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// One sentence: the problem and its remedy.
    pub message: String,
    /// The line with the problem, without control characters.
    pub text: String,
    /// The width of the marked text, in characters.
    pub width: usize,
}

/// All problems of a file: at least one, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problem {
    /// A problem at the bytes `span` of the file's text.
    pub(super) fn new(text: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        let start = text.floor_char_boundary(span.start);
        let end = text.floor_char_boundary(span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[line_start..].lines().next().unwrap_or_default();
        let line_end = line_start + line.len();
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            message: message.into(),
            text: line.replace(is_harmful, "\u{fffd}"),
            width: text[start..end.min(line_end).max(start)]
                .chars()
                .count()
                .max(1),
        }
    }

    /// A problem found by `toml` or serde.
    pub(super) fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        Self::new(
            text,
            error.span().unwrap_or(0..0),
            explained(error.message()),
        )
    }
}

/// Whether a terminal must not get this character of the file.
fn is_harmful(c: char) -> bool {
    c != '\t' && is_control_character(c)
}

/// `12:8: what is wrong`, on one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl Problems {
    /// `None` if nothing is wrong.
    pub(super) fn of(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        (!problems.is_empty()).then_some(Self(problems))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// The first problem, on one line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, others @ ..] = self.0.as_slice() else {
            return Ok(());
        };
        first.fmt(f)?;
        match others.len() {
            0 => Ok(()),
            more => write!(f, " (and {more} more: `wsmon config check` shows all)"),
        }
    }
}

/// Rewrites a message of serde; of several possible names it suggests only the nearest.
pub(super) fn explained(message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    let message = message
        .replace("unknown field", "unknown key")
        .replace("unknown variant", "unknown value")
        .replace("missing field", "missing key")
        .replace("duplicate field", "duplicate key");
    let mut names = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown ")
        && let Some(wrong) = names.next()
        && let Some(near) = nearest(wrong, names)
        && let Some((what, expected)) = message.split_once(',')
    {
        return format!("{what}{};{expected}", did_you_mean(Some(near)));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_given_in_lines_and_characters() {
        let text = "a = 1\nü = \"x\"\n";
        let start = text.find('"').expect("a quote");
        let problem = Problem::new(text, start..start + 3, "no");
        assert_eq!((problem.line, problem.column, problem.width), (2, 5, 3));
        assert_eq!(problem.text, "ü = \"x\"");
        let end = Problem::new(text, text.len()..text.len() + 5, "too short");
        assert_eq!((end.line, end.column, end.width), (3, 1, 1));
    }

    #[test]
    fn control_characters_of_the_file_are_not_printed() {
        let problem = Problem::new("\ta = \"\u{202e}\u{1b}b\"", 5..6, "no");
        assert_eq!(problem.text, "\ta = \"\u{fffd}\u{fffd}b\"");
    }

    #[test]
    fn a_misspelt_key_suggests_the_nearest_one() {
        let message = explained("unknown field `prots`, expected one of `name`, `ports`");
        assert!(
            message.starts_with("unknown key `prots` (did you mean \"ports\"?)"),
            "{message}"
        );
        let message = explained("unknown field `zzz`, expected `name`");
        assert_eq!(message, "unknown key `zzz`, expected `name`");
    }
}
