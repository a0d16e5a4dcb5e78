//! What each key does.

use clap::ValueEnum;
use ratatui::{
    crossterm::event::{
        Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent,
        MouseEventKind,
    },
    layout::Position,
};

use super::{Effect, Overlay, Pane, ViewState};
use crate::{
    cli::top::{
        conditions::{Conditions, Scope},
        poll_result::PollResult,
    },
    records::{list_order::ListOrder, search::MAX_BYTES},
};

/// Rows that one notch of the wheel moves.
const NOTCH: usize = 3;

impl ViewState {
    pub(in crate::cli::top) fn on_event(&mut self, event: &Event, polled: &PollResult) -> Effect {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.on_key(*key, polled),
            Event::Mouse(mouse) => self.on_mouse(*mouse, polled),
            Event::Resize(width, height) => self.resize(*width, *height, polled),
            _ => Effect::Draw,
        }
    }

    pub(super) fn on_key(&mut self, key: KeyEvent, polled: &PollResult) -> Effect {
        let has_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if has_control => return Effect::Quit,
            KeyCode::Char('z') if has_control => return Effect::Suspend,
            _ => {}
        }
        if self.typed.is_some() {
            return self.on_typed(key);
        }
        if has_control {
            // Not a key of this view: a terminal sends ^S for a hold of its output, for instance.
            return Effect::Draw;
        }
        if self.overlay.is_some() {
            return self.on_key_of_overlay(key.code, polled);
        }
        let selected = self.cursor().selected;
        let page = self.areas().rows().max(1);
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.select(selected.saturating_sub(1), polled),
            KeyCode::Down | KeyCode::Char('j') => self.select(selected + 1, polled),
            KeyCode::PageUp => self.select(selected.saturating_sub(page), polled),
            KeyCode::PageDown => self.select(selected + page, polled),
            KeyCode::Home | KeyCode::Char('g') => self.select(0, polled),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX, polled),
            KeyCode::Tab | KeyCode::Right => self.show(self.neighbour(1)),
            KeyCode::BackTab | KeyCode::Left => self.show(self.neighbour(Pane::ALL.len() - 1)),
            KeyCode::Char(digit @ '1'..='4') => self.show(Pane::ALL[digit as usize - '1' as usize]),
            KeyCode::Char('s') => self.list(self.next_order(1), self.conditions.clone()),
            KeyCode::Char('S') => {
                let last = ListOrder::value_variants().len() - 1;
                self.list(self.next_order(last), self.conditions.clone())
            }
            KeyCode::Char('/') => {
                self.typed = Some(self.conditions.search.clone());
                Effect::Draw
            }
            KeyCode::Esc if !self.conditions.is_empty() => {
                self.list(self.order, Conditions::default())
            }
            KeyCode::Enter => self.open(polled),
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                match self.is_paused {
                    true => Effect::Draw,
                    false => Effect::Poll,
                }
            }
            KeyCode::Char('r') => Effect::Poll,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.cover(Overlay::Help),
            KeyCode::Char('q') => Effect::Quit,
            _ => Effect::Draw,
        }
    }

    fn on_typed(&mut self, key: KeyEvent) -> Effect {
        let Some(typed) = &mut self.typed else {
            return Effect::Draw;
        };
        match key.code {
            KeyCode::Enter => {
                let conditions = Conditions {
                    search: self.typed.take().unwrap_or_default(),
                    ..self.conditions.clone()
                };
                return self.list(self.order, conditions);
            }
            KeyCode::Esc => self.typed = None,
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => typed.clear(),
            KeyCode::Char(c)
                if !key.modifiers.contains(KeyModifiers::CONTROL)
                    && typed.len() + c.len_utf8() <= MAX_BYTES =>
            {
                typed.push(c);
            }
            _ => {}
        }
        Effect::Draw
    }

    fn on_key_of_overlay(&mut self, code: KeyCode, polled: &PollResult) -> Effect {
        let page = u16::try_from(self.areas().rows()).unwrap_or(u16::MAX);
        let scrolled = match code {
            KeyCode::Up | KeyCode::Char('k') => self.scrolled.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scrolled.saturating_add(1),
            KeyCode::PageUp => self.scrolled.saturating_sub(page),
            KeyCode::PageDown => self.scrolled.saturating_add(page),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => u16::MAX,
            KeyCode::Char('r') => return Effect::Poll,
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                return Effect::Draw;
            }
            KeyCode::Char('?') if self.overlay != Some(Overlay::Help) => {
                return self.cover(Overlay::Help);
            }
            KeyCode::Esc
            | KeyCode::Enter
            | KeyCode::Backspace
            | KeyCode::Left
            | KeyCode::Char('q' | '?') => return self.uncover(),
            _ => self.scrolled,
        };
        self.scrolled = scrolled.min(self.furthest_scroll(polled));
        Effect::Draw
    }

    fn on_mouse(&mut self, mouse: MouseEvent, polled: &PollResult) -> Effect {
        let selected = self.cursor().selected;
        match (mouse.kind, &self.overlay) {
            (MouseEventKind::ScrollUp, None) => self.select(selected.saturating_sub(NOTCH), polled),
            (MouseEventKind::ScrollDown, None) => self.select(selected + NOTCH, polled),
            (MouseEventKind::ScrollUp, Some(_)) => self.on_key_of_overlay(KeyCode::Up, polled),
            (MouseEventKind::ScrollDown, Some(_)) => self.on_key_of_overlay(KeyCode::Down, polled),
            (MouseEventKind::Down(MouseButton::Left), None) => {
                let body = self.areas().body;
                let is_row =
                    mouse.row > body.y && body.contains(Position::new(mouse.column, mouse.row));
                match is_row {
                    true => {
                        let row = usize::from(mouse.row - body.y - 1);
                        self.select(self.cursor().first + row, polled)
                    }
                    false => Effect::Draw,
                }
            }
            _ => Effect::Draw,
        }
    }

    /// Opens the selected row.
    fn open(&mut self, polled: &PollResult) -> Effect {
        let row = self.cursor().selected;
        match self.pane {
            Pane::Connections => match polled.connections.at(row) {
                Some(record) => self.cover(Overlay::Connection(record.cookie)),
                None => Effect::Draw,
            },
            Pane::Alerts => match polled.alerts.records.get(row) {
                Some(alert) => match &alert.conn {
                    Some(conn) => self.cover(Overlay::Connection(conn.cookie)),
                    None => self.cover(Overlay::Alert(Box::new(alert.clone()))),
                },
                None => Effect::Draw,
            },
            Pane::Listeners => match polled.status.listeners.get(row) {
                Some(listener) => {
                    let scope = Scope::Listener(listener.listener.clone());
                    self.list(self.order, Conditions::of(scope))
                }
                None => Effect::Draw,
            },
            Pane::Clients => match polled.clients.records.get(row) {
                Some(client) => {
                    let scope = Scope::Peer(client.figures.client);
                    self.list(self.order, Conditions::of(scope))
                }
                None => Effect::Draw,
            },
        }
    }

    /// The pane `steps` after the present one.
    fn neighbour(&self, steps: usize) -> Pane {
        Pane::ALL[(self.pane.index() + steps) % Pane::ALL.len()]
    }
}
