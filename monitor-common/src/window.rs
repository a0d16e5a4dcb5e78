//! Receive windows that close and open again: this host's and the peer's.

use crate::{
    Direction,
    flow::notable,
    moment::Moment,
    snapshot::{CLOSED_WINDOW_REPORT, Snapshot},
    stats::ListenerStats,
    stream::Walk,
};

impl Snapshot {
    /// This host closes its window, keeps it closed, or reopens it. `last_packet` is when this host last
    /// sent anything.
    #[inline(always)]
    pub(crate) fn advertise(
        &mut self,
        is_closed: bool,
        last_packet: u64,
        now: u64,
        walk: &mut Walk,
        stats: &mut ListenerStats,
    ) {
        if is_closed {
            // The peer can send no answer until this host reads.
            self.first_try = Moment::NEVER;
        }
        let closed_at = &mut self.own_window_closed_at;
        if follow_window(closed_at, is_closed, last_packet, now, walk) {
            stats.zero_windows[Direction::Tx.index()].add(1);
        }
    }

    /// The same for the peer.
    #[inline(always)]
    pub(crate) fn hear_window(
        &mut self,
        is_closed: bool,
        last_packet: u64,
        now: u64,
        walk: &mut Walk,
        stats: &mut ListenerStats,
    ) {
        if is_closed {
            // A ping that it has received waits behind what its application has not read.
            self.first_try = Moment::NEVER;
        }
        let closed_at = &mut self.peer_window_closed_at;
        if follow_window(closed_at, is_closed, last_packet, now, walk) {
            stats.zero_windows[Direction::Rx.index()].add(1);
        }
    }
}

/// Follows a window that closes, stays closed or reopens; true if it has just closed. `last_packet` is when
/// its side last sent anything.
#[inline(always)]
fn follow_window(
    closed_at: &mut Moment,
    is_closed: bool,
    last_packet: u64,
    now: u64,
    walk: &mut Walk,
) -> bool {
    let closes = is_closed && !closed_at.is_some();
    let reported_at = closed_at.nanos(now).wrapping_add(CLOSED_WINDOW_REPORT);
    if closes {
        *closed_at = Moment::of(now);
        walk.note(notable::PUBLISH);
    } else if !is_closed {
        *closed_at = Moment::NEVER;
        walk.note(if now >= reported_at {
            notable::ANSWERED
        } else {
            notable::PUBLISH
        });
    } else if now >= reported_at && last_packet < reported_at {
        walk.note(notable::WINDOW_CLOSED);
    }
    closes
}
