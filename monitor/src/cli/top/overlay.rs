//! The text that covers a pane: a connection, an alert, or the keys.

use unicode_width::UnicodeWidthStr;

use super::{polled::Polled, state::Overlay};
use crate::{
    cli::{inspect::Page, table::cut},
    records::{alert_text::AlertLine, connections::ConnectionRecord, heartbeat},
};

const HELP: &str = "\
up down  k j         select
PgUp PgDn Home End   scroll
Tab  1 2 3 4         next pane, or that one
Enter                details; of a listener or client: its connections
s S                  next or previous order of the connections
/                    filter by peer, listener, owner, verdict or protocol
Esc                  close this, or clear the filter
p  space             pause, or go on
r                    refresh now
?                    these keys
q                    close this, or quit; Ctrl-C quits

VERDICT    expired? is suspected, expired! is confirmed
IDLE/LIMIT time since the last packet, and the shortest idle timeout of the path
PING IN    time until the next ping is expected; negative if it is late
RTT        round trip of the last answered ping
RETR       retransmissions since the last progress
QUEUE      bytes written by the application and not acknowledged
RX/S TX/S  payload bytes per second, since the refresh before
OWNER      pod, or else container, systemd unit or process";

/// The lines of an overlay, none of them wider than `width`.
pub(super) fn lines(overlay: &Overlay, polled: &Polled, width: u16) -> Vec<String> {
    let text = match overlay {
        Overlay::Help => HELP.to_owned(),
        Overlay::Alert(alert) => alert_page(alert),
        Overlay::Connection(cookie) => {
            let detail = polled.detail.as_ref();
            match detail.filter(|detail| detail.cookie == *cookie) {
                Some(detail) => match &detail.record {
                    Ok(record) => connection_page(record),
                    Err(reason) => reason.clone(),
                },
                None => format!("connection {}", cookie.0),
            }
        }
    };
    let width = usize::from(width);
    text.lines().flat_map(|line| wrapped(line, width)).collect()
}

fn connection_page(record: &ConnectionRecord) -> String {
    let page = Page(record).to_string();
    match heartbeat::next_expected(record) {
        Some(seconds) if seconds < 0.0 => {
            format!("{page}\n  next ping  was expected {:.1} s ago", -seconds)
        }
        Some(seconds) => format!("{page}\n  next ping  expected in {seconds:.1} s"),
        None => page,
    }
}

fn alert_page(alert: &AlertLine) -> String {
    format!(
        "{}\n  {}\n  since {}\n\n  {}",
        alert.title(),
        alert.subject(),
        alert.ts.strftime("%Y-%m-%d %H:%M:%SZ"),
        alert.reason()
    )
}

/// The line in parts of up to `width` columns, cut between words. Continued lines are indented.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "             ";
    let indent = if width > 2 * INDENT.len() { INDENT } else { "" };
    let mut parts = Vec::new();
    let mut rest = line;
    let mut indented = "";
    while indented.width() + rest.width() > width {
        let room = width - indented.width();
        // Without a space in reach, the line is cut off.
        let reach = rest
            .char_indices()
            .take_while(|(at, _)| rest[..*at].width() <= room);
        let space = reach.filter(|(_, c)| *c == ' ').last();
        let Some((at, _)) = space.filter(|(at, _)| !rest[..*at].trim().is_empty()) else {
            break;
        };
        parts.push(format!("{indented}{}", &rest[..at]));
        rest = rest[at..].trim_start();
        indented = indent;
    }
    parts.push(cut(&format!("{indented}{rest}"), width));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_between_words_and_indented() {
        let line = "  verdict    expired (suspected): idle 10.2 s on a path that forgets after 10 s";
        assert_eq!(
            wrapped(line, 44),
            [
                "  verdict    expired (suspected): idle 10.2",
                "             s on a path that forgets after",
                "             10 s",
            ]
        );
        assert_eq!(wrapped("short", 44), ["short"]);
        assert_eq!(wrapped("", 44), [""]);
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        let line = "  one_very_long_word_without_an_end and 漢字漢字 words";
        for width in 1..60 {
            for part in wrapped(line, width) {
                assert!(part.width() <= width, "{width}: {part:?}");
            }
        }
    }

    #[test]
    fn the_keys_fit_a_small_terminal() {
        assert!(HELP.lines().count() <= 20);
        assert!(HELP.lines().all(|line| line.width() <= 80));
    }
}
