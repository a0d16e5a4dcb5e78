//! The common part of the HTTP sinks: a queue that never blocks the daemon, a thread that empties it,
//! and backoff for a slow, busy or absent receiver.
//!
//! A request is repeated until it is accepted. This keeps the order, and an outage loses nothing that
//! fits into the queue. Items that do not fit, or that the receiver refuses, are dropped and counted.

use std::{
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    time::{Duration, Instant},
};

use ureq::{
    Agent,
    http::{Response, StatusCode, header::RETRY_AFTER},
    tls::{RootCerts, TlsConfig},
};

use crate::{
    config::endpoint::Endpoint,
    logs::{DRAIN_LIMIT, DrainDeadline},
};

/// Items that may wait for a receiver.
pub(super) const QUEUE: usize = 4096;

/// Timeout of one request, from name resolution to the end of the response.
const REQUEST: Duration = Duration::from_secs(5);

/// The first wait after a failure, and the longest; each is twice the previous one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The longest `Retry-After` that is respected.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The length shown of a refusal, bytes.
const SHOWN: u64 = 300;

/// Items that were given to a sink and did not reach its receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// The queue had no room: the receiver was slow, or absent for too long.
    pub full: u64,
    /// The receiver's response was a permanent refusal.
    pub refused: u64,
}

impl Undelivered {
    pub fn total(self) -> u64 {
        self.full + self.refused
    }
}

impl std::iter::Sum for Undelivered {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            full: sum.full + one.full,
            refused: sum.refused + one.refused,
        })
    }
}

/// Turns the items of a queue into requests.
pub(super) trait Encoder: Send + 'static {
    type Item: Send + 'static;

    /// Items that one request may carry, at least one.
    const BATCH: usize;

    /// The destination of requests.
    fn url(&self) -> String;

    /// The JSON for these items.
    fn body(&self, items: &[Self::Item]) -> String;

    /// How often [`Encoder::standing`] is repeated; `None` for a receiver that remembers.
    fn repeat_interval(&self) -> Option<Duration> {
        None
    }

    /// The items that stand at this moment.
    fn standing(&self) -> Vec<Self::Item> {
        Vec::new()
    }
}

/// The queue of one receiver.
#[derive(Debug)]
pub(super) struct Delivery<T> {
    name: String,
    queue: Option<SyncSender<T>>,
    /// Dropped to end waits.
    stop: Option<Sender<Infallible>>,
    full: u64,
    refused: Arc<AtomicU64>,
    drain_deadline: DrainDeadline,
}

impl<T: Send + 'static> Delivery<T> {
    /// Starts the thread. Nothing is sent before the first item.
    pub(super) fn start(endpoint: &Endpoint, encoder: impl Encoder<Item = T>) -> io::Result<Self> {
        let (queue, inbox) = sync_channel(QUEUE);
        let (stop, stopped) = channel();
        let (ended, drain_deadline) = DrainDeadline::pair();
        let refused = Arc::new(AtomicU64::new(0));
        let name = endpoint.to_string();
        let worker = DeliveryWorker {
            name: name.clone(),
            url: encoder.url(),
            encoder,
            inbox,
            stopped,
            stopped_at: None,
            refused: refused.clone(),
            agent: agent(),
            backoff: Backoff::default(),
        };
        std::thread::Builder::new()
            .name("deliver".into())
            .spawn(move || {
                worker.run();
                drop(ended);
            })?;
        Ok(Self {
            name,
            queue: Some(queue),
            stop: Some(stop),
            full: 0,
            refused,
            drain_deadline,
        })
    }

    /// Queues one item, or drops and counts it.
    pub(super) fn send(&mut self, item: T) {
        let queue = self.queue.as_ref();
        if queue.is_none_or(|queue| queue.try_send(item).is_err()) {
            self.full += 1;
        }
    }

    pub(super) fn undelivered(&self) -> Undelivered {
        Undelivered {
            full: self.full,
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Accepts no more items; waiting ones have [`DRAIN_LIMIT`] to be sent.
    pub(super) fn close(&mut self) {
        self.queue = None;
        self.stop = None;
        self.drain_deadline.begin();
    }
}

impl<T> Drop for Delivery<T> {
    fn drop(&mut self) {
        self.queue = None;
        self.stop = None;
        if !self.drain_deadline.wait() {
            log::warn!("{} is too slow; the last alerts for it are lost", self.name);
        }
    }
}

struct DeliveryWorker<C: Encoder> {
    name: String,
    url: String,
    encoder: C,
    inbox: Receiver<C::Item>,
    stopped: Receiver<Infallible>,
    /// When the daemon began to end.
    stopped_at: Option<Instant>,
    refused: Arc<AtomicU64>,
    agent: Agent,
    backoff: Backoff,
}

/// The result of a request.
enum SendOutcome {
    Taken,
    /// Refused permanently.
    Refused(String),
    /// Failed temporarily; with the wait that the receiver requested.
    Failed(String, Duration),
}

impl<C: Encoder> DeliveryWorker<C> {
    fn run(mut self) {
        let every = self.encoder.repeat_interval();
        let mut last_said = Instant::now();
        loop {
            let wait = every.map_or(Duration::MAX, |every| {
                every.saturating_sub(last_said.elapsed())
            });
            match self.inbox.recv_timeout(wait) {
                Ok(first) => {
                    let more = self.inbox.try_iter().take(C::BATCH - 1);
                    let items: Vec<_> = std::iter::once(first).chain(more).collect();
                    if !self.deliver(&items) {
                        let lost = items.len() + self.inbox.try_iter().count();
                        log::warn!("{}: the last {lost} alerts for it are lost", self.name);
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if every.is_some_and(|every| last_said.elapsed() >= every) && !self.is_stopped() {
                last_said = Instant::now();
                self.say_again();
            }
        }
    }

    /// Sends until the items are accepted or refused; `false` if the daemon ended first.
    fn deliver(&mut self, items: &[C::Item]) -> bool {
        loop {
            let is_last_try = self.is_stopped();
            match self.post(items) {
                SendOutcome::Taken => {
                    if self.backoff.is_tried() {
                        log::info!("{} accepts alerts again", self.name);
                        self.backoff = Backoff::default();
                    }
                    return true;
                }
                SendOutcome::Refused(why) => {
                    log::error!("{} refuses alerts: {why}", self.name);
                    self.refused
                        .fetch_add(items.len() as u64, Ordering::Relaxed);
                    return true;
                }
                SendOutcome::Failed(why, at_least) => {
                    if !self.backoff.is_tried() {
                        log::warn!("cannot deliver to {}: {why}; trying again", self.name);
                    }
                    let wait = self.backoff.next_wait().max(at_least);
                    let is_too_long = self.is_stopped_within(wait) && at_least > DRAIN_LIMIT;
                    if is_last_try || is_too_long {
                        return false;
                    }
                }
            }
        }
    }

    /// Repeats the standing items. One try is enough, because the next round repeats them.
    fn say_again(&mut self) {
        for items in self.encoder.standing().chunks(C::BATCH) {
            match self.post(items) {
                SendOutcome::Taken => {}
                SendOutcome::Refused(why) | SendOutcome::Failed(why, _) => {
                    log::warn!("cannot repeat alerts to {}: {why}", self.name);
                    return;
                }
            }
        }
    }

    fn post(&mut self, items: &[C::Item]) -> SendOutcome {
        let sent = self
            .agent
            .post(&self.url)
            .config()
            .timeout_global(Some(self.time_for_a_request()))
            .build()
            .content_type("application/json")
            .send(self.encoder.body(items));
        match sent {
            Ok(response) => judge(response),
            Err(error) => SendOutcome::Failed(error.to_string(), Duration::ZERO),
        }
    }

    fn time_for_a_request(&mut self) -> Duration {
        if !self.is_stopped() {
            return REQUEST;
        }
        let gone = self.stopped_at.map_or(Duration::ZERO, |at| at.elapsed());
        // A time of zero would mean no limit.
        DRAIN_LIMIT
            .saturating_sub(gone)
            .max(Duration::from_millis(1))
    }

    fn is_stopped(&mut self) -> bool {
        self.is_stopped_within(Duration::ZERO)
    }

    /// Waits, unless the daemon ends.
    fn is_stopped_within(&mut self, wait: Duration) -> bool {
        if self.stopped_at.is_none()
            && self.stopped.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected)
        {
            self.stopped_at = Some(Instant::now());
        }
        self.stopped_at.is_some()
    }
}

fn judge(mut response: Response<ureq::Body>) -> SendOutcome {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    // Read to its end, or the connection cannot be reused. Only a refusal's body is of use, and only
    // its beginning.
    let body = response.body_mut().with_config().limit(SHOWN);
    let text = body.lossy_utf8(true).read_to_string().unwrap_or_default();
    if status.is_success() {
        return SendOutcome::Taken;
    }
    let why = format!("it answers {status}: {}", text.trim());
    if status.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
    {
        SendOutcome::Failed(why, retry_after.min(LONGEST_RETRY_AFTER))
    } else {
        SendOutcome::Refused(why)
    }
}

/// Certificates are verified by the host's trust store, so that a company's own authority is accepted.
/// The connection is always direct: a proxy from the environment is meant for other programs.
fn agent() -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier);
    Agent::config_builder()
        .tls_config(tls.build())
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("wsmon/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// The wait after each failure in a row: twice the previous one, minus a random part of up to half. The
/// jitter keeps the wsmons of many hosts from retrying in step.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn is_tried(&self) -> bool {
        self.failures > 0
    }

    fn next_wait(&mut self) -> Duration {
        let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(LONGEST_WAIT);
        // The standard library's only source of randomness.
        let chance = RandomState::new().hash_one(self.failures) % 1_000;
        whole - (whole / 2).mul_f64(chance as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests;
