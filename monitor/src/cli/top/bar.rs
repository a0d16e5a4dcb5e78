//! The silence of a connection as a share of the limit of its path.

use ratatui::{style::Style, text::Span};

use super::{
    appearance::{CONFIRMED, WARNING},
    compact::Compact,
};
use crate::records::connections::{ConnectionRecord, State};

/// The share of the limit from which a silent connection is at risk, as in the daemon.
const AT_RISK: f64 = 0.8;

/// The width of `59m59s/1h`. The rest of the column is the bar.
const FIGURES: usize = 9;

/// Idle for at least 0.8 of the limit, but not past it.
pub(super) fn is_at_risk(record: &ConnectionRecord) -> bool {
    let is_near = |share| (AT_RISK..=1.0).contains(&share);
    record.state == State::Open && share(record).is_some_and(is_near)
}

/// `█████░ 48s/1m` in `width` columns. Without a limit there is no bar.
pub(super) fn idle_bar(record: &ConnectionRecord, width: usize) -> Vec<Span<'static>> {
    let idle = Compact(idle(record));
    let limit = record.idle_limit_seconds;
    let figures = match limit {
        Some(limit) => format!("{idle}/{}", Compact(Some(limit))),
        None => idle.to_string(),
    };
    let cells = width.saturating_sub(FIGURES + 1);
    let share = share(record).unwrap_or_default();
    let full = (share.clamp(0.0, 1.0) * cells as f64).round() as usize;
    let style = match share {
        _ if share > 1.0 => CONFIRMED,
        _ if share >= AT_RISK => WARNING,
        _ => Style::new(),
    };
    let bar = match limit {
        Some(_) => "█".repeat(full) + &"░".repeat(cells - full),
        None => " ".repeat(cells),
    };
    let rest = width - cells.min(width);
    vec![
        Span::styled(bar, style),
        Span::raw(format!("{figures:>rest$}")),
    ]
}

fn share(record: &ConnectionRecord) -> Option<f64> {
    Some(idle(record)? / record.idle_limit_seconds?)
}

/// By the clock that the limit is about, which only payload restarts on some paths.
fn idle(record: &ConnectionRecord) -> Option<f64> {
    record.hop_idle_seconds.or(record.idle_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::tests::{detail, record};

    fn silent(idle: f64, limit: Option<f64>) -> ConnectionRecord {
        let mut record = record(&detail(1), None);
        record.idle_seconds = Some(idle);
        record.hop_idle_seconds = None;
        record.idle_limit_seconds = limit;
        record
    }

    fn drawn(record: &ConnectionRecord, width: usize) -> (String, Style) {
        let spans = idle_bar(record, width);
        let text = spans.iter().map(|span| span.content.as_ref()).collect();
        (text, spans[0].style)
    }

    #[test]
    fn the_bar_is_the_share_of_the_limit() {
        let plain = Style::new();
        for (seconds, text, style) in [
            (0.0, "░░░░░░   0.0s/1m", plain),
            (30.0, "███░░░    30s/1m", plain),
            (48.0, "█████░    48s/1m", WARNING),
            (60.0, "██████     1m/1m", WARNING),
            (312.0, "██████  5m12s/1m", CONFIRMED),
        ] {
            assert_eq!(
                drawn(&silent(seconds, Some(60.0)), 16),
                (text.to_owned(), style)
            );
        }
        assert_eq!(drawn(&silent(48.0, None), 16).0, "             48s");
        assert_eq!(drawn(&silent(48.0, Some(60.0)), 4).0, "48s/1m");
    }

    #[test]
    fn the_clock_of_the_hop_counts() {
        let mut record = silent(5.0, Some(60.0));
        record.hop_idle_seconds = Some(60.0);
        assert_eq!(drawn(&record, 16).0, "██████     1m/1m");
    }

    #[test]
    fn a_connection_is_at_risk_from_four_fifths_of_the_limit_to_the_limit() {
        for (seconds, limit, expected) in [
            (47.9, Some(60.0), false),
            (48.0, Some(60.0), true),
            (60.0, Some(60.0), true),
            (60.1, Some(60.0), false),
            (60.0, None, false),
        ] {
            assert_eq!(is_at_risk(&silent(seconds, limit)), expected, "{seconds}");
        }
        let mut closing = silent(48.0, Some(60.0));
        closing.state = State::Closing;
        assert!(!is_at_risk(&closing));
    }
}
