//! What TCP does underneath.

use prometheus::proto::MetricFamily;

use super::{Family, Scrape, WAYS, count};

pub(super) fn families(scrape: &Scrape<'_>, out: &mut Vec<MetricFamily>) {
    let mut retransmits = Family::counter("tcp_retransmits_total", "TCP retransmissions.");
    let mut duplicates = Family::counter(
        "tcp_duplicate_acks_total",
        "Duplicate acknowledgements received while bytes were outstanding.",
    );
    let mut zero_windows = Family::counter(
        "tcp_zero_windows_total",
        "Times that a receive window closed: the peer's (rx) or this host's (tx).",
    );
    let mut loss = Family::gauge(
        "tcp_loss_ratio",
        "Share of what was acknowledged lately that had to be sent again before; verdicts reckon with it.",
    );
    for (name, stats, tally) in scrape.each() {
        retransmits.add(&[("listener", name)], count(&stats.retransmits));
        duplicates.add(&[("listener", name)], count(&stats.duplicate_acks));
        loss.add(&[("listener", name)], tally.loss.ratio());
        for (way, direction) in WAYS {
            let labels = [("listener", name), ("direction", direction)];
            zero_windows.add(&labels, count(&stats.zero_windows[way.index()]));
        }
    }
    out.extend([retransmits, loss, duplicates, zero_windows].map(Family::finish));
}
