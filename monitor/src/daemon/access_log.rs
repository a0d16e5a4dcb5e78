//! The access log: one line for each connection that ended.

use std::{collections::HashMap, io, net::IpAddr};

use super::name_of;
use crate::{
    config::listeners::ListenerConfig,
    decode::ClosedConnection,
    logs::line_log::{Line, LineLog, LogTarget, LostLines},
    records::{
        Now,
        connection_summary::{ConnectionEnd, ConnectionSummary, SummarySource},
        connections::HandshakeSummary,
    },
};
use monitor_common::connection_totals::ConnectionTotals;
use monitor_core::{CloseHow, Closed, ConnId, Correlator, Detail, Ended, handshake::ClientAddress};

/// Lines that may wait for a slow reader: those of a server with this many connections that is killed.
const WAITING_LINES: usize = 65_536;

/// Where the access log goes, and which personal data it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogSettings {
    pub target: LogTarget,
    /// The text of handshakes.
    pub handshake: bool,
    /// The client's address as a proxy forwards it.
    pub client_address: bool,
}

/// An open access log.
#[derive(Debug)]
pub struct AccessLog {
    log: LineLog<Box<ConnectionSummary>>,
    settings: AccessLogSettings,
    /// The connections whose end is known and not written yet.
    ending: HashMap<ConnId, FinalState>,
}

/// A connection at its end.
#[derive(Debug)]
struct FinalState {
    detail: Detail,
    totals: Option<ConnectionTotals>,
    end: ConnectionEnd,
    handshake: Option<HandshakeSummary>,
    client: Option<IpAddr>,
}

impl Line for Box<ConnectionSummary> {
    fn into_line(self) -> serde_json::Result<String> {
        serde_json::to_string(&self)
    }
}

impl AccessLog {
    pub fn open(settings: AccessLogSettings) -> io::Result<Self> {
        Ok(Self {
            log: LineLog::open("access log", &settings.target, WAITING_LINES)?,
            settings,
            ending: HashMap::new(),
        })
    }

    /// Keeps the final state of a connection until the core has handled the end. Must run before that,
    /// because the core then forgets the handshake.
    pub(super) fn remember_closed(&mut self, record: &ClosedConnection, core: &Correlator) {
        let Closed { detail, how } = &record.closed;
        self.remember(
            detail.clone(),
            record.totals,
            ConnectionEnd::Closed(*how),
            core,
        );
    }

    /// The same for a connection whose end was not reported.
    pub(super) fn remember_missed(&mut self, detail: Detail, core: &Correlator) {
        self.remember(detail, None, ConnectionEnd::Missed, core);
    }

    fn remember(
        &mut self,
        detail: Detail,
        totals: Option<ConnectionTotals>,
        end: ConnectionEnd,
        core: &Correlator,
    ) {
        let conn = detail.facts.conn;
        let handshake = core.handshake(conn);
        let handshake = handshake.as_ref();
        let state = FinalState {
            detail,
            totals,
            end,
            handshake: handshake
                .filter(|_| self.settings.handshake)
                .map(HandshakeSummary::of),
            client: handshake
                .filter(|_| self.settings.client_address)
                .and_then(|handshake| handshake.client)
                .map(ClientAddress::reveal),
        };
        self.ending.insert(conn, state);
    }

    /// Writes the line of a connection that the core has ended.
    pub(super) fn write(&mut self, ended: &Ended, listeners: &[ListenerConfig], now: &Now) {
        let state = self.ending.remove(&ended.conn);
        let state = state.as_ref();
        let end = match (state, ended.how) {
            (Some(state), _) => state.end,
            (None, CloseHow::Unknown) => ConnectionEnd::Missed,
            (None, how) => ConnectionEnd::Closed(how),
        };
        let source = SummarySource {
            conn: ended.conn,
            listener: name_of(listeners, ended.listener),
            protocol: ended.protocol,
            end,
            at: ended.at,
            detail: state.map(|state| &state.detail),
            totals: state.and_then(|state| state.totals.as_ref()),
            verdicts: &ended.verdicts,
        };
        let summary = ConnectionSummary {
            handshake: state.and_then(|state| state.handshake.clone()),
            client: state.and_then(|state| state.client),
            ..ConnectionSummary::new(&source, |at| now.wall_clock(at))
        };
        self.log.write(Box::new(summary));
    }

    /// See [`LineLog::reopen`].
    pub(super) fn reopen(&self) {
        self.log.reopen();
    }

    pub(super) fn lost(&self) -> LostLines {
        self.log.lost()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::records::connections::tests::detail;
    use monitor_core::{Ktime, ListenerId, ListenerRules, facts::Protocol};

    /// The lines of these ends, of which the first `known` left a final state.
    fn lines_of(conns: &[u64], known: usize) -> Vec<Value> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("access");
        let mut log = AccessLog::open(AccessLogSettings {
            target: LogTarget::File(path.clone()),
            handshake: true,
            client_address: true,
        })
        .expect("a writable file");
        let core = Correlator::new(vec![ListenerRules::new("web", None)], Duration::ZERO);
        for conn in &conns[..known] {
            log.remember_missed(detail(*conn), &core);
        }
        let now = Now {
            at: Ktime(9_000_000_000),
            ts: Timestamp::UNIX_EPOCH,
        };
        for conn in conns {
            let ended = Ended {
                conn: ConnId(*conn),
                listener: ListenerId(0),
                protocol: Protocol::WebSocket,
                at: Ktime(8_000_000_000),
                how: CloseHow::Unknown,
                verdicts: Vec::new(),
            };
            log.write(&ended, &[], &now);
        }
        assert_eq!(log.lost(), LostLines::default());
        assert!(log.ending.is_empty());
        drop(log);
        let text = fs::read_to_string(path).expect("the log");
        let parsed = |line| serde_json::from_str(line).expect("JSON");
        text.lines().map(parsed).collect()
    }

    #[test]
    fn a_connection_without_a_record_of_its_end_has_a_line_with_what_is_known() {
        let lines = lines_of(&[1, 2], 1);
        let [published, lost] = &lines[..] else {
            panic!("{lines:?}");
        };
        for line in [published, lost] {
            assert_eq!(line["how"], "unknown");
            assert_eq!(line["closed_at"], Value::Null);
            assert_eq!(line["protocol"], "websocket");
            assert_eq!(line["rx"]["messages"], Value::Null);
        }
        assert!(published["peer"].is_string() && published["rx"]["frames"].is_u64());
        assert_eq!(
            (&lost["peer"], &lost["rx"]["frames"]),
            (&json!(null), &json!(null))
        );
        assert_eq!(lost["cookie"], "2");
    }
}
