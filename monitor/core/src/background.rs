//! Details collected when a connection is reported; the core does not evaluate them.

use std::time::Duration;

use super::handshake::ClientAddress;

/// Details of a connection, collected when it is reported. `None` means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Background {
    pub owner: Owner,
    /// Set only on request, because it is personal data.
    pub client: Option<ClientAddress>,
    pub tcp: Option<TcpAccount>,
}

/// The owner of a socket; a field is `None` if it could not be found.
///
/// All names are hostile input: a process chooses its own `comm`, and the creator of a cgroup
/// chooses its name. They are UTF-8, with U+FFFD for invalid bytes, and may hold control
/// characters. Escape them for display.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Path below the root of the cgroup v2 hierarchy as mounted here, with a leading slash.
    pub cgroup: Option<String>,
    /// The systemd unit in that path.
    pub unit: Option<String>,
    /// The container's id in that path.
    pub container: Option<String>,
    /// The pod's uid in that path.
    pub pod: Option<String>,
    /// The pod's namespace and name, as in the name of the directory of its logs.
    pub pod_namespace: Option<String>,
    pub pod_name: Option<String>,
    /// The workload of the pod, derived from the pod's name.
    pub workload: Option<String>,
    /// A process that holds the socket, numbered in our own PID namespace.
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
    /// Consecutive zero-window or keepalive probes without an answer.
    pub probes: u8,
    pub retransmission_timeout: Duration,
    /// Time since the last acceptable acknowledgement.
    pub last_ack: Duration,
    /// Received, but not read by the application.
    pub unread_bytes: u32,
    /// Written by the application, but not sent.
    pub unsent_bytes: u32,
}
