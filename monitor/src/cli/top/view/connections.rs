//! The pane of connections.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::Widget,
};
use unicode_width::UnicodeWidthStr;

use super::list::MARKERS;
use crate::{
    cli::{
        screen::Amount,
        table::cut,
        top::{
            appearance::{HEADING, SELECTED, WARNING, short_verdict, verdict_style},
            areas::take_top,
            bar::{idle_bar, is_at_risk},
            compact::{Compact, ShortRoundTrip},
            polled::ConnectionPage,
            state::Cursor,
        },
    },
    records::{
        connections::{ConnectionRecord, DirectionRecord, State},
        heartbeat,
        owner_text::short_owner_text,
        rates::DirectionRates,
    },
};

/// A column. Unlike those of a printed table, its width depends on the screen alone, so that rows stay in
/// place from one refresh to the next.
struct Column {
    title: &'static str,
    least: usize,
    is_number: bool,
    /// Columns with a higher rank are left out first. Those of rank 0 stay.
    rank: u8,
    cell: Cell,
}

enum Cell {
    Verdict,
    IdleBar,
    Text(fn(&ConnectionRecord) -> String),
}

static COLUMNS: [Column; 11] = [
    Column {
        cell: Cell::Verdict,
        ..Column::text("VERDICT", VERDICT, 0, |_| String::new())
    },
    Column::text("PEER", 21, 0, |record| record.peer.to_string()),
    Column::text("LISTENER", 8, 5, |record| {
        record.listener.escape_debug().to_string()
    }),
    Column {
        cell: Cell::IdleBar,
        ..Column::text("IDLE/LIMIT", 16, 1, |_| String::new())
    },
    Column::number("PING IN", 7, 3, |record| {
        Compact(heartbeat::next_expected(record)).to_string()
    }),
    Column::number("RTT", 5, 4, |record| {
        ShortRoundTrip(round_trip(record)).to_string()
    }),
    Column::number("RETR", 4, 7, |record| record.tcp.retransmits.to_string()),
    Column::number("QUEUE", 5, 6, |record| {
        let bytes = record.tcp.send_queue_bytes;
        bytes.map_or_else(unknown, |bytes| Amount(bytes.into()).to_string())
    }),
    Column::number("RX/S", 5, 8, |record| {
        rate(record, record.rates.map(|rates| rates.rx))
    }),
    Column::number("TX/S", 5, 9, |record| {
        rate(record, record.rates.map(|rates| rates.tx))
    }),
    Column::text("OWNER", 11, 2, owner),
];

/// The width of `unresponsive!`.
const VERDICT: usize = 13;

/// The width of `unresponsive (suspected)`.
const WHOLE_VERDICT: usize = 24;

/// Which columns get the room that is left, by title, and up to which width.
const GROWTH: [(&str, usize); 6] = [
    ("OWNER", 20),
    ("VERDICT", WHOLE_VERDICT),
    ("IDLE/LIMIT", 30),
    ("LISTENER", 16),
    ("PEER", 47),
    ("OWNER", 60),
];

impl Column {
    const fn text(
        title: &'static str,
        least: usize,
        rank: u8,
        cell: fn(&ConnectionRecord) -> String,
    ) -> Self {
        Self {
            title,
            least,
            is_number: false,
            rank,
            cell: Cell::Text(cell),
        }
    }

    const fn number(
        title: &'static str,
        least: usize,
        rank: u8,
        cell: fn(&ConnectionRecord) -> String,
    ) -> Self {
        Self {
            is_number: true,
            ..Self::text(title, least, rank, cell)
        }
    }

    /// The cell in exactly `width` columns.
    fn cell(&self, record: &ConnectionRecord, width: usize) -> Vec<Span<'static>> {
        match self.cell {
            Cell::IdleBar => idle_bar(record, width),
            Cell::Verdict => {
                let (text, style) = verdict(record, width);
                vec![Span::styled(self.aligned(&text, width), style)]
            }
            Cell::Text(text) => vec![Span::raw(self.aligned(&text(record), width))],
        }
    }

    fn aligned(&self, text: &str, width: usize) -> String {
        let text = cut(text, width);
        let space = " ".repeat(width.saturating_sub(text.width()));
        match self.is_number {
            true => space + &text,
            false => text + &space,
        }
    }
}

pub(super) fn draw(
    page: &ConnectionPage,
    cursor: Option<Cursor>,
    mut area: Rect,
    buffer: &mut Buffer,
) {
    let columns = layout(usize::from(area.width));
    let heading = take_top(&mut area, 1);
    let titles = columns
        .iter()
        .map(|(column, width)| format!(" {}", column.aligned(column.title, *width)));
    Line::styled(format!(" {}", titles.collect::<String>()), HEADING).render(heading, buffer);
    if page.records.is_empty() {
        return Line::raw("  no connections").render(area, buffer);
    }
    let Cursor { first, .. } = cursor.unwrap_or_default();
    let places = page.offset..;
    let shown = places
        .zip(&page.records)
        .skip_while(|(place, _)| *place < first);
    for (place, record) in shown {
        if area.height == 0 {
            break;
        }
        let row = take_top(&mut area, 1);
        let is_selected = cursor.is_some_and(|cursor| cursor.selected == place);
        let mut spans = vec![Span::raw(MARKERS[usize::from(!is_selected)])];
        for (column, width) in &columns {
            spans.push(Span::raw(" "));
            spans.extend(column.cell(record, *width));
        }
        Line::from(spans).render(row, buffer);
        if is_selected {
            buffer.set_style(row, SELECTED);
        }
    }
}

/// The columns that fit a screen, and their widths.
fn layout(screen: usize) -> Vec<(&'static Column, usize)> {
    let mut by_rank: Vec<usize> = (0..COLUMNS.len()).collect();
    by_rank.sort_by_key(|at| COLUMNS[*at].rank);
    let mut room = screen.saturating_sub(MARKERS[0].len());
    let mut widths = [None; COLUMNS.len()];
    for at in by_rank {
        let Column { least, rank, .. } = COLUMNS[at];
        if rank > 0 && room < least + 1 {
            break;
        }
        widths[at] = Some(least);
        room = room.saturating_sub(least + 1);
    }
    for (title, most) in GROWTH {
        let at = COLUMNS.iter().position(|column| column.title == title);
        if let Some(width) = at.and_then(|at| widths[at].as_mut()) {
            let growth = most.saturating_sub(*width).min(room);
            // Half of a longer verdict says no more than the short one.
            if title != "VERDICT" || *width + growth == most {
                *width += growth;
                room -= growth;
            }
        }
    }
    let present = COLUMNS.iter().zip(widths);
    present
        .filter_map(|(column, width)| Some((column, width?)))
        .collect()
}

/// The verdict, or else what is unusual about the connection.
fn verdict(record: &ConnectionRecord, width: usize) -> (String, Style) {
    let Some(verdict) = &record.verdict else {
        return match record.state {
            State::Open if is_at_risk(record) => ("at risk".to_owned(), WARNING),
            State::Open => (unknown(), Style::new()),
            state => (state.as_str().to_owned(), Style::new()),
        };
    };
    let style = verdict_style(&verdict.certainty);
    if width >= WHOLE_VERDICT {
        return (format!("{} ({})", verdict.kind, verdict.certainty), style);
    }
    (short_verdict(&verdict.kind, &verdict.certainty), style)
}

/// Of the direction with the later ping.
fn round_trip(record: &ConnectionRecord) -> Option<f64> {
    let age = |side: &DirectionRecord| Some((side.last_ping_seconds?, side.ping_rtt_seconds?));
    let sides = [&record.rx, &record.tx].into_iter().filter_map(age);
    sides
        .min_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, rtt)| rtt)
}

/// Frames inside TLS are not seen.
fn rate(record: &ConnectionRecord, rates: Option<DirectionRates>) -> String {
    match rates.filter(|_| record.protocol != "opaque") {
        Some(rates) => Amount(rates.payload_bytes_per_second).to_string(),
        None => unknown(),
    }
}

fn owner(record: &ConnectionRecord) -> String {
    let text = short_owner_text(&record.owner);
    text.unwrap_or_else(unknown)
}

fn unknown() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(screen: usize) -> Vec<&'static str> {
        layout(screen)
            .iter()
            .map(|(column, _)| column.title)
            .collect()
    }

    #[test]
    fn columns_are_left_out_by_rank_and_the_row_fits_the_screen() {
        let narrow = ["VERDICT", "PEER", "IDLE/LIMIT", "PING IN", "RTT", "OWNER"];
        assert_eq!(titles(80), narrow);
        let all: Vec<_> = COLUMNS.iter().map(|column| column.title).collect();
        assert_eq!(titles(112), all);
        assert_eq!(titles(1), ["VERDICT", "PEER"]);
        for screen in 37..300 {
            let used: usize = layout(screen).iter().map(|(_, width)| width + 1).sum();
            assert!(used < screen, "{screen}: {used}");
        }
    }

    #[test]
    fn every_column_that_grows_exists() {
        for (title, most) in GROWTH {
            let column = COLUMNS.iter().find(|column| column.title == title);
            assert!(column.is_some_and(|column| column.least < most), "{title}");
        }
    }
}
