//! What passed in both directions, in words.

use std::time::Duration;

use crate::{
    cli::screen::{Age, Counted, Grouped},
    records::{
        connections::{ConnectionRecord, DirectionRecord},
        frames::RoundTrip,
        heartbeat::next_expected,
        rates::{DirectionRates, TrafficRates},
    },
};

/// The frames of a direction, and when the last ones came.
pub(super) fn direction_lines(record: &ConnectionRecord, side: &DirectionRecord) -> Vec<String> {
    let never = match record.age_seconds {
        Some(_) => "never",
        None => "not seen",
    };
    let ago = |seconds: Option<f64>| match seconds {
        Some(_) => format!("{} ago", Age(seconds)),
        None => never.to_owned(),
    };
    let mut lines = vec![format!(
        "{}, {} of payload",
        Counted(side.frames.into(), "frame"),
        Counted(side.payload_bytes, "byte")
    )];
    if side.frames > 0 {
        lines.push(format!(
            "last frame {}, last data frame {}",
            ago(side.last_frame_seconds),
            ago(side.last_data_frame_seconds)
        ));
    }
    lines.push(format!(
        "last packet {}, last with data {}",
        ago(side.last_packet_seconds),
        ago(side.last_payload_seconds)
    ));
    lines
}

pub(super) fn rates_text(rates: TrafficRates) -> String {
    let text = |rates: DirectionRates| {
        let bytes = Grouped(rates.payload_bytes_per_second.round() as u64);
        format!("{:.1} frames/s, {bytes} bytes/s", rates.frames_per_second)
    };
    format!("received {}; sent {}", text(rates.rx), text(rates.tx))
}

/// The interval of the pings in each direction in which it is known, and when the next one is due.
pub(super) fn heartbeat_lines(record: &ConnectionRecord) -> Vec<String> {
    let mut sides: Vec<_> = both(record)
        .into_iter()
        .filter_map(|(side, sender)| Some((side.ping_interval_seconds?, side, sender)))
        .collect();
    // The next ping is expected in the direction with the shorter interval.
    sides.sort_by(|(a, ..), (b, ..)| a.total_cmp(b));
    let mut next = next_expected(record).map(|seconds| match seconds < 0.0 {
        true => format!("; next was due {} ago", tenths(-seconds)),
        false => format!("; next due in {}", tenths(seconds)),
    });
    let line = |(interval, side, sender): (f64, &DirectionRecord, &str)| {
        let jitter = side.ping_jitter_seconds;
        let jitter = jitter.map(|jitter| format!(" (jitter {jitter:.1} s)"));
        format!(
            "ping every {}{} from {sender}{}",
            tenths(interval),
            jitter.unwrap_or_default(),
            next.take().unwrap_or_default()
        )
    };
    sides.into_iter().map(line).collect()
}

/// More digits would not be right: pings are smoothed in steps of 17 ms.
fn tenths(seconds: f64) -> String {
    match seconds < 60.0 {
        true => format!("{seconds:.1} s"),
        false => Age(Some(seconds)).to_string(),
    }
}

/// The pings in each direction that has any.
pub(super) fn ping_lines(record: &ConnectionRecord) -> Vec<String> {
    let has_pings = |(side, _): &(&DirectionRecord, _)| side.pings > 0;
    let lines = both(record).into_iter().filter(has_pings);
    let lines: Vec<_> = lines
        .map(|(side, sender)| format!("{} from {sender}, {}", side.pings, answers(side)))
        .collect();
    match lines.is_empty() {
        true if record.protocol == "opaque" => vec!["none recognised".to_owned()],
        true => vec!["none".to_owned()],
        false => lines,
    }
}

fn answers(side: &DirectionRecord) -> String {
    let mut text = match side.pings_unanswered {
        0 => "all answered".to_owned(),
        unanswered => format!("{unanswered} unanswered"),
    };
    if let Some(last) = side.last_ping_seconds {
        text += &format!("; last {} ago", Age(Some(last)));
    }
    let rtt = side.ping_rtt_seconds.map(Duration::try_from_secs_f64);
    if let Some(Ok(rtt)) = rtt {
        text += &format!(", round trip {}", RoundTrip(rtt));
    }
    text
}

fn both(record: &ConnectionRecord) -> [(&DirectionRecord, &'static str); 2] {
    [(&record.rx, "the peer"), (&record.tx, "this host")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::tests::{detail, record};
    use monitor_core::CloseHow;

    #[test]
    fn what_never_happened_is_not_a_dash() {
        let mut record = record(&detail(7), None);
        record.rx.payload_bytes = 1_234_567;
        assert_eq!(
            direction_lines(&record, &record.rx),
            [
                "3 frames, 1,234,567 bytes of payload",
                "last frame never, last data frame never",
                "last packet 5.0 s ago, last with data never",
            ]
        );
        record.age_seconds = None;
        assert_eq!(
            direction_lines(&record, &record.tx),
            [
                "0 frames, 0 bytes of payload",
                "last packet not seen, last with data not seen",
            ]
        );
    }

    #[test]
    fn the_next_heartbeat_is_the_interval_less_the_time_since_the_last() {
        let mut open = record(&detail(7), None);
        open.rx.last_ping_seconds = Some(8.2);
        assert_eq!(
            heartbeat_lines(&open),
            ["ping every 15.0 s (jitter 0.0 s) from the peer; next due in 6.8 s"]
        );
        open.tx.ping_interval_seconds = Some(5.0);
        open.tx.last_ping_seconds = Some(8.2);
        assert_eq!(
            heartbeat_lines(&open),
            [
                "ping every 5.0 s from this host; next was due 3.2 s ago",
                "ping every 15.0 s (jitter 0.0 s) from the peer",
            ]
        );
        let closed = record(&detail(7), Some(CloseHow::Fin));
        assert_eq!(
            heartbeat_lines(&closed),
            ["ping every 15.0 s (jitter 0.0 s) from the peer"]
        );
    }

    #[test]
    fn pings_are_counted_by_their_sender() {
        let mut open = record(&detail(7), None);
        assert_eq!(
            ping_lines(&open),
            ["2 from the peer, all answered, round trip 250 µs"]
        );
        open.rx.pings = 0;
        assert_eq!(ping_lines(&open), ["none"]);
        open.tx.pings = 3;
        open.tx.pings_unanswered = 1;
        open.tx.last_ping_seconds = Some(5.0);
        assert_eq!(
            ping_lines(&open),
            ["3 from this host, 1 unanswered; last 5.0 s ago"]
        );
    }

    #[test]
    fn rates_are_the_mean_of_a_second() {
        let rates = TrafficRates {
            rx: DirectionRates {
                frames_per_second: 2.04,
                payload_bytes_per_second: 1234.5,
            },
            tx: DirectionRates::default(),
        };
        assert_eq!(
            rates_text(rates),
            "received 2.0 frames/s, 1,235 bytes/s; sent 0.0 frames/s, 0 bytes/s"
        );
    }
}
