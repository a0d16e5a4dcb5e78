//! `half_closed`: one side has sent its FIN, and the other keeps the connection open.

use std::time::Duration;

use super::{Finding, Verdict};
use crate::core::{
    alert::{Certainty, VerdictKind},
    look::Look,
    time::Ktime,
};

/// A WebSocket has no use for half a connection (RFC 6455 §7.1.1): who does not close after a FIN has
/// not noticed it.
pub(super) fn find(look: &Look<'_>) -> Finding {
    let facts = look.facts;
    if facts.fin_rx == facts.fin_tx || look.is_reset() {
        return Finding::NotBefore(Ktime::NEVER);
    }
    // Of a connection older than the monitor nobody saw the FIN.
    let since = facts.closing.map_or(look.first_seen, |closing| closing.at);
    if look.now < since + PATIENCE {
        return Finding::NotBefore(since + PATIENCE);
    }
    Finding::Holds(Verdict {
        kind: VerdictKind::HalfClosed,
        certainty: Certainty::Confirmed,
        since,
        limit: PATIENCE,
        hop: None,
    })
}

/// An orphaned socket waits for the peer's FIN as long (`net.ipv4.tcp_fin_timeout`).
const PATIENCE: Duration = Duration::from_secs(60);
