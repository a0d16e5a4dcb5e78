//! The text that covers a pane: a connection, an alert, or the keys.

use super::{poll_result::PollResult, state::Overlay};
use crate::{
    cli::{alerts::paragraph, inspect::page::Page, screen::wrapped, table::cut},
    records::connections::ConnectionRecord,
};

const HELP: &str = "\
up down  k j         select
PgUp PgDn Home End   scroll
Tab  1 2 3 4         next pane, or that one
Enter                details; of a listener or client: its connections
s S                  next or previous order of the connections
/                    search in peer, listener, protocol, verdict and owner
Esc                  close this, or show all connections
p  space             pause, or go on
r                    refresh now
?                    these keys
q                    close this, or quit; Ctrl-C quits, Ctrl-Z suspends

VERDICT    expired? is suspected, expired! is confirmed
IDLE/LIMIT time since the last packet, and the shortest idle timeout of the path
PING IN    time until the next ping is expected; negative if it is late
RTT        round trip of the last answered ping
RETR       retransmissions since the last progress
QUEUE      bytes written by the application and not acknowledged
RX/S TX/S  payload bytes per second, since the refresh before
OWNER      pod, or else container, systemd unit or process";

/// The lines of an overlay, none of them wider than `width`.
pub(super) fn lines(overlay: &Overlay, polled: &PollResult, width: u16) -> Vec<String> {
    let width = usize::from(width);
    let lines = match overlay {
        Overlay::Help => HELP.lines().map(str::to_owned).collect(),
        Overlay::Alert(alert) => paragraph(alert, polled.status.ts, Some(width)),
        Overlay::Connection(cookie) => match polled.detail.as_ref() {
            Some(detail) if detail.cookie == *cookie => match &detail.record {
                Ok(record) => connection_page(record, polled, width),
                Err(reason) => wrapped(reason, "", width),
            },
            // It comes with the next refresh.
            _ => vec![format!("connection {}", cookie.0)],
        },
    };
    lines.iter().map(|line| cut(line, width)).collect()
}

fn connection_page(record: &ConnectionRecord, polled: &PollResult, width: usize) -> Vec<String> {
    let mut listeners = polled.status.listeners.iter();
    let listener = listeners.find(|listener| listener.listener == record.listener);
    let page = Page {
        record,
        listener: listener.cloned(),
        width: Some(width),
        is_colored: false,
    };
    page.lines()
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn the_keys_fit_a_small_terminal() {
        assert!(HELP.lines().count() <= 20);
        assert!(HELP.lines().all(|line| line.width() <= 80));
    }
}
