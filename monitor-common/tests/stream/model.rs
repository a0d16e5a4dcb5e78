//! The expected totals of a connection's frames, and the delivery of its segments.

use std::ops::Range;

use monitor_common::{Direction, stats::PongKind, stream::MAX_STEPS};
use proptest::prelude::*;

use crate::ws::{Fate, Frame, Monitor, Stream, cut};

/// The simplest model of a connection's frame totals.
#[derive(Default)]
pub(crate) struct Model {
    frames: [[u64; 16]; 2],
    payload: [u64; 2],
    fragmented: [u64; 2],
    /// The lengths of the outstanding pings; nothing else distinguishes them.
    outstanding: [Vec<usize>; 2],
    pinged_again: [u64; 2],
    round_trips: [u64; 2],
    /// By `PongKind`.
    pongs: [[u64; 3]; 2],
    close: Option<(Direction, u16)>,
}

impl Model {
    pub(crate) fn frame(&mut self, direction: Direction, frame: &Frame) {
        let (own, other) = (direction.index(), direction.opposite().index());
        self.frames[own][usize::from(frame.opcode)] += 1;
        self.payload[own] += frame.len as u64;
        self.fragmented[own] += u64::from(!frame.fin && frame.opcode != 0);
        match frame.opcode {
            wire::PING => {
                self.pinged_again[own] += u64::from(!self.outstanding[own].is_empty());
                self.outstanding[own].push(frame.len);
            }
            wire::PONG => {
                let kind = answer(&mut self.outstanding[other], frame.len);
                self.pongs[own][kind as usize] += 1;
                self.round_trips[other] += u64::from(kind == PongKind::Matched);
            }
            wire::CLOSE => {
                self.close
                    .get_or_insert((direction, frame.code.unwrap_or(0)));
            }
            _ => {}
        }
    }

    pub(crate) fn check(&self, monitor: &Monitor) -> Result<(), TestCaseError> {
        let (stats, s) = (&monitor.stats, &monitor.flow().snapshot);
        let close = (s.close_initiator != 0).then(|| {
            let by = Direction::ALL[usize::from(s.close_initiator) - 1];
            (by, s.close_code)
        });
        prop_assert_eq!(close, self.close);
        for (d, facts) in [(Direction::Rx, s.rx), (Direction::Tx, s.tx)] {
            let i = d.index();
            prop_assert_eq!(stats.frames[i].map(|n| n.get()), self.frames[i]);
            prop_assert_eq!(stats.payload_bytes[i].get(), self.payload[i]);
            prop_assert_eq!(facts.payload_bytes, self.payload[i]);
            prop_assert_eq!(u64::from(facts.frames), self.frames[i].iter().sum::<u64>());
            prop_assert_eq!(stats.fragmented_messages[i].get(), self.fragmented[i]);
            prop_assert_eq!(stats.unsynced_bytes[i].get(), 0);
            let outstanding = self.outstanding[i].len() as u32;
            prop_assert_eq!(facts.pings_unanswered(), outstanding);
            prop_assert_eq!(stats.pongs[i].map(|n| n.get()), self.pongs[i]);
            prop_assert_eq!(stats.pings_unanswered[i].get(), self.pinged_again[i]);
            let rtt = &stats.ping_rtt[i].buckets;
            // A pong that matches a ping between the first and the last measures nothing.
            let measured = rtt.iter().map(|n| n.get()).sum::<u64>();
            prop_assert!(measured <= self.round_trips[i]);
        }
        Ok(())
    }
}

/// The kind of a pong with `len` bytes.
fn answer(outstanding: &mut Vec<usize>, len: usize) -> PongKind {
    let (Some(first), Some(last)) = (outstanding.first(), outstanding.last()) else {
        return PongKind::Unsolicited;
    };
    if len == *last {
        outstanding.clear();
        PongKind::Matched
    } else if len == *first {
        outstanding.remove(0);
        // The pings in the middle are not remembered.
        let last = outstanding.last().copied();
        outstanding
            .iter_mut()
            .for_each(|len| *len = last.unwrap_or(*len));
        PongKind::Matched
    } else {
        let middle = outstanding.len() > 2;
        outstanding.clear();
        if middle {
            PongKind::Matched
        } else {
            PongKind::Mismatched
        }
    }
}

/// One direction in transit: the segments still to send and the frames counted so far.
pub(crate) struct Journey {
    direction: Direction,
    stream: Stream,
    ranges: std::vec::IntoIter<Range<usize>>,
    isn: u32,
    counted: usize,
}

impl Journey {
    /// The first `opening` bytes come in one segment: HTTP is recognised by how a segment begins.
    pub(crate) fn new(
        direction: Direction,
        stream: Stream,
        opening: usize,
        sizes: &[usize],
        isn: u32,
    ) -> Self {
        let mut ranges = cut(opening, &[opening.max(1)]);
        let rest = cut(stream.bytes.len() - opening, sizes);
        ranges.extend(rest.into_iter().map(|r| r.start + opening..r.end + opening));
        Self {
            direction,
            stream,
            ranges: ranges.into_iter(),
            isn,
            counted: 0,
        }
    }

    /// Delivers the next segment to the monitor; false when there is none.
    pub(crate) fn go(
        &mut self,
        fate: Fate,
        monitor: &mut Monitor,
        model: &mut Model,
    ) -> Result<bool, TestCaseError> {
        let Some(mut range) = self.ranges.next() else {
            return Ok(false);
        };
        let mut times = 1;
        match fate {
            Fate::Unseen
                if self.stream.is_payload(&range) && !self.ranges.as_slice().is_empty() =>
            {
                return Ok(true);
            }
            Fate::ArrivesTwice => times = 2,
            Fate::Overlaps(by) => range.start = range.start.saturating_sub(by),
            _ => {}
        }
        for _ in 0..times {
            let seq = self.isn.wrapping_add(range.start as u32);
            let account = monitor.take(self.direction, seq, &self.stream.bytes[range.clone()]);
            prop_assert!(account.taken.steps <= MAX_STEPS && !account.taken.too_long);
        }
        while let Some((_, frame)) = self
            .stream
            .frames
            .get(self.counted)
            .filter(|(header_end, _)| *header_end <= range.end)
        {
            model.frame(self.direction, frame);
            self.counted += 1;
        }
        Ok(true)
    }

    /// Whether all HTTP of this direction was sent.
    pub(crate) fn http_passed(&self) -> bool {
        let next = self.ranges.as_slice().first();
        next.is_none_or(|next| next.start >= self.stream.http)
    }
}
