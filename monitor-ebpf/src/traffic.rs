//! Every packet of a watched socket.

use core::ptr;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_sk_cgroup_id},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use monitor_common::{
    Direction,
    drop::DropReason,
    flow::Flow,
    segment::{IP_PREFIX, IpHeader, MAX_EXTENSIONS, Segment, TCP_HEADER, tcp_flags},
    snapshot::{origin, protocol},
};

use crate::{
    emit::{count_drop, report, take_seed},
    handshake,
    maps::{LISTENERS, STATS},
    passage::Passage,
    sock::{self, Watch, state},
    turn,
    walk::{self, Rx, Tx, Way},
};

/// The neutral verdict of a cgroup_skb program: let the packet pass.
const PASS: i32 = 1;

#[cgroup_skb(ingress)]
pub(crate) fn ingress(ctx: SkBuffContext) -> i32 {
    observe(&ctx, Direction::Rx);
    PASS
}

#[cgroup_skb(egress)]
pub(crate) fn egress(ctx: SkBuffContext) -> i32 {
    observe(&ctx, Direction::Tx);
    PASS
}

#[inline(always)]
fn observe(ctx: &SkBuffContext, direction: Direction) -> Option<()> {
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
        None => adopt(ctx, watch, local, remote, direction, now)?,
    };
    let stats = STATS.get_ptr_mut(watch.listener as u32)?;
    let limits = LISTENERS.get(watch.listener as u32)?;
    // SAFETY: storage the kernel keeps while this program runs, not null.
    if unsafe { (*flow).snapshot.ip_version } == 0 {
        // SAFETY: as above.
        identify(ctx, unsafe { &mut *flow }, &ip, direction);
    }
    let mut passage = Passage {
        skb: ctx.as_ptr(),
        sk: sk.cast(),
        flow,
        stats,
        limits,
        holes: ptr::null_mut(),
        now,
        segment,
        begin: 0,
    };
    match direction {
        Direction::Rx if !turn::take(flow) => count_drop(DropReason::Contended),
        Direction::Rx => {
            stages::<Rx>(&mut passage);
            turn::give_back(flow);
        }
        // What leaves does so under the socket's lock.
        Direction::Tx => stages::<Tx>(&mut passage),
    }
    Some(())
}

/// What a packet of a known flow goes through.
#[inline(always)]
fn stages<W: Way>(passage: &mut Passage) {
    move_clocks::<W>(passage);
    let segment = &passage.segment;
    if segment.payload_len > 0 && !segment.has(tcp_flags::SYN) {
        let (flow, _) = passage.parts();
        if flow.is_undecided(W::DIRECTION, segment) {
            recognise::<W>(passage);
        }
        walk::over_payload::<W>(passage);
    }
    make_known::<W>(passage);
}

/// Clocks, acknowledgements and flags.
#[inline(always)]
fn move_clocks<W: Way>(passage: &mut Passage) {
    let (flow, stats) = passage.parts();
    // SAFETY: a map value.
    let limits = unsafe { &*passage.limits };
    match W::DIRECTION {
        Direction::Rx => flow.receive(&passage.segment, passage.now, limits, stats),
        Direction::Tx => flow.send(&passage.segment, passage.now, limits, stats),
    }
}

/// Looks at the first bytes of a segment until it is known what the connection speaks.
#[inline(never)]
fn recognise<W: Way>(passage: &mut Passage) {
    let (flow, stats) = passage.parts();
    let payload = passage.payload();
    let len = passage.segment.payload_len;
    let head = flow.recognise(W::DIRECTION, len, &payload, passage.now, stats, |needle| {
        handshake::find(&payload, len, needle)
    });
    if head != 0 {
        handshake::report(&payload, len, head, &flow.snapshot, passage.now);
    }
}

/// Publishes what changed, as far as it is notable.
#[inline(always)]
fn make_known<W: Way>(passage: &mut Passage) {
    let (flow, _) = passage.parts();
    let notes = flow.walk_mut(W::DIRECTION).take_notes();
    report(&mut flow.snapshot, notes, passage.now);
}

/// The headers of a packet, read in place; they nearly always lie in the linear part.
#[inline(always)]
fn headers(ctx: &SkBuffContext) -> Option<(IpHeader, Segment)> {
    let Some(prefix) = in_place::<IP_PREFIX>(ctx, 0) else {
        return copied_headers(ctx);
    };
    let ip = IpHeader::parse(prefix)?;
    if !ip.is_tcp() {
        return copied_headers(ctx);
    }
    let Some(tcp) = in_place::<TCP_HEADER>(ctx, ip.tcp_offset) else {
        return copied_headers(ctx);
    };
    Some((ip, Segment::parse(tcp, ip.tcp_offset, ctx.len())?))
}

/// The same for a packet whose headers lie in fragments, or with IPv6 extension headers.
#[inline(never)]
fn copied_headers(ctx: &SkBuffContext) -> Option<(IpHeader, Segment)> {
    let mut ip = IpHeader::parse(&ctx.load::<[u8; IP_PREFIX]>(0).ok()?)?;
    for _ in 0..MAX_EXTENSIONS {
        if !ip.is_tcp() {
            ip = ip.pass_extension(ctx.load(ip.tcp_offset as usize).ok()?)?;
        }
    }
    if !ip.is_tcp() {
        return None;
    }
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
    now: u64,
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
    let s = &mut flow.snapshot;
    s.cookie = sock::cookie(ctx.as_ptr());
    take_seed(s, now);
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
#[inline(never)]
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

const _: () = assert!(protocol::UNKNOWN == 0, "new storage is zeroed");
