//! Opening and closing handshakes.

use std::borrow::Cow;

use super::families::{NANOSECONDS, kernel_histogram};
use super::{Family, FamilyBuilder, Scrape, count};
use monitor_common::stats::{RTT_BOUNDS, response};

pub(super) fn families(scrape: &Scrape<'_>, out: &mut Vec<Family>) {
    let mut requests = FamilyBuilder::counter(
        "upgrade_requests_total",
        "WebSocket upgrade requests, answered or not.",
    );
    let mut answers = FamilyBuilder::counter(
        "handshakes_total",
        "Upgrade requests, by the status of their answer.",
    );
    let mut opening = FamilyBuilder::histogram(
        "handshake_seconds",
        "Time from TCP's ESTABLISHED to the 101.",
    );
    let mut stuck = FamilyBuilder::gauge(
        "handshakes_stuck",
        "Upgrade requests without an answer for at least 10 s.",
    );
    let mut closing = FamilyBuilder::histogram(
        "close_handshake_seconds",
        "Time from the first close frame to the other side's.",
    );
    for (name, stats, tally) in scrape.each() {
        for (slot, counter) in stats.handshakes.iter().enumerate() {
            // 500 statuses are possible; only a few ever occur.
            if counter.get() > 0 {
                let labels = [("listener", name), ("status", &status(slot))];
                answers.add(&labels, count(counter));
            }
        }
        let labels = [("listener", name)];
        requests.add(&labels, count(&stats.upgrade_requests));
        let time = kernel_histogram(&stats.handshake_time, &RTT_BOUNDS, NANOSECONDS);
        opening.add_histogram(&labels, time);
        stuck.add(&labels, tally.handshakes_stuck as f64);
        let time = kernel_histogram(&stats.close_handshake_time, &RTT_BOUNDS, NANOSECONDS);
        closing.add_histogram(&labels, time);
    }
    out.extend([requests, answers, opening, stuck, closing].map(FamilyBuilder::finish));
}

fn status(slot: usize) -> Cow<'static, str> {
    match slot {
        response::MALFORMED => "malformed".into(),
        response::NONE => "none".into(),
        code => (code + 100).to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::stats::RESPONSE_SLOTS;

    use super::*;

    #[test]
    fn every_slot_has_its_own_status() {
        let shown: Vec<_> = (0..RESPONSE_SLOTS).map(status).collect();
        assert_eq!(&shown[0], "100");
        assert_eq!(&shown[499], "599");
        assert_eq!(&shown[500..], ["malformed", "none"]);
    }
}
