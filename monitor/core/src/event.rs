//! Events that the shell passes to the core.

use std::net::SocketAddr;

pub use monitor_common::event::CloseHow;

use super::{
    facts::{ConnId, Facts, ListenerId, Role},
    handshake::{UpgradeRequest, UpgradeResponse},
    send_queues::SendQueues,
    time::Ktime,
};

/// An event on a flow, with the facts at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection is now known to be worth watching: its handshake ended, TLS began, or frames
    /// were recognised on a flow whose protocol was only assumed. Repeated when the protocol
    /// becomes better known.
    Opened(Box<Facts>),
    /// Found by sock_diag: older than the monitor, or missed by it.
    Seeded(Box<Facts>),
    /// A FIN or the first close frame passed; sent once per connection.
    Closing(Box<Facts>),
    /// The socket reached CLOSE. Always the last event of a connection.
    Closed { facts: Box<Facts>, how: CloseHow },
    /// Something that may affect a verdict; never sent for ordinary traffic.
    Trouble { facts: Box<Facts>, trouble: Trouble },
    /// A WebSocket upgrade was requested. A connection may send another request after a refusal.
    UpgradeRequested {
        of: Box<HandshakeSocket>,
        request: Box<UpgradeRequest>,
    },
    /// An upgrade request was answered. It comes from another ring than the events above, so it may
    /// precede or follow [`Event::Opened`].
    UpgradeResponded {
        of: Box<HandshakeSocket>,
        response: Box<UpgradeResponse>,
    },
    /// The flow turned out not to carry WebSocket: plain HTTP, or an upgrade request that was
    /// refused or remained unanswered.
    Dismissed { conn: ConnId, at: Ktime },
    /// The socket no longer exists and its end was missed (ring loss, restart).
    Gone { conn: ConnId, at: Ktime },
    /// A server socket started or stopped listening.
    Listening {
        at: Ktime,
        socket: ListeningSocket,
        /// False if it stopped.
        begins: bool,
    },
    /// A scan of the sockets found these listening.
    ListenSocketsScanned {
        /// Taken before the first socket was scanned.
        at: Ktime,
        sockets: Vec<ListeningSocket>,
        /// The scan covered all sockets: there are no others.
        complete: bool,
    },
    /// A scan of the sockets found these with bytes that their application has not read.
    RecvQueuesScanned {
        at: Ktime,
        unread: Vec<ReceiveQueue>,
        /// Known connections whose socket was not read, sorted. Any other has nothing unread.
        missed: Vec<ConnId>,
    },
    /// A scan of the sockets found these with bytes in their send queue.
    SendQueuesScanned(SendQueues),
    /// Records were lost between the kernel and the core, so the table can no longer be trusted.
    Lost { at: Ktime },
}

impl Event {
    /// The connection whose last event this is.
    pub fn ends(&self) -> Option<ConnId> {
        match self {
            Self::Closed { facts, .. } => Some(facts.conn),
            Self::Dismissed { conn, .. } | Self::Gone { conn, .. } => Some(*conn),
            Self::Opened(_)
            | Self::Seeded(_)
            | Self::Closing(_)
            | Self::Trouble { .. }
            | Self::UpgradeRequested { .. }
            | Self::UpgradeResponded { .. }
            | Self::Listening { .. }
            | Self::ListenSocketsScanned { .. }
            | Self::RecvQueuesScanned { .. }
            | Self::SendQueuesScanned(_)
            | Self::Lost { .. } => None,
        }
    }
}

/// A socket of this host that listens on a watched port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    pub conn: ConnId,
    pub listener: ListenerId,
    /// The inode of its network namespace.
    pub netns: u32,
    pub port: u16,
}

/// The unread bytes in the receive queue of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveQueue {
    pub conn: ConnId,
    pub bytes: u32,
    /// Total bytes that the application has read so far.
    pub read: u64,
}

/// The bytes in the send queue of a socket: written by its application, and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendQueue {
    pub conn: ConnId,
    pub listener: ListenerId,
    pub bytes: u32,
    /// None of them is in flight.
    pub is_held: bool,
    /// Total bytes that the peer has acknowledged so far.
    pub acked: u64,
}

/// A connection in its opening handshake, at the moment [`HandshakeSocket::at`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeSocket {
    /// When the request or its answer passed.
    pub at: Ktime,
    pub conn: ConnId,
    pub listener: ListenerId,
    pub role: Role,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// When TCP reached ESTABLISHED; `None` for a socket older than the monitor.
    pub established_at: Option<Ktime>,
}

/// Why the kernel reported the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The same bytes were sent again without any ack progress in between.
    Retransmit,
    /// An idle gap longer than the listener's idle limit ended; see [`Facts::last_idle_gap`].
    Resumed,
    /// The peer was heard again after one of the other troubles, or a window is open again.
    Answered,
    /// This host sent its first ping, or the second try; see [`Facts::second_try`].
    PingUnanswered,
    /// A window has been closed for some seconds; see [`Facts::own_window_closed_at`] and
    /// [`Facts::peer_window_closed_at`].
    WindowClosed,
    /// A reset was sent or received.
    Reset,
}
