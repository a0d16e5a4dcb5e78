//! Plays a script and checks the result after each segment.

use monitor_common::{
    Direction,
    holes::PENDING_RUN_STEPS,
    listener::ListenerLimits,
    replay::{Connection, SeenFrame},
    segment::{Segment, tcp_flags},
    snapshot::role,
    stats::ListenerStats,
    stream::{MAX_STEPS, Walk, mode},
};
use wire::{REQUEST, RESPONSE};

use super::{
    HTTP,
    script::{Act, Action, Script, Start, segment_len},
    sender::{Frame, Sender},
};

/// In [`Action::Control`], in addition to TCP's flags.
const KEEPALIVE: u8 = 0x40;

/// Two ends, the network between them, and the monitor at one of them.
pub(super) struct Network {
    pub(super) connection: Connection,
    pub(super) stats: ListenerStats,
    limits: ListenerLimits,
    now: u64,
    isn: [u32; 2],
    pub(super) senders: [Sender; 2],
    /// Recognised frames.
    pub(super) seen: [Vec<Frame>; 2],
    ledgers: [Ledger; 2],
    /// A forged segment may have moved the cursor anywhere; from then on any byte may count as new.
    forged: bool,
    /// The upgrade is complete: every byte after it must be reported.
    exact: bool,
}

/// What was reported about one direction, in bytes of its stream.
#[derive(Clone, Copy, Debug, Default)]
struct Ledger {
    /// How far the stream advanced, holes included.
    advanced: i128,
    /// Bytes of frames, header and payload.
    framed: i128,
}

impl Network {
    fn new(is_client: bool, idle_limit: bool, isn: [u32; 2]) -> Self {
        let mut connection = Connection::EMPTY;
        let flow = &mut connection.flow;
        flow.snapshot.role = if is_client {
            role::CLIENT
        } else {
            role::SERVER
        };
        let masked = Direction::ALL.map(|direction| flow.snapshot.from_client(direction) != 0);
        Self {
            connection,
            stats: ListenerStats::EMPTY,
            limits: ListenerLimits {
                idle_limit_ns: if idle_limit { 60_000_000_000 } else { 0 },
            },
            now: 1,
            isn,
            senders: masked.map(Sender::new),
            seen: Default::default(),
            ledgers: [Ledger::default(); 2],
            forged: false,
            exact: false,
        }
    }

    /// A connection whose upgrade is complete.
    pub(super) fn upgraded(is_client: bool, idle_limit: bool, isn: [u32; 2]) -> Self {
        let mut network = Self::new(is_client, idle_limit, isn);
        let client = Direction::ALL[usize::from(is_client)];
        for (direction, head) in [(client, REQUEST), (client.opposite(), RESPONSE)] {
            let sender = &mut network.senders[direction.index()];
            sender.write_bytes(head);
            sender.only_frames = true;
            sender.first_frame = head.len();
            network.deliver(direction, head.len());
        }
        network.ledgers = Default::default();
        network.exact = true;
        network
    }

    pub(super) fn play(script: &Script) -> Self {
        let isn = script.isn();
        let mut network = match script.start {
            Start::Upgraded => Self::upgraded(script.is_client, script.idle_limit, isn),
            _ => Self::new(script.is_client, script.idle_limit, isn),
        };
        if script.start == Start::Adopted {
            network.connection.flow.join_mid_stream(Direction::Rx);
        }
        for act in &script.acts {
            network.act(act);
        }
        network
    }

    fn act(&mut self, act: &Act) {
        let direction = act.direction;
        if act.wait > 0 {
            self.now += 1 << (2 * act.wait + 8);
        }
        let sender = &mut self.senders[direction.index()];
        match &act.action {
            Action::Frame { .. } | Action::Bytes(_) | Action::Http(_) if sender.is_full() => {}
            Action::Frame { first, len, fill } => sender.write_frame(*first, *len, *fill),
            Action::Bytes(bytes) => sender.write_bytes(bytes),
            Action::Http(which) => sender.write_bytes(HTTP[usize::from(*which) % HTTP.len()]),
            Action::Deliver(len) => self.deliver(direction, segment_len(*len)),
            Action::Lose(len) => {
                sender.send(segment_len(*len));
            }
            Action::Again { back, len } => {
                let range = sender.send_again(usize::from(*back), segment_len(*len));
                self.show(direction, range);
            }
            Action::Control { flags, ack, window } => {
                self.control(direction, *flags, *ack, *window);
            }
            Action::Stray { ahead, payload } => {
                self.forged = true;
                self.exact = false;
                let seq = self.next_seq(direction).wrapping_add_signed(*ahead);
                self.take(
                    direction,
                    &self.data(direction, seq, payload.len()),
                    payload,
                );
            }
        }
    }

    pub(super) fn deliver(&mut self, direction: Direction, len: usize) {
        let range = self.senders[direction.index()].send(len);
        self.show(direction, range);
    }

    /// Shows the monitor a part of the stream.
    fn show(&mut self, direction: Direction, range: std::ops::Range<usize>) {
        let i = direction.index();
        let reported = self.reported(direction);
        // Bytes that wait behind a hole are not reported yet.
        let waiting = self.connection.waiting_bytes(direction) > 0;
        let seq = self.isn[i].wrapping_add(range.start as u32);
        let fresh = self.senders[i].show(range.clone());
        let stream = std::mem::take(&mut self.senders[i].bytes);
        let payload = &stream[range];
        self.take(
            direction,
            &self.data(direction, seq, payload.len()),
            payload,
        );
        self.senders[i].bytes = stream;
        if !fresh && !self.forged && !waiting {
            assert_eq!(
                self.reported(direction),
                reported,
                "a duplicate was counted"
            );
        }
    }

    fn control(&mut self, direction: Direction, flags: u8, ack: i8, window: u8) {
        let keepalive = flags & KEEPALIVE != 0;
        let segment = Segment {
            seq: self.next_seq(direction).wrapping_sub(keepalive.into()),
            ack: self
                .next_seq(direction.opposite())
                .wrapping_add_signed(ack.into()),
            window: window.into(),
            flags: u16::from(flags & !KEEPALIVE),
            payload_offset: 40,
            payload_len: 0,
        };
        self.take(direction, &segment, &[]);
    }

    fn next_seq(&self, direction: Direction) -> u32 {
        let i = direction.index();
        self.isn[i].wrapping_add(self.senders[i].sent as u32)
    }

    /// A segment that acknowledges what arrived without a gap.
    fn data(&self, direction: Direction, seq: u32, len: usize) -> Segment {
        let other = direction.opposite().index();
        Segment {
            seq,
            ack: self.isn[other].wrapping_add(self.senders[other].arrived as u32),
            window: 512,
            flags: tcp_flags::ACK,
            payload_offset: 40,
            payload_len: len as u32,
        }
    }

    /// Frames, their payload bytes, and bytes outside any frame.
    fn reported(&self, direction: Direction) -> [u64; 3] {
        let i = direction.index();
        [
            self.stats.frames[i].iter().map(|n| n.get()).sum(),
            self.stats.payload_bytes[i].get(),
            self.stats.unsynced_bytes[i].get(),
        ]
    }

    fn take(&mut self, direction: Direction, segment: &Segment, payload: &[u8]) {
        let before =
            Direction::ALL.map(|direction| (self.walk(direction), self.reported(direction)));
        let was_waiting = self.connection.waiting_bytes(direction) > 0;
        let mut seen: [Vec<SeenFrame>; 2] = Default::default();
        let taken = self.connection.take(
            direction,
            segment,
            payload,
            self.now,
            &self.limits,
            &mut self.stats,
            |frame| seen[frame.direction.index()].push(*frame),
        );
        let len = payload.len() as u64;
        assert!(!taken.unreadable, "the whole payload was readable");
        let steps = u64::from(taken.steps);
        // Behind a hole the search may try every offset as the start of a frame.
        let searches = was_waiting || self.connection.waiting_bytes(direction) > 0;
        let search = if searches {
            PENDING_RUN_STEPS.into()
        } else {
            0
        };
        assert!(
            steps <= 3 * len + 8 + search,
            "{steps} steps for {len} bytes"
        );
        assert!(taken.steps <= MAX_STEPS && (!taken.too_long || taken.steps == MAX_STEPS));
        for (of, (walk, reported)) in Direction::ALL.into_iter().zip(before) {
            let fresh = if of == direction { len } else { 0 };
            self.account(of, &walk, reported, &seen[of.index()], fresh);
            let frames = seen[of.index()].iter();
            self.seen[of.index()].extend(frames.map(|frame| Frame::from(&frame.header)));
        }
    }

    /// Checks what was reported about one direction against how far it advanced.
    fn account(
        &mut self,
        direction: Direction,
        before: &Walk,
        [frames, payload_bytes, _]: [u64; 3],
        seen: &[SeenFrame],
        fresh: u64,
    ) {
        let reported = self.reported(direction);
        let sum = |sum: u64, frame: &SeenFrame| sum.wrapping_add(frame.header.payload_len);
        assert_eq!(reported[0] - frames, seen.len() as u64, "frames");
        assert_eq!(reported[1], seen.iter().fold(payload_bytes, sum), "payload");
        let totals = &self.connection.totals;
        let [account_frames, account_unsynced] = [
            totals.frames(direction).iter().sum::<u64>(),
            totals.unsynced_bytes[direction.index()].get(),
        ];
        assert_eq!(
            (account_frames, account_unsynced),
            (reported[0], reported[2]),
            "the account of the connection"
        );

        let after = self.walk(direction);
        let ledger = &mut self.ledgers[direction.index()];
        if before.is_live() {
            ledger.advanced += i128::from(after.next_seq.wrapping_sub(before.next_seq));
        } else if after.is_live() {
            ledger.advanced += i128::from(fresh);
        }
        for SeenFrame { header, .. } in seen {
            ledger.framed += i128::from(header.taken) + i128::from(header.bytes_to_skip());
        }
        let attributed = ledger.framed + i128::from(reported[2]);
        let (to_come, begun) = if after.mode == mode::FRAMES {
            (i128::from(after.skip), i128::from(after.carry_len))
        } else {
            (0, 0)
        };
        let passed = ledger.advanced + to_come - begun;
        assert!(
            attributed <= passed,
            "{attributed} bytes reported, {passed} passed"
        );
        if self.exact {
            assert_eq!(attributed, passed, "bytes reported and passed");
        }
    }

    fn walk(&self, direction: Direction) -> Walk {
        match direction {
            Direction::Rx => self.connection.flow.rx_walk,
            Direction::Tx => self.connection.flow.tx_walk,
        }
    }
}
