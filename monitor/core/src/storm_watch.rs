//! The storm engine of a listener, as the correlator uses it.

use std::{collections::VecDeque, net::IpAddr};

use super::{
    action::Action,
    alert::{Alert, Subject},
    event::CloseHow,
    facts::{Closing, ClosingBy, Direction, ListenerId},
    flow::TrackedFlow,
    observation::Observation,
    rules,
    storm::{Baseline, Departure, StormDetector, StormPhase, StormSettings},
    tally::Tally,
    time::Ktime,
};

/// The engine of one listener, with its standing alerts.
#[derive(Debug)]
pub(super) struct StormWatch {
    pub(super) detector: StormDetector,
    reconnect: Option<Alert>,
    thrash: Option<Alert>,
}

impl StormWatch {
    pub(super) fn new(
        listener: ListenerId,
        settings: &StormSettings,
        baseline: Option<Baseline>,
    ) -> Self {
        Self {
            detector: StormDetector::new(listener, settings, baseline),
            reconnect: None,
            thrash: None,
        }
    }

    pub(super) fn standing(&self) -> impl Iterator<Item = &Alert> {
        [&self.reconnect, &self.thrash].into_iter().flatten()
    }

    pub(super) fn phase(&self) -> Option<StormPhase> {
        match &self.reconnect.as_ref()?.subject {
            Subject::Storm(storm) => Some(storm.phase),
            _ => None,
        }
    }

    /// Assigns the flow to the client, and to no other.
    pub(super) fn connect(&mut self, flow: &mut TrackedFlow, at: Ktime, client: IpAddr) {
        self.disconnect(flow);
        flow.client = Some(self.detector.connect(at, client));
    }

    /// Marks the flow as over; `false` if it was already.
    pub(super) fn disconnect(&mut self, flow: &mut TrackedFlow) -> bool {
        let slot = flow.client.take();
        let was_open = slot.is_some();
        if let Some(slot) = slot {
            self.detector.disconnect(slot);
        }
        was_open
    }

    /// Counts the end of a connection that is open in the tally. `how` it ended, if that is known.
    pub(super) fn depart(
        &mut self,
        observation: &Observation<'_>,
        how: Option<CloseHow>,
        client: IpAddr,
        tally: &Tally,
    ) {
        let open = tally.counts.phases().open;
        self.detector
            .departed(&departure(observation, how, client), open);
    }

    /// Turns the engine's alerts into actions.
    pub(super) fn report(&mut self, tally: &mut Tally, actions: &mut VecDeque<Action>) {
        tally.reconnects = self.detector.reconnects();
        tally.reconnect_storm = self.detector.is_storm();
        tally.thrashing_clients = self.detector.thrashing_clients();
        while let Some(alert) = self.detector.poll_alert() {
            let standing = match alert.subject {
                Subject::Thrash(_) => &mut self.thrash,
                _ => &mut self.reconnect,
            };
            *standing = alert.is_firing().then(|| alert.clone());
            actions.push_back(Action::Alert(alert));
        }
    }
}

/// The end of an open connection, at its first FIN or close frame, otherwise at its close.
fn departure(observation: &Observation<'_>, how: Option<CloseHow>, client: IpAddr) -> Departure {
    let facts = observation.facts;
    let (at, how, by) = match (facts.closing, how) {
        (Some(Closing { at, by }), _) => match by {
            ClosingBy::CloseFrame(close) => (at, CloseHow::CloseFrame, Some(close.initiator)),
            ClosingBy::Fin(by) => (at, CloseHow::Fin, Some(by)),
        },
        (None, how) => {
            let how = how.unwrap_or(CloseHow::Unknown);
            let by = match how {
                CloseHow::RstReceived => Some(Direction::Rx),
                CloseHow::RstSent => Some(Direction::Tx),
                CloseHow::CloseFrame | CloseHow::Fin | CloseHow::Timeout | CloseHow::Unknown => {
                    None
                }
            };
            (facts.at, how, by)
        }
    };
    Departure {
        at,
        client,
        peer: facts.peer.ip().to_canonical(),
        how,
        by,
        idle: rules::silence_before_close(observation),
        age: facts
            .established_at
            .map(|established_at| at.since(established_at)),
        unacked: facts.retransmits > 0,
    }
}
