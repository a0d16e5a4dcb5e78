//! A connection as a page of text.

use super::{
    close::close_text,
    fields::Fields,
    idle::idle_lines,
    timeline::{self, Moment},
    traffic::{direction_lines, heartbeat_lines, ping_lines, rates_text},
};
use crate::{
    cli::{
        color::Color,
        owner::owner_facts,
        screen::{Age, Counted, Margin},
    },
    records::{
        connections::{ConnectionRecord, HandshakeSummary, TcpRecord},
        rates::TrafficRates,
        status::ListenerStatus,
        verdict_text::verdict_text,
    },
};

/// What a page shows, and how.
pub(in crate::cli) struct Page<'a> {
    pub(in crate::cli) record: &'a ConnectionRecord,
    /// The state of its listener, if it is known.
    pub(in crate::cli) listener: Option<ListenerStatus>,
    /// To which lines are wrapped; `None` leaves them whole.
    pub(in crate::cli) width: Option<usize>,
    pub(in crate::cli) is_colored: bool,
}

impl Page<'_> {
    /// What means nothing is left out.
    pub(in crate::cli) fn lines(&self) -> Vec<String> {
        let record = self.record;
        let date = record.ts.strftime("%Y-%m-%d %H:%M:%S.%3f UTC");
        let title = format!("connection {} at {date}", record.cookie.0);
        let mut fields = Fields::new(title, self.width);
        fields.add("verdict", self.verdict());
        fields.add("peer", [record.peer.to_string()]);
        fields.add("local", [record.local.to_string()]);
        fields.add("listener", self.listener());
        for (name, text) in owner_facts(&record.owner) {
            fields.add(name, [text]);
        }
        if record.owner.cgroup.is_none() {
            fields.add(
                "cgroup",
                record.cgroup_id.iter().map(|id| format!("id {id}")),
            );
        }
        fields.add("protocol", [protocol(record)]);
        fields.add("tls", record.tls.iter().map(ToString::to_string));
        let handshake = record.handshake.as_ref();
        let handshake = handshake.map_or("not seen".to_owned(), handshake_text);
        fields.add("handshake", [handshake]);
        fields.add("state", timeline::lines(record));
        fields.add("age", [age(record)]);
        fields.add("idle", idle_lines(record));
        fields.add("heartbeat", heartbeat_lines(record));
        fields.add("pings", ping_lines(record));
        fields.add("received", direction_lines(record, &record.rx));
        fields.add("sent", direction_lines(record, &record.tx));
        let rates = record
            .rates
            .filter(|rates| *rates != TrafficRates::default());
        fields.add("rates", rates.map(rates_text));
        fields.add("tcp", tcp_lines(&record.tcp));
        fields.add("close", close_text(record));
        let mut lines = fields.into_lines();
        self.color_verdict(&mut lines);
        lines
    }

    fn verdict(&self) -> Vec<String> {
        match &self.record.verdict {
            Some(verdict) => {
                let moment = |ts| Moment {
                    ts,
                    day: self.record.ts,
                };
                let (began, reported) = (moment(verdict.began_at), moment(verdict.ts));
                let head = format!(
                    "{} since {began}, reported at {reported}",
                    verdict_text(verdict)
                );
                vec![head, verdict.reason.clone()]
            }
            None => vec!["none".to_owned()],
        }
    }

    /// After the lines were wrapped, because a colour takes no room.
    fn color_verdict(&self, lines: &mut [String]) {
        let verdict = self.record.verdict.as_ref().filter(|_| self.is_colored);
        let Some(verdict) = verdict else { return };
        let name = verdict_text(verdict);
        if let Some(color) = Color::of_certainty(&verdict.certainty)
            && let Some(line) = lines.iter_mut().find(|line| line.contains(&name))
        {
            *line = line.replacen(&name, &color.paint(&name), 1);
        }
    }

    fn listener(&self) -> Vec<String> {
        let record = self.record;
        let mut lines = vec![format!(
            "{}, this host is the {}",
            record.listener, record.role
        )];
        let status = self.listener.as_ref();
        if let Some(gap) = status.and_then(|status| status.idle_gap_p99_seconds) {
            let margin = status.and_then(|status| status.heartbeat_margin_seconds);
            let margin = margin.map(|margin| format!(", margin {}", Margin(Some(margin))));
            let margin = margin.unwrap_or_default();
            lines.push(format!("p99 of its idle gaps {}{margin}", Age(Some(gap))));
        }
        lines
    }
}

fn protocol(record: &ConnectionRecord) -> String {
    let meaning = match record.protocol.as_str() {
        "opaque" => ": its frames are inside TLS",
        "assumed" => ": no frame was recognised yet",
        _ => "",
    };
    format!("{}{meaning}", record.protocol)
}

fn age(record: &ConnectionRecord) -> String {
    match (record.age_seconds, record.known_from.as_str()) {
        (Some(_), _) => format!("{} since TCP was established", Age(record.age_seconds)),
        (None, "sock_diag") => "older than wsmon, found by a scan of the sockets".to_owned(),
        (None, _) => "older than wsmon, known since a packet passed".to_owned(),
    }
}

fn tcp_lines(tcp: &TcpRecord) -> Vec<String> {
    let mut lines = Vec::new();
    let lasting = |seconds: Option<f64>| {
        let lasting = seconds.map(|seconds| format!(" for {}", Age(Some(seconds))));
        lasting.unwrap_or_default()
    };
    if let Some(last) = tcp.last_ack_seconds {
        lines.push(format!("last acknowledgement {} ago", Age(Some(last))));
    }
    // An acknowledgement may not be known yet. A second transmission proves that none came.
    if tcp.unacked_bytes > 0 && tcp.retransmits > 0 {
        let bytes = Counted(tcp.unacked_bytes.into(), "byte");
        let lasting = lasting(tcp.unacked_seconds);
        lines.push(format!("{bytes} unacknowledged{lasting}"));
    }
    if tcp.retransmits_total > 0 {
        let all = Counted(tcp.retransmits_total.into(), "retransmission");
        lines.push(match tcp.retransmits {
            0 => all.to_string(),
            recent => format!("{all}, {recent} since the last acknowledgement"),
        });
    }
    if tcp.unanswered_transmissions > 1 {
        let sent = Counted(tcp.unanswered_transmissions.into(), "transmission");
        let lasting = lasting(tcp.unanswered_seconds);
        lines.push(format!("{sent} unanswered{lasting}"));
    }
    if let Some(bytes) = tcp.send_queue_bytes.filter(|bytes| *bytes > 0) {
        let bytes = Counted(bytes.into(), "byte");
        lines.push(format!("{bytes} in the send queue at the last scan"));
    }
    lines
}

/// The client's text is quoted and escaped, because it must not reach the terminal as control
/// sequences.
fn handshake_text(handshake: &HandshakeSummary) -> String {
    let HandshakeSummary {
        path,
        host,
        origin,
        subprotocol,
        compressed,
        faults,
    } = handshake;
    let mut parts = vec![match path {
        Some(path) => format!("path {path:?}"),
        None => "path not seen".to_owned(),
    }];
    for (name, text) in [
        ("host", host),
        ("origin", origin),
        ("subprotocol", subprotocol),
    ] {
        parts.extend(text.as_ref().map(|text| format!("{name} {text:?}")));
    }
    parts.extend(compressed.then(|| "compressed".to_owned()));
    parts.extend(faults.iter().cloned());
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{
        connections::{
            VerdictRecord,
            tests::{detail, record},
        },
        rates::DirectionRates,
        status::tests::{healthy, listener},
        tls::tests::with_heartbeat,
    };
    use monitor_core::CloseHow;

    fn lines(record: &ConnectionRecord, width: Option<usize>) -> Vec<String> {
        let page = Page {
            record,
            listener: None,
            width,
            is_colored: false,
        };
        page.lines()
    }

    /// A connection of which everything is known, and something is wrong.
    fn troubled() -> ConnectionRecord {
        let mut record = record(&detail(7), None);
        record.idle_seconds = Some(72.04);
        record.hop_idle_seconds = Some(72.04);
        record.rates = Some(TrafficRates {
            rx: DirectionRates {
                frames_per_second: 2.04,
                payload_bytes_per_second: 1234.0,
            },
            tx: DirectionRates::default(),
        });
        record.handshake = Some(HandshakeSummary {
            path: Some("/chat\x1b".to_owned()),
            host: None,
            origin: None,
            subprotocol: None,
            compressed: true,
            faults: vec!["bad_key".to_owned()],
        });
        record.verdict = Some(VerdictRecord {
            kind: "expired".to_owned(),
            certainty: "confirmed".to_owned(),
            ts: record.ts,
            began_at: "2026-11-22T18:37:40.5Z".parse().expect("a time stamp"),
            limit_seconds: 60.0,
            reason: "idle 60.2 s on a path that forgets after 60 s (lb), then 2 transmissions \
                     unanswered for 1.7 s: the path is dead"
                .to_owned(),
        });
        record.tcp.unacked_bytes = 1_234;
        record.tcp.unacked_seconds = Some(2.0);
        record.tcp.retransmits = 2;
        record.tcp.retransmits_total = 3;
        record.tcp.unanswered_transmissions = 2;
        record.tcp.unanswered_seconds = Some(1.7);
        record.tcp.send_queue_bytes = Some(512);
        record.owner.unit = Some("chat\n.service".to_owned());
        record.owner.pid = Some(812);
        record.owner.comm = Some("node".to_owned());
        record
    }

    #[test]
    fn a_page_shows_what_is_wrong_and_no_line_is_wider_than_the_terminal() {
        let expected = "\
connection 7 at 2026-11-22 18:37:52.500 UTC
  verdict    expired (confirmed) since 18:37:40.500, reported at 18:37:52.500
             idle 60.2 s on a path that forgets after 60 s (lb), then 2
             transmissions unanswered for 1.7 s: the path is dead
  peer       10.77.1.12:53787
  local      10.77.2.10:8080
  listener   8080, this host is the server
  unit       chat\\n.service
  process    node (pid 812)
  cgroup     id 7
  protocol   websocket
  handshake  path \"/chat\\u{1b}\", compressed, bad_key
  state      open for 19.0 s
             18:37:33.000              connecting  upgrade requested
             18:37:33.500    +0.500 s  open        101 after 1000 ms
  age        20.0 s since TCP was established
  idle       72.0 s of 60 s (lb), 12.0 s over it
  heartbeat  ping every 15.0 s (jitter 0.0 s) from the peer
  pings      2 from the peer, all answered, round trip 250 µs
  received   3 frames, 0 bytes of payload
             last frame never, last data frame never
             last packet 5.0 s ago, last with data never
  sent       0 frames, 0 bytes of payload
             last packet never, last with data never
  rates      received 2.0 frames/s, 1,234 bytes/s; sent 0.0 frames/s, 0 bytes/s
  tcp        1,234 bytes unacknowledged for 2.0 s
             3 retransmissions, 2 since the last acknowledgement
             2 transmissions unanswered for 1.7 s
             512 bytes in the send queue at the last scan";
        assert_eq!(lines(&troubled(), Some(80)).join("\n"), expected);
    }

    #[test]
    fn what_means_nothing_is_left_out_and_lines_without_a_terminal_are_whole() {
        let mut record = troubled();
        record.rates = Some(TrafficRates::default());
        record.tcp = TcpRecord {
            last_ack_seconds: None,
            unacked_bytes: 129,
            unacked_seconds: Some(27.2),
            retransmits: 0,
            retransmits_total: 0,
            unanswered_transmissions: 1,
            unanswered_seconds: Some(27.2),
            send_queue_bytes: Some(0),
        };
        let lines = lines(&record, None);
        let has = |label: &str| lines.iter().any(|line| line.starts_with(label));
        assert!(
            !has("  tcp ") && !has("  rates ") && !has("  close "),
            "{lines:?}"
        );
        assert!(lines[2].ends_with("1.7 s: the path is dead"), "{lines:?}");
    }

    #[test]
    fn an_older_connection_says_so() {
        let mut record = record(&detail(7), None);
        record.age_seconds = None;
        record.known_from = "sock_diag".to_owned();
        record.protocol = "assumed".to_owned();
        let lines = lines(&record, Some(80)).join("\n");
        for line in [
            "\n  age        older than wsmon, found by a scan of the sockets\n",
            "\n  protocol   assumed: no frame was recognised yet\n",
        ] {
            assert!(lines.contains(line), "{lines}");
        }
    }

    #[test]
    fn a_tls_connection_says_what_its_records_show() {
        let mut record = record(&detail(7), None);
        record.protocol = "opaque".to_owned();
        record.tls = Some(with_heartbeat());
        record.rx.pings = 0;
        let lines = lines(&record, Some(80)).join("\n");
        for line in [
            "\n  protocol   opaque: its frames are inside TLS\
             \n  tls        1.3, heartbeat 25.0 s inferred\n",
            "\n  pings      none recognised\n",
        ] {
            assert!(lines.contains(line), "{lines}");
        }
    }

    #[test]
    fn a_closed_connection_has_no_time_left() {
        let record = record(&detail(7), Some(CloseHow::RstReceived));
        let lines = lines(&record, Some(80)).join("\n");
        for line in [
            "\n  idle       5.0 s of 60 s (lb)\n",
            "\n             18:37:52.500     +19.0 s  closed      rst_received\n",
            "\n  close      no close frame; applications see it as 1006 (abnormal closure)",
        ] {
            assert!(lines.contains(line), "{lines}");
        }
    }

    #[test]
    fn the_listener_has_its_margin_and_the_verdict_its_color() {
        let record = troubled();
        let mut listener = listener("8080", &healthy(), None);
        listener.idle_gap_p99_seconds = Some(25.3);
        listener.heartbeat_margin_seconds = Some(34.7);
        let page = Page {
            record: &record,
            listener: Some(listener),
            width: Some(80),
            is_colored: true,
        };
        let lines = page.lines();
        assert!(
            lines[1].starts_with("  verdict    \x1b[31mexpired (confirmed)\x1b[0m since"),
            "{lines:?}"
        );
        let margin = "             p99 of its idle gaps 25.3 s, margin 34.7 s";
        assert!(lines.contains(&margin.to_owned()), "{lines:?}");
    }
}
