//! Accounts for a frame in its flow: counts, messages, pings and the closing handshake.

use crate::{
    Direction,
    flow::{Flow, FrameEffect, notable},
    frame::{Header, opcode},
    idle_gap_scale,
    snapshot::{closing_by, protocol},
    stats::{
        ListenerStats, PongKind, ProtocolError, RESPONSE_BOUNDS, RTT_BOUNDS, SIZE_BOUNDS, response,
    },
};

impl Flow {
    /// Accounts for a frame.
    #[inline(always)]
    pub fn frame(
        &mut self,
        direction: Direction,
        header: &Header,
        now: u64,
        stats: &mut ListenerStats,
    ) -> FrameEffect {
        let i = direction.index();
        stats.frames[i][(header.opcode() & 0x0f) as usize].add(1);
        stats.payload_bytes[i].add(header.payload_len);
        let own = self.snapshot.facts_mut(direction);
        own.frames = own.frames.wrapping_add(1);
        own.payload_bytes = own.payload_bytes.wrapping_add(header.payload_len);
        own.last_frame = now;
        let from_client = self.snapshot.from_client(direction);
        let mut effect = FrameEffect::new(
            self.walk_mut(direction).follow_message(header) | header.violations(from_client) as u16,
        );
        match header.opcode() {
            opcode::PING => self.ping(direction, header, now, stats),
            opcode::PONG => {
                effect = effect.with_ping_rtt(self.pong(direction, header, now, stats));
            }
            opcode::CLOSE => {
                effect = effect.with_broken_rules(close_violation(header));
                self.close(direction, header, now, stats);
            }
            _ => self.data(direction, header, now, stats),
        }
        if effect.broken_rules() != 0 {
            count_errors(effect.broken_rules(), stats);
        }
        effect
    }

    /// Counts what is unfinished when the connection ends.
    #[inline(always)]
    pub fn end(&mut self, stats: &mut ListenerStats) {
        match self.snapshot.protocol {
            protocol::GONE => return,
            protocol::UPGRADING => stats.handshakes[response::NONE].add(1),
            _ => {}
        }
        for (i, walk) in [&self.rx_walk, &self.tx_walk].into_iter().enumerate() {
            stats.unfinished_messages[i].add(walk.is_inside_message() as u64);
        }
    }

    #[inline(always)]
    fn data(&mut self, direction: Direction, header: &Header, now: u64, stats: &mut ListenerStats) {
        let i = direction.index();
        let from_client = self.snapshot.from_client(direction) as u64;
        let other = self
            .snapshot
            .facts_mut(direction.opposite())
            .last_data_frame;
        let own = self.snapshot.facts_mut(direction);
        if from_client == 0 && other > own.last_data_frame {
            let took = now.saturating_sub(other);
            stats.response_time.observe(took, &RESPONSE_BOUNDS);
        }
        // Frames of one tick have the same time. A client's frame is later than the server's last one, and
        // the server's frame is not earlier than what it responds to.
        own.last_data_frame = now.max(other.saturating_add(from_client));
        let whole = header.fin();
        let mut size = header.payload_len;
        if header.opcode() == opcode::CONTINUATION {
            size = size.saturating_add(self.message_len[i] as u64);
        } else {
            if !whole {
                stats.fragmented_messages[i].add(1);
            }
            if header.rsv() != 0 {
                stats.compressed_messages[i].add(1);
            }
        }
        if whole {
            stats.message_sizes[i].observe(size, &SIZE_BOUNDS);
            size = 0;
        }
        self.message_len[i] = if size > u32::MAX as u64 {
            u32::MAX
        } else {
            size as u32
        };
    }

    #[inline(always)]
    fn ping(&mut self, direction: Direction, header: &Header, now: u64, stats: &mut ListenerStats) {
        let tags = &mut self.ping_tags[direction.index()];
        tags.last = header.tag();
        let own = self.snapshot.facts_mut(direction);
        let is_first = own.last_ping == 0;
        if !is_first {
            let interval = now.saturating_sub(own.last_ping);
            own.beat(interval);
            stats.ping_intervals[direction.index()][idle_gap_scale::slot_of(interval)].add(1);
        }
        let earlier = own.pings_unanswered();
        if earlier == 0 {
            own.first_unanswered_ping = now;
            tags.first = tags.last;
        }
        own.last_ping = now;
        own.pings = own.pings.wrapping_add(1);
        if earlier != 0 {
            stats.pings_unanswered[direction.index()].add(1);
        }
        let mut notes = notable::PUBLISH;
        // Once the first ping is reported, the daemon checks every ping timeout and detects a single
        // unanswered ping in time.
        if matches!(direction, Direction::Tx) && (self.snapshot.try_again(now) || is_first) {
            notes |= notable::PING_UNANSWERED;
        }
        self.walk_mut(direction).note(notes);
    }

    /// A pong with the payload of the latest ping answers that ping and all before it (RFC 6455 §5.5.3). A
    /// pong with the payload of the oldest answers only that one. Any other pong proves that the side is
    /// alive, so no ping counts as unanswered, but it measures nothing. Returns the round trip as
    /// [`FrameEffect::ping_rtt_us`].
    #[inline(always)]
    fn pong(
        &mut self,
        direction: Direction,
        header: &Header,
        now: u64,
        stats: &mut ListenerStats,
    ) -> u32 {
        let pinger = direction.opposite();
        self.walk_mut(direction).note(notable::PUBLISH);
        let tags = &mut self.ping_tags[pinger.index()];
        let other = self.snapshot.facts_mut(pinger);
        let unanswered = other.pings_unanswered();
        let tag = header.tag();
        let pongs = &mut stats.pongs[direction.index()];
        if unanswered == 0 {
            pongs[PongKind::Unsolicited as usize].add(1);
            return 0;
        }
        let is_last = tag == tags.last;
        let is_first = tag == tags.first && !is_last;
        let sent_at = if is_last {
            other.last_ping
        } else {
            other.first_unanswered_ping
        };
        if is_first {
            other.pings_answered = other.pings_answered.wrapping_add(1);
            // The send time of the second ping is known only if it was the last one. Otherwise the peer
            // gets the full time, as if the ping had left now.
            other.first_unanswered_ping = if unanswered == 2 {
                other.last_ping
            } else {
                now
            };
            tags.first = tags.last;
        } else {
            other.pings_answered = other.pings;
        }
        if !is_last && !is_first {
            // With three outstanding pings, the middle one is not remembered.
            let kind = if unanswered > 2 {
                PongKind::Matched
            } else {
                PongKind::Mismatched
            };
            pongs[kind as usize].add(1);
            return 0;
        }
        pongs[PongKind::Matched as usize].add(1);
        let rtt = now.saturating_sub(sent_at);
        stats.ping_rtt[pinger.index()].observe(rtt, &RTT_BOUNDS);
        let rtt = micros(rtt);
        self.snapshot.ping_rtt_us[pinger.index()] = rtt;
        rtt
    }

    #[inline(always)]
    fn close(
        &mut self,
        direction: Direction,
        header: &Header,
        now: u64,
        stats: &mut ListenerStats,
    ) {
        let code = header.close_code();
        let repeated = self.walk_mut(direction).pass_close_frame();
        let s = &mut self.snapshot;
        let by = match direction {
            Direction::Rx => closing_by::CLOSE_FRAME_RX,
            Direction::Tx => closing_by::CLOSE_FRAME_TX,
        };
        let first = s.begin_closing(by, now);
        let initiator = 1 + direction as u8;
        if s.close_initiator == 0 {
            s.close_initiator = initiator;
            s.close_code = code;
        } else if s.close_initiator != initiator && !repeated {
            let took = now.saturating_sub(s.closing_at);
            stats.close_handshake_time.observe(took, &RTT_BOUNDS);
        }
        let walk = self.walk_mut(direction);
        walk.note(notable::PUBLISH);
        if first {
            walk.note(notable::CLOSING);
        }
    }
}

/// The rule that a close frame breaks by its code, as a bit by [`ProtocolError`].
#[inline(always)]
const fn close_violation(header: &Header) -> u16 {
    let breaks = !is_legal(header.close_code(), header.payload_len);
    (breaks as u16) << ProtocolError::InvalidCloseCode as u16
}

/// The close codes of RFC 6455 §7.4.2 and those registered since. An empty body is legal, one byte is not.
#[inline(always)]
const fn is_legal(code: u16, payload_len: u64) -> bool {
    match code {
        0 => payload_len == 0,
        1000..=1003 | 1007..=1014 | 3000..=4999 => true,
        _ => false,
    }
}

/// Counts each rule in `broken`, bits by [`ProtocolError`].
#[inline(always)]
fn count_errors(broken: u16, stats: &mut ListenerStats) {
    let mut rule = 0;
    // Straight-line: the verifier would follow every combination of branches.
    while rule < stats.protocol_errors.len() {
        stats.protocol_errors[rule].add((broken >> rule & 1) as u64);
        rule += 1;
    }
}

/// A round trip in microseconds, never 0, which means none.
#[inline(always)]
const fn micros(nanos: u64) -> u32 {
    match nanos / 1000 {
        0 => 1,
        micros if micros > u32::MAX as u64 => u32::MAX,
        micros => micros as u32,
    }
}
