//! Verdicts: what the rules find out about a flow.

use std::{str::FromStr, time::Duration};

use strum::{IntoStaticStr, VariantArray};

use super::{event::CloseHow, time::Ktime};

/// What is wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum VerdictKind {
    /// Idle past the limit of a hop that drops connections silently.
    Expired,
    /// Data goes out, nothing is acknowledged.
    BlackHoled,
    /// TCP acknowledges, but the WebSocket peer does not answer pings.
    Unresponsive,
    /// One side has sent its FIN, the other keeps the connection open.
    HalfClosed,
    /// This host's application does not read received data.
    Stalled,
    /// The peer's application does not read sent data.
    Backlogged,
    /// Close to the limit of a hop that closes connections: expect a disconnect, not a zombie.
    Expiring,
    /// The peer has sent no message for a long time.
    Quiet,
}

impl VerdictKind {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// True if the connection looks open and no longer works.
    pub fn is_zombie(self) -> bool {
        !matches!(self, Self::Expiring | Self::Quiet)
    }

    /// True if the path or the peer is dead, so that the preceding idle gap is evidence about hops.
    pub fn is_death(self) -> bool {
        matches!(self, Self::Expired | Self::BlackHoled | Self::Unresponsive)
    }

    /// True if it is about the path or the peer. On an MPTCP subflow it then does not affect the
    /// connection, which has other paths.
    pub fn is_about_path_or_peer(self) -> bool {
        self != Self::Stalled
    }

    /// The kinds that satisfy [`VerdictKind::is_zombie`].
    pub fn zombies() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|kind| kind.is_zombie())
    }

    /// The certainties that a verdict of this kind can have.
    pub fn certainties(self) -> impl Iterator<Item = Certainty> {
        let all = Certainty::ALL.iter().copied();
        all.filter(move |certainty| self == Self::Unresponsive || *certainty != Certainty::Inferred)
    }

    /// The name of its alert in logs: `zombie`, or the kind itself.
    pub fn alert(self) -> &'static str {
        if self.is_zombie() {
            "zombie"
        } else {
            self.as_str()
        }
    }

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Not the name of a kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid verdict {0:?}, expected {names}", names = names())]
pub struct InvalidVerdict(String);

/// The names of all kinds.
fn names() -> String {
    let names: Vec<_> = VerdictKind::ALL.iter().map(|kind| kind.as_str()).collect();
    names.join(", ")
}

impl FromStr for VerdictKind {
    type Err = InvalidVerdict;

    fn from_str(text: &str) -> Result<Self, InvalidVerdict> {
        let mut kinds = Self::ALL.iter().copied();
        kinds
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| InvalidVerdict(text.to_owned()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Certainty {
    Suspected,
    /// It follows from the sizes and times of TLS records, whose content is unknown.
    Inferred,
    Confirmed,
}

impl Certainty {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The verdict of a rule on a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub kind: VerdictKind,
    pub certainty: Certainty,
    /// The moment from which it was true.
    pub since: Ktime,
    /// The limit that was crossed, or is near.
    pub limit: Duration,
    /// The index in the path of the hop whose limit it is.
    pub hop: Option<usize>,
}

/// The result of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Holds(Verdict),
    /// It cannot hold earlier than this unless an event comes; with [`Ktime::NEVER`], only an event
    /// matters.
    NotBefore(Ktime),
}

/// The result of the review of a standing verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// The peer was heard again.
    Recovered,
    Stands(Reviewed),
}

/// A verdict that still stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reviewed {
    pub certainty: Certainty,
    /// The limit that was crossed for this certainty.
    pub limit: Duration,
    /// When to check again; [`Ktime::NEVER`] leaves it to events.
    pub next_check: Ktime,
}

impl Verdict {
    pub(super) fn is_confirmed_zombie(&self) -> bool {
        self.kind.is_zombie() && self.certainty == Certainty::Confirmed
    }

    /// Nothing about it has changed.
    pub(super) fn unchanged(&self, next_check: Ktime) -> Reviewed {
        Reviewed {
            certainty: self.certainty,
            limit: self.limit,
            next_check,
        }
    }
}

/// What ends a verdict, in more detail than its alert says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Recovered,
    /// A graver verdict replaces it.
    Superseded,
    /// The socket is gone because wsmon aborted it.
    Reaped,
    /// The flow turned out not to be a WebSocket.
    Dismissed,
    Closed(CloseHow),
    /// The socket is gone; its end was missed.
    Gone,
}
