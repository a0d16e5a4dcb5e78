//! How a connection was closed, in words.

use crate::records::connections::{CloseFrame, ConnectionRecord, State};
use monitor_core::facts::Direction;

/// The first close frame, or that there was none; `None` if nothing ended yet.
pub(super) fn close_text(record: &ConnectionRecord) -> Option<String> {
    match record.close {
        Some(close) => Some(frame_text(close)),
        None if record.state == State::Closed && record.protocol == "websocket" => Some(format!(
            "no close frame; applications see it as {}",
            code_text(ABNORMAL)
        )),
        None => None,
    }
}

fn frame_text(close: CloseFrame) -> String {
    let code = close.code.map_or("no code".to_owned(), code_text);
    let by = match close.initiator {
        Direction::Rx => "the peer",
        Direction::Tx => "this host",
    };
    format!("{code}, first from {by}")
}

/// What applications see at an end without a close frame. It is never sent.
const ABNORMAL: u16 = 1006;

/// The code with its name (RFC 6455 §7.4, and the registry of close codes that it founded).
fn code_text(code: u16) -> String {
    let name = match code {
        1000 => "normal closure",
        1001 => "going away",
        1002 => "protocol error",
        1003 => "unsupported data",
        1005 => "no code received; must not be sent",
        ABNORMAL => "abnormal closure",
        1007 => "invalid payload",
        1008 => "policy violation",
        1009 => "message too big",
        1010 => "an extension is missing",
        1011 => "internal error",
        1012 => "service restart",
        1013 => "try again later",
        1014 => "bad gateway",
        1015 => "TLS failed; must not be sent",
        3000 => "unauthorized",
        3003 => "forbidden",
        3008 => "timeout",
        3001..4000 => "of a library",
        4000..5000 => "of the application",
        _ => return code.to_string(),
    };
    format!("{code} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::tests::{detail, record};
    use monitor_core::CloseHow;

    #[test]
    fn a_close_frame_has_its_code_with_the_name_and_its_sender() {
        let text = |code, initiator| frame_text(CloseFrame { initiator, code });
        assert_eq!(
            text(Some(1001), Direction::Rx),
            "1001 (going away), first from the peer"
        );
        assert_eq!(text(None, Direction::Tx), "no code, first from this host");
        for (code, shown) in [
            (1006, "1006 (abnormal closure)"),
            (2999, "2999"),
            (3003, "3003 (forbidden)"),
            (3500, "3500 (of a library)"),
            (4001, "4001 (of the application)"),
        ] {
            assert_eq!(code_text(code), shown);
        }
    }

    #[test]
    fn an_end_without_a_close_frame_is_named_as_applications_see_it() {
        let open = record(&detail(7), None);
        assert_eq!(close_text(&open), None);
        let mut closed = record(&detail(7), Some(CloseHow::RstReceived));
        assert_eq!(
            close_text(&closed).as_deref(),
            Some("no close frame; applications see it as 1006 (abnormal closure)")
        );
        closed.protocol = "opaque".to_owned();
        assert_eq!(close_text(&closed), None, "nobody knows");
    }
}
