//! The heads of opening handshakes, in the form that the kernel programs pass to the daemon.

use monitor_common::{
    event::{HandshakeRecord, REQUEST_HEAD_MAX, RESPONSE_HEAD_MAX, head_kind},
    snapshot::Snapshot,
};

use crate::decode::{self, DecodeError};
use monitor_core::Event;

/// The event of a segment whose payload begins with the head of an upgrade request or of its response;
/// `kind` is a [`head_kind`].
pub(super) fn event(
    kind: u8,
    payload: &[u8],
    now: u64,
    s: &Snapshot,
) -> Result<Event, DecodeError> {
    let max = match kind {
        head_kind::REQUEST => REQUEST_HEAD_MAX,
        _ => RESPONSE_HEAD_MAX,
    };
    let taken = &payload[..payload.len().min(max)];
    let mut head = [0; REQUEST_HEAD_MAX];
    head[..taken.len()].copy_from_slice(taken);
    decode::upgrade(&HandshakeRecord {
        at: now,
        cookie: s.cookie,
        established_at: s.established_at,
        local_addr: s.local_addr,
        remote_addr: s.remote_addr,
        local_port: s.local_port,
        remote_port: s.remote_port,
        listener: s.listener.into(),
        len: taken.len() as u16,
        ip_version: s.ip_version,
        role: s.role,
        kind,
        _pad: [0; 5],
        head,
    })
}
