//! Keys, and what they choose.

use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::*;
use crate::{
    cli::top::{conditions::Scope, poll_result::ConnectionPage, samples},
    records::search::MAX_BYTES,
};

/// Text that fits 12 connections, with their headings.
const HEIGHT: u16 = 17;

/// A state with the data it works on.
struct Keyboard {
    state: ViewState,
    polled: PollResult,
}

impl Keyboard {
    fn new(height: u16) -> Self {
        let polled = samples::polled();
        let mut state = ViewState::new(ListOrder::Urgency, None, 80, height);
        assert_eq!(state.update(&polled), Effect::Draw);
        Self { state, polled }
    }

    fn press(&mut self, code: KeyCode) -> Effect {
        self.state.on_key(KeyEvent::from(code), &self.polled)
    }

    fn type_text(&mut self, text: &str) {
        for c in text.chars() {
            assert_eq!(self.press(KeyCode::Char(c)), Effect::Draw, "{c}");
        }
    }

    fn mouse(&mut self, kind: MouseEventKind, row: u16) -> Effect {
        let event = Event::Mouse(MouseEvent {
            kind,
            column: 5,
            row,
            modifiers: KeyModifiers::NONE,
        });
        self.state.on_event(&event, &self.polled)
    }

    fn selected(&self) -> ConnId {
        let place = self.state.cursor().selected;
        self.polled.connections.at(place).expect("a row").cookie
    }
}

#[test]
fn the_selection_moves_and_stays_in_the_list() {
    let mut keys = Keyboard::new(HEIGHT);
    let rows = keys.polled.connections.records.len();
    assert_eq!(keys.state.areas().rows(), rows);
    for (code, selected) in [
        (KeyCode::Up, 0),
        (KeyCode::Down, 1),
        (KeyCode::Char('j'), 2),
        (KeyCode::Char('k'), 1),
        (KeyCode::Char('g'), 0),
    ] {
        assert_eq!(keys.press(code), Effect::Draw);
        assert_eq!(keys.state.cursor().selected, selected, "{code:?}");
    }
}

#[test]
fn leaving_the_screen_requests_the_next_page() {
    let mut keys = Keyboard::new(HEIGHT);
    assert_eq!(keys.press(KeyCode::PageDown), Effect::Poll);
    let cursor = keys.state.cursor();
    assert_eq!((cursor.first, cursor.selected), (1, 12));
    let Request::Connections { offset, limit, .. } = keys.state.request() else {
        panic!("{:?}", keys.state.request());
    };
    assert_eq!((offset, limit), (1, 12));
    assert_eq!(keys.press(KeyCode::End), Effect::Poll);
    assert_eq!(keys.state.cursor().selected, MAX_ROWS - 1, "of 1204");
    assert_eq!(keys.press(KeyCode::Home), Effect::Poll);
    assert_eq!(keys.state.cursor(), Cursor::default());
}

#[test]
fn the_page_before_is_shown_if_the_list_became_shorter() {
    let mut keys = Keyboard::new(HEIGHT);
    keys.press(KeyCode::PageDown);
    keys.press(KeyCode::PageDown);
    keys.polled.connections = ConnectionPage::default();
    let first = keys.state.cursor().first;
    assert!(first > 0);
    assert_eq!(keys.state.update(&keys.polled), Effect::Poll);
    let cursor = keys.state.cursor();
    assert_eq!((cursor.first, cursor.selected), (first - 12, first - 1));
    assert_eq!(keys.state.update(&keys.polled), Effect::Poll);
    assert_eq!(keys.state.cursor(), Cursor::default());
    assert_eq!(keys.state.update(&keys.polled), Effect::Draw, "it is empty");
}

#[test]
fn the_selected_connection_stays_selected_when_its_place_changes() {
    let mut keys = Keyboard::new(HEIGHT);
    keys.press(KeyCode::Down);
    let chosen = keys.selected();
    keys.polled.connections.records.rotate_left(5);
    keys.state.update(&keys.polled);
    assert_eq!(keys.selected(), chosen);
    assert_eq!(keys.state.cursor().selected, 8);
    // If it is gone, the row is selected that has its place.
    keys.polled.connections.records.remove(8);
    keys.state.update(&keys.polled);
    assert_eq!(keys.state.cursor().selected, 8);
    assert_ne!(keys.selected(), chosen);
}

#[test]
fn panes_are_chosen_by_number_or_in_turn() {
    let mut keys = Keyboard::new(HEIGHT);
    for (code, pane, request) in [
        (KeyCode::Char('2'), Pane::Alerts, Request::Alerts),
        (KeyCode::Tab, Pane::Listeners, Request::Listeners),
        (KeyCode::Right, Pane::Clients, Request::Clients),
        (KeyCode::BackTab, Pane::Listeners, Request::Listeners),
    ] {
        assert_eq!(keys.press(code), Effect::Poll);
        assert_eq!((keys.state.pane, keys.state.request()), (pane, request));
    }
    keys.press(KeyCode::Char('4'));
    keys.press(KeyCode::Tab);
    assert_eq!(keys.state.pane, Pane::Connections);
}

#[test]
fn the_order_goes_round_in_both_directions() {
    let mut keys = Keyboard::new(HEIGHT);
    let mut seen = Vec::new();
    for _ in ListOrder::value_variants() {
        assert_eq!(keys.press(KeyCode::Char('s')), Effect::Poll);
        seen.push(keys.state.order);
    }
    assert_eq!(seen[0], ListOrder::Idle);
    assert_eq!(seen.last(), Some(&ListOrder::Urgency));
    for order in ListOrder::value_variants() {
        assert!(seen.contains(order));
    }
    keys.press(KeyCode::Char('S'));
    assert_eq!(keys.state.order, ListOrder::Age);
}

#[test]
fn a_search_is_typed_applied_and_cleared() {
    let mut keys = Keyboard::new(HEIGHT);
    keys.press(KeyCode::Down);
    keys.press(KeyCode::Char('/'));
    keys.type_text("sqhop");
    assert_eq!(keys.state.conditions.search, "", "not before Enter");
    keys.press(KeyCode::Backspace);
    assert_eq!(keys.press(KeyCode::Enter), Effect::Poll);
    assert_eq!(keys.state.conditions.search, "sqho");
    assert_eq!(keys.state.cursor(), Cursor::default());
    let Request::Connections { conditions, .. } = keys.state.request() else {
        panic!("{:?}", keys.state.request());
    };
    assert_eq!(conditions, keys.state.conditions);
    // The present search can be changed, and Esc leaves it.
    keys.press(KeyCode::Char('/'));
    keys.type_text("x");
    assert_eq!(keys.press(KeyCode::Esc), Effect::Draw);
    assert_eq!(
        (
            keys.state.conditions.search.as_str(),
            keys.state.typed.as_ref()
        ),
        ("sqho", None)
    );
    assert_eq!(keys.press(KeyCode::Esc), Effect::Poll);
    assert_eq!(keys.state.conditions, Conditions::default());
    assert_eq!(keys.press(KeyCode::Esc), Effect::Draw, "nothing to clear");
}

#[test]
fn a_search_is_typed_to_the_length_that_the_daemon_takes() {
    let mut keys = Keyboard::new(HEIGHT);
    keys.press(KeyCode::Char('/'));
    keys.type_text(&"漢".repeat(MAX_BYTES));
    keys.press(KeyCode::Enter);
    let search = &keys.state.conditions.search;
    assert!(search.parse::<Search>().is_ok());
    assert_eq!(search.chars().count(), MAX_BYTES / 3);
}

#[test]
fn details_open_scroll_and_close() {
    let mut keys = Keyboard::new(HEIGHT);
    keys.polled = samples::polled_detail();
    let first = keys.selected();
    assert_eq!(keys.press(KeyCode::Enter), Effect::Poll);
    assert_eq!(keys.state.overlay, Some(Overlay::Connection(first)));
    assert_eq!(keys.state.request(), Request::Connection(first));
    keys.press(KeyCode::Down);
    assert_eq!(keys.state.scrolled, 1);
    keys.press(KeyCode::End);
    let furthest = keys.state.scrolled;
    keys.press(KeyCode::PageDown);
    assert_eq!(keys.state.scrolled, furthest, "the last line stays");
    keys.press(KeyCode::Up);
    assert_eq!(keys.state.scrolled, furthest - 1);
    assert_eq!(keys.press(KeyCode::Char('q')), Effect::Poll);
    assert_eq!(keys.state.overlay, None);
    assert_eq!(keys.press(KeyCode::Char('q')), Effect::Quit);
}

#[test]
fn the_rows_of_the_other_panes_open_what_they_are_about() {
    let mut keys = Keyboard::new(HEIGHT);
    keys.press(KeyCode::Char('2'));
    keys.press(KeyCode::Enter);
    assert!(
        matches!(keys.state.overlay, Some(Overlay::Alert(_))),
        "a storm"
    );
    keys.press(KeyCode::Esc);
    keys.press(KeyCode::Down);
    keys.press(KeyCode::Enter);
    assert_eq!(
        keys.state.overlay,
        Some(Overlay::Connection(ConnId(315_654)))
    );
    keys.press(KeyCode::Esc);
    let scopes = [
        ('3', Scope::Listener("chat".to_owned()), "listener chat"),
        ('4', Scope::Peer([10, 0, 4, 17].into()), "peer 10.0.4.17"),
    ];
    for (pane, scope, text) in scopes {
        keys.press(KeyCode::Char(pane));
        assert_eq!(keys.press(KeyCode::Enter), Effect::Poll);
        assert_eq!(keys.state.pane, Pane::Connections);
        assert_eq!(keys.state.conditions, Conditions::of(scope));
        assert_eq!(keys.state.conditions.text(), text);
        keys.press(KeyCode::Char('/'));
        keys.type_text("a");
        keys.press(KeyCode::Enter);
        let both = format!("{text}  search a");
        assert_eq!(keys.state.conditions.text(), both);
        assert_eq!(keys.press(KeyCode::Esc), Effect::Poll);
        assert!(keys.state.conditions.is_empty());
    }
}

#[test]
fn help_opens_from_anywhere_and_closes() {
    let mut keys = Keyboard::new(HEIGHT);
    for code in [KeyCode::Char('?'), KeyCode::F(1)] {
        keys.press(code);
        assert_eq!(keys.state.overlay, Some(Overlay::Help));
        keys.press(KeyCode::Char('?'));
        assert_eq!(keys.state.overlay, None);
    }
    keys.press(KeyCode::Enter);
    keys.press(KeyCode::Char('?'));
    assert_eq!(keys.state.overlay, Some(Overlay::Help));
}

#[test]
fn a_pause_ends_with_a_refresh() {
    let mut keys = Keyboard::new(HEIGHT);
    assert_eq!(keys.press(KeyCode::Char('p')), Effect::Draw);
    assert!(keys.state.is_paused);
    assert_eq!(keys.press(KeyCode::Char('r')), Effect::Poll, "once");
    assert!(keys.state.is_paused);
    assert_eq!(keys.press(KeyCode::Char(' ')), Effect::Poll);
    assert!(!keys.state.is_paused);
}

#[test]
fn control_c_quits_and_control_z_suspends_from_anywhere() {
    for (letter, expected) in [('c', Effect::Quit), ('z', Effect::Suspend)] {
        let key = KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        for opened in ['j', '/', '?', 'p'] {
            let mut keys = Keyboard::new(HEIGHT);
            keys.press(KeyCode::Char(opened));
            assert_eq!(keys.state.on_key(key, &keys.polled), expected, "{opened}");
        }
    }
}

#[test]
fn the_mouse_scrolls_and_selects() {
    let mut keys = Keyboard::new(HEIGHT);
    keys.mouse(MouseEventKind::ScrollDown, 9);
    assert_eq!(keys.state.cursor().selected, 3);
    keys.mouse(MouseEventKind::ScrollUp, 9);
    assert_eq!(keys.state.cursor().selected, 0);
    let body = keys.state.areas().body;
    let click = MouseEventKind::Down(MouseButton::Left);
    keys.mouse(click, body.y + 3);
    assert_eq!(keys.state.cursor().selected, 2);
    for elsewhere in [0, body.y, HEIGHT - 1] {
        keys.mouse(click, elsewhere);
        assert_eq!(keys.state.cursor().selected, 2, "{elsewhere}");
    }
}

#[test]
fn a_new_size_keeps_the_selection_on_the_screen() {
    let mut keys = Keyboard::new(HEIGHT);
    for _ in 0..10 {
        keys.press(KeyCode::Down);
    }
    let resized = keys.state.on_event(&Event::Resize(40, 8), &keys.polled);
    assert_eq!(resized, Effect::Poll);
    let Cursor { first, selected } = keys.state.cursor();
    assert_eq!(selected, 10);
    assert!(first <= selected && selected < first + keys.state.areas().rows());
}
