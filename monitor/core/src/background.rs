//! What is found out about a connection at the moment it is reported; the core itself knows nothing of
//! it.

use std::time::Duration;

use super::handshake::ClientAddress;

/// What is asked about a connection when it is reported. `None` is "not known".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Background {
    pub owner: Owner,
    /// Only where it was asked for: it is personal data.
    pub client: Option<ClientAddress>,
    pub tcp: Option<TcpAccount>,
}

/// Who owns a socket, as far as it could be found out.
///
/// All names are hostile input: a process chooses its own `comm`, and whoever may make a cgroup
/// chooses its name. They are UTF-8, with U+FFFD for what was not, and may hold control characters:
/// whoever shows them has to escape them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// From the root of the cgroup v2 hierarchy as it is mounted here, with a leading slash.
    pub cgroup: Option<String>,
    /// The systemd unit in that path.
    pub unit: Option<String>,
    /// The container's id in it.
    pub container: Option<String>,
    /// The pod's uid in it.
    pub pod: Option<String>,
    /// A process that holds the socket, numbered as in our own PID namespace.
    pub pid: Option<u32>,
    /// Its name, at most 15 bytes (proc_pid_comm(5)).
    pub comm: Option<String>,
    /// The inode of its network namespace: the number in `net:[4026531840]`.
    pub netns: Option<u64>,
}

/// TCP's own account of a socket (`struct tcp_info`, include/uapi/linux/tcp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpAccount {
    /// How many times the retransmission timer has doubled.
    pub backoff: u8,
    /// Zero-window or keepalive probes in a row without an answer.
    pub probes: u8,
    pub retransmission_timeout: Duration,
    /// Since an acceptable acknowledgement came in.
    pub last_ack: Duration,
    /// Received, not read by the application.
    pub unread_bytes: u32,
    /// Written by the application, never sent.
    pub unsent_bytes: u32,
}
