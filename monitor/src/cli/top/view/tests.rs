//! Whole screens, compared with files.

use std::{env, fs, path::PathBuf};

use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, layout::Rect, style::Style};

use super::*;
use crate::{
    cli::top::{
        appearance::Appearance,
        poll_result::FirstRecords,
        samples::{connections, polled, polled_detail},
        single_screen,
        state::{Effect, Overlay},
    },
    records::list_order::ListOrder,
};
use monitor_core::VerdictKind;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent};

/// Set to write the screens instead of comparing them.
const WRITE: &str = "WSMON_WRITE_SCREENS";

const PLAIN: Appearance = Appearance {
    has_color: false,
    has_unicode: true,
};

/// The view after these keys.
fn state(polled: &PollResult, width: u16, height: u16, keys: &[KeyCode]) -> ViewState {
    let mut state = ViewState::new(ListOrder::Urgency, None, width, height);
    state.update(polled);
    for key in keys {
        let key = Event::Key(KeyEvent::from(*key));
        assert_ne!(state.on_event(&key, polled), Effect::Quit);
    }
    state
}

/// A screen as the terminal of a test has it.
fn screen(view: &View<'_>, appearance: Appearance, width: u16, height: u16) -> Buffer {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| {
        view.draw(frame.buffer_mut());
        appearance.apply(frame.buffer_mut());
    });
    terminal.backend().buffer().clone()
}

fn text(polled: &PollResult, width: u16, height: u16, keys: &[KeyCode]) -> String {
    let view = View {
        state: &state(polled, width, height, keys),
        polled,
        freshness: Freshness::default(),
        has_keys: true,
    };
    let lines = single_screen::lines(&screen(&view, PLAIN, width, height));
    lines.join("\n") + "\n"
}

fn path(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/screens").join(name)
}

/// Compares a screen with the file of this name.
fn assert_screen(name: &str, shown: &str) {
    let path = path(name);
    if env::var_os(WRITE).is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder of screens");
        fs::write(&path, shown).expect("a writable file");
    }
    let expected = fs::read_to_string(&path);
    let expected = expected.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        shown,
        expected,
        "\n{shown}\ndiffers from {}:\n{expected}\n{WRITE}=1 writes it",
        path.display()
    );
}

#[test]
fn connections_fit_every_usual_size() {
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        let name = format!("connections-{width}x{height}.txt");
        assert_screen(&name, &text(&polled(), width, height, &[]));
    }
}

#[test]
fn the_other_panes_fit_a_small_terminal() {
    for (name, key) in [("alerts", '2'), ("listeners", '3'), ("clients", '4')] {
        let shown = text(&polled(), 80, 24, &[KeyCode::Char(key)]);
        assert_screen(&format!("{name}-80x24.txt"), &shown);
    }
}

#[test]
fn overlays_fit_a_small_terminal() {
    let help = text(&polled(), 80, 24, &[KeyCode::Char('?')]);
    assert_screen("help-80x24.txt", &help);
    // What the pages say is tested where they are written.
    let connection = text(&polled_detail(), 80, 24, &[KeyCode::Enter]);
    assert!(
        connection.contains("\n  verdict    black_holed (confirmed)"),
        "{connection}"
    );
    assert!(connection.contains("101 after 1000 ms"), "{connection}");
    let alert = text(&polled(), 80, 24, &[KeyCode::Char('2'), KeyCode::Enter]);
    assert!(alert.contains("in lockstep, every 5 s"), "{alert}");
    for page in [connection, alert] {
        assert!(
            page.ends_with("\nEsc back   j k scroll   p pause\n"),
            "{page}"
        );
    }
    let typed = [KeyCode::Char('/'), KeyCode::Char('a')];
    let searched = text(&polled(), 80, 24, &typed);
    assert!(
        searched.ends_with("search: a   Enter applies, Esc cancels\n"),
        "{searched}"
    );
}

#[test]
fn listeners_below_the_connections_are_counted_if_they_do_not_fit() {
    let mut polled = polled();
    let listeners = polled.status.listeners.clone();
    assert!(text(&polled, 120, 40, &[]).contains("\nListeners\n"));
    polled.status.listeners = listeners.iter().cycle().take(9).cloned().collect();
    let shown = text(&polled, 120, 40, &[]);
    let (_, strip) = shown.split_once("\nListeners  +3 more\n").expect("a title");
    assert_eq!(strip.lines().count(), 1 + 6 + 1, "{strip}");
}

#[test]
fn alerts_that_are_left_out_are_counted() {
    let mut polled = polled();
    let alerts = polled.alerts.records.clone();
    polled.alerts = FirstRecords::new(alerts, Some(1_234));
    let shown = text(&polled, 80, 24, &[KeyCode::Char('2')]);
    assert!(shown.contains("2 of 1,234\n"), "{shown}");
}

#[test]
fn the_page_of_the_docs_shows_a_screen_of_a_real_daemon() {
    let shown = fs::read_to_string(path("live/connections-80x24.txt")).expect("the screen");
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/top.md");
    let page = fs::read_to_string(&page).expect("docs/top.md");
    let (_, rest) = page.split_once("```text\n").expect("a screen");
    let (in_page, _) = rest.split_once("```").expect("the end of the screen");
    assert_eq!(shown, in_page, "the live test all_verdicts writes both");
}

#[test]
fn the_samples_have_every_verdict() {
    let connections = connections();
    for kind in VerdictKind::ALL {
        let mut kinds = connections
            .iter()
            .filter_map(|record| record.verdict.as_ref());
        assert!(
            kinds.any(|verdict| verdict.kind == kind.as_str()),
            "{kind:?}"
        );
    }
}

#[test]
fn a_daemon_that_does_not_respond_is_reported_with_the_age_of_the_data() {
    let polled = polled();
    let view = View {
        state: &state(&polled, 80, 24, &[]),
        polled: &polled,
        freshness: Freshness {
            age: Duration::from_secs(72),
            is_overdue: true,
            failure: Some("no wsmon listens on /run/wsmon.sock"),
        },
        has_keys: true,
    };
    let lines = single_screen::lines(&screen(&view, PLAIN, 80, 24));
    assert!(lines[0].ends_with("  data 1 m 12 s old"), "{}", lines[0]);
    assert_eq!(lines[1], "no answer: no wsmon listens on /run/wsmon.sock");
}

#[test]
fn a_screen_without_keys_has_no_selection_and_no_footer() {
    let polled = polled();
    let view = View {
        state: &state(&polled, 80, 24, &[]),
        polled: &polled,
        freshness: Freshness::default(),
        has_keys: false,
    };
    let lines = single_screen::lines(&screen(&view, PLAIN, 80, 24));
    assert!(lines.iter().all(|line| !line.starts_with('>')), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("quit")), "{lines:?}");
}

#[test]
fn everything_is_readable_without_colours_and_without_unicode() {
    let polled = polled();
    let view = View {
        state: &state(&polled, 120, 40, &[]),
        polled: &polled,
        freshness: Freshness::default(),
        has_keys: true,
    };
    let colored = Appearance {
        has_color: true,
        ..PLAIN
    };
    let plainest = Appearance {
        has_unicode: false,
        ..PLAIN
    };
    let [colored, plain, ascii] =
        [colored, PLAIN, plainest].map(|appearance| screen(&view, appearance, 120, 40));
    let unstyled = Buffer::empty(Rect::new(0, 0, 1, 1)).content[0].style();
    let is_styled = |buffer: &Buffer| buffer.content.iter().any(|cell| cell.style() != unstyled);
    assert!(is_styled(&colored) && !is_styled(&plain) && !is_styled(&ascii));
    let symbols =
        |buffer: &Buffer| -> String { buffer.content.iter().map(|cell| cell.symbol()).collect() };
    assert_eq!(symbols(&colored), symbols(&plain));
    assert!(symbols(&ascii).is_ascii());
    assert!(symbols(&ascii).contains("####.."), "{}", symbols(&ascii));
    for word in ["unresponsive!", "expired?", "at risk", "closing", "zombies"] {
        assert!(symbols(&ascii).contains(word), "{word}");
    }
}

#[test]
fn hostile_text_reaches_no_terminal() {
    let mut hostile = polled_detail();
    let evil = || "ev\n\u{1b}[2J\u{9b}\u{2028}\u{202e}il".to_owned();
    hostile.status.problems = vec![evil()];
    hostile.status.listeners[0].listener = evil();
    hostile.status.listeners[0].hop = Some(evil());
    for record in &mut hostile.connections.records {
        record.listener = evil();
        record.owner.pod_name = Some(evil());
    }
    hostile.alerts.records[0].reason = evil();
    hostile.alerts.records[0].listener = evil();
    for keys in [
        &[][..],
        &[KeyCode::Enter],
        &[KeyCode::Char('2')],
        &[KeyCode::Char('2'), KeyCode::Enter],
        &[KeyCode::Char('3')],
        &[KeyCode::Char('3'), KeyCode::Enter],
    ] {
        let shown = text(&hostile, 120, 40, keys);
        let is_safe =
            |c: char| c == '\n' || !(c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c));
        assert!(shown.chars().all(is_safe), "{keys:?}: {shown:?}");
    }
}

#[test]
fn no_size_is_too_small() {
    let polled = polled_detail();
    let mut state = state(&polled, 80, 24, &[]);
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let overlays = [
        None,
        Some(Overlay::Help),
        Some(Overlay::Connection(connections()[0].cookie)),
    ];
    for round in 0..600 {
        let (width, height) = match round {
            0 => (1, 1),
            1 => (0, 0),
            _ => (random(260) as u16, random(80) as u16),
        };
        state.on_event(&Event::Resize(width, height), &polled);
        state.pane = Pane::ALL[random(4) as usize];
        state.overlay = overlays[random(3) as usize].clone();
        let view = View {
            state: &state,
            polled: &polled,
            freshness: Freshness::default(),
            has_keys: true,
        };
        // The terminal may have another size by now.
        for (wider, higher) in [(0, 0), (7, 3)] {
            let area = Rect::new(
                0,
                0,
                width.saturating_sub(wider),
                height.saturating_sub(higher),
            );
            let mut buffer = Buffer::empty(area);
            buffer.set_style(area, Style::new());
            view.draw(&mut buffer);
        }
    }
}
