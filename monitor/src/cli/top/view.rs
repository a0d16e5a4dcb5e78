//! Draws the view.

mod connections;
mod header;
mod list;

use std::time::Duration;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::Widget,
};
use unicode_width::UnicodeWidthStr;

use super::{
    appearance::{HEADING, SELECTED, WARNING},
    areas::{Areas, take_top},
    overlay,
    poll_result::PollResult,
    state::{Pane, ViewState},
};
use crate::{
    cli::{screen::Grouped, table::cut},
    records::printable::printable,
};

/// One screen.
pub(super) struct View<'a> {
    pub(super) state: &'a ViewState,
    pub(super) polled: &'a PollResult,
    pub(super) freshness: Freshness<'a>,
    /// Whether there are keys to press: without them, nothing is selected.
    pub(super) has_keys: bool,
}

/// How old the data is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Freshness<'a> {
    pub(super) age: Duration,
    /// Whether a refresh is overdue.
    pub(super) is_overdue: bool,
    /// Why the last refresh failed.
    pub(super) failure: Option<&'a str>,
}

impl View<'_> {
    pub(super) fn draw(&self, buffer: &mut Buffer) {
        let areas = self.state.areas();
        header::draw(self.polled, self.freshness, areas.header, buffer);
        self.draw_tabs(areas.tabs, buffer);
        self.draw_body(&areas, buffer);
        if areas.strip.height > 0 && self.state.overlay.is_none() {
            let mut strip = areas.strip;
            let title = take_top(&mut strip, 1);
            // Below the title and the column headings.
            let rows = usize::from(strip.height.saturating_sub(1));
            let more = self.polled.status.listeners.len().saturating_sub(rows);
            let text = match more {
                0 => "Listeners".to_owned(),
                more => format!("Listeners  +{more} more"),
            };
            Line::styled(text, HEADING).render(title, buffer);
            list::listeners(self.polled, strip.width).draw(None, strip, buffer);
        }
        if self.has_keys {
            self.footer().render(areas.footer, buffer);
        }
    }

    fn draw_body(&self, areas: &Areas, buffer: &mut Buffer) {
        let Some(overlay) = &self.state.overlay else {
            return self.draw_pane(areas.body, buffer);
        };
        let body = self.state.overlay_area();
        let lines = overlay::lines(overlay, self.polled, body.width);
        let mut rest = body;
        for line in lines.into_iter().skip(self.state.scrolled.into()) {
            if rest.height == 0 {
                break;
            }
            Line::raw(line).render(take_top(&mut rest, 1), buffer);
        }
    }

    fn draw_pane(&self, body: Rect, buffer: &mut Buffer) {
        let cursor = Some(self.state.cursor()).filter(|_| self.has_keys);
        let list = match self.state.pane {
            Pane::Connections => {
                return connections::draw(&self.polled.connections, cursor, body, buffer);
            }
            Pane::Alerts => list::alerts(self.polled, body.width),
            Pane::Listeners => list::listeners(self.polled, body.width),
            Pane::Clients => list::clients(self.polled, body.width),
        };
        list.draw(cursor, body, buffer);
    }

    fn draw_tabs(&self, area: Rect, buffer: &mut Buffer) {
        let mut spans = Vec::new();
        for (number, pane) in (1..).zip(Pane::ALL).filter(|_| self.has_keys) {
            let title = format!(" {number} {} ", pane.title());
            spans.push(match pane == self.state.pane {
                true => Span::styled(format!("[{}]", title.trim()), HEADING),
                false => Span::raw(title),
            });
        }
        if self.state.is_paused {
            spans.push(Span::styled("  PAUSED", WARNING));
        }
        let tabs = Line::from(spans);
        let used = u16::try_from(tabs.width()).unwrap_or(u16::MAX);
        tabs.render(area, buffer);
        let rest = area.width.saturating_sub(used.saturating_add(2));
        let right = Rect {
            x: area.x + area.width - rest,
            width: rest,
            ..area
        };
        let chosen = self.chosen(rest.into());
        Line::raw(chosen).right_aligned().render(right, buffer);
    }

    /// As much of the rows, the order and the conditions of the connections as fits, the last ones first; of
    /// alerts and clients, how many are left out.
    fn chosen(&self, width: usize) -> String {
        let ViewState {
            order, conditions, ..
        } = self.state;
        match self.state.pane {
            Pane::Connections => {}
            Pane::Alerts => return cut(&self.polled.alerts.left_out(), width),
            Pane::Clients => return cut(&self.polled.clients.left_out(), width),
            Pane::Listeners => return String::new(),
        }
        let mut parts = Vec::new();
        let page = &self.polled.connections;
        if !page.records.is_empty() && (page.may_go_on || page.offset > 0) {
            let last = page.offset + page.records.len();
            let total = match conditions.is_empty() {
                true => format!(" of {}", Grouped(page.total as u64)),
                false => String::new(),
            };
            parts.push(format!("{}-{last}{total}", page.offset + 1));
        }
        parts.push(format!("sort {}", order.as_str()));
        if !conditions.is_empty() {
            parts.push(conditions.text());
        }
        let fitting = (0..parts.len())
            .map(|from| parts[from..].join("  "))
            .find(|text| text.width() <= width);
        fitting.unwrap_or_else(|| cut(parts.last().map_or("", String::as_str), width))
    }

    fn footer(&self) -> Line<'static> {
        if let Some(typed) = &self.state.typed {
            return Line::from(vec![
                Span::styled("search: ", HEADING),
                Span::raw(printable(typed)),
                Span::styled(" ", SELECTED),
                Span::raw("  Enter applies, Esc cancels"),
            ]);
        }
        let keys: &[[&str; 2]] = match (&self.state.overlay, self.state.pane) {
            (Some(_), _) => &[["Esc", "back"], ["j k", "scroll"], ["p", "pause"]],
            (None, Pane::Connections) => &[
                ["Enter", "details"],
                ["/", "search"],
                ["s S", "sort"],
                ["p", "pause"],
                ["Tab", "panes"],
                ["?", "help"],
                ["q", "quit"],
            ],
            (None, Pane::Alerts) => &[
                ["Enter", "details"],
                ["p", "pause"],
                ["Tab", "panes"],
                ["?", "help"],
                ["q", "quit"],
            ],
            (None, Pane::Listeners | Pane::Clients) => &[
                ["Enter", "its connections"],
                ["p", "pause"],
                ["Tab", "panes"],
                ["?", "help"],
                ["q", "quit"],
            ],
        };
        let spans = keys.iter().flat_map(|[key, what]| {
            [
                Span::styled(*key, HEADING),
                Span::raw(format!(" {what}   ")),
            ]
        });
        Line::from_iter(spans)
    }
}

#[cfg(test)]
mod tests;
