//! Frames on their way from the kernel to who looks at them. While nobody does, none leaves the
//! kernel.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    time::Duration,
};

use jiff::Timestamp;
use monitor_common::{Direction as Way, drop::DropReason, event::FrameSample};
use tokio::{io::unix::AsyncFd, task::yield_now, time::sleep};

use crate::{
    core::{ConnId, Facts, Ktime, facts::Direction},
    frames::{Filter, FrameRecord, OneIn},
    kernel::{
        clock, decode,
        load::{LoadError, Loaded},
        maps::{Drops, MapAccessError, Ring, RingFill, SampleRate},
    },
    listeners::Listener,
    sink::control::{FrameViewers, Lines, WatchError},
};

/// Frames in one turn of the daemon, so that a flood of them does not keep verdicts waiting.
const FRAMES_PER_TURN: usize = 4096;

/// How often losses are looked for while no frame comes.
const LOSS_CHECK: Duration = Duration::from_secs(1);

/// Connections whose ends are kept at hand while somebody looks. About 100 bytes each.
const KNOWN_ENDS: usize = 16_384;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

/// The daemon's end of the `SAMPLES` ring.
pub struct FrameTap {
    ring: AsyncFd<Ring>,
    rate: SampleRate,
    /// What the kernel was last told: one in this many frames; 0 = none.
    one_in: u32,
    viewers: FrameViewers,
    ends: KnownEnds,
    /// What the kernel's counters said when the viewers were last told.
    lost: u64,
    /// The last turn left frames in the ring.
    unfinished: bool,
}

impl FrameTap {
    /// Must be called within a tokio runtime.
    pub fn take(loaded: &mut Loaded) -> Result<Self, TapError> {
        Ok(Self {
            ring: Ring::samples(loaded)?.watched()?,
            rate: SampleRate::take(loaded)?,
            one_in: 0,
            viewers: FrameViewers::default(),
            ends: KnownEnds::default(),
            lost: 0,
            unfinished: false,
        })
    }

    /// Who looks at frames.
    pub fn viewers(&self) -> usize {
        self.viewers.len()
    }

    /// How full the ring was found.
    pub fn ring_fill(&self) -> RingFill {
        self.ring.get_ref().fill()
    }

    /// Returns when there is something to do: frames, losses, or a viewer that left. Never, while
    /// nobody looks.
    pub async fn ready(&mut self) -> io::Result<()> {
        if self.viewers.is_empty() {
            return std::future::pending().await;
        }
        if self.unfinished {
            yield_now().await;
            return Ok(());
        }
        tokio::select! {
            ready = self.ring.readable_mut() => ready?.clear_ready(),
            () = self.viewers.someone_left() => {}
            () = sleep(LOSS_CHECK) => {}
        }
        Ok(())
    }

    /// Lets somebody look, from this moment on.
    pub fn watch(
        &mut self,
        filter: Filter,
        one_in: OneIn,
        drops: &Drops,
    ) -> Result<Lines, WatchError> {
        if self.viewers.is_empty() {
            // What the last viewer left behind is not for this one.
            while self.ring.get_mut().next(|_| ()).is_some() {}
            self.lost = lost_in_kernel(drops)?;
        }
        let lines = self.viewers.admit(filter, one_in)?;
        self.ask_the_kernel()?;
        Ok(lines)
    }

    /// The frames that wait in the ring, up to a bound.
    pub fn collect(&mut self) -> Collected {
        self.viewers.forget_those_who_left();
        if let Err(error) = self.ask_the_kernel() {
            log::error!("cannot tell the kernel how many frames to send: {error}");
        }
        let mut collected = Collected::default();
        if self.viewers.is_empty() {
            self.ends = KnownEnds::default();
            self.unfinished = false;
            return collected;
        }
        let ring = self.ring.get_mut();
        while collected.frames.len() < FRAMES_PER_TURN {
            match ring.next(decode::sample) {
                Some(Ok(sample)) => collected.frames.push(sample),
                Some(Err(error)) => {
                    collected.undecodable += 1;
                    log::warn!("a record of the samples ring: {error}");
                }
                None => break,
            }
        }
        self.unfinished = collected.frames.len() == FRAMES_PER_TURN;
        collected
    }

    /// The ends of a connection, if they are at hand.
    pub fn ends(&self, conn: ConnId) -> Option<Ends> {
        self.ends.get(conn)
    }

    /// Keeps the ends of a connection at hand while somebody looks: its last frames may still be in
    /// the ring when its snapshot is gone.
    pub fn remember(&mut self, facts: &Facts) {
        if !self.viewers.is_empty() {
            self.ends.insert(
                facts.conn,
                Ends {
                    local: facts.local,
                    peer: facts.peer,
                },
            );
        }
    }

    /// Shows a frame to who wants it.
    pub fn show(&mut self, sample: &FrameSample, ends: Ends, listeners: &[Listener], now: &Now) {
        let listener = listeners.get(usize::from(sample.listener));
        let record = record(
            sample,
            ends,
            listener.map_or("", |listener| &listener.rules.name),
            now,
        );
        self.viewers.show(&record, self.one_in);
    }

    /// Tells the viewers of frames that were lost on the way here: those that the kernel counted
    /// since the last time, and `orphans`, whose connection nobody knows.
    pub fn tell_losses(&mut self, orphans: u64, drops: &Drops) -> Result<(), MapAccessError> {
        if self.viewers.is_empty() {
            return Ok(());
        }
        let lost = lost_in_kernel(drops)?;
        let new = lost.saturating_sub(self.lost) + orphans;
        self.lost = lost;
        if new > 0 {
            self.viewers.lost(new);
        }
        Ok(())
    }

    fn ask_the_kernel(&mut self) -> Result<(), MapAccessError> {
        let one_in = self.viewers.one_in();
        if one_in != self.one_in {
            self.rate.set_one_in(one_in)?;
            self.one_in = one_in;
        }
        Ok(())
    }
}

/// What one turn took out of the ring.
#[derive(Debug, Default)]
pub struct Collected {
    pub frames: Vec<FrameSample>,
    /// Records that made no sense.
    pub undecodable: u64,
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub at: Ktime,
    pub ts: Timestamp,
}

impl Now {
    pub fn read() -> Self {
        Self {
            at: clock::now(),
            ts: Timestamp::now(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TapError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Runtime(#[from] io::Error),
}

fn lost_in_kernel(drops: &Drops) -> Result<u64, MapAccessError> {
    drops.read(DropReason::SamplesFull)
}

fn record(sample: &FrameSample, ends: Ends, listener: &str, now: &Now) -> FrameRecord {
    FrameRecord {
        ts: Ktime(sample.at).on_wall_clock(now.at, now.ts),
        conn: ConnId(sample.cookie),
        listener: listener.to_owned(),
        local: ends.local,
        peer: ends.peer,
        direction: if sample.direction == Way::Rx as u8 {
            Direction::Rx
        } else {
            Direction::Tx
        },
        fin: sample.first_byte & 0x80 != 0,
        rsv: (sample.first_byte >> 4) & 0x7,
        opcode: sample.first_byte & 0xf,
        masked: sample.masked != 0,
        length: sample.payload_len,
        ping_rtt: (sample.ping_rtt_us != 0)
            .then(|| Duration::from_micros(sample.ping_rtt_us.into())),
        close_code: (sample.close_code != 0).then_some(sample.close_code),
    }
}

/// The ends of connections by cookie, the oldest forgotten first: they can be read again.
#[derive(Debug, Default)]
struct KnownEnds {
    ends: HashMap<ConnId, Ends>,
    order: VecDeque<ConnId>,
}

impl KnownEnds {
    fn get(&self, conn: ConnId) -> Option<Ends> {
        self.ends.get(&conn).copied()
    }

    fn insert(&mut self, conn: ConnId, ends: Ends) {
        if self.ends.insert(conn, ends).is_some() {
            return;
        }
        self.order.push_back(conn);
        if self.order.len() > KNOWN_ENDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.ends.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: Ends = Ends {
        local: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080),
        peer: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 40_000),
    };

    #[test]
    fn a_sample_of_the_kernel_becomes_a_frame_with_names_and_wall_time() {
        let sample = FrameSample {
            at: 5_000_000_000,
            cookie: 7,
            payload_len: 2,
            ping_rtt_us: 0,
            close_code: 1001,
            listener: 0,
            first_byte: 0b1100_1000,
            masked: 1,
            direction: Way::Rx as u8,
            _pad: 0,
            _pad_word: 0,
        };
        let now = Now {
            at: Ktime(6_500_000_000),
            ts: "2026-11-22T18:37:52Z".parse().expect("a time stamp"),
        };
        let close = record(&sample, ENDS, "8080", &now);
        let shown = serde_json::to_string(&close).expect("JSON");
        assert_eq!(
            shown,
            r#"{"type":"frame","ts":"2026-11-22T18:37:50.5Z","conn":"7","listener":"8080","local":"127.0.0.1:8080","peer":"127.0.0.1:40000","direction":"rx","fin":true,"rsv":4,"opcode":"close","masked":true,"length":2,"close_code":1001}"#
        );
        let pong = FrameSample {
            first_byte: 0x8a,
            ping_rtt_us: 250,
            close_code: 0,
            direction: Way::Tx as u8,
            ..sample
        };
        let pong = record(&pong, ENDS, "8080", &now);
        assert_eq!(pong.ping_rtt, Some(Duration::from_micros(250)));
        assert_eq!((pong.close_code, pong.direction), (None, Direction::Tx));
    }

    #[test]
    fn the_ends_at_hand_are_bounded_and_the_newest_stay() {
        let mut known = KnownEnds::default();
        for conn in 0..=KNOWN_ENDS as u64 {
            known.insert(ConnId(conn), ENDS);
            known.insert(ConnId(conn), ENDS);
        }
        assert_eq!(known.get(ConnId(0)), None);
        assert_eq!(known.get(ConnId(KNOWN_ENDS as u64)), Some(ENDS));
        assert_eq!(known.ends.len(), KNOWN_ENDS);
    }
}
