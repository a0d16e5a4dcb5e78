use std::{net::TcpListener, sync::Mutex};

use super::*;
use crate::alerting::receiver::{self, Answer, Receiver as Http};

/// Posts numbers as a JSON array, and repeats the standing ones.
struct Numbers {
    url: String,
    again: Option<(Duration, Arc<Mutex<Vec<u64>>>)>,
    /// Signalled before each request is sent.
    tries: Option<Sender<()>>,
}

impl Encoder for Numbers {
    type Item = u64;

    const BATCH: usize = 3;

    fn url(&self) -> String {
        self.url.clone()
    }

    fn body(&self, items: &[u64]) -> String {
        if let Some(tries) = &self.tries {
            tries.send(()).expect("a receiver of tries");
        }
        serde_json::to_string(items).expect("JSON")
    }

    fn repeat_interval(&self) -> Option<Duration> {
        self.again.as_ref().map(|(every, _)| *every)
    }

    fn standing(&self) -> Vec<u64> {
        let standing = self.again.as_ref().map(|(_, standing)| standing);
        standing.map_or(Vec::new(), |standing| {
            standing.lock().expect("whole").clone()
        })
    }
}

fn start(endpoint: &Endpoint) -> Delivery<u64> {
    let numbers = Numbers {
        url: endpoint.url(),
        again: None,
        tries: None,
    };
    Delivery::start(endpoint, numbers).expect("a thread")
}

fn bodies(http: &Http, count: usize) -> Vec<String> {
    let requests = http.requests(count);
    requests.into_iter().map(|request| request.body).collect()
}

#[test]
fn items_are_resent_until_the_receiver_accepts_them() {
    let busy = [503, 500, 429].map(Answer::status);
    let http = Http::start(busy.into_iter().chain([Answer::HangUp]));
    let mut delivery = start(&http.endpoint("/"));
    delivery.send(1);
    assert_eq!(bodies(&http, 5), ["[1]"; 5]);
    delivery.send(2);
    assert_eq!(bodies(&http, 1), ["[2]"]);
    assert_eq!(delivery.undelivered(), Undelivered::default());
}

#[test]
fn a_late_receiver_gets_the_waiting_items_in_order_and_in_batches() {
    let addr = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound")
    };
    let endpoint = receiver::endpoint(addr, "/");
    let (tries, tried) = channel();
    let numbers = Numbers {
        url: endpoint.url(),
        again: None,
        tries: Some(tries),
    };
    let mut delivery = Delivery::start(&endpoint, numbers).expect("a thread");
    for n in 0..7 {
        delivery.send(n);
    }
    // The second try begins once the first was refused.
    for _ in 0..2 {
        tried.recv_timeout(Duration::from_secs(60)).expect("a try");
    }
    let http = Http::on(TcpListener::bind(addr).expect("still free"), []);
    let mut got = Vec::new();
    while got.len() < 7 {
        let body = &bodies(&http, 1)[0];
        let items: Vec<u64> = serde_json::from_str(body).expect("an array");
        assert!(items.len() <= 3, "{body}");
        got.extend(items);
    }
    assert_eq!(got, Vec::from_iter(0..7));
}

#[test]
fn a_retry_after_header_is_respected() {
    let http = Http::start([Answer::Status(429, "Retry-After: 2\r\n")]);
    let mut delivery = start(&http.endpoint("/"));
    delivery.send(1);
    let [first, second] = &http.requests(2)[..] else {
        unreachable!("two were requested");
    };
    assert!(second.at - first.at >= Duration::from_secs(2));
    assert_eq!(first.body, second.body);
}

#[test]
fn dropped_items_are_counted_exactly() {
    // The receiver accepts and never responds.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let mut delivery = start(&receiver::endpoint(addr, "/"));
    let sent = QUEUE as u64 * 2;
    for n in 0..sent {
        delivery.send(n);
    }
    // Items that are not lost are waiting, or in the request being sent.
    let kept = sent - delivery.undelivered().full;
    let room = QUEUE as u64..=QUEUE as u64 + Numbers::BATCH as u64;
    assert!(room.contains(&kept), "{kept}");
}

#[test]
fn every_item_of_a_refused_request_is_counted() {
    let http = Http::start([Answer::status(503), Answer::status(400)]);
    let mut delivery = start(&http.endpoint("/"));
    delivery.send(1);
    http.requests(1);
    for n in 2..=4 {
        delivery.send(n);
    }
    assert_eq!(bodies(&http, 2), ["[1]", "[2,3,4]"]);
    assert_eq!(delivery.undelivered().refused, 1);
}

#[test]
fn standing_items_are_repeated_until_they_end() {
    let http = Http::start([Answer::status(200), Answer::status(503)]);
    let endpoint = http.endpoint("/");
    let standing = Arc::new(Mutex::new(vec![1, 2, 3, 4]));
    let numbers = Numbers {
        url: endpoint.url(),
        again: Some((Duration::from_millis(50), standing.clone())),
        tries: None,
    };
    let _delivery = Delivery::start(&endpoint, numbers).expect("a thread");
    // The second half of the first round fails; the next round repeats everything.
    let said = bodies(&http, 4);
    assert_eq!(said, ["[1,2,3]", "[4]", "[1,2,3]", "[4]"]);
    *standing.lock().expect("nobody panics with it") = vec![5];
    lab::wait_until("the change", Duration::from_secs(10), || {
        bodies(&http, 1) == ["[5]"]
    })
    .expect("said");
}

#[test]
fn the_queue_is_drained_and_a_stuck_receiver_delays_the_end_only_briefly() {
    let http = Http::start([Answer::status(503)]);
    let mut delivery = start(&http.endpoint("/"));
    delivery.send(1);
    http.requests(1);
    delivery.send(2);
    // In the middle of a wait.
    drop(delivery);
    assert_eq!(bodies(&http, 2), ["[1]", "[2]"]);

    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let mut stuck = start(&receiver::endpoint(addr, "/"));
    stuck.send(1);
    let (accepted, _) = listener.accept().expect("a request");
    let began = Instant::now();
    drop(stuck);
    assert!(began.elapsed() < DRAIN_LIMIT * 3, "{:?}", began.elapsed());
    drop(accepted);
}

#[test]
fn waits_grow_to_a_minute_with_random_jitter() {
    let waits = || -> Vec<Duration> {
        let mut backoff = Backoff::default();
        std::iter::repeat_with(|| backoff.next_wait())
            .take(40)
            .collect()
    };
    let (one, other) = (waits(), waits());
    assert_ne!(one, other);
    for (failures, wait) in one.into_iter().enumerate() {
        let doubled = FIRST_WAIT.saturating_mul(1 << failures.min(30));
        let whole = doubled.min(LONGEST_WAIT);
        assert!((whole / 2..=whole).contains(&wait), "{failures}: {wait:?}");
    }
}
