//! Posts alerts one by one, in the form of the alert log.

use std::io;

use super::delivery::{Delivery, Encoder, Undelivered};
use crate::config::endpoint::Endpoint;

/// One receiver of JSON objects.
#[derive(Debug)]
pub struct Webhook(Delivery<String>);

impl Webhook {
    pub fn start(endpoint: &Endpoint) -> io::Result<Self> {
        Delivery::start(endpoint, WebhookEncoder(endpoint.url())).map(Self)
    }

    /// Queues one line of the alert log.
    pub fn send(&mut self, line: String) {
        self.0.send(line);
    }

    pub fn undelivered(&self) -> Undelivered {
        self.0.undelivered()
    }

    pub(super) fn close(&mut self) {
        self.0.close();
    }
}

struct WebhookEncoder(String);

impl Encoder for WebhookEncoder {
    type Item = String;

    const BATCH: usize = 1;

    fn url(&self) -> String {
        self.0.clone()
    }

    fn body(&self, lines: &[String]) -> String {
        lines.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerting::receiver::{Answer, Receiver};

    #[test]
    fn each_line_is_one_request_in_the_order_of_the_log() {
        let receiver = Receiver::start([]);
        let mut webhook = Webhook::start(&receiver.endpoint("/hook")).expect("a thread");
        for n in 0..5 {
            webhook.send(format!("{{\"n\":{n}}}"));
        }
        let requests = receiver.requests(5);
        for (n, request) in requests.iter().enumerate() {
            assert_eq!(request.path, "/hook");
            assert_eq!(request.content_type, "application/json");
            assert_eq!(request.body, format!("{{\"n\":{n}}}"));
        }
        assert_eq!(webhook.undelivered(), Undelivered::default());
    }

    #[test]
    fn a_refused_line_is_counted_and_the_next_one_is_sent() {
        let receiver = Receiver::start([Answer::status(400), Answer::status(200)]);
        let mut webhook = Webhook::start(&receiver.endpoint("/")).expect("a thread");
        webhook.send("1".into());
        webhook.send("2".into());
        let bodies: Vec<_> = receiver.requests(2).into_iter().map(|r| r.body).collect();
        assert_eq!(bodies, ["1", "2"]);
        assert_eq!(webhook.undelivered().refused, 1);
    }
}
