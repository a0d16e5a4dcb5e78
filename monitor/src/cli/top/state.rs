//! What the person at the keys has chosen to see.

mod keys;

use clap::ValueEnum;
use ratatui::layout::Rect;

use super::{
    areas::Areas,
    overlay,
    polled::{Polled, Question},
};
use crate::records::{alert_text::AlertLine, list_order::ListOrder};
use monitor_core::ConnId;

/// The daemon passes over the connections before a page, so the list ends here. A filter finds the others.
const DEEPEST: usize = 1_000;

/// Maximum length of a filter in characters.
const LONGEST_FILTER: usize = 64;

/// One of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Connections,
    Alerts,
    Listeners,
    Clients,
}

/// What covers the pane.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Overlay {
    Help,
    Connection(ConnId),
    /// An alert that isn't about one connection, in full.
    Alert(Box<AlertLine>),
}

/// What must happen after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Draw,
    /// Something else is shown, so the daemon is asked.
    Poll,
    Quit,
}

/// The shown part of a list and the selected row, both as places in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) first: usize,
    pub(super) selected: usize,
}

#[derive(Clone, Debug)]
pub(super) struct ViewState {
    pub(super) pane: Pane,
    pub(super) overlay: Option<Overlay>,
    /// Lines of the overlay above the screen.
    pub(super) scrolled: u16,
    pub(super) order: ListOrder,
    /// Text that a connection must have; empty for all.
    pub(super) filter: String,
    /// The filter while it is typed.
    pub(super) typed: Option<String>,
    pub(super) is_paused: bool,
    cursors: [Cursor; Pane::ALL.len()],
    /// The selected connection, which stays selected when its place changes.
    chosen: Option<ConnId>,
    screen: Rect,
    listeners: usize,
}

impl Pane {
    pub(super) const ALL: [Self; 4] = [
        Self::Connections,
        Self::Alerts,
        Self::Listeners,
        Self::Clients,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Connections => "Connections",
            Self::Alerts => "Alerts",
            Self::Listeners => "Listeners",
            Self::Clients => "Clients",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl ViewState {
    pub(super) fn new(order: ListOrder, filter: &str, width: u16, height: u16) -> Self {
        Self {
            pane: Pane::Connections,
            overlay: None,
            scrolled: 0,
            order,
            filter: filter.chars().take(LONGEST_FILTER).collect(),
            typed: None,
            is_paused: false,
            cursors: [Cursor::default(); Pane::ALL.len()],
            chosen: None,
            screen: Rect::new(0, 0, width, height),
            listeners: 0,
        }
    }

    pub(super) fn areas(&self) -> Areas {
        Areas::of(self.screen, self.pane, self.listeners)
    }

    /// An overlay covers the listeners below the connections too.
    pub(super) fn overlay_area(&self) -> Rect {
        let Areas { body, strip, .. } = self.areas();
        Rect {
            height: body.height + strip.height,
            ..body
        }
    }

    pub(super) fn cursor(&self) -> Cursor {
        self.cursors[self.pane.index()]
    }

    /// What the next refresh asks.
    pub(super) fn question(&self) -> Question {
        if let Some(Overlay::Connection(cookie)) = self.overlay {
            return Question::Connection(cookie);
        }
        match self.pane {
            Pane::Connections => Question::Connections {
                order: self.order,
                search: self.filter.clone(),
                offset: self.cursor().first,
                limit: self.areas().rows().max(1),
            },
            Pane::Alerts => Question::Alerts,
            Pane::Listeners => Question::Listeners,
            Pane::Clients => Question::Clients,
        }
    }

    pub(super) fn resize(&mut self, width: u16, height: u16, polled: &Polled) -> Effect {
        self.screen = Rect::new(0, 0, width, height);
        self.select(self.cursor().selected, polled);
        Effect::Poll
    }

    /// Takes in what the daemon answered.
    pub(super) fn adopt(&mut self, polled: &Polled) -> Effect {
        self.listeners = polled.status.listeners.len();
        if self.pane != Pane::Connections {
            return self.select(self.cursor().selected, polled);
        }
        let page = &polled.connections;
        if page.records.is_empty() && self.cursor().first > 0 {
            // The list became shorter.
            self.cursors[self.pane.index()] = Cursor::default();
            return Effect::Poll;
        }
        let place = self.chosen.and_then(|chosen| page.place_of(chosen));
        let last = page.offset + page.records.len().saturating_sub(1);
        let place = place.unwrap_or(self.cursor().selected.min(last));
        self.select(place, polled)
    }

    /// Selects a row of the pane, or the one that is nearest, and scrolls to it.
    fn select(&mut self, row: usize, polled: &Polled) -> Effect {
        let height = self.areas().rows().max(1);
        let selected = row.min(self.length(polled).saturating_sub(1));
        let before = self.cursor();
        let earliest = (selected + 1).saturating_sub(height);
        let first = before.first.clamp(earliest, selected);
        self.cursors[self.pane.index()] = Cursor { first, selected };
        if self.pane != Pane::Connections {
            return Effect::Draw;
        }
        self.chosen = polled.connections.at(selected).map(|record| record.cookie);
        match first == before.first {
            true => Effect::Draw,
            false => Effect::Poll,
        }
    }

    /// Rows of the pane's list, as far as they are known.
    fn length(&self, polled: &Polled) -> usize {
        match self.pane {
            Pane::Connections => {
                let page = &polled.connections;
                let end = page.offset + page.records.len();
                match (page.is_full, self.filter.is_empty()) {
                    (true, true) => page.total.clamp(end, end.max(DEEPEST)),
                    // How many others have the text is unknown until they are asked for.
                    (true, false) => (end + self.areas().rows()).min(end.max(DEEPEST)),
                    (false, _) => end,
                }
            }
            Pane::Alerts => polled.alerts.len(),
            Pane::Listeners => polled.status.listeners.len(),
            Pane::Clients => polled.clients.len(),
        }
    }

    fn show(&mut self, pane: Pane) -> Effect {
        self.overlay = None;
        self.pane = pane;
        Effect::Poll
    }

    fn cover(&mut self, overlay: Overlay) -> Effect {
        self.overlay = Some(overlay);
        self.scrolled = 0;
        Effect::Poll
    }

    fn uncover(&mut self) -> Effect {
        self.overlay = None;
        Effect::Poll
    }

    /// The scroll at which the last line of the overlay is at the bottom.
    fn furthest_scroll(&self, polled: &Polled) -> u16 {
        let overlay = self.overlay.as_ref();
        let lines = overlay.map(|overlay| overlay::lines(overlay, polled, self.screen.width));
        let height = usize::from(self.overlay_area().height);
        let hidden = lines.map_or(0, |lines| lines.len().saturating_sub(height));
        u16::try_from(hidden).unwrap_or(u16::MAX)
    }

    /// Shows the list of connections from its beginning.
    fn list(&mut self, order: ListOrder, filter: String) -> Effect {
        self.order = order;
        self.filter = filter;
        self.cursors[Pane::Connections.index()] = Cursor::default();
        self.chosen = None;
        self.show(Pane::Connections)
    }

    /// The order `steps` after the present one.
    fn next_order(&self, steps: usize) -> ListOrder {
        let orders = ListOrder::value_variants();
        let present = orders.iter().position(|order| *order == self.order);
        orders[(present.unwrap_or_default() + steps) % orders.len()]
    }
}

#[cfg(test)]
mod tests;
