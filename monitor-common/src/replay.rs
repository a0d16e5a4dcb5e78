//! One segment through the packet logic outside the kernel, in the order of the kernel programs.

use crate::{
    Direction,
    flow::Flow,
    frame::Head,
    listener::ListenerLimits,
    segment::{Segment, tcp_flags},
    stats::ListenerStats,
    stream::{MAX_STEPS, Payload, Step},
};

/// What one segment led to, apart from what [`Flow`] and [`ListenerStats`] keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What is notable about it; see [`crate::flow::notable`].
    pub notes: u32,
    /// Steps of the walk; at most [`MAX_STEPS`].
    pub steps: u32,
    /// The walk reached the cap: what was left is in
    /// [`unsynced_bytes`](ListenerStats::unsynced_bytes).
    pub too_long: bool,
    /// Some of the payload was not in `payload`.
    pub unreadable: bool,
}

/// Takes one segment of `flow` at `now` (CLOCK_MONOTONIC, nanoseconds). Each step of the walk is
/// shown to `seen` once it is accounted for.
#[expect(
    clippy::too_many_arguments,
    reason = "a flow and its listener on one side, a segment on the other"
)]
pub fn take(
    flow: &mut Flow,
    direction: Direction,
    segment: &Segment,
    payload: &[u8],
    now: u64,
    limits: &ListenerLimits,
    stats: &mut ListenerStats,
    mut seen: impl FnMut(&Step),
) -> Taken {
    match direction {
        Direction::Rx => flow.receive(segment, now, limits, stats),
        Direction::Tx => flow.send(segment, now, limits, stats),
    }
    let mut taken = Taken {
        notes: 0,
        steps: 0,
        too_long: false,
        unreadable: false,
    };
    let payload = Bytes(payload);
    if segment.payload_len > 0
        && !segment.has(tcp_flags::SYN)
        && let Some(at) = flow.place(direction, segment, &payload, stats)
    {
        walk(
            flow, direction, segment, &payload, at, now, stats, &mut seen, &mut taken,
        );
    }
    taken.notes = flow.walk_mut(direction).take_notes();
    taken
}

#[expect(
    clippy::too_many_arguments,
    reason = "the locals of `take`; a struct would only move the list"
)]
fn walk(
    flow: &mut Flow,
    direction: Direction,
    segment: &Segment,
    payload: &Bytes<'_>,
    mut at: u32,
    now: u64,
    stats: &mut ListenerStats,
    seen: &mut impl FnMut(&Step),
    taken: &mut Taken,
) {
    let len = segment.payload_len;
    let from_client = flow.snapshot.from_client(direction);
    let unsynced = direction.index();
    while taken.steps < MAX_STEPS {
        taken.steps += 1;
        let step = flow
            .walk_mut(direction)
            .step(&mut at, len, from_client, payload);
        match step {
            Step::End => return,
            Step::Unreadable => {
                taken.unreadable = true;
                stats.unsynced_bytes[unsynced].add(len.saturating_sub(at) as u64);
                return;
            }
            _ => flow.account(direction, &step, now, stats),
        }
        seen(&step);
    }
    taken.too_long = true;
    let left = flow.walk_mut(direction).abandon(at, len);
    stats.unsynced_bytes[unsynced].add(left as u64);
}

struct Bytes<'a>(&'a [u8]);

impl Payload for Bytes<'_> {
    fn read(&self, offset: u32, len: u32) -> Option<Head> {
        let range = offset as usize..offset as usize + len as usize;
        let mut head = Head::default();
        for (i, byte) in (0_u8..).zip(self.0.get(range)?) {
            head.put(i, *byte);
        }
        Some(head)
    }
}
