//! Opening, closing and trouble of watched sockets, from TCP's own tracepoints.

use core::ffi::c_void;

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use monitor_common::{
    Direction,
    connection_totals::ConnectionTotals,
    drop_reason::DropReason,
    event::{EventKind, ListenEvent},
    flow::Flow,
    snapshot::{Snapshot, protocol, role},
};

use crate::{
    early_data::begin_early,
    emit::{count_drop, emit, emit_closed, emit_listen, publish, take_seed, unpublish},
    maps::{
        DEBUG_LOG, NET_INUM_OFFSET, SK_PROTOCOL_OFFSET, SKC_DPORT_OFFSET, SKC_NET_OFFSET,
        SKC_NUM_OFFSET, SNAPSHOTS, STATS,
    },
    sock::{self, WatchedEnd, state},
    tally,
};

const IPPROTO_TCP: u16 = 6;

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: *const c_void = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    match (old as u32, new as u32) {
        (_, state::LISTEN) => listen(sk, EventKind::Listening),
        (state::LISTEN, state::CLOSE) => listen(sk, EventKind::ListenEnded),
        (old, new) => on_transition(&ctx, sk, old, new),
    }
    0
}

/// The same tracepoint, after `inet_sock_set_state`.
///
/// The kernel skips a tracing program that is already running on this CPU. If a softirq interrupts
/// `inet_sock_set_state` and opens or closes another socket, this program handles that socket. Otherwise it
/// finds the work done. Sockets never begin or stop to listen in a softirq.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn nested_set_state(ctx: BtfTracePointContext) -> i32 {
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    on_transition(&ctx, ctx.arg(0), old as u32, new as u32);
    0
}

/// `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, ...)`
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub(crate) fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the only one in this program.
    if let Some(flow) = unsafe { TracedSock::new(ctx.arg(0)) }.flow()
        && let Some(stats) = STATS.get_ptr_mut(flow.snapshot.listener as u32)
    {
        // SAFETY: a per-CPU map value; see `Counter` for what else may access it.
        let wakes = flow.retransmit(unsafe { &mut *stats });
        if flow.snapshot.is_watched() {
            publish(&mut flow.snapshot);
            if wakes {
                emit(EventKind::Retransmit, 0, now(), &flow.snapshot);
            }
        }
    }
    0
}

/// `tcp_receive_reset(struct sock *sk)`
#[btf_tracepoint(function = "tcp_receive_reset")]
pub(crate) fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the only one in this program.
    if let Some(flow) = unsafe { TracedSock::new(ctx.arg(0)) }.flow() {
        flow.snapshot.rst_rx = 1;
        reset(&mut flow.snapshot);
    }
    0
}

/// `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb, ...)`
#[btf_tracepoint(function = "tcp_send_reset")]
pub(crate) fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    // A reset in answer to a packet without a connection has no socket.
    // SAFETY: the only one in this program.
    if let Some(flow) = unsafe { TracedSock::new(ctx.arg(0)) }.flow() {
        flow.snapshot.rst_tx = 1;
        reset(&mut flow.snapshot);
    }
    0
}

/// Has no effect the second time.
#[inline(always)]
fn on_transition(ctx: &BtfTracePointContext, sk: *const c_void, old: u32, new: u32) {
    match new {
        state::ESTABLISHED => on_established(ctx, sk, old == state::SYN_SENT),
        state::CLOSE => on_close(ctx, sk, had_peer(old)),
        _ => {}
    }
}

#[inline(always)]
fn on_established(ctx: &BtfTracePointContext, sk: *const c_void, is_outgoing: bool) {
    let Some((mut watch, local, remote)) = watch_of(sk) else {
        return;
    };
    if sock::flow(sk.cast_mut()).is_some() {
        // It already carried data, by TCP Fast Open, or is handled.
        return;
    }
    if is_outgoing && watch.role == role::SERVER {
        let Some(by_remote) = WatchedEnd::of_outgoing(remote) else {
            return sock::mark_foreign(sk.cast_mut());
        };
        watch = by_remote;
    }
    let (cookie, at) = (sock::cookie(sk.cast_mut()), now());
    let Some(flow) = sock::new_flow(sk.cast_mut(), cookie, watch, (local, remote), at) else {
        return;
    };
    if watch.role == role::SERVER {
        begin_early(flow, at);
    }
    if DEBUG_LOG.load() != 0 {
        debug!(ctx, "socket {} established, local port {}", cookie, local);
    }
}

#[inline(always)]
fn on_close(ctx: &BtfTracePointContext, sk: *const c_void, had_peer: bool) {
    // Some kernels (Ubuntu's 6.8) treat the tracepoint's argument as a pointer that may be null.
    if sk.is_null() {
        return;
    }
    let at = now();
    // SAFETY: the only one in this program, and its flow is not used below this branch.
    if let Some(flow) = unsafe { TracedSock::new(sk) }.flow() {
        if flow.snapshot.protocol == protocol::GONE {
            return;
        }
        let mut waiting = 0;
        if let Some(stats) = STATS.get_ptr_mut(flow.snapshot.listener as u32) {
            // SAFETY: a per-CPU map value; see `Counter` for what else may access it.
            let stats = unsafe { &mut *stats };
            if flow.rx_walk.has_holes()
                && let Some(holes) = sock::holes(sk.cast_mut())
            {
                // SAFETY: the kernel keeps the storage while this program runs.
                waiting = unsafe { (*holes).waiting_bytes() };
                stats.unsynced_bytes[Direction::Rx.index()].add(waiting);
            }
            flow.end(stats);
        }
        let s = &mut flow.snapshot;
        if s.is_watched() {
            let totals = tally::of_closing(sk.cast_mut());
            if let Some(totals) = totals {
                // SAFETY: storage the kernel just handed out, not null.
                unsafe { (*totals).unsynced(Direction::Rx, waiting) };
            }
            report_close(s, totals, at);
        } else if s.protocol == protocol::UPGRADING {
            emit(EventKind::Dismissed, 0, at, s);
        }
        s.protocol = protocol::GONE;
        if DEBUG_LOG.load() != 0 {
            debug!(ctx, "socket {} closed", s.cookie);
        }
        return;
    }
    // Older than the monitor and silent since: only the daemon's seed shows that it was watched.
    if !had_peer || watch_of(sk).is_none() {
        return;
    }
    let cookie = sock::cookie(sk.cast_mut());
    if SNAPSHOTS.get_ptr(cookie).is_none() {
        return;
    }
    let Some(flow) = sock::flow_or_new(sk.cast_mut()) else {
        count_drop(DropReason::StorageFull);
        unpublish(cookie);
        return;
    };
    // SAFETY: storage the kernel just handed out, not null.
    let s = unsafe { &mut (*flow).snapshot };
    s.cookie = cookie;
    take_seed(s, at);
    report_close(s, tally::of_closing(sk.cast_mut()), at);
}

/// A server's socket begins or stops listening.
#[inline(always)]
fn listen(sk: *const c_void, kind: EventKind) {
    let Some((watch, port, _)) = watch_of(sk) else {
        return;
    };
    if watch.role != role::SERVER {
        return;
    }
    emit_listen(&ListenEvent {
        at: now(),
        kind: kind as u32,
        netns: netns(sk),
        cookie: sock::cookie(sk.cast_mut()),
        listener: watch.listener.into(),
        port,
        _pad: 0,
    });
}

#[inline(always)]
fn report_close(s: &mut Snapshot, totals: Option<*mut ConnectionTotals>, at: u64) {
    let how = s.close_how();
    if let Some(stats) = STATS.get_ptr_mut(s.listener as u32) {
        // SAFETY: a per-CPU map value; see `Counter` for what else may access it.
        if let Some(counter) = unsafe { &mut *stats }.closed.get_mut(how as usize) {
            counter.add(1);
        }
    }
    match totals {
        // SAFETY: storage that lives as long as the socket.
        Some(totals) => emit_closed(how, at, s, unsafe { &*totals }),
        None => emit(EventKind::Closed, how as u32, at, s),
    }
    s.protocol = protocol::GONE;
    unpublish(s.cookie);
}

#[inline(always)]
fn reset(s: &mut Snapshot) {
    if !s.is_watched() {
        return;
    }
    publish(s);
    emit(EventKind::Reset, 0, now(), s);
}

/// Whether a socket in this state had a connection to lose.
#[inline(always)]
fn had_peer(old: u32) -> bool {
    !matches!(
        old,
        state::SYN_SENT | state::SYN_RECV | state::CLOSE | state::LISTEN | state::NEW_SYN_RECV
    )
}

/// The socket that a tracepoint passes. Its flow is borrowed from it, so there is only one reference at a
/// time.
struct TracedSock(*const c_void);

impl TracedSock {
    /// # Safety
    /// `sk` is null or the tracepoint's argument. Where a flow is borrowed from this, the running program
    /// makes no other reference to it.
    #[inline(always)]
    unsafe fn new(sk: *const c_void) -> Self {
        Self(sk)
    }

    #[inline(always)]
    fn flow(&mut self) -> Option<&mut Flow> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: the kernel keeps the storage as long as the socket, and the socket as long as this
        // program runs; `new` was promised that this is the only reference.
        let flow = sock::flow(self.0.cast_mut()).map(|flow| unsafe { &mut *flow })?;
        (flow.snapshot.protocol != protocol::FOREIGN).then_some(flow)
    }
}

/// The watched end of this socket, and its local and remote port.
#[inline(always)]
fn watch_of(sk: *const c_void) -> Option<(WatchedEnd, u16, u16)> {
    // The tracepoint also fires for MPTCP's outer sockets.
    if field(sk, SK_PROTOCOL_OFFSET.load()) != IPPROTO_TCP {
        return None;
    }
    let local = field(sk, SKC_NUM_OFFSET.load());
    let remote = u16::from_be(field(sk, SKC_DPORT_OFFSET.load()));
    Some((WatchedEnd::of_ports(local, remote)?, local, remote))
}

/// A 16-bit field of `struct sock`.
#[inline(always)]
fn field(sk: *const c_void, offset: u32) -> u16 {
    // SAFETY: the loader took the offset from the running kernel's BTF and checked the width; the verifier
    // checks the access against the same BTF.
    unsafe { sk.byte_add(offset as usize).cast::<u16>().read_volatile() }
}

/// The inode of a socket's network namespace.
#[inline(always)]
fn netns(sk: *const c_void) -> u32 {
    // SAFETY: as for `field`; the verifier knows the target type of the pointer in `struct sock`.
    unsafe {
        let net = sk
            .byte_add(SKC_NET_OFFSET.load() as usize)
            .cast::<*const c_void>()
            .read_volatile();
        net.byte_add(NET_INUM_OFFSET.load() as usize)
            .cast::<u32>()
            .read_volatile()
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_ns() }
}
