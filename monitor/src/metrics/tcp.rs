//! The state of TCP below the WebSocket.

use super::{DIRECTIONS, Family, FamilyBuilder, Scrape, count};

pub(super) fn families(scrape: &Scrape<'_>, out: &mut Vec<Family>) {
    let mut retransmits = FamilyBuilder::counter("tcp_retransmits_total", "TCP retransmissions.");
    let mut duplicates = FamilyBuilder::counter(
        "tcp_duplicate_acks_total",
        "Duplicate acknowledgements received while bytes were outstanding.",
    );
    let mut zero_windows = FamilyBuilder::counter(
        "tcp_zero_windows_total",
        "Times that a receive window closed: the peer's (rx) or this host's (tx).",
    );
    let mut loss = FamilyBuilder::gauge(
        "tcp_loss_ratio",
        "Share of transmissions that fail, as verdicts use it; from recently acknowledged data.",
    );
    for (name, stats, tally) in scrape.each() {
        retransmits.add(&[("listener", name)], count(&stats.retransmits));
        duplicates.add(&[("listener", name)], count(&stats.duplicate_acks));
        loss.add(&[("listener", name)], tally.loss.ratio());
        for (side, direction) in DIRECTIONS {
            let labels = [("listener", name), ("direction", direction)];
            zero_windows.add(&labels, count(&stats.zero_windows[side.index()]));
        }
    }
    out.extend([retransmits, loss, duplicates, zero_windows].map(FamilyBuilder::finish));
}
