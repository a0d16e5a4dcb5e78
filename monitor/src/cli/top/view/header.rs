//! What there is, and what is wrong.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::Widget,
};

use super::Freshness;
use crate::{
    cli::{
        screen::{Age, Grouped, ShortAge},
        top::{
            appearance::{CONFIRMED, HEADING, HEALTHY, WARNING},
            areas::take_top,
            poll_result::PollResult,
        },
    },
    records::{printable::printable, status::StatusRecord},
};

/// Between two counts.
const GAP: &str = "  ";

pub(super) fn draw(
    polled: &PollResult,
    freshness: Freshness<'_>,
    mut area: Rect,
    buffer: &mut Buffer,
) {
    let status = &polled.status;
    let first = take_top(&mut area, 1);
    let age = age(status, freshness);
    counts(status, usize::from(first.width).saturating_sub(age.width())).render(first, buffer);
    age.render(first, buffer);
    problem(status, freshness).render(area, buffer);
}

/// As many counts as fit, the most important first.
fn counts(status: &StatusRecord, width: usize) -> Line<'static> {
    let zombies = match status.zombies.total() {
        1 => "1 zombie".to_owned(),
        total => format!("{} zombies", Grouped(total)),
    };
    let zombies = match (status.zombies.confirmed, status.zombies.suspected) {
        (0, 0) => Span::raw(zombies),
        (0, _) => Span::styled(format!("{zombies} (suspected)"), WARNING),
        (confirmed, _) => {
            let text = format!("{zombies} ({} confirmed)", Grouped(confirmed));
            Span::styled(text, CONFIRMED)
        }
    };
    let at_risk = format!("{} at risk", Grouped(status.at_risk));
    let counts = [
        Span::raw(format!("{} open", Grouped(status.open))),
        zombies,
        match status.at_risk {
            0 => Span::raw(at_risk),
            _ => Span::styled(at_risk, WARNING),
        },
        Span::raw(format!("up {}", ShortAge(Some(status.uptime_seconds)))),
    ];
    let mut line = Line::from(Span::styled("wsmon", HEADING));
    for count in counts {
        if line.width() + GAP.len() + count.width() > width {
            break;
        }
        line.spans.extend([Span::raw(GAP), count]);
    }
    line
}

/// The time of the data, or how old it is if a refresh is overdue.
fn age(status: &StatusRecord, freshness: Freshness<'_>) -> Line<'static> {
    let line = match freshness.is_overdue {
        true => {
            let age = Age(Some(freshness.age.as_secs_f64()));
            Line::styled(format!("  data {age} old"), WARNING)
        }
        false => Line::raw(status.ts.strftime("  %H:%M:%SZ").to_string()),
    };
    line.right_aligned()
}

fn problem(status: &StatusRecord, freshness: Freshness<'_>) -> Line<'static> {
    if let Some(failure) = freshness.failure {
        return Line::styled(format!("no answer: {}", printable(failure)), CONFIRMED);
    }
    match status.problems.as_slice() {
        [] => Line::styled("no problems", HEALTHY),
        [problem] => Line::styled(printable(problem), WARNING),
        [problem, others @ ..] => Line::styled(
            format!("(1 of {}) {}", others.len() + 1, printable(problem)),
            WARNING,
        ),
    }
}
