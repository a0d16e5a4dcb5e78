//! Everything that the daemon reports, except metrics.

use std::io;

use super::{
    DaemonError, DaemonSettings,
    access_log::{AccessLog, LineOwners},
    both_clocks,
    frame_stream::FrameStream,
    name_of,
    owner_lookup::{OwnerLookup, SearchResult},
    sleep_until,
    workload_lookup::{WorkloadLookup, WorkloadSearchResult},
};
use crate::{
    alerting::Sinks,
    api::control::{AlertFeed, EndedConnections, EventViewers, LoggedAlert, Past},
    config::listeners::ListenerConfig,
    decode::ClosedConnection,
    kernel::{bpf::loader::Loaded, owner_service::OwnerService},
    logs::line_log::LostLines,
    records::{Now, connections::HandshakeSummary},
};
use monitor_core::{Alert, Correlator, Detail, Ended, Grouping};

/// The receivers of alerts, frames and changes of state.
pub(super) struct Outputs {
    pub(super) sinks: Sinks,
    access_log: Option<AccessLog>,
    /// Groups the core's alerts for the line-based outputs.
    pub(super) grouping: Grouping,
    pub(super) owners: OwnerService,
    pub(super) owner_lookup: OwnerLookup,
    pub(super) workload_lookup: WorkloadLookup,
    pub(super) frame_stream: FrameStream,
    pub(super) events: EventViewers,
    pub(super) alert_feed: AlertFeed,
    pub(super) history: EndedConnections,
}

/// Why an output wakes the daemon.
pub(super) enum OutputEvent {
    /// Frames arrived or were lost, or a viewer left. The next tick shows them.
    Frames,
    Owners(SearchResult),
    Workloads(WorkloadSearchResult),
    /// A workload can be looked up. The next tick does it.
    WorkloadDue,
    LineOwners(LineOwners),
}

impl Outputs {
    /// Must be called within a tokio runtime.
    pub(super) fn take(
        loaded: &mut Loaded,
        sinks: Sinks,
        access_log: Option<AccessLog>,
        settings: &DaemonSettings,
    ) -> Result<Self, DaemonError> {
        let owners = OwnerService::open(&settings.pod_logs)?;
        Ok(Self {
            sinks,
            access_log,
            grouping: Grouping::default(),
            owner_lookup: OwnerLookup::new(owners.clone(), settings.client_address),
            workload_lookup: WorkloadLookup::new(owners.clone()),
            owners,
            frame_stream: FrameStream::take(loaded)?,
            events: EventViewers::default(),
            alert_feed: AlertFeed::default(),
            history: EndedConnections::default(),
        })
    }

    pub(super) async fn next(&mut self) -> io::Result<OutputEvent> {
        let workload_due = self.workload_lookup.due();
        let line_owners = async {
            match &mut self.access_log {
                Some(log) => log.searched().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = self.frame_stream.ready() => ready.map(|()| OutputEvent::Frames),
            result = self.owner_lookup.searched() => Ok(OutputEvent::Owners(result)),
            result = self.workload_lookup.searched() => Ok(OutputEvent::Workloads(result)),
            () = sleep_until(workload_due) => Ok(OutputEvent::WorkloadDue),
            found = line_owners => Ok(OutputEvent::LineOwners(found)),
        }
    }

    /// Passes an alert on as it is, and to the grouping.
    pub(super) fn offer(&mut self, alert: Alert, listeners: &[ListenerConfig], now: &Now) {
        let listener = name_of(listeners, alert.listener);
        self.sinks.follow(&alert, listener, now);
        self.grouping.offer(alert);
    }

    /// Emits the grouped alerts, or begins to search for the owners in them.
    pub(super) fn emit_grouped(&mut self, core: &Correlator, listeners: &[ListenerConfig]) {
        let alerts: Vec<_> = std::iter::from_fn(|| self.grouping.poll_alert()).collect();
        if !alerts.is_empty() {
            let complete = self.owner_lookup.submit(alerts, core);
            self.emit(&complete, listeners);
        }
    }

    /// Emits the alerts that waited for a search.
    pub(super) fn finish_search(&mut self, result: SearchResult, listeners: &[ListenerConfig]) {
        let complete = self.owner_lookup.finish(result);
        self.emit(&complete, listeners);
    }

    /// Emits everything that still waits.
    pub(super) async fn flush(&mut self, core: &Correlator, listeners: &[ListenerConfig]) {
        self.grouping.flush();
        self.emit_grouped(core, listeners);
        while self.owner_lookup.is_running() {
            let result = self.owner_lookup.searched().await;
            self.finish_search(result, listeners);
        }
        while let Some(log) = self.access_log.as_mut().filter(|log| log.is_searching()) {
            let found = log.searched().await;
            log.finish(found, &self.owners);
        }
    }

    /// Keeps the end of a connection for later requests and for the access log. Must run before the core
    /// handles the end, because the core then forgets the handshake.
    pub(super) fn remember_closed(&mut self, closed: ClosedConnection, core: &Correlator) {
        if let Some(log) = &mut self.access_log {
            log.remember_closed(&closed, core);
        }
        let closed = closed.closed;
        self.frame_stream.remember(&closed.detail.facts);
        let facts = &closed.detail.facts;
        let handshake = core.handshake(facts.conn);
        let owner = self.owners.known(facts.conn, facts.cgroup_id);
        self.history.remember(Past {
            owner: owner.into(),
            handshake: handshake.as_ref().map(HandshakeSummary::of),
            requested_at: handshake.and_then(|handshake| handshake.requested_at),
            closed,
        });
    }

    /// The same for a connection whose end was not reported, as last published.
    pub(super) fn remember_missed(&mut self, detail: Detail, core: &Correlator) {
        if let Some(log) = &mut self.access_log {
            log.remember_missed(detail, core);
        }
    }

    /// Writes the line of a connection that the core has ended.
    pub(super) fn log_end(&mut self, ended: &Ended, listeners: &[ListenerConfig], now: &Now) {
        if let Some(log) = &mut self.access_log {
            log.write(ended, &self.owners, listeners, now);
        }
    }

    /// Writes the lines of the access log that waited for a search.
    pub(super) fn finish_lines(&mut self, found: LineOwners) {
        if let Some(log) = &mut self.access_log {
            log.finish(found, &self.owners);
        }
    }

    /// Must run when the core has handled all ends that were remembered.
    pub(super) fn forget_unended(&mut self) {
        if let Some(log) = &mut self.access_log {
            log.forget_unended();
        }
    }

    /// Reopens the files of the logs by their names.
    pub(super) fn reopen_logs(&self) {
        self.sinks.reopen();
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// Lines of the access log that were lost.
    pub(super) fn lost_lines(&self) -> LostLines {
        self.access_log
            .as_ref()
            .map(AccessLog::lost)
            .unwrap_or_default()
    }

    fn emit(&mut self, alerts: &[Alert], listeners: &[ListenerConfig]) {
        let now = both_clocks();
        for alert in alerts {
            let listener = name_of(listeners, alert.listener);
            if let Some(line) = self.sinks.emit(alert, listener, &now) {
                self.alert_feed.publish(LoggedAlert {
                    listener: listener.into(),
                    alert: alert.subject.name(),
                    kind: alert.subject.kind(),
                    line: (line + "\n").into(),
                });
            }
        }
    }
}
