//! The silence of a connection as a share of the limit of its path.

use std::time::Duration;

use ratatui::{style::Style, text::Span};
use unicode_width::UnicodeWidthStr;

use super::appearance::{CONFIRMED, WARNING};
use crate::{
    cli::{screen::ShortAge, table::cut},
    records::connections::{ConnectionRecord, State},
};
use monitor_core::rules::at_risk_threshold;

/// The width of `59m59s/1h`. The rest of the column is the bar, which longer figures shorten.
const FIGURES: usize = 9;

/// Idle for at least 0.8 of the limit, but not past it.
pub(super) fn is_at_risk(record: &ConnectionRecord) -> bool {
    let is_past = |share| share > 1.0;
    let is_open = record.state == State::Open;
    is_open && is_near(record) && !share(record).is_some_and(is_past)
}

/// Whether the idle time is at the threshold, or past it.
fn is_near(record: &ConnectionRecord) -> bool {
    let limit = record.idle_limit_seconds;
    let limit = limit.and_then(|limit| Duration::try_from_secs_f64(limit).ok());
    let near = idle(record).zip(limit);
    near.is_some_and(|(idle, limit)| idle >= at_risk_threshold(limit).as_secs_f64())
}

/// `█████░ 48s/1m` in exactly `width` columns. Without a limit there is no bar.
pub(super) fn idle_bar(record: &ConnectionRecord, width: usize) -> Vec<Span<'static>> {
    let idle = ShortAge(idle(record));
    let limit = record.idle_limit_seconds;
    let figures = match limit {
        Some(limit) => format!("{idle}/{}", ShortAge(Some(limit))),
        None => idle.to_string(),
    };
    let figures = cut(&figures, width);
    let cells = width.saturating_sub(figures.width().max(FIGURES) + 1);
    let share = share(record).unwrap_or_default();
    let full = (share.clamp(0.0, 1.0) * cells as f64).round() as usize;
    let style = match share {
        _ if share > 1.0 => CONFIRMED,
        _ if is_near(record) => WARNING,
        _ => Style::new(),
    };
    let bar = match limit {
        Some(_) => "█".repeat(full) + &"░".repeat(cells - full),
        None => " ".repeat(cells),
    };
    let rest = width - cells;
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
        assert_eq!(drawn(&silent(48.0, Some(60.0)), 4).0, "48s…");
    }

    #[test]
    fn long_figures_shorten_the_bar_and_are_cut_to_the_column() {
        for (seconds, limit, width, text) in [
            (252.0, 350.0, 16, "███░ 4m12s/5m50s"),
            (12_000.0, 350.0, 16, "████ 3h20m/5m50s"),
            (12_000.0, 12_000.0, 16, "████ 3h20m/3h20m"),
            (12_000.0, 12_000.0, 9, "3h20m/3h…"),
        ] {
            assert_eq!(drawn(&silent(seconds, Some(limit)), width).0, text);
        }
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
