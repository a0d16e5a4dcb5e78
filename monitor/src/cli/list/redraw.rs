//! Repeats a list: over itself on a terminal, block after block in a pipe.

use std::{
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use crate::cli::{
    exit::Failure,
    screen::{self, Shown},
    table::{cut, terminal_height, terminal_width},
};

/// The lines of the screen that have no row: the time, the totals, the head of the table, and the cursor.
const OTHER_LINES: usize = 4;

const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The output of a list that is repeated.
#[derive(Debug)]
pub(super) struct Redraw {
    period: Duration,
    is_first: bool,
}

impl Redraw {
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period,
            is_first: true,
        }
    }

    /// The rows that fit a terminal of this height.
    pub(super) fn rows(height: usize) -> usize {
        height.saturating_sub(OTHER_LINES).max(1)
    }

    /// Shows the lines of `block` below the time with the `remark`, and the totals.
    pub(super) fn show(
        &mut self,
        block: &[u8],
        remark: Option<&str>,
        totals: Option<&str>,
    ) -> Result<Shown, Failure> {
        let block = String::from_utf8_lossy(block);
        let head = head(Timestamp::now(), self.period, remark);
        let is_first = std::mem::replace(&mut self.is_first, false);
        let text = match (terminal_height(), terminal_width()) {
            (Some(height), Some(width)) => {
                let head = [Some(&*head), totals].into_iter().flatten();
                let head: Vec<String> = head.map(|line| cut(line, width)).collect();
                over_itself(&head.join("\n"), &block, height, is_first)
            }
            _ => below(&head, &block, is_first),
        };
        let mut out = io::stdout().lock();
        screen::written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }
}

fn head(ts: Timestamp, period: Duration, remark: Option<&str>) -> String {
    let time = ts.strftime("%H:%M:%S UTC");
    let period = humantime::format_duration(period);
    match remark {
        Some(remark) => format!("{time}, every {period}; {remark}"),
        None => format!("{time}, every {period}"),
    }
}

/// A screen that replaces the one before. Overwriting line by line does not flicker.
fn over_itself(head: &str, block: &str, height: usize, is_first: bool) -> String {
    let mut text = String::from(HOME);
    if is_first {
        text += CLEAR_BELOW;
    }
    let lines = head.lines().chain(block.lines());
    for line in lines.take(height.saturating_sub(1).max(1)) {
        text += line;
        text += CLEAR_LINE;
        text.push('\n');
    }
    text + CLEAR_BELOW
}

fn below(head: &str, block: &str, is_first: bool) -> String {
    let gap = if is_first { "" } else { "\n" };
    format!("{gap}{head}\n{block}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_begins_with_its_time() {
        let ts = "2026-11-22T18:37:52.5Z".parse().expect("a time stamp");
        let every = Duration::from_secs(2);
        assert_eq!(head(ts, every, None), "18:37:52 UTC, every 2s");
        assert_eq!(
            head(ts, every, Some("9 more")),
            "18:37:52 UTC, every 2s; 9 more"
        );
    }

    #[test]
    fn blocks_in_a_pipe_have_an_empty_line_between_them() {
        let blocks = [true, false].map(|is_first| below("time", "A\nx\n", is_first));
        assert_eq!(blocks.concat(), "time\nA\nx\n\ntime\nA\nx\n");
    }

    #[test]
    fn a_screen_overwrites_the_last_one_and_is_never_higher_than_the_terminal() {
        let screen = over_itself("time", "A\nx\ny\n", 24, false);
        assert_eq!(
            screen,
            "\x1b[Htime\x1b[K\nA\x1b[K\nx\x1b[K\ny\x1b[K\n\x1b[J"
        );
        assert!(over_itself("time", "A\n", 24, true).starts_with("\x1b[H\x1b[J"));
        for height in 1..6 {
            let screen = over_itself("time", "A\nx\ny\n", height, false);
            let lines = screen.matches('\n').count();
            assert_eq!(lines, (height - 1).clamp(1, 4), "{height}");
        }
        let totals = over_itself("time\ntotals", "A\nx\n", 24, false);
        assert!(totals.starts_with("\x1b[Htime\x1b[K\ntotals\x1b[K\nA"));
        assert_eq!(Redraw::rows(24), 20);
        assert_eq!(Redraw::rows(1), 1);
    }
}
