//! Access to kernel data by `struct sock *`, for both cgroup_skb and tracing programs.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    btf_maps::SkStorage,
    helpers::{
        bpf_get_socket_cookie,
        generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
    },
};
use monitor_common::{
    connection_totals::ConnectionTotals,
    drop_reason::DropReason,
    flow::Flow,
    holes::Holes,
    snapshot::{origin, protocol, role},
    tls::TlsFlow,
};

use crate::{
    emit::count_drop,
    maps::{FLOWS, HOLES, PORTS, TLS, TOTALS, WATCH_REMOTE},
};

/// TCP states (include/net/tcp_states.h).
pub(crate) mod state {
    pub(crate) const ESTABLISHED: u32 = 1;
    pub(crate) const SYN_SENT: u32 = 2;
    pub(crate) const SYN_RECV: u32 = 3;
    pub(crate) const CLOSE: u32 = 7;
    pub(crate) const LISTEN: u32 = 10;
    pub(crate) const NEW_SYN_RECV: u32 = 12;
}

/// The listener that watches a socket.
#[derive(Clone, Copy)]
pub(crate) struct WatchedEnd {
    pub(crate) listener: u8,
    /// A [`role`].
    pub(crate) role: u8,
}

impl WatchedEnd {
    /// Two array look-ups at most: the whole cost of a packet of an unwatched socket.
    #[inline(always)]
    pub(crate) fn of_ports(local: u16, remote: u16) -> Option<Self> {
        let by_local = PORTS.get(local as u32)?.local;
        if by_local != 0 {
            return Some(Self {
                listener: (by_local - 1) as u8,
                role: role::SERVER,
            });
        }
        Self::of_outgoing(remote)
    }

    /// The same for a socket that this host opened: whatever its local port, it isn't a server's socket.
    #[inline(always)]
    pub(crate) fn of_outgoing(remote: u16) -> Option<Self> {
        if WATCH_REMOTE.load() == 0 {
            return None;
        }
        let by_remote = PORTS.get(remote as u32)?.remote;
        (by_remote != 0).then(|| Self {
            listener: (by_remote - 1) as u8,
            role: role::CLIENT,
        })
    }
}

/// The flow of a socket, if it has one; a minisocket never does.
#[inline(always)]
pub(crate) fn flow(sk: *mut c_void) -> Option<*mut Flow> {
    storage(&FLOWS, sk, 0)
}

/// The flow of a socket, new and zeroed if it had none. `None` when the kernel has no memory.
#[inline(always)]
pub(crate) fn flow_or_new(sk: *mut c_void) -> Option<*mut Flow> {
    storage(&FLOWS, sk, BPF_SK_STORAGE_GET_F_CREATE as u64)
}

/// The flow of a socket that can carry data from now on. `None` when the kernel has no memory.
#[inline(always)]
pub(crate) fn new_flow(
    sk: *mut c_void,
    cookie: u64,
    watch: WatchedEnd,
    (local, remote): (u16, u16),
    now: u64,
) -> Option<*mut Flow> {
    let Some(flow) = flow_or_new(sk) else {
        count_drop(DropReason::StorageFull);
        return None;
    };
    // SAFETY: storage the kernel just handed out, not null.
    let s = unsafe { &mut (*flow).snapshot };
    s.cookie = cookie;
    s.established_at = now;
    s.local_port = local;
    s.remote_port = remote;
    s.listener = watch.listener;
    s.role = watch.role;
    s.origin = origin::ESTABLISHMENT;
    Some(flow)
}

/// Marks a socket as not watched although its ports match a listener.
#[inline(always)]
pub(crate) fn mark_foreign(sk: *mut c_void) {
    // Without memory for the mark, the next packet marks it again.
    if let Some(flow) = flow_or_new(sk) {
        // SAFETY: storage the kernel just handed out, not null.
        unsafe { (*flow).snapshot.protocol = protocol::FOREIGN };
    }
}

#[inline(always)]
pub(crate) fn cookie(sk: *mut c_void) -> u64 {
    // SAFETY: `sk` is a socket the verifier knows.
    unsafe { bpf_get_socket_cookie(sk) }
}

/// The pending runs after the holes of a socket, if there are any.
#[inline(always)]
pub(crate) fn holes(sk: *mut c_void) -> Option<*mut Holes> {
    storage(&HOLES, sk, 0)
}

/// The same, new and zeroed if there was nothing. `None` when the kernel has no memory.
#[inline(always)]
pub(crate) fn holes_or_new(sk: *mut c_void) -> Option<*mut Holes> {
    storage(&HOLES, sk, BPF_SK_STORAGE_GET_F_CREATE as u64)
}

/// Forgets the pending runs once all holes are filled.
#[inline(always)]
pub(crate) fn forget_holes(sk: *mut c_void) {
    // A missing entry isn't a failure.
    // SAFETY: the helper checks map and socket.
    unsafe { bpf_sk_storage_delete(ptr::from_ref(&HOLES).cast_mut().cast(), sk) };
}

/// What the records of a TLS connection show, if there were any.
#[inline(always)]
pub(crate) fn tls(sk: *mut c_void) -> Option<*mut TlsFlow> {
    storage(&TLS, sk, 0)
}

/// The same, new and zeroed if there was nothing. `None` when the kernel has no memory.
#[inline(always)]
pub(crate) fn tls_or_new(sk: *mut c_void) -> Option<*mut TlsFlow> {
    storage(&TLS, sk, BPF_SK_STORAGE_GET_F_CREATE as u64)
}

/// The account of a socket, new and zeroed if it had none. `None` when the kernel has no memory.
#[inline(always)]
pub(crate) fn totals_or_new(sk: *mut c_void) -> Option<*mut ConnectionTotals> {
    storage(&TOTALS, sk, BPF_SK_STORAGE_GET_F_CREATE as u64)
}

#[inline(always)]
fn storage<T>(map: &'static SkStorage<T>, sk: *mut c_void, flags: u64) -> Option<*mut T> {
    // SAFETY: the helper checks map and socket; the value type is the map's own.
    let value = unsafe {
        bpf_sk_storage_get(
            ptr::from_ref(map).cast_mut().cast(),
            sk,
            ptr::null_mut(),
            flags,
        )
    }
    .cast::<T>();
    (!value.is_null()).then_some(value)
}
