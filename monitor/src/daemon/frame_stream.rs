//! The stream of frames from the kernel to the viewers. Without viewers, no frame leaves the kernel.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    time::Duration,
};

use monitor_common::{Direction, drop_reason::DropReason, event::FrameSample};
use tokio::{io::unix::AsyncFd, task::yield_now, time::sleep};

use crate::{
    api::control::{FrameViewers, LineStream, WatchError},
    config::listeners::ListenerConfig,
    decode,
    kernel::bpf::{
        loader::{LoadError, Loaded},
        maps::{Drops, MapAccessError, Ring, RingUse, SampleRate},
    },
    records::{
        Now,
        frames::{Filter, FrameRecord, OneIn},
    },
};
use monitor_core::{ConnId, Facts, Ktime};

/// Maximum number of frames in one tick of the daemon, so that a flood of them does not delay verdicts.
const FRAMES_PER_TICK: usize = 4096;

/// How often losses are checked while no frame arrives.
const LOSS_CHECK: Duration = Duration::from_secs(1);

/// Connections whose endpoints are cached while there are viewers. About 100 bytes each.
const MAX_KNOWN_ENDPOINTS: usize = 16_384;

/// The two endpoints of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

/// The daemon's end of the `SAMPLES` ring.
pub struct FrameStream {
    ring: AsyncFd<Ring>,
    rate: SampleRate,
    /// The last setting in the kernel: one in this many frames; 0 = none.
    one_in: u32,
    viewers: FrameViewers,
    endpoints: KnownEndpoints,
    /// The kernel's counters when losses were last reported to the viewers.
    lost: u64,
    /// The last tick left frames in the ring.
    unfinished: bool,
}

impl FrameStream {
    /// Must be called within a tokio runtime.
    pub fn take(loaded: &mut Loaded) -> Result<Self, FrameStreamError> {
        Ok(Self {
            ring: Ring::samples(loaded)?.watched()?,
            rate: SampleRate::take(loaded)?,
            one_in: 0,
            viewers: FrameViewers::default(),
            endpoints: KnownEndpoints::default(),
            lost: 0,
            unfinished: false,
        })
    }

    /// The number of viewers of frames.
    pub fn viewers(&self) -> usize {
        self.viewers.len()
    }

    /// How full the ring was found.
    pub fn ring_use(&self) -> RingUse {
        self.ring.get_ref().usage()
    }

    /// Returns when there is something to do: frames, losses, or a viewer that left. Without viewers it
    /// never returns.
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
            () = self.viewers.viewer_closed() => {}
            () = sleep(LOSS_CHECK) => {}
        }
        Ok(())
    }

    /// Adds a viewer, from this moment on.
    pub fn watch(
        &mut self,
        filter: Filter,
        one_in: OneIn,
        drops: &Drops,
    ) -> Result<LineStream, WatchError> {
        if self.viewers.is_empty() {
            // Discard frames that were sampled for an earlier viewer.
            while self.ring.get_mut().next(|_| ()).is_some() {}
            self.lost = lost_in_kernel(drops)?;
        }
        let lines = self.viewers.admit(filter, one_in)?;
        self.set_kernel_rate()?;
        Ok(lines)
    }

    /// The frames waiting in the ring, up to a bound.
    pub fn collect(&mut self) -> Collected {
        self.viewers.remove_closed();
        if let Err(error) = self.set_kernel_rate() {
            log::error!("cannot set how many frames the kernel sends: {error}");
        }
        let mut collected = Collected::default();
        if self.viewers.is_empty() {
            self.endpoints = KnownEndpoints::default();
            self.unfinished = false;
            return collected;
        }
        let ring = self.ring.get_mut();
        while collected.frames.len() < FRAMES_PER_TICK {
            match ring.next(decode::sample) {
                Some(Ok(sample)) => collected.frames.push(sample),
                Some(Err(error)) => {
                    collected.undecodable += 1;
                    log::warn!("invalid record in the samples ring: {error}");
                }
                None => break,
            }
        }
        self.unfinished = collected.frames.len() == FRAMES_PER_TICK;
        collected
    }

    /// The endpoints of a connection, if they are cached.
    pub fn endpoints(&self, conn: ConnId) -> Option<Endpoints> {
        self.endpoints.get(conn)
    }

    /// Caches the endpoints of a connection while there are viewers: its last frames may still be in
    /// the ring when its snapshot is gone.
    pub fn remember(&mut self, facts: &Facts) {
        if !self.viewers.is_empty() {
            self.endpoints.insert(
                facts.conn,
                Endpoints {
                    local: facts.local,
                    peer: facts.peer,
                },
            );
        }
    }

    /// Shows a frame to the viewers that want it.
    pub fn show(
        &mut self,
        sample: &FrameSample,
        endpoints: Endpoints,
        listeners: &[ListenerConfig],
        now: &Now,
    ) {
        let listener = listeners.get(usize::from(sample.listener));
        let record = record(
            sample,
            endpoints,
            listener.map_or("", |listener| &listener.rules.name),
            now,
        );
        self.viewers.show(&record, self.one_in);
    }

    /// Reports to the viewers the frames that were lost before: those counted by the kernel since the
    /// last call, and `orphans`, whose connection is unknown.
    pub fn report_losses(&mut self, orphans: u64, drops: &Drops) -> Result<(), MapAccessError> {
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

    fn set_kernel_rate(&mut self) -> Result<(), MapAccessError> {
        let one_in = self.viewers.one_in();
        if one_in != self.one_in {
            self.rate.set_one_in(one_in)?;
            self.one_in = one_in;
        }
        Ok(())
    }
}

/// The content of the ring in one tick.
#[derive(Debug, Default)]
pub struct Collected {
    pub frames: Vec<FrameSample>,
    /// Records that could not be decoded.
    pub undecodable: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum FrameStreamError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Runtime(#[from] io::Error),
}

impl From<MapAccessError> for WatchError {
    fn from(error: MapAccessError) -> Self {
        Self::Kernel(error.into())
    }
}

fn lost_in_kernel(drops: &Drops) -> Result<u64, MapAccessError> {
    drops.read(DropReason::SamplesFull)
}

fn record(sample: &FrameSample, endpoints: Endpoints, listener: &str, now: &Now) -> FrameRecord {
    FrameRecord {
        ts: now.wall_clock(Ktime(sample.at)),
        cookie: ConnId(sample.cookie),
        listener: listener.to_owned(),
        local: endpoints.local,
        peer: endpoints.peer,
        direction: match sample.direction == Direction::Rx as u8 {
            true => Direction::Rx,
            false => Direction::Tx,
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

/// The endpoints of connections by cookie. The oldest are dropped first, because they can be read
/// again.
#[derive(Debug, Default)]
struct KnownEndpoints {
    endpoints: HashMap<ConnId, Endpoints>,
    order: VecDeque<ConnId>,
}

impl KnownEndpoints {
    fn get(&self, conn: ConnId) -> Option<Endpoints> {
        self.endpoints.get(&conn).copied()
    }

    fn insert(&mut self, conn: ConnId, endpoints: Endpoints) {
        if self.endpoints.insert(conn, endpoints).is_some() {
            return;
        }
        self.order.push_back(conn);
        if self.order.len() > MAX_KNOWN_ENDPOINTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.endpoints.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINTS: Endpoints = Endpoints {
        local: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080),
        peer: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 40_000),
    };

    #[test]
    fn a_sample_of_the_kernel_becomes_a_frame_with_names_and_wall_clock_time() {
        let sample = FrameSample {
            at: 5_000_000_000,
            cookie: 7,
            payload_len: 2,
            ping_rtt_us: 0,
            close_code: 1001,
            listener: 0,
            first_byte: 0b1100_1000,
            masked: 1,
            direction: Direction::Rx as u8,
            _pad: 0,
            _pad_word: 0,
        };
        let now = Now {
            at: Ktime(6_500_000_000),
            ts: "2026-11-22T18:37:52Z".parse().expect("a time stamp"),
        };
        let close = record(&sample, ENDPOINTS, "8080", &now);
        let shown = serde_json::to_string(&close).expect("JSON");
        assert_eq!(
            shown,
            r#"{"type":"frame","ts":"2026-11-22T18:37:50.500000Z","cookie":"7","listener":"8080","local":"127.0.0.1:8080","peer":"127.0.0.1:40000","direction":"rx","fin":true,"rsv":4,"opcode":"close","masked":true,"length":2,"close_code":1001}"#
        );
        let pong = FrameSample {
            first_byte: 0x8a,
            ping_rtt_us: 250,
            close_code: 0,
            direction: Direction::Tx as u8,
            ..sample
        };
        let pong = record(&pong, ENDPOINTS, "8080", &now);
        assert_eq!(pong.ping_rtt, Some(Duration::from_micros(250)));
        assert_eq!((pong.close_code, pong.direction), (None, Direction::Tx));
    }

    #[test]
    fn the_cached_endpoints_are_bounded_and_the_newest_stay() {
        let mut known = KnownEndpoints::default();
        for conn in 0..=MAX_KNOWN_ENDPOINTS as u64 {
            known.insert(ConnId(conn), ENDPOINTS);
            known.insert(ConnId(conn), ENDPOINTS);
        }
        assert_eq!(known.get(ConnId(0)), None);
        assert_eq!(
            known.get(ConnId(MAX_KNOWN_ENDPOINTS as u64)),
            Some(ENDPOINTS)
        );
        assert_eq!(known.endpoints.len(), MAX_KNOWN_ENDPOINTS);
    }
}
