//! Converts the wire's integers into the details of one connection.

use std::time::Duration;

use monitor_common::snapshot::{DirectionFacts, PING_UNIT, Snapshot};

use super::{
    DecodeError,
    facts::{facts, moment},
};
use monitor_core::{Detail, detail::DirectionTraffic};

/// Decodes all of a snapshot.
pub fn detail(s: &Snapshot) -> Result<Detail, DecodeError> {
    let [rtt_rx, rtt_tx] = s.ping_rtt_us;
    Ok(Detail {
        facts: facts(s)?,
        retransmits: s.retransmits,
        rx: traffic(&s.rx, rtt_rx),
        tx: traffic(&s.tx, rtt_tx),
        tls: s.tls(),
    })
}

fn traffic(facts: &DirectionFacts, ping_rtt_us: u32) -> DirectionTraffic {
    let has_interval = facts.ping_interval != 0;
    let units = |n: u64| has_interval.then(|| Duration::from_nanos(n * PING_UNIT));
    DirectionTraffic {
        frames: facts.frames,
        payload_bytes: facts.payload_bytes,
        last_data_frame: moment(facts.last_data_frame),
        pings: facts.pings,
        pings_unanswered: facts.pings_unanswered(),
        last_ping: moment(facts.last_ping),
        ping_rtt: (ping_rtt_us != 0).then(|| Duration::from_micros(ping_rtt_us.into())),
        ping_interval: units(facts.ping_interval.into()),
        ping_jitter: units(facts.ping_jitter.into()),
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::snapshot::protocol;

    use super::*;

    #[test]
    fn zeros_mean_never_and_the_rest_keeps_its_place() {
        let mut s = Snapshot {
            protocol: protocol::WEBSOCKET,
            ..Snapshot::EMPTY
        };
        let bare = detail(&s).expect("a WebSocket");
        assert_eq!(bare.facts.cgroup_id, None);
        assert_eq!(
            (bare.rx, bare.tx),
            (DirectionTraffic::default(), DirectionTraffic::default())
        );

        s.cgroup_id = 5;
        s.ping_rtt_us = [0, 1_500];
        s.tx.pings = 3;
        s.tx.pings_answered = 2;
        s.rx.payload_bytes = 7;
        (s.tx.ping_interval, s.tx.ping_jitter) = (2, 1);
        let full = detail(&s).expect("a WebSocket");
        assert_eq!(full.facts.cgroup_id, Some(5));
        assert_eq!(full.rx.payload_bytes, 7);
        assert_eq!((full.tx.pings, full.tx.pings_unanswered), (3, 1));
        assert_eq!(
            (full.rx.ping_rtt, full.tx.ping_rtt),
            (None, Some(Duration::from_micros(1_500)))
        );
        let unit = Duration::from_nanos(16_777_216);
        let heartbeats = [full.rx, full.tx].map(|side| (side.ping_interval, side.ping_jitter));
        assert_eq!(heartbeats, [(None, None), (Some(2 * unit), Some(unit))]);
    }
}
