//! The viewers: those of frames, each with a filter and a sampling rate, and those of events.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Notify;

use super::mailbox::{LineSender, LineStream, json_line, mailbox};
use crate::records::frames::{Filter, FrameRecord, OneIn};

/// Maximum number of viewers of one kind. Each may hold megabytes of unread lines.
pub const MAX_VIEWERS: usize = 32;

/// The maximum number of viewers is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_VIEWERS} viewers are connected already, which is the maximum; end one of them")]
pub struct TooManyViewers;

/// The viewers of frames.
#[derive(Debug, Default)]
pub struct FrameViewers {
    viewers: Vec<FrameViewer>,
    left: Arc<Notify>,
}

#[derive(Debug)]
struct FrameViewer {
    filter: Filter,
    one_in: u32,
    dice: Sampler,
    slot: LineSender,
}

impl FrameViewers {
    /// Adds a viewer of one in `one_in` of the frames that pass `filter`.
    pub fn admit(&mut self, filter: Filter, one_in: OneIn) -> Result<LineStream, TooManyViewers> {
        self.remove_closed();
        if self.viewers.len() >= MAX_VIEWERS {
            return Err(TooManyViewers);
        }
        let (slot, lines) = mailbox(Arc::clone(&self.left));
        self.viewers.push(FrameViewer {
            filter,
            one_in: one_in.0.get(),
            dice: Sampler::default(),
            slot,
        });
        Ok(lines)
    }

    /// Returns after a viewer has left.
    pub async fn viewer_closed(&self) {
        self.left.notified().await;
    }

    pub fn remove_closed(&mut self) {
        self.viewers.retain(|viewer| !viewer.slot.is_abandoned());
    }

    /// The highest sampling rate among the viewers: the `n` of one in `n`; 0 without viewers.
    pub fn one_in(&self) -> u32 {
        let shares = self.viewers.iter().map(|viewer| viewer.one_in);
        shares.min().unwrap_or(0)
    }

    pub fn len(&self) -> usize {
        self.viewers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.viewers.is_empty()
    }

    /// Shows a frame that was sampled as one in `sampled` to every viewer that wants it.
    pub fn show(&mut self, frame: &FrameRecord, sampled: u32) {
        let mut line: Option<Bytes> = None;
        for viewer in &mut self.viewers {
            if !viewer.filter.accepts(frame) || !viewer.dice.pick(sampled, viewer.one_in) {
                continue;
            }
            if line.is_none() {
                line = json_line(frame);
            }
            if let Some(line) = &line {
                viewer.slot.send(line.clone());
            }
        }
    }

    /// Reports to every viewer the frames that were lost before.
    pub fn lost(&self, frames: u64) {
        for viewer in &self.viewers {
            viewer.slot.lost_in_kernel(frames);
        }
    }
}

/// The viewers of an unfiltered stream.
#[derive(Debug, Default)]
pub struct EventViewers {
    slots: Vec<LineSender>,
}

impl EventViewers {
    pub fn admit(&mut self) -> Result<LineStream, TooManyViewers> {
        self.slots.retain(|slot| !slot.is_abandoned());
        if self.slots.len() >= MAX_VIEWERS {
            return Err(TooManyViewers);
        }
        let (slot, lines) = mailbox(Arc::default());
        self.slots.push(slot);
        Ok(lines)
    }

    /// Whether there are no viewers.
    pub fn is_empty(&mut self) -> bool {
        self.slots.retain(|slot| !slot.is_abandoned());
        self.slots.is_empty()
    }

    pub fn show(&mut self, event: &impl Serialize) {
        if self.is_empty() {
            return;
        }
        if let Some(line) = json_line(event) {
            for slot in &self.slots {
                slot.send(line.clone());
            }
        }
    }
}

/// Samples at random. Counting would follow the rhythm of requests and responses, and show only one
/// side.
#[derive(Debug, Default)]
struct Sampler(u64);

impl Sampler {
    /// Picks one in `wanted` of frames that are already one in `sampled`.
    fn pick(&mut self, sampled: u32, wanted: u32) -> bool {
        if wanted <= sampled {
            return true;
        }
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % u64::from(wanted) < u64::from(sampled)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::mailbox::tests::read, *};
    use crate::records::frames::tests::frame;
    use monitor_core::facts::Direction;

    fn one_in(n: &str) -> OneIn {
        n.parse().expect("a share")
    }

    fn count(lines: &mut LineStream) -> usize {
        read(lines).map_or(0, |text| text.lines().count())
    }

    #[test]
    fn the_kernel_sends_the_highest_rate_of_any_viewer_and_nothing_without_viewers() {
        let mut viewers = FrameViewers::default();
        assert_eq!(viewers.one_in(), 0);
        let all = viewers.admit(Filter::default(), OneIn::ALL);
        let few = viewers.admit(Filter::default(), one_in("1/10"));
        let fewer = viewers.admit(Filter::default(), one_in("1/100"));
        assert_eq!((viewers.one_in(), viewers.len()), (1, 3));
        drop(all);
        viewers.remove_closed();
        assert_eq!(viewers.one_in(), 10);
        drop((few, fewer));
        viewers.remove_closed();
        assert_eq!((viewers.one_in(), viewers.len()), (0, 0));
    }

    #[test]
    fn each_viewer_sees_the_frames_that_pass_its_own_filter() {
        let mut viewers = FrameViewers::default();
        let mut all = viewers.admit(Filter::default(), OneIn::ALL).expect("room");
        let received = Filter {
            direction: Some(Direction::Rx),
            ..Filter::default()
        };
        let mut received = viewers.admit(received, OneIn::ALL).expect("room");
        for direction in [Direction::Rx, Direction::Tx, Direction::Tx] {
            let frame = FrameRecord {
                direction,
                ..frame()
            };
            viewers.show(&frame, 1);
        }
        assert_eq!((count(&mut all), count(&mut received)), (3, 1));
    }

    #[test]
    fn sampling_accounts_for_the_kernels_own() {
        let mut viewers = FrameViewers::default();
        let mut half = viewers
            .admit(Filter::default(), one_in("1/2"))
            .expect("room");
        let mut tenth = viewers
            .admit(Filter::default(), one_in("1/10"))
            .expect("room");
        for _ in 0..10_000 {
            viewers.show(&frame(), 2);
        }
        assert_eq!(count(&mut half), 10_000, "the kernel took the half already");
        let tenth = count(&mut tenth);
        assert!((1_850..2_150).contains(&tenth), "a fifth of them: {tenth}");
    }

    #[test]
    fn every_viewer_gets_kernel_losses_and_only_its_own_viewer_losses() {
        let mut viewers = FrameViewers::default();
        let mut slow = viewers.admit(Filter::default(), OneIn::ALL).expect("room");
        let mut fast = viewers.admit(Filter::default(), OneIn::ALL).expect("room");
        for _ in 0..20_000 {
            viewers.show(&frame(), 1);
            count(&mut fast);
        }
        viewers.lost(2);
        let reported = |lines: &mut LineStream| {
            let text = read(lines).expect("lines");
            text.lines().last().map(str::to_owned).expect("a line")
        };
        let lost = |viewer| format!(r#"{{"type":"lost","kernel":2,"viewer":{viewer}}}"#);
        assert_eq!(reported(&mut fast), lost(0));
        assert_eq!(reported(&mut slow), lost(20_000 - 16_384));
    }

    #[test]
    fn viewers_above_the_limit_are_refused_until_one_leaves() {
        let mut viewers = FrameViewers::default();
        let mut open: Vec<LineStream> = (0..MAX_VIEWERS)
            .map(|_| viewers.admit(Filter::default(), OneIn::ALL).expect("room"))
            .collect();
        let refused = viewers.admit(Filter::default(), OneIn::ALL);
        assert_eq!(refused.map(drop), Err(TooManyViewers));
        open.pop();
        assert!(viewers.admit(Filter::default(), OneIn::ALL).is_ok());
    }

    #[test]
    fn an_event_reaches_every_viewer() {
        let mut viewers = EventViewers::default();
        viewers.show(&"nobody");
        let mut one = viewers.admit().expect("room");
        let mut two = viewers.admit().expect("room");
        viewers.show(&"all");
        assert_eq!(read(&mut one).as_deref(), Some("\"all\"\n"));
        drop(one);
        viewers.show(&"one");
        assert_eq!(read(&mut two).as_deref(), Some("\"all\"\n\"one\"\n"));
    }

    #[test]
    fn an_event_that_cannot_be_written_is_not_an_empty_line() {
        let mut viewers = EventViewers::default();
        let mut lines = viewers.admit().expect("room");
        let key_is_no_text = std::collections::BTreeMap::from([([0_u8], 0)]);
        viewers.show(&key_is_no_text);
        viewers.show(&"next");
        assert_eq!(read(&mut lines).as_deref(), Some("\"next\"\n"));
    }
}
