//! The queue of lines to one viewer, which may be slow.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use serde::Serialize;
use tokio::sync::Notify;

use crate::records::{json, loss::LossRecord};

/// Lines that may wait for one viewer. This is more than the daemon produces in one tick, so a viewer
/// that reads loses nothing. Frames of 350 bytes take at most 6 MB.
pub(super) const WAITING_LINES: usize = 16_384;

/// Bytes that may wait for one viewer. A line of the alert log can have 15 kB.
const WAITING_BYTES: usize = 8 << 20;

/// Maximum size of one write to a viewer, bytes.
const CHUNK: usize = 64 * 1024;

/// The daemon's end.
#[derive(Debug)]
pub(super) struct LineSender(Arc<SharedMailbox>);

/// The viewer's end: the body of its response. Dropping it notifies the daemon immediately.
#[derive(Debug)]
pub struct LineStream(Arc<SharedMailbox>);

#[derive(Debug)]
struct SharedMailbox {
    waiting: Mutex<PendingLines>,
    /// Notified when the viewer leaves.
    left: Arc<Notify>,
}

#[derive(Debug, Default)]
struct PendingLines {
    lines: VecDeque<Bytes>,
    /// In `lines`.
    bytes: usize,
    /// Losses that were not reported yet.
    lost: LossRecord,
    viewer: Option<Waker>,
    viewer_left: bool,
    daemon_left: bool,
}

/// Creates both ends; `left` is notified when the viewer's is dropped.
pub(super) fn mailbox(left: Arc<Notify>) -> (LineSender, LineStream) {
    let shared = Arc::new(SharedMailbox {
        waiting: Mutex::default(),
        left,
    });
    (LineSender(Arc::clone(&shared)), LineStream(shared))
}

impl LineSender {
    /// Queues one line, or counts it as lost if there is no room. A line after a loss is preceded by a
    /// line that reports it.
    pub(super) fn send(&self, line: Bytes) {
        let mut waiting = self.0.lock();
        if waiting.lines.len() >= WAITING_LINES || waiting.bytes + line.len() > WAITING_BYTES {
            waiting.lost.viewer += 1;
            return;
        }
        if let Some(record) = waiting.take_loss() {
            waiting.push(record);
        }
        waiting.push(line);
        waiting.wake();
    }

    /// Counts what was lost before it got here.
    pub(super) fn lost_in_kernel(&self, n: u64) {
        let mut waiting = self.0.lock();
        waiting.lost.kernel += n;
        waiting.wake();
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.0.lock().viewer_left
    }
}

impl Drop for LineSender {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.daemon_left = true;
        waiting.wake();
    }
}

impl Drop for LineStream {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.viewer_left = true;
        waiting.lines = VecDeque::new();
        drop(waiting);
        self.0.left.notify_one();
    }
}

impl Stream for LineStream {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut waiting = self.0.lock();
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK {
            let Some(line) = waiting.pop() else {
                // A loss that no line follows is reported too.
                if let Some(record) = waiting.take_loss() {
                    chunk.extend_from_slice(&record);
                }
                break;
            };
            chunk.extend_from_slice(&line);
        }
        if !chunk.is_empty() {
            return Poll::Ready(Some(Ok(chunk.freeze())));
        }
        if waiting.daemon_left {
            return Poll::Ready(None);
        }
        waiting.viewer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl SharedMailbox {
    fn lock(&self) -> MutexGuard<'_, PendingLines> {
        // No code that holds the lock can leave the queue half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingLines {
    fn push(&mut self, line: Bytes) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }

    fn wake(&mut self) {
        if let Some(viewer) = self.viewer.take() {
            viewer.wake();
        }
    }

    /// The line that reports the losses, once.
    fn take_loss(&mut self) -> Option<Bytes> {
        let lost = std::mem::take(&mut self.lost);
        if lost.is_empty() {
            return None;
        }
        json_line(&lost)
    }
}

/// The record with its newline; `None` if it cannot be written, which is logged.
pub(super) fn json_line(record: &impl Serialize) -> Option<Bytes> {
    match json::to_string(record) {
        Ok(mut line) => {
            line.push('\n');
            Some(line.into())
        }
        Err(error) => {
            log::error!("a record cannot be written as JSON: {error}");
            None
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use futures_util::task::{noop_waker, noop_waker_ref};

    use super::*;

    /// What the viewer can read now; `None` at the end.
    pub(in crate::api::control) fn read(lines: &mut LineStream) -> Option<String> {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut text = String::new();
        loop {
            match Pin::new(&mut *lines).poll_next(&mut cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    assert!(chunk.len() < CHUNK + 1024, "one write is bounded");
                    text += std::str::from_utf8(&chunk).expect("UTF-8");
                }
                Poll::Ready(None) if text.is_empty() => return None,
                Poll::Ready(None) | Poll::Pending => return Some(text),
            }
        }
    }

    fn line(n: usize) -> Bytes {
        Bytes::from(format!("{n}\n"))
    }

    #[test]
    fn lines_arrive_in_order_followed_by_the_end() {
        let (slot, mut lines) = mailbox(Arc::default());
        assert_eq!(read(&mut lines).as_deref(), Some(""));
        slot.send(line(1));
        slot.send(line(2));
        drop(slot);
        assert_eq!(read(&mut lines).as_deref(), Some("1\n2\n"));
        assert_eq!(read(&mut lines), None);
    }

    #[test]
    fn a_viewer_that_does_not_read_loses_lines_and_gets_their_count_and_place() {
        let (slot, mut lines) = mailbox(Arc::default());
        for n in 0..WAITING_LINES + 5 {
            slot.send(line(n));
        }
        let text = read(&mut lines).expect("lines");
        let got: Vec<&str> = text.lines().collect();
        assert_eq!(got.len(), WAITING_LINES + 1);
        assert_eq!(got[WAITING_LINES - 1], (WAITING_LINES - 1).to_string());
        assert_eq!(
            got[WAITING_LINES],
            r#"{"type":"lost","kernel":0,"viewer":5}"#
        );
        slot.send(line(7));
        assert_eq!(
            read(&mut lines).as_deref(),
            Some("7\n"),
            "a loss is reported once"
        );
    }

    #[test]
    fn long_lines_wait_up_to_a_size() {
        let (slot, mut lines) = mailbox(Arc::default());
        let long = Bytes::from("x".repeat(15_000) + "\n");
        let room = WAITING_BYTES / long.len();
        for _ in 0..room + 3 {
            slot.send(long.clone());
        }
        assert_eq!(slot.0.lock().lines.len(), room);
        let mut cx = Context::from_waker(noop_waker_ref());
        let chunk = Pin::new(&mut lines).poll_next(&mut cx);
        assert!(matches!(chunk, Poll::Ready(Some(Ok(_)))), "{chunk:?}");
        slot.send(line(1));
        let lost = json_line(&LossRecord {
            viewer: 3,
            ..LossRecord::default()
        });
        let waiting = slot.0.lock();
        let last: Vec<_> = waiting.lines.iter().rev().take(2).cloned().collect();
        assert_eq!(last, [line(1), lost.expect("JSON")]);
        let bytes: usize = waiting.lines.iter().map(Bytes::len).sum();
        assert_eq!(waiting.bytes, bytes, "what was read makes room");
    }

    #[test]
    fn a_loss_is_reported_before_the_next_line_or_without_one() {
        let (slot, mut lines) = mailbox(Arc::default());
        slot.send(line(1));
        slot.lost_in_kernel(3);
        slot.send(line(2));
        slot.lost_in_kernel(1);
        let text = read(&mut lines).expect("lines");
        let first = r#"{"type":"lost","kernel":3,"viewer":0}"#;
        let second = r#"{"type":"lost","kernel":1,"viewer":0}"#;
        assert_eq!(text, format!("1\n{first}\n2\n{second}\n"));
    }

    #[tokio::test]
    async fn the_end_of_a_viewer_is_noticed() {
        let left = Arc::<Notify>::default();
        let (slot, lines) = mailbox(Arc::clone(&left));
        assert!(!slot.is_abandoned());
        drop(lines);
        left.notified().await;
        assert!(slot.is_abandoned());
    }
}
