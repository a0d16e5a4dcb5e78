//! Panes whose rows are the lines of a table.

use ratatui::{buffer::Buffer, layout::Rect, style::Style, text::Line, widgets::Widget};

use crate::{
    cli::{
        list::clients as client_table,
        screen::ShortAge,
        table::{Column, Table},
        top::{
            appearance::{CONFIRMED, HEADING, SELECTED, WARNING, short_verdict, verdict_style},
            areas::take_top,
            poll_result::PollResult,
            state::Cursor,
        },
    },
    records::{alert_text::AlertLine, status::ListenerStatus},
};

/// Before the selected row, and before the others.
pub(super) const MARKERS: [&str; 2] = [">", " "];

/// The headings and the rows, each a line with its style.
pub(super) struct List {
    lines: Vec<String>,
    styles: Vec<Style>,
    /// Shown if there are no rows.
    nothing: &'static str,
}

impl List {
    fn new<T>(
        records: &[T],
        columns: Vec<Column>,
        row: impl Fn(&T) -> Vec<String>,
        style: impl Fn(&T) -> Style,
        width: u16,
    ) -> Self {
        let width = usize::from(width.saturating_sub(2));
        let mut table = Table::new(columns, Some(width));
        let mut lines: Vec<_> = records
            .iter()
            .flat_map(|record| table.push(row(record)))
            .collect();
        lines.extend(table.finish());
        Self {
            lines,
            styles: records.iter().map(style).collect(),
            nothing: "",
        }
    }

    /// Without a cursor, from the first row.
    pub(super) fn draw(&self, cursor: Option<Cursor>, mut area: Rect, buffer: &mut Buffer) {
        let [heading, rows @ ..] = self.lines.as_slice() else {
            return Line::raw(self.nothing).render(area, buffer);
        };
        let top = take_top(&mut area, 1);
        Line::styled(format!("  {heading}"), HEADING).render(top, buffer);
        let Cursor { first, .. } = cursor.unwrap_or_default();
        for (place, (row, style)) in rows.iter().zip(&self.styles).enumerate().skip(first) {
            if area.height == 0 {
                break;
            }
            let line = take_top(&mut area, 1);
            let is_selected = cursor.is_some_and(|cursor| cursor.selected == place);
            let marker = MARKERS[usize::from(!is_selected)];
            Line::styled(format!("{marker} {row}"), *style).render(line, buffer);
            if is_selected {
                buffer.set_style(line, SELECTED);
            }
        }
    }
}

pub(super) fn alerts(polled: &PollResult, width: u16) -> List {
    let columns = vec![
        Column::new("SINCE"),
        Column::new("ALERT").shortened_to(15),
        Column::new("SUBJECT").shortened_to(20),
        Column::new("REASON").shortened_to(12),
    ];
    let row = |alert: &AlertLine| {
        vec![
            alert.ts.strftime("%H:%M:%S").to_string(),
            match &alert.certainty {
                Some(certainty) => short_verdict(&alert.kind, certainty),
                None => alert.kind.clone(),
            },
            match &alert.conn {
                // The owner is in the details, so that the reason has room.
                Some(conn) => conn.peer.to_string(),
                None => alert.subject(),
            },
            alert.reason(),
        ]
    };
    let style = |alert: &AlertLine| {
        let certainty = alert.certainty.as_deref();
        certainty.map_or(WARNING, verdict_style)
    };
    List {
        nothing: "no alerts",
        ..List::new(&polled.alerts.records, columns, row, style, width)
    }
}

pub(super) fn clients(polled: &PollResult, width: u16) -> List {
    List {
        nothing: "no clients: none was seen to connect since the daemon started",
        ..List::new(
            &polled.clients.records,
            client_table::columns(),
            client_table::row,
            |_| Style::new(),
            width,
        )
    }
}

pub(super) fn listeners(polled: &PollResult, width: u16) -> List {
    let columns = vec![
        Column::new("LISTENER").shortened_to(10),
        Column::new("PORTS").shortened_to(10).left_out(5),
        Column::number("OPEN"),
        Column::number("AT RISK").left_out(4),
        Column::number("ZOMBIES"),
        Column::new("LIMIT").shortened_to(12),
        Column::number("P99 GAP").left_out(2),
        Column::number("MARGIN"),
        Column::new("LEARNED").left_out(1),
        Column::new("STORM").left_out(3),
    ];
    List::new(
        &polled.status.listeners,
        columns,
        listener_row,
        |listener| match listener {
            ListenerStatus { storm: Some(_), .. } => CONFIRMED,
            listener if listener.zombies.confirmed > 0 => CONFIRMED,
            listener if listener.zombies.total() + listener.at_risk > 0 => WARNING,
            _ => Style::new(),
        },
        width,
    )
}

/// A listener as a row of the table. The timeout was learned to be between two silences: one that a
/// connection survived, and a longer one that killed one.
fn listener_row(listener: &ListenerStatus) -> Vec<String> {
    let length = |seconds| ShortAge(seconds).to_string();
    let limit = match (listener.idle_limit_seconds, &listener.hop) {
        (Some(_), Some(hop)) => {
            let limit = ShortAge(listener.idle_limit_seconds);
            format!("{limit} ({hop})")
        }
        (limit, _) => length(limit),
    };
    let learned = [
        listener.learned_lower_seconds,
        listener.learned_upper_seconds,
    ];
    vec![
        listener.listener.clone(),
        listener.ports.clone(),
        listener.open.to_string(),
        listener.at_risk.to_string(),
        listener.zombies.total().to_string(),
        limit,
        length(listener.idle_gap_p99_seconds),
        length(listener.heartbeat_margin_seconds),
        match learned {
            [None, None] => "-".to_owned(),
            [Some(_), None] => format!(">{}", length(learned[0])),
            [None, Some(_)] => format!("<{}", length(learned[1])),
            [Some(_), Some(_)] => format!("{}-{}", length(learned[0]), length(learned[1])),
        },
        listener.storm.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}
