//! A client whose load balancer ends each connection at a certain age. It comes back at once.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lab::{Client, Manner, Message, Namespace, wait_until};

use crate::stage::SOON;

/// It goes away when the value is dropped.
pub(super) struct ShortLived {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ShortLived {
    /// Connects to `url`, and replaces the connection each time the `beats` change.
    pub(super) fn start(
        namespace: &Namespace,
        from: IpAddr,
        url: String,
        beats: impl Fn() -> u64 + Send + 'static,
    ) -> Self {
        let namespace = Namespace::existing(namespace.name());
        let is_over = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&is_over);
        let live = move || {
            while !is_stopped.load(Relaxed) {
                let before = beats();
                let client = Client::connect(&namespace, from, &url, Manner::Responsive).unwrap();
                let is_due = || is_stopped.load(Relaxed) || beats() != before;
                wait_until("the next beat", LONGER_THAN_A_BEAT, is_due).unwrap();
                client.send(Message::Close(None)).unwrap();
                let has_closed = || !client.view().open;
                wait_until("the close handshake", SOON, has_closed).unwrap();
            }
        };
        Self {
            is_over,
            thread: Some(thread::spawn(live)),
        }
    }
}

impl Drop for ShortLived {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

const LONGER_THAN_A_BEAT: Duration = Duration::from_secs(60);
