//! The attached programs and their output.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::link::Link;
use monitor::{
    config::listeners::{ListenerConfig, PortRange},
    decode,
    kernel::{
        bpf::{
            loader::{LoadSettings, Loaded},
            maps::{Drops, Ring, SampleRate, Snapshots, Stats},
        },
        host::cgroup::find_cgroup2,
    },
};
use monitor_common::{
    connection_totals::ConnectionTotals,
    drop_reason::DropReason,
    event::FrameSample,
    replay::SeenFrame,
    stats::{Counter, ListenerStats},
};
use monitor_core::ListenerRules;

/// The ports that the shared programs watch. Each has its own listener, so that a test sees only
/// its own counters.
pub(super) const PORTS: Range<u16> = 28_090..28_111;

/// Programs loaded once for all tests, because loading takes most of the time in a guest. One test
/// at a time uses them: the rings and the loss counters are shared by all listeners.
static SHARED: Mutex<Option<Kernel>> = Mutex::new(None);

/// The shared programs, locked by one test.
pub(super) struct KernelGuard(MutexGuard<'static, Option<Kernel>>);

impl KernelGuard {
    /// Waits until no other test uses the shared programs.
    pub(super) fn wait() -> Self {
        // Each test records the counts before it, so one that failed does not affect the others.
        Self(SHARED.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The shared programs, for connections on the watched `port`.
    pub(super) fn watching(&mut self, port: u16) -> &mut Kernel {
        let kernel = self.0.get_or_insert_with(|| Kernel::watching(PORTS));
        kernel.begin(port);
        kernel
    }
}

/// The attached programs and their rings.
pub(super) struct Kernel {
    stats: Stats,
    drops: Drops,
    pub(super) snapshots: Snapshots,
    pub(super) vitals: Ring,
    pub(super) samples: Ring,
    pub(super) handshakes: Ring,
    /// The first watched port, which belongs to the first listener.
    first: u16,
    listener: u16,
    dropped_before: [u64; DropReason::ALL.len()],
    /// Counts before the current connection.
    before: ListenerStats,
    /// Keeps the programs loaded and attached.
    loaded: Loaded,
}

impl Kernel {
    /// Separate programs, with a listener for each port.
    pub(super) fn watching(ports: Range<u16>) -> Self {
        let first = ports.start;
        let mut loaded = load(ports);
        let mut rate = SampleRate::take(&mut loaded).unwrap();
        rate.set_one_in(1).unwrap();
        let mut kernel = Self {
            stats: Stats::take(&mut loaded).unwrap(),
            drops: Drops::take(&mut loaded).unwrap(),
            snapshots: Snapshots::take(&mut loaded).unwrap(),
            vitals: Ring::vitals(&mut loaded).unwrap(),
            samples: Ring::samples(&mut loaded).unwrap(),
            handshakes: Ring::handshakes(&mut loaded).unwrap(),
            first,
            listener: 0,
            dropped_before: Default::default(),
            before: ListenerStats::EMPTY,
            loaded,
        };
        kernel.loaded.attach(&find_cgroup2().unwrap()).unwrap();
        kernel
    }

    /// Switches to the listener of `port`, and discards leftovers of the previous test.
    fn begin(&mut self, port: u16) {
        self.listener = port - self.first;
        for ring in [&mut self.vitals, &mut self.samples, &mut self.handshakes] {
            while ring.next(|_| ()).is_some() {}
        }
        self.dropped_before =
            std::array::from_fn(|index| self.drops.read(DropReason::ALL[index]).unwrap());
        self.before = self.stats();
        assert_eq!(self.before, ListenerStats::EMPTY, "one test per port");
    }

    /// The counters of the listener.
    pub(super) fn stats(&self) -> ListenerStats {
        self.stats.read_one(u32::from(self.listener)).unwrap()
    }

    /// Losses for this reason since the test began.
    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.read(reason).unwrap() - self.dropped_before[reason as usize]
    }

    /// Like `agrees_with` once the socket is closed, including what the close leaves unfinished.
    #[track_caller]
    pub(super) fn agrees_at_the_end(&mut self, link: Link, what: &str) {
        let mut link = link.ended();
        // Another test may be starting a process, which briefly holds a copy of the socket.
        let closed = |stats: &ListenerStats| stats.closed.iter().map(Counter::get).sum::<u64>();
        let before = closed(&self.before);
        lab::wait_until(what, Duration::from_secs(10), || {
            closed(&self.stats()) > before
        })
        .unwrap();
        self.agrees_with(&mut link, what);
        let ends = std::iter::from_fn(|| self.vitals.next(decode::closed));
        let end = ends
            .flatten()
            .find(|end| end.closed.detail.facts.conn == link.conn());
        let end = end.expect("the record of the end");
        let totals = end.totals.expect("an account");
        assert_eq!(account(&totals), account(link.native.totals()), "{what}");
    }

    /// Asserts that the counters and samples of one connection equal those of the native run.
    #[track_caller]
    pub(super) fn agrees_with(&mut self, link: &mut Link, what: &str) {
        let now = self.stats();
        let figures = Figures::between(&self.before, &now);
        let native = Figures::between(&link.compared, &link.native.stats);
        (self.before, link.compared) = (now, link.native.stats);
        assert_eq!(figures, native, "{what}");

        let mut expected = link.native.seen.drain(..);
        while let Some(sample) = self.samples.next(decode::sample) {
            let sample = sample.expect("a valid record");
            let of = (sample.cookie, sample.listener);
            assert_eq!(of, (link.cookie, self.listener));
            assert_eq!(Some(Seen::from(sample)), expected.next(), "{what}");
        }
        assert_eq!(expected.next(), None, "{what}: not sampled");
    }
}

pub(super) fn load(ports: Range<u16>) -> Loaded {
    let listeners: Vec<_> = ports
        .map(|port| ListenerConfig {
            rules: ListenerRules::new(port.to_string(), None),
            ports: vec![PortRange(port..=port)],
            remote: false,
        })
        .collect();
    let settings = LoadSettings {
        keep_totals: true,
        ..LoadSettings::default()
    };
    Loaded::new(&listeners, &settings).unwrap()
}

/// What in a connection's account does not depend on the clock.
fn account(totals: &ConnectionTotals) -> ConnectionTotals {
    let mut account = *totals;
    account.ping_rtts = ConnectionTotals::EMPTY.ping_rtts;
    account.longest_gap_ticks = [0; 2];
    account
}

/// The facts that do not depend on the clock.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Figures {
    frames: [[u64; 16]; 2],
    payload_bytes: [u64; 2],
    unsynced_bytes: [u64; 2],
    fragmented_messages: [u64; 2],
    compressed_messages: [u64; 2],
    unfinished_messages: [u64; 2],
    message_sizes: [Vec<u64>; 2],
    message_bytes: [u64; 2],
    pongs: [Vec<u64>; 2],
    protocol_errors: Vec<u64>,
    handshakes: Vec<u64>,
    pings_unanswered: [u64; 2],
    round_trips: [u64; 2],
    ping_intervals: [u64; 2],
    responses: u64,
    opened: u64,
}

impl Figures {
    fn between(before: &ListenerStats, now: &ListenerStats) -> Self {
        let pair =
            |of: fn(&ListenerStats, usize) -> u64| [0, 1].map(|i| of(now, i) - of(before, i));
        Self {
            frames: [0, 1].map(|i| {
                std::array::from_fn(|op| now.frames[i][op].get() - before.frames[i][op].get())
            }),
            payload_bytes: pair(|s, i| s.payload_bytes[i].get()),
            unsynced_bytes: pair(|s, i| s.unsynced_bytes[i].get()),
            fragmented_messages: pair(|s, i| s.fragmented_messages[i].get()),
            compressed_messages: pair(|s, i| s.compressed_messages[i].get()),
            unfinished_messages: pair(|s, i| s.unfinished_messages[i].get()),
            message_sizes: [0, 1].map(|i| {
                difference(
                    &before.message_sizes[i].buckets,
                    &now.message_sizes[i].buckets,
                )
            }),
            message_bytes: pair(|s, i| s.message_sizes[i].sum.get()),
            pongs: [0, 1].map(|i| difference(&before.pongs[i], &now.pongs[i])),
            protocol_errors: difference(&before.protocol_errors, &now.protocol_errors),
            handshakes: difference(&before.handshakes, &now.handshakes),
            pings_unanswered: pair(|s, i| s.pings_unanswered[i].get()),
            round_trips: pair(|s, i| s.ping_rtt[i].buckets.iter().map(|n| n.get()).sum()),
            ping_intervals: pair(|s, i| s.ping_intervals[i].iter().map(Counter::get).sum()),
            responses: difference(&before.response_time.buckets, &now.response_time.buckets)
                .iter()
                .sum(),
            opened: now.opened.get() - before.opened.get(),
        }
    }
}

fn difference(before: &[Counter], now: &[Counter]) -> Vec<u64> {
    now.iter()
        .zip(before)
        .map(|(now, before)| now.get() - before.get())
        .collect()
}

/// A frame header as a live viewer gets it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    direction: u8,
    first_byte: u8,
    masked: bool,
    payload_len: u64,
    close_code: u16,
    answers: bool,
}

impl From<FrameSample> for Seen {
    fn from(sample: FrameSample) -> Self {
        Self {
            direction: sample.direction,
            first_byte: sample.first_byte,
            masked: sample.masked != 0,
            payload_len: sample.payload_len,
            close_code: sample.close_code,
            answers: sample.ping_rtt_us != 0,
        }
    }
}

impl From<SeenFrame> for Seen {
    fn from(frame: SeenFrame) -> Self {
        Self {
            direction: frame.direction as u8,
            first_byte: frame.header.first_byte(),
            masked: frame.header.masked(),
            payload_len: frame.header.payload_len,
            close_code: frame.header.close_code(),
            answers: frame.ping_rtt_us != 0,
        }
    }
}
