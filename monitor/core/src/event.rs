//! What the shell reports to the core.

use std::net::SocketAddr;

use super::{
    facts::{ConnId, Facts, ListenerId, Role},
    handshake::{UpgradeRequest, UpgradeResponse},
    time::Ktime,
};

/// Something happened to a flow, with the facts as they were at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection is now known to be worth watching: its handshake ended, TLS began, or frames
    /// were recognised on a flow that was only assumed. Comes again when the protocol becomes
    /// better known.
    Opened(Box<Facts>),
    /// Found by sock_diag, older than the monitor or missed by it.
    Seeded(Box<Facts>),
    /// A FIN or the first close frame passed; comes once.
    Closing(Box<Facts>),
    /// The socket reached CLOSE. Always the last event of a connection.
    Closed { facts: Box<Facts>, how: CloseHow },
    /// Something that may matter to a verdict; never sent for ordinary traffic.
    Trouble { facts: Box<Facts>, trouble: Trouble },
    /// A WebSocket upgrade was asked for. A connection may ask again after a refusal.
    UpgradeRequested {
        of: Box<HandshakeSocket>,
        request: Box<UpgradeRequest>,
    },
    /// An upgrade request was answered. Comes from another ring than the events above, so before
    /// or after [`Event::Opened`].
    UpgradeResponded {
        of: Box<HandshakeSocket>,
        response: Box<UpgradeResponse>,
    },
    /// The flow turned out not to carry WebSocket: plain HTTP, or an upgrade request that was
    /// refused or died unanswered.
    Dismissed { conn: ConnId, at: Ktime },
    /// The socket does not exist any more and its death was missed (ring loss, restart).
    Gone { conn: ConnId, at: Ktime },
    /// A server's socket began to listen, or ended.
    Listening {
        at: Ktime,
        socket: ListeningSocket,
        /// False where it ended.
        begins: bool,
    },
    /// The sockets were scanned, and these listen.
    ListenSocketsScanned {
        /// Before the first of them was scanned.
        at: Ktime,
        sockets: Vec<ListeningSocket>,
        /// All sockets were seen: there are no others.
        complete: bool,
    },
    /// The sockets were scanned, and these have bytes that their application has not read.
    RecvQueuesScanned {
        at: Ktime,
        unread: Vec<ReceiveQueue>,
        /// All sockets were seen: what is not among these has nothing unread.
        complete: bool,
    },
    /// Records were lost between the kernel and here: the table can no longer be trusted.
    Lost { at: Ktime },
}

impl Event {
    /// The connection that this event is the last one of.
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

/// What waits in a socket for its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveQueue {
    pub conn: ConnId,
    pub bytes: u32,
    /// All that the application has read so far, bytes.
    pub read: u64,
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

/// Why the kernel woke us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The same bytes went out again without any ack progress in between.
    Retransmit,
    /// A silence longer than the listener's idle limit ended; see [`Facts::last_idle_gap`].
    Resumed,
    /// The peer was heard again after one of the other troubles, or this host's window is open again.
    Answered,
    /// The first ping of this host left, or the second try; see [`Facts::second_try`].
    PingUnanswered,
    /// This host has taken nothing in for some seconds; see [`Facts::own_window_closed_at`].
    WindowClosed,
    /// A reset was sent or received.
    Reset,
}

/// How a connection ended. What counts is the first thing that decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseHow {
    CloseFrame,
    Fin,
    RstSent,
    RstReceived,
    /// TCP gave up: data was outstanding and nobody had closed.
    Timeout,
    Unknown,
}

impl CloseHow {
    pub const ALL: [Self; 6] = [
        Self::CloseFrame,
        Self::Fin,
        Self::RstSent,
        Self::RstReceived,
        Self::Timeout,
        Self::Unknown,
    ];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CloseFrame => "close_frame",
            Self::Fin => "fin",
            Self::RstSent => "rst_sent",
            Self::RstReceived => "rst_received",
            Self::Timeout => "timeout",
            Self::Unknown => "unknown",
        }
    }
}
