//! The access log: one line for each connection that ended.

use std::{collections::HashMap, io, mem, net::IpAddr};

use tokio::task::{JoinError, JoinHandle};

use super::{finished, name_of};
use crate::{
    config::listeners::ListenerConfig,
    decode::ClosedConnection,
    kernel::owner_service::{OwnerQuery, OwnerService},
    logs::line_log::{Line, LineLog, LogTarget, LostLines},
    records::{
        Now,
        connection_summary::{ConnectionEnd, ConnectionSummary, SummarySource},
        connections::HandshakeSummary,
        json,
    },
};
use monitor_common::connection_totals::ConnectionTotals;
use monitor_core::{
    CloseHow, Closed, ConnId, Correlator, Detail, Ended, background::Owner,
    handshake::ClientAddress,
};

/// Lines that may wait for a slow reader: those of a server with this many connections that is killed.
const WAITING_LINES: usize = 65_536;

/// Lines that may wait for a search for owners. Later ones are written with what is known.
const UNNAMED_LINES: usize = 4_096;

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
    /// The connections whose end is known and which the core has not ended yet.
    ending: HashMap<ConnId, FinalState>,
    /// Lines for whose cgroup nobody has looked yet.
    unnamed: Vec<UnnamedLine>,
    /// The lines of the running search.
    searched: Vec<UnnamedLine>,
    running: Option<JoinHandle<Vec<Owner>>>,
}

/// A line that waits for the owner of its connection.
#[derive(Debug)]
struct UnnamedLine {
    query: OwnerQuery,
    summary: Box<ConnectionSummary>,
}

/// The result of a search, for [`AccessLog::finish`].
pub(super) struct LineOwners(Result<Vec<Owner>, JoinError>);

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
        json::to_string(&self)
    }
}

impl AccessLog {
    pub fn open(settings: AccessLogSettings) -> io::Result<Self> {
        Ok(Self {
            log: LineLog::open("access log", &settings.target, WAITING_LINES)?,
            settings,
            ending: HashMap::new(),
            unnamed: Vec::new(),
            searched: Vec::new(),
            running: None,
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

    /// Writes the line of a connection that the core has ended. If its cgroup is new, the line waits for a
    /// search. Must be called within a tokio runtime.
    pub(super) fn write(
        &mut self,
        ended: &Ended,
        owners: &OwnerService,
        listeners: &[ListenerConfig],
        now: &Now,
    ) {
        let state = self.ending.remove(&ended.conn);
        let query = state.as_ref().map(|state| OwnerQuery {
            is_open: false,
            cgroup_id: state.detail.facts.cgroup_id,
            ..OwnerQuery::from(&state.detail.facts)
        });
        let mut summary = Box::new(summary(ended, state, listeners, now));
        let Some(query) = query else {
            return self.log.write(summary);
        };
        let owner = owners.known(query.conn, query.cgroup_id);
        let is_new = owner.cgroup.is_none() && query.cgroup_id.is_some();
        if is_new && self.unnamed.len() < UNNAMED_LINES {
            self.unnamed.push(UnnamedLine { query, summary });
            return self.start(owners);
        }
        summary.owner = Some(owner.into());
        self.log.write(summary);
    }

    /// Starts a search for all lines that wait, if none is running.
    fn start(&mut self, owners: &OwnerService) {
        if self.running.is_some() || self.unnamed.is_empty() {
            return;
        }
        self.searched = mem::take(&mut self.unnamed);
        let queries = self.searched.iter().map(|line| line.query).collect();
        let owners = owners.clone();
        self.running = Some(tokio::spawn(async move { owners.owners(queries).await }));
    }

    pub(super) fn is_searching(&self) -> bool {
        self.running.is_some()
    }

    /// Waits for the current search; pends forever if there is none.
    pub(super) async fn searched(&mut self) -> LineOwners {
        LineOwners(finished(&mut self.running).await)
    }

    /// Writes the lines of a search, and starts the next.
    pub(super) fn finish(&mut self, LineOwners(result): LineOwners, owners: &OwnerService) {
        self.running = None;
        let found = result.unwrap_or_else(|error| {
            log::error!("a search for owners ended early: {error}");
            Vec::new()
        });
        let mut found = found.into_iter();
        for UnnamedLine { mut summary, .. } in mem::take(&mut self.searched) {
            summary.owner = Some(found.next().unwrap_or_default().into());
            self.log.write(summary);
        }
        self.start(owners);
    }

    /// Drops what the core did not end: the state of connections that it does not have.
    pub(super) fn forget_unended(&mut self) {
        self.ending.clear();
    }

    /// See [`LineLog::reopen`].
    pub(super) fn reopen(&self) {
        self.log.reopen();
    }

    pub(super) fn lost(&self) -> LostLines {
        self.log.lost()
    }
}

/// The record of a connection that ended, without its owner.
fn summary(
    ended: &Ended,
    state: Option<FinalState>,
    listeners: &[ListenerConfig],
    now: &Now,
) -> ConnectionSummary {
    let end = match (&state, ended.how) {
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
        detail: state.as_ref().map(|state| &state.detail),
        totals: state.as_ref().and_then(|state| state.totals.as_ref()),
        verdicts: &ended.verdicts,
    };
    let summary = ConnectionSummary::new(&source, |at| now.wall_clock(at));
    let (handshake, client) = state.map_or((None, None), |state| (state.handshake, state.client));
    ConnectionSummary {
        handshake,
        client,
        ..summary
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::Path,
        time::{Duration, Instant},
    };

    use jiff::Timestamp;
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::records::connections::tests::detail;
    use monitor_core::{Ktime, ListenerId, ListenerRules, facts::Protocol};

    const NOW: Now = Now {
        at: Ktime(9_000_000_000),
        ts: Timestamp::UNIX_EPOCH,
    };

    struct Bench {
        log: AccessLog,
        owners: OwnerService,
        core: Correlator,
        folder: TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary directory");
            let settings = AccessLogSettings {
                target: LogTarget::File(folder.path().join("access")),
                handshake: true,
                client_address: true,
            };
            Self {
                log: AccessLog::open(settings).expect("a writable file"),
                owners: OwnerService::open(Path::new("/nowhere")).expect("a netlink socket"),
                core: Correlator::new(vec![ListenerRules::new("web", None)], Duration::ZERO),
                folder,
            }
        }

        fn end(&mut self, conn: u64) {
            let ended = Ended {
                conn: ConnId(conn),
                listener: ListenerId(0),
                protocol: Protocol::WebSocket,
                at: Ktime(8_000_000_000),
                how: CloseHow::Unknown,
                verdicts: Vec::new(),
            };
            self.log.write(&ended, &self.owners, &[], &NOW);
        }

        /// Waits for all searches and for this number of lines.
        async fn lines(mut self, expected: usize) -> Vec<Value> {
            while self.log.is_searching() {
                let found = self.log.searched().await;
                self.log.finish(found, &self.owners);
            }
            assert_eq!(self.log.lost(), LostLines::default());
            assert!(self.log.ending.is_empty());
            let path = self.folder.path().join("access");
            let written = || fs::read_to_string(&path).expect("the log");
            let deadline = Instant::now() + Duration::from_secs(20);
            while written().matches('\n').count() < expected && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            drop(self.log);
            let parsed = |line| serde_json::from_str(line).expect("JSON");
            written().lines().map(parsed).collect()
        }
    }

    #[tokio::test]
    async fn a_line_waits_for_the_search_for_its_owner_and_only_so_many_do() {
        let mut bench = Bench::new();
        let all = 2 * UNNAMED_LINES as u64 + 1;
        for conn in 0..all {
            bench.log.remember_missed(detail(conn), &bench.core);
            bench.end(conn);
        }
        // The first line has the search of its own, and the last found no room.
        assert_eq!(bench.log.searched.len(), 1);
        assert_eq!(bench.log.unnamed.len(), UNNAMED_LINES);
        let lines = bench.lines(all as usize).await;
        assert_eq!(lines.len() as u64, all);
        assert!(lines.iter().all(|line| line["owner"].is_object()));
    }

    #[test]
    fn the_state_of_a_connection_that_the_core_does_not_have_is_dropped() {
        let mut bench = Bench::new();
        bench.log.remember_missed(detail(1), &bench.core);
        bench.log.forget_unended();
        assert!(bench.log.ending.is_empty());
    }

    #[tokio::test]
    async fn a_connection_without_a_record_of_its_end_has_a_line_with_what_is_known() {
        let mut bench = Bench::new();
        bench.end(2);
        bench.log.remember_missed(detail(1), &bench.core);
        bench.end(1);
        let lines = bench.lines(2).await;
        let [lost, published] = &lines[..] else {
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
