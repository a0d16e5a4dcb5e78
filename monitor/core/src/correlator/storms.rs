//! The input and output of each listener's storm engine.

use std::{collections::HashMap, net::IpAddr};

use super::Correlator;
use crate::{
    alert::Alert,
    event::HandshakeSocket,
    facts::{Facts, ListenerId, Role},
    flow::TrackedFlow,
    handshake::{ClientAddress, UpgradeRequest},
    listener::Listener,
    storm::{AttemptOutcome, Baseline, ClientRow, StormPhase, StormSettings},
    storm_watch::StormWatch,
    time::Ktime,
};

/// Settings for the detection of storms.
#[derive(Clone, Debug, Default)]
pub struct StormSetup {
    pub settings: StormSettings,
    /// The baselines of an earlier run, by listener name.
    pub baselines: HashMap<String, Baseline>,
    /// Whether to trust the client address that a proxy forwards. Anyone who can reach the server can
    /// forge it.
    pub forwarded: bool,
}

impl Correlator {
    /// Sets how storms are detected. Must be called before the first event.
    pub fn with_storms(mut self, setup: &StormSetup) -> Self {
        self.forwarded = setup.forwarded;
        for (id, listener) in (0..).map(ListenerId).zip(&mut self.listeners) {
            let baseline = setup.baselines.get(&listener.rules.name).copied();
            listener.storm = StormWatch::new(id, &setup.settings, baseline);
        }
        self
    }

    /// The learned baseline of each listener, by name.
    pub fn baselines(&self) -> impl Iterator<Item = (&str, Baseline)> {
        let listeners = self.listeners.iter();
        listeners.map(|it| (it.rules.name.as_str(), it.storm.detector.baseline()))
    }

    /// The clients of each listener with the most attempts, heaviest first.
    pub fn clients(&self) -> impl Iterator<Item = (ListenerId, Vec<ClientRow>)> + '_ {
        let listeners = (0..).map(ListenerId).zip(&self.listeners);
        listeners.map(|(id, listener)| (id, listener.storm.detector.clients()))
    }

    /// The client of a connection, as in [`Correlator::clients`].
    pub(super) fn client_of(&self, facts: &Facts) -> IpAddr {
        let flow = self.flows.get(facts.conn);
        let forwarded = flow.and_then(TrackedFlow::forwarded);
        client(facts, forwarded.filter(|_| self.forwarded))
    }

    /// The standing storm and thrash alerts.
    pub fn standing_storms(&self) -> impl Iterator<Item = &Alert> {
        let listeners = self.listeners.iter();
        listeners.flat_map(|listener| listener.storm.standing())
    }

    /// The phase of the reconnect storm on each listener, indexed by [`ListenerId`]; `None` without one.
    pub fn storm_phases(&self) -> impl Iterator<Item = Option<StormPhase>> {
        let listeners = self.listeners.iter();
        listeners.map(|listener| listener.storm.phase())
    }

    pub(super) fn arrived(&mut self, listener: ListenerId, at: Ktime, client: IpAddr) {
        let watch = &mut self.listeners[listener.index()].storm;
        watch.detector.arrived(at, client);
        self.report_storm(listener);
    }

    pub(super) fn settled(
        &mut self,
        listener: ListenerId,
        at: Ktime,
        client: IpAddr,
        outcome: AttemptOutcome,
    ) {
        let watch = &mut self.listeners[listener.index()].storm;
        watch.detector.settled(at, client, outcome);
        self.report_storm(listener);
    }

    pub(super) fn server_gone(&mut self, listener: ListenerId, at: Ktime) {
        if let Some(of) = self.listeners.get_mut(listener.index()) {
            of.storm.detector.server_gone(at);
            self.report_storm(listener);
        } else {
            self.rejected += 1;
        }
    }

    pub(super) fn expire_storms(&mut self) {
        for index in 0..self.listeners.len() {
            let watch = &mut self.listeners[index].storm;
            watch.detector.handle_timeout(self.now);
            self.report_storm(ListenerId(index as u16));
        }
    }

    pub(super) fn next_storm_deadline(&self) -> Option<Ktime> {
        let storms = self.listeners.iter().map(|listener| &listener.storm);
        storms
            .filter_map(|watch| watch.detector.poll_timeout())
            .min()
    }

    pub(super) fn report_storm(&mut self, listener: ListenerId) {
        let Listener { history, storm, .. } = &mut self.listeners[listener.index()];
        storm.report(&mut history.tally, &mut self.actions);
    }

    /// The client of an upgrade attempt; `request` if its head was seen.
    pub(super) fn client_of_request(
        &self,
        of: &HandshakeSocket,
        request: Option<&UpgradeRequest>,
    ) -> IpAddr {
        let forwarded = request.and_then(|request| request.client);
        let forwarded = forwarded.filter(|_| self.forwarded);
        identify(of.role, of.local.ip(), of.peer.ip(), forwarded)
    }
}

/// The client of a connection; `forwarded` is its address from a trusted proxy.
pub(super) fn client(facts: &Facts, forwarded: Option<ClientAddress>) -> IpAddr {
    identify(facts.role, facts.local.ip(), facts.peer.ip(), forwarded)
}

/// The client is the endpoint that opens the connection.
fn identify(role: Role, local: IpAddr, peer: IpAddr, forwarded: Option<ClientAddress>) -> IpAddr {
    match (role, forwarded) {
        (Role::Client, _) => local.to_canonical(),
        (Role::Server, Some(client)) => client.reveal(),
        (Role::Server, None) => peer.to_canonical(),
    }
}

#[cfg(test)]
mod tests;
