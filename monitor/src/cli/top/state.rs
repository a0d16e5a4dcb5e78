//! What the person at the keys has chosen to see.

mod keys;

use clap::ValueEnum;
use ratatui::layout::Rect;

use super::{
    areas::Areas,
    conditions::Conditions,
    overlay,
    poll_result::{PollResult, Request},
};
use crate::records::{alert_text::AlertLine, list_order::ListOrder, search::Search};
use monitor_core::ConnId;

/// The daemon passes over the connections before a page, so the list ends here. A search finds the others.
const MAX_ROWS: usize = 1_000;

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
    /// Something else is shown, so a refresh is needed.
    Poll,
    /// The process stops until its shell continues it.
    Suspend,
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
    pub(super) conditions: Conditions,
    /// The search while it is typed.
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
    pub(super) fn new(order: ListOrder, search: Option<&Search>, width: u16, height: u16) -> Self {
        Self {
            pane: Pane::Connections,
            overlay: None,
            scrolled: 0,
            order,
            conditions: Conditions::searched(search),
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

    /// What the next refresh requests.
    pub(super) fn request(&self) -> Request {
        if let Some(Overlay::Connection(cookie)) = self.overlay {
            return Request::Connection(cookie);
        }
        match self.pane {
            Pane::Connections => Request::Connections {
                order: self.order,
                conditions: self.conditions.clone(),
                offset: self.cursor().first,
                limit: self.areas().rows().max(1),
            },
            Pane::Alerts => Request::Alerts,
            Pane::Listeners => Request::Listeners,
            Pane::Clients => Request::Clients,
        }
    }

    pub(super) fn resize(&mut self, width: u16, height: u16, polled: &PollResult) -> Effect {
        self.screen = Rect::new(0, 0, width, height);
        self.select(self.cursor().selected, polled);
        Effect::Poll
    }

    /// Adapts to the data of a refresh.
    pub(super) fn update(&mut self, polled: &PollResult) -> Effect {
        self.listeners = polled.status.listeners.len();
        if self.pane != Pane::Connections {
            return self.select(self.cursor().selected, polled);
        }
        let page = &polled.connections;
        if page.records.is_empty() && self.cursor().first > 0 {
            // The list became shorter, or ended with the page before.
            let Cursor { first, .. } = self.cursor();
            self.cursors[self.pane.index()] = Cursor {
                first: first.saturating_sub(self.areas().rows().max(1)),
                selected: first - 1,
            };
            return Effect::Poll;
        }
        let place = self.chosen.and_then(|chosen| page.place_of(chosen));
        let last = page.offset + page.records.len().saturating_sub(1);
        let place = place.unwrap_or(self.cursor().selected.min(last));
        self.select(place, polled)
    }

    /// Selects a row of the pane, or the one that is nearest, and scrolls to it.
    fn select(&mut self, row: usize, polled: &PollResult) -> Effect {
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

    /// The known rows of the pane's list.
    fn length(&self, polled: &PollResult) -> usize {
        match self.pane {
            Pane::Connections => {
                let page = &polled.connections;
                let end = page.offset + page.records.len();
                match (page.may_go_on, self.conditions.is_empty()) {
                    (true, true) => page.total.clamp(end, end.max(MAX_ROWS)),
                    // How many others match is unknown until they are requested.
                    (true, false) => (end + self.areas().rows()).min(end.max(MAX_ROWS)),
                    (false, _) => end,
                }
            }
            Pane::Alerts => polled.alerts.records.len(),
            Pane::Listeners => polled.status.listeners.len(),
            Pane::Clients => polled.clients.records.len(),
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
    fn furthest_scroll(&self, polled: &PollResult) -> u16 {
        let overlay = self.overlay.as_ref();
        let lines = overlay.map(|overlay| overlay::lines(overlay, polled, self.screen.width));
        let height = usize::from(self.overlay_area().height);
        let hidden = lines.map_or(0, |lines| lines.len().saturating_sub(height));
        u16::try_from(hidden).unwrap_or(u16::MAX)
    }

    /// Shows the list of connections from its beginning.
    fn list(&mut self, order: ListOrder, conditions: Conditions) -> Effect {
        self.order = order;
        self.conditions = conditions;
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
