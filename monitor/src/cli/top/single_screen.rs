//! Prints one screen and ends.

use std::{env, io, process::ExitCode};

use ratatui::{
    buffer::{Buffer, Cell},
    layout::Rect,
    style::{Color, Modifier},
};
use unicode_width::UnicodeWidthStr;

use super::{
    TopArgs,
    appearance::Appearance,
    poll_result::{PollResult, poll},
    state::ViewState,
    view::{Freshness, View},
};
use crate::cli::{
    exit::CommandResult,
    screen,
    table::{terminal_height, terminal_width},
};

/// The size of a screen that isn't a terminal.
const SIZE: (u16, u16) = (80, 24);

pub(super) async fn print(args: &TopArgs) -> CommandResult {
    let (width, height) = size();
    let mut state = ViewState::new(args.sort, args.search.as_ref(), width, height);
    let response = poll(&args.control, &state.request()).await?;
    let polled = PollResult::new(response);
    state.update(&polled);
    let view = View {
        state: &state,
        polled: &polled,
        freshness: Freshness::default(),
        has_keys: false,
    };
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    view.draw(&mut buffer);
    Appearance::of_stdout(args.color).apply(&mut buffer);
    screen::write_lines(&mut io::stdout(), &lines(&buffer))?;
    Ok(ExitCode::SUCCESS)
}

/// That of the terminal on stdout without the line of the next prompt, or else of `COLUMNS` and `LINES`.
fn size() -> (u16, u16) {
    let columns = terminal_width().and_then(|width| u16::try_from(width).ok());
    let lines = terminal_height().and_then(|height| u16::try_from(height).ok());
    let set = |name| env::var(name).ok()?.parse().ok().filter(|size| *size > 0);
    (
        columns.or_else(|| set("COLUMNS")).unwrap_or(SIZE.0),
        match lines {
            Some(lines) => lines.saturating_sub(1).max(1),
            None => set("LINES").unwrap_or(SIZE.1),
        },
    )
}

/// The screen as text with escape sequences for its styles, without blank lines at the end.
pub(super) fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width).max(1);
    let rows = buffer.content.chunks(width).map(line);
    let mut lines: Vec<String> = rows.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn line(cells: &[Cell]) -> String {
    let is_blank = |cell: &Cell| cell.symbol() == " " && codes(cell).is_empty();
    let end = cells.iter().rposition(|cell| !is_blank(cell));
    let mut line = String::new();
    let mut present = String::new();
    let mut covered = 0;
    for cell in cells.iter().take(end.map_or(0, |end| end + 1)) {
        // A wide character covers the next cell too.
        if covered > 0 {
            covered -= 1;
            continue;
        }
        covered = cell.symbol().width().saturating_sub(1);
        let codes = codes(cell);
        if codes != present {
            line += &format!("\x1b[0{codes}m");
            present = codes;
        }
        line += cell.symbol();
    }
    if !present.is_empty() {
        line += "\x1b[0m";
    }
    line
}

/// The parameters of Select Graphic Rendition after a reset, each after a semicolon.
fn codes(cell: &Cell) -> String {
    let color = match cell.fg {
        Color::Red => ";31",
        Color::Green => ";32",
        Color::Yellow => ";33",
        _ => "",
    };
    let has = |modifier, code| {
        if cell.modifier.contains(modifier) {
            code
        } else {
            ""
        }
    };
    [
        color,
        has(Modifier::BOLD, ";1"),
        has(Modifier::REVERSED, ";7"),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use ratatui::style::Style;

    use super::*;
    use crate::cli::top::appearance::{CONFIRMED, WARNING};

    #[test]
    fn a_screen_is_text_with_its_styles() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 4));
        buffer.set_string(0, 0, "a ", Style::new());
        buffer.set_string(2, 0, "bad", CONFIRMED);
        buffer.set_string(0, 1, "漢 x", Style::new());
        buffer.set_string(0, 2, "late", WARNING);
        assert_eq!(
            lines(&buffer),
            ["a \x1b[0;31;1mbad\x1b[0m", "漢 x", "\x1b[0;33mlate\x1b[0m"]
        );
    }
}
