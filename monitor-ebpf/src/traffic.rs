//! Every packet of a watched socket.

use core::{
    ffi::{c_long, c_void},
    mem::MaybeUninit,
};

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_ktime_get_coarse_ns, bpf_loop, bpf_sk_cgroup_id, bpf_skb_load_bytes},
    },
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use monitor_common::{
    Direction,
    drop::DropReason,
    event::FrameSample,
    flow::Flow,
    frame::{Head, Header, opcode},
    segment::{IP_PREFIX, IpHeader, Segment, TCP_HEADER, tcp_flags},
    snapshot::{Snapshot, origin, protocol},
    stats::ListenerStats,
    stream::{MAX_STEPS, Payload, Step},
};

use crate::{
    emit::{count_drop, report, sample},
    maps::{LISTENERS, SAMPLE_EVERY, SNAPSHOTS, STATS},
    sock::{self, Watch, state},
};

/// The neutral verdict of a cgroup_skb program: let the packet pass.
const PASS: i32 = 1;

#[cgroup_skb(ingress)]
pub(crate) fn ingress(ctx: SkBuffContext) -> i32 {
    observe(&ctx, Direction::Rx, walk_rx);
    PASS
}

#[cgroup_skb(egress)]
pub(crate) fn egress(ctx: SkBuffContext) -> i32 {
    observe(&ctx, Direction::Tx, walk_tx);
    PASS
}

type WalkCallback = unsafe extern "C" fn(u32, *mut WalkContext) -> c_long;

/// What the walk needs across the iterations of `bpf_loop`; lives on the stack.
#[repr(C)]
struct WalkContext {
    skb: *mut c_void,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    now: u64,
    payload_offset: u32,
    len: u32,
}

#[inline(always)]
fn observe(ctx: &SkBuffContext, direction: Direction, walk: WalkCallback) -> Option<()> {
    // SAFETY: the context is valid while the program runs.
    let (local, remote) = unsafe {
        let skb = &*ctx.skb.skb;
        // The kernel hands out the remote port in network order, in the upper half of the word.
        (skb.local_port as u16, u32::from_be(skb.remote_port) as u16)
    };
    let watch = Watch::of_ports(local, remote)?;
    let sk = sock::any_sock(ctx)?;
    let Some((ip, segment)) = headers(ctx) else {
        count_drop(DropReason::HeaderUnreadable);
        return None;
    };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let flow = match sock::flow(sk.cast()) {
        Some(flow) => flow,
        None => adopt(ctx, watch, local, remote, direction)?,
    };
    let stats = STATS.get_ptr_mut(watch.listener as u32)?;
    let limits = LISTENERS.get(watch.listener as u32)?;
    // SAFETY: storage and per-CPU map values, not null; see `Flow` and `Counter` for who else may
    // touch them.
    let (flow, counters) = unsafe { (&mut *flow, &mut *stats) };
    if flow.snapshot.ip_version == 0 {
        identify(ctx, flow, &ip, direction);
    }
    match direction {
        Direction::Rx => flow.receive(&segment, now, limits, counters),
        Direction::Tx => flow.send(&segment, now, limits, counters),
    }
    if segment.payload_len > 0 && !segment.has(tcp_flags::SYN) {
        let payload = SkbPayload {
            skb: ctx.as_ptr(),
            offset: segment.payload_offset,
        };
        if let Some(at) = flow.place(direction, &segment, &payload, counters) {
            flow.done[direction.index()] = at;
            let mut context = WalkContext {
                skb: ctx.as_ptr(),
                flow,
                stats,
                now,
                payload_offset: segment.payload_offset,
                len: segment.payload_len,
            };
            walk_frames(&mut context, direction, walk);
        }
    }
    let notes = flow.walk_mut(direction).take_notes();
    report(&mut flow.snapshot, notes, now);
    Some(())
}

/// The headers of a packet, read in place; they nearly always lie in the linear part.
#[inline(always)]
fn headers(ctx: &SkBuffContext) -> Option<(IpHeader, Segment)> {
    let Some(prefix) = in_place::<IP_PREFIX>(ctx, 0) else {
        return copied_headers(ctx);
    };
    let ip = IpHeader::parse(prefix)?;
    let Some(tcp) = in_place::<TCP_HEADER>(ctx, ip.tcp_offset) else {
        return copied_headers(ctx);
    };
    Some((ip, Segment::parse(tcp, ip.tcp_offset, ctx.len())?))
}

/// The same for a packet whose headers lie in fragments.
#[inline(always)]
fn copied_headers(ctx: &SkBuffContext) -> Option<(IpHeader, Segment)> {
    let ip = IpHeader::parse(&ctx.load::<[u8; IP_PREFIX]>(0).ok()?)?;
    let tcp = ctx.load::<[u8; TCP_HEADER]>(ip.tcp_offset as usize).ok()?;
    Some((ip, Segment::parse(&tcp, ip.tcp_offset, ctx.len())?))
}

/// `N` bytes at `offset` of the packet's linear part.
#[inline(always)]
fn in_place<const N: usize>(ctx: &SkBuffContext, offset: u32) -> Option<&[u8; N]> {
    // SAFETY: the context is valid while the program runs, and the bounds are checked, which the
    // verifier checks again.
    unsafe {
        let skb = &*ctx.skb.skb;
        let start = skb.data as usize + offset as usize;
        if start + N > skb.data_end as usize {
            return None;
        }
        Some(&*(start as *const [u8; N]))
    }
}

/// Storage for a socket that was established before the programs were attached.
#[inline(always)]
fn adopt(
    ctx: &SkBuffContext,
    watch: Watch,
    local: u16,
    remote: u16,
    direction: Direction,
) -> Option<*mut Flow> {
    let sk = sock::full_sock(ctx)?;
    // SAFETY: a full socket, checked for null.
    let tcp_state = unsafe { (*sk).state };
    if matches!(
        tcp_state,
        state::SYN_SENT | state::SYN_RECV | state::CLOSE | state::LISTEN | state::NEW_SYN_RECV
    ) {
        return None;
    }
    let Some(storage) = sock::flow_or_new(sk.cast()) else {
        count_drop(DropReason::StorageFull);
        return None;
    };
    // SAFETY: storage the kernel just handed out, not null.
    let flow = unsafe { &mut *storage };
    let cookie = sock::cookie(ctx.as_ptr());
    if let Some(seed) = SNAPSHOTS.get_ptr(cookie) {
        // SAFETY: a map value; it stays readable while this program runs.
        flow.snapshot = unsafe { *seed };
    }
    let s = &mut flow.snapshot;
    s.cookie = cookie;
    s.local_port = local;
    s.remote_port = remote;
    s.listener = watch.listener;
    s.role = watch.role;
    s.origin = origin::ADOPTED;
    s.ip_version = 0;
    flow.adopt(direction);
    Some(storage)
}

/// Fills in what only a packet can tell: addresses and cgroup.
#[inline(always)]
fn identify(ctx: &SkBuffContext, flow: &mut Flow, ip: &IpHeader, direction: Direction) {
    let s = &mut flow.snapshot;
    let (source, destination) = match direction {
        Direction::Rx => (&mut s.remote_addr, &mut s.local_addr),
        Direction::Tx => (&mut s.local_addr, &mut s.remote_addr),
    };
    if ip.version == 4 {
        // RFC 791 §3.1: addresses at bytes 12 and 16.
        if let Ok(addresses) = ctx.load::<[[u8; 4]; 2]>(12) {
            *source = widen(addresses[0]);
            *destination = widen(addresses[1]);
        }
    } else if let Ok(addresses) = ctx.load::<[[u8; 16]; 2]>(8) {
        // RFC 8200 §3: addresses at bytes 8 and 24.
        *source = addresses[0];
        *destination = addresses[1];
    }
    s.ip_version = ip.version;
    if let Some(sk) = sock::full_sock(ctx) {
        // SAFETY: a full socket.
        s.cgroup_id = unsafe { bpf_sk_cgroup_id(sk.cast()) };
    }
}

#[inline(always)]
fn widen(v4: [u8; 4]) -> [u8; 16] {
    (u32::from_le_bytes(v4) as u128).to_le_bytes()
}

#[inline(always)]
fn walk_frames(context: &mut WalkContext, direction: Direction, walk: WalkCallback) {
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the loop.
    unsafe {
        bpf_loop(
            MAX_STEPS,
            walk as *mut c_void,
            (&raw mut *context).cast(),
            0,
        )
    };
    // SAFETY: map values that outlive this call; see `Flow` and `Counter` for who else may touch
    // them.
    let (flow, stats) = unsafe { (&mut *context.flow, &mut *context.stats) };
    let done = flow.done[direction.index()];
    let left = flow.walk_mut(direction).abandon(done, context.len);
    if left > 0 {
        count_drop(DropReason::WalkTooLong);
        stats.unsynced_bytes[direction.index()].add(left as u64);
    }
}

unsafe extern "C" fn walk_rx(_index: u32, context: *mut WalkContext) -> c_long {
    // SAFETY: bpf_loop passes the context that `walk_frames` gave it.
    walk_step(unsafe { &mut *context }, Direction::Rx)
}

unsafe extern "C" fn walk_tx(_index: u32, context: *mut WalkContext) -> c_long {
    // SAFETY: bpf_loop passes the context that `walk_frames` gave it.
    walk_step(unsafe { &mut *context }, Direction::Tx)
}

/// One iteration of `bpf_loop`: 0 goes on, 1 ends the loop.
#[inline(always)]
fn walk_step(context: &mut WalkContext, direction: Direction) -> c_long {
    // SAFETY: map values that outlive the loop; see `Flow` and `Counter` for who else may touch
    // them.
    let (flow, stats) = unsafe { (&mut *context.flow, &mut *context.stats) };
    let payload = SkbPayload {
        skb: context.skb,
        offset: context.payload_offset,
    };
    let from_client = flow.snapshot.from_client(direction);
    let mut done = flow.done[direction.index()];
    let step = flow
        .walk_mut(direction)
        .step(&mut done, context.len, from_client, &payload);
    flow.done[direction.index()] = done;
    let mut now = context.now;
    match step {
        Step::End => return 1,
        Step::Unreadable => {
            count_drop(DropReason::PayloadUnreadable);
            let left = context.len.saturating_sub(done);
            stats.unsynced_bytes[direction.index()].add(left as u64);
            flow.done[direction.index()] = context.len;
            return 1;
        }
        Step::Frame(header) => {
            // Only round trips need better than a tick.
            if matches!(header.opcode(), opcode::PING | opcode::PONG) {
                // SAFETY: no preconditions.
                now = unsafe { bpf_ktime_get_ns() };
            }
            let every = SAMPLE_EVERY.get(0).copied().unwrap_or(0);
            if every != 0 {
                offer_sample(&flow.snapshot, direction, &header, now, every);
            }
        }
        Step::Again | Step::Synced | Step::Unsynced(_) => {}
    }
    flow.account(direction, &step, now, stats);
    (done >= context.len) as c_long
}

/// Sends every n-th frame header of a direction to the live viewer.
#[inline(always)]
fn offer_sample(s: &Snapshot, direction: Direction, header: &Header, now: u64, every: u32) {
    let frames = match direction {
        Direction::Rx => s.rx.frames,
        Direction::Tx => s.tx.frames,
    };
    if frames % every != 0 {
        return;
    }
    sample(FrameSample {
        at: now,
        cookie: s.cookie,
        payload_len: header.payload_len,
        ping_rtt_us: 0,
        close_code: header.close_code(),
        listener: s.listener,
        first_byte: header.first_byte(),
        masked: header.masked() as u8,
        direction: direction as u8,
        _pad: [0; 5],
    });
}

/// The payload of the packet in hand. Loopback and GRO keep it in fragments, so it is read
/// through the helper and never by direct access.
struct SkbPayload {
    skb: *mut c_void,
    offset: u32,
}

impl Payload for SkbPayload {
    #[inline(always)]
    fn read(&self, offset: u32, len: u32) -> Option<Head> {
        // Callers keep to 1..=14, but the compiler proves it away through values that the verifier
        // does not connect. Hidden from the compiler, the mask stays, and shows both bounds.
        let mut len = u64::from(len);
        // A real instruction: the line information of an empty one is refused by the kernel.
        // SAFETY: moves a register to itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) len, options(nomem, nostack)) };
        let len = (len.wrapping_sub(1) & 15) as u32 + 1;
        let mut head = MaybeUninit::<[u64; 2]>::uninit();
        let words = head.as_mut_ptr().cast::<u64>();
        // Word by word and volatile: an array that is zeroed or copied as a whole becomes a call of
        // `memset` or `memcpy`, which are loops over bytes here.
        // SAFETY: both words are written before they are read, and the helper writes at most the
        // 16 bytes they have.
        unsafe {
            words.write_volatile(0);
            words.add(1).write_volatile(0);
            let offset = self.offset.wrapping_add(offset);
            if bpf_skb_load_bytes(self.skb, offset, words.cast(), len) != 0 {
                return None;
            }
            Some(Head([words.read_volatile(), words.add(1).read_volatile()]))
        }
    }
}

const _: () = assert!(protocol::UNKNOWN == 0, "new storage is zeroed");
