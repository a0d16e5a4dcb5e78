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
        screen::{Age, Grouped},
        top::{
            appearance::{CONFIRMED, HEADING, HEALTHY, WARNING},
            areas::take_top,
            compact::Compact,
            polled::Polled,
        },
    },
    records::status::StatusRecord,
};

pub(super) fn draw(polled: &Polled, freshness: Freshness<'_>, mut area: Rect, buffer: &mut Buffer) {
    let status = &polled.status;
    let first = take_top(&mut area, 1);
    counts(status).render(first, buffer);
    age(status, freshness).render(first, buffer);
    trouble(status, freshness).render(area, buffer);
}

fn counts(status: &StatusRecord) -> Line<'static> {
    let mut spans = vec![
        Span::styled("wsmon", HEADING),
        Span::raw(format!(
            "  up {}  {} open",
            Compact(Some(status.uptime_seconds)),
            Grouped(status.open)
        )),
    ];
    if status.closing > 0 {
        spans.push(Span::raw(format!("  {} closing", Grouped(status.closing))));
    }
    let zombies = status.zombies;
    let text = match zombies.total() {
        1 => "  1 zombie".to_owned(),
        total => format!("  {} zombies", Grouped(total)),
    };
    spans.push(match (zombies.confirmed, zombies.suspected) {
        (0, 0) => Span::raw(text),
        (0, _) => Span::styled(format!("{text} (suspected)"), WARNING),
        (confirmed, _) => Span::styled(format!("{text} ({} confirmed)", Grouped(confirmed)), CONFIRMED),
    });
    let at_risk = format!("  {} at risk", Grouped(status.at_risk));
    spans.push(match status.at_risk {
        0 => Span::raw(at_risk),
        _ => Span::styled(at_risk, WARNING),
    });
    Line::from(spans)
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

fn trouble(status: &StatusRecord, freshness: Freshness<'_>) -> Line<'static> {
    if let Some(failure) = freshness.failure {
        return Line::styled(format!("no answer: {}", failure.escape_debug()), CONFIRMED);
    }
    match status.problems.as_slice() {
        [] => Line::styled("no problems", HEALTHY),
        [problem] => Line::styled(problem.escape_debug().to_string(), WARNING),
        [problem, others @ ..] => Line::styled(
            format!("(1 of {}) {}", others.len() + 1, problem.escape_debug()),
            WARNING,
        ),
    }
}
