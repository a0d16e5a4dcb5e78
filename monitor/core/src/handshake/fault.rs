//! Faults of a handshake.

use std::fmt;

use strum::{IntoStaticStr, VariantArray};

/// A rule of the opening handshake that an endpoint broke, or a reason why it cannot be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantArray)]
#[repr(u8)]
#[strum(serialize_all = "snake_case")]
pub enum HandshakeFault {
    /// The head is longer than the captured part or came in more than one segment: headers may be
    /// missing here, but not on the wire.
    CutOff,
    /// Not an HTTP/1 request or status line.
    Malformed,
    /// The method is not GET (RFC 6455 §4.2.1).
    NotGet,
    /// HTTP/1.0 (§4.2.1).
    OldHttp,
    /// A request without `Host` (§4.2.1).
    NoHost,
    /// `Upgrade` does not name `websocket` (§4.2.1, §4.2.2).
    NoUpgrade,
    /// `Connection` does not name `Upgrade` (§4.2.1, §4.2.2).
    NoConnection,
    /// `Sec-WebSocket-Key` is missing or is not 16 bytes in base64 (§4.2.1).
    BadKey,
    /// `Sec-WebSocket-Version` is not 13 (§4.2.1).
    BadVersion,
    /// `Sec-WebSocket-Accept` is missing or does not belong to the key (§4.2.2).
    BadAccept,
    /// The server chose a subprotocol that the client did not offer (§4.1).
    UnofferedSubprotocol,
    /// permessage-deflate was accepted, but not offered (§4.1).
    UnofferedCompression,
    /// permessage-deflate with invalid parameters (RFC 7692 §7.1).
    BadExtension,
}

impl HandshakeFault {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A set of faults.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults(u16);

impl Faults {
    pub fn contains(self, fault: HandshakeFault) -> bool {
        self.0 & bit(fault) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Iterates in the order of [`HandshakeFault::ALL`].
    pub fn iter(self) -> impl Iterator<Item = HandshakeFault> {
        let faults = HandshakeFault::ALL.iter().copied();
        faults.filter(move |fault| self.contains(*fault))
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn insert_if(&mut self, fault: HandshakeFault, holds: bool) {
        if holds {
            self.0 |= bit(fault);
        }
    }
}

impl From<HandshakeFault> for Faults {
    fn from(fault: HandshakeFault) -> Self {
        Self(bit(fault))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

fn bit(fault: HandshakeFault) -> u16 {
    1 << fault as u16
}
