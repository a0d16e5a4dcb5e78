//! Reconnecting clients.

use super::{Family, FamilyBuilder, Scrape};

pub(super) fn families(scrape: &Scrape<'_>, out: &mut Vec<Family>) {
    let mut storm = FamilyBuilder::gauge("reconnect_storm", "1 during a reconnect storm.");
    let mut reconnects = FamilyBuilder::counter(
        "reconnects_total",
        "Attempts of clients that lost a connection or were refused within the five minutes before.",
    );
    let mut thrashing = FamilyBuilder::gauge(
        "thrashing_clients",
        "Clients that keep reconnecting and stay for seconds only.",
    );
    for (name, _, tally) in scrape.each() {
        let labels = [("listener", name)];
        storm.add(&labels, u64::from(tally.reconnect_storm) as f64);
        reconnects.add(&labels, tally.reconnects as f64);
        thrashing.add(&labels, tally.thrashing_clients as f64);
    }
    out.extend([storm, reconnects, thrashing].map(FamilyBuilder::finish));
}
