//! Processes every packet of a watched socket.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_F_CURRENT_NETNS,
    helpers::generated::{
        bpf_ktime_get_coarse_ns, bpf_sk_cgroup_id, bpf_sk_release, bpf_skb_load_bytes,
        bpf_skc_lookup_tcp,
    },
    programs::SkBuffContext,
};
use monitor_common::{
    Direction,
    drop_reason::DropReason,
    flow::Flow,
    listener::ListenerLimits,
    mptcp::OPTIONS_ROOM,
    segment::{IP_PREFIX, IpHeader, MAX_EXTENSIONS, Segment, TCP_HEADER},
    snapshot::{Snapshot, multipath, origin, protocol, role},
};

use crate::{
    early_data::{keep_early, take_early},
    emit::{count_drop, publish_changes, take_seed},
    lock,
    maps::{LISTENERS, REFUSED_SHAPE, STATS},
    marker::{DirectionMarker, Rx, Tx},
    opaque::opaque,
    packet::{__sk_buff, PacketContext, Parts, Piece, any_sock, full_sock},
    sock::{self, WatchedEnd, state},
    tally,
    walk::walk,
};

/// The neutral verdict of a cgroup_skb program: let the packet pass.
const PASS: i32 = 1;

// Without aya's attribute, because that puts its own context type into the signature.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup_skb/ingress")]
extern "C" fn ingress(skb: *mut __sk_buff) -> i32 {
    if REFUSED_SHAPE.load() != 0 {
        exhaust_verifier();
    }
    observe::<Rx>(skb);
    PASS
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup_skb/egress")]
extern "C" fn egress(skb: *mut __sk_buff) -> i32 {
    observe::<Tx>(skb);
    PASS
}

#[inline(always)]
fn observe<M: DirectionMarker>(skb: *mut __sk_buff) -> Option<()> {
    let ctx = &__sk_buff::context(skb);
    // SAFETY: the context is valid while the program runs.
    let (local, remote) = unsafe {
        let skb = &*ctx.skb.skb;
        // The kernel provides the remote port in network order, in the upper half of the word.
        (skb.local_port as u16, u32::from_be(skb.remote_port) as u16)
    };
    let watch = WatchedEnd::of_ports(local, remote)?;
    // SAFETY: as above.
    let sk = unsafe { any_sock(skb) }?;
    // Not cleared first: a loop over its bytes would take longer than filling it.
    let mut piece = MaybeUninit::uninit();
    let Some(ip_version) = headers(skb, &mut piece) else {
        count_drop(DropReason::HeaderUnreadable);
        return None;
    };
    // SAFETY: filled, because there is an IP version.
    let piece = unsafe { piece.assume_init_mut() };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let flow = match sock::flow(sk.cast()) {
        Some(flow) => flow,
        None => meet(
            skb,
            piece,
            ip_version,
            watch,
            (local, remote),
            M::DIRECTION,
            now,
        )?,
    };
    // SAFETY: storage that outlives the program's run.
    let s = unsafe { &(*flow).snapshot };
    if s.protocol == protocol::FOREIGN {
        return None;
    }
    let listener = s.listener as u32;
    let limits = LISTENERS.get(listener)?;
    let stats = STATS.get_ptr_mut(listener)?;
    // SAFETY: map values that outlive the program's run, and a piece that outlives the context; see `Flow`
    // and `Counter` for which other programs may access them.
    let mut packet = unsafe { PacketContext::new((skb, flow, stats, piece, now)) };
    if packet.parts().flow.snapshot.multipath == multipath::UNKNOWN {
        let (skb, flow, ..) = packet.arguments();
        identify(skb, flow, ip_version, M::DIRECTION as u32);
    }
    match M::DIRECTION {
        Direction::Rx if !lock::try_lock(flow) => count_drop(DropReason::Contended),
        Direction::Rx => {
            account::<M>(&mut packet, limits);
            lock::unlock(flow);
        }
        // Sent packets already hold the socket's lock.
        Direction::Tx => account::<M>(&mut packet, limits),
    }
    Some(())
}

/// Applies a packet to a known flow: clocks, then frames. Then publishes what changed.
#[inline(always)]
fn account<M: DirectionMarker>(packet: &mut PacketContext, limits: &ListenerLimits) {
    let (skb, now) = (packet.skb, packet.now);
    let Parts { flow, stats, piece } = packet.parts();
    let segment = &piece.segment;
    match M::DIRECTION {
        Direction::Rx => flow.receive(segment, now, limits, stats),
        Direction::Tx => flow.send(segment, now, limits, stats),
    }
    tally::idle_gap(skb, M::DIRECTION, flow, now);
    if segment.payload_len > 0 {
        let mut skip = 0;
        if flow.is_undecided(M::DIRECTION, segment) {
            skip = M::recognise(packet);
        }
        let Parts { flow, piece, .. } = packet.parts();
        if flow.may_have_records() {
            piece.begin = skip;
            M::follow_records(packet);
        }
        walk::<M>(packet);
    }
    let flow = packet.parts().flow;
    let notes = flow.walk_mut(M::DIRECTION).take_notes();
    publish_changes(&mut flow.snapshot, notes, now);
}

/// Reads the headers of a packet in place; they are nearly always in the linear part. Fills `piece` and
/// returns the IP version.
#[inline(always)]
fn headers(skb: *mut __sk_buff, piece: &mut MaybeUninit<Piece>) -> Option<u32> {
    let ctx = &__sk_buff::context(skb);
    let Some(prefix) = in_place::<IP_PREFIX>(ctx, 0) else {
        return copied_headers(skb, piece);
    };
    let ip = IpHeader::parse(prefix)?;
    if !ip.is_tcp() {
        return copied_headers(skb, piece);
    }
    let Some(tcp) = in_place::<TCP_HEADER>(ctx, ip.tcp_offset) else {
        return copied_headers(skb, piece);
    };
    piece.write(Piece::whole(Segment::parse(tcp, ip.tcp_offset, ctx.len())?));
    Some(ip.version)
}

/// The same for a packet whose headers are in fragments, or with IPv6 extension headers.
#[inline(never)]
fn copied_headers(skb: *mut __sk_buff, piece: &mut MaybeUninit<Piece>) -> Option<u32> {
    let ctx = &__sk_buff::context(skb);
    let ip = ip_header(ctx)?;
    let tcp = ctx.load::<[u8; TCP_HEADER]>(ip.tcp_offset as usize).ok()?;
    piece.write(Piece::whole(Segment::parse(
        &tcp,
        ip.tcp_offset,
        ctx.len(),
    )?));
    Some(ip.version)
}

/// The IP header of a TCP packet, wherever its bytes are.
#[inline(always)]
pub(crate) fn ip_header(ctx: &SkBuffContext) -> Option<IpHeader> {
    let mut ip = IpHeader::parse(&ctx.load::<[u8; IP_PREFIX]>(0).ok()?)?;
    for _ in 0..MAX_EXTENSIONS {
        if !ip.is_tcp() {
            ip = ip.pass_extension(ctx.load(ip.tcp_offset as usize).ok()?)?;
        }
    }
    ip.is_tcp().then_some(ip)
}

/// `N` bytes at `offset` of the packet's linear part.
#[inline(always)]
fn in_place<const N: usize>(ctx: &SkBuffContext, offset: u32) -> Option<&[u8; N]> {
    // SAFETY: the context is valid while the program runs, and the bounds are checked here and again by the
    // verifier.
    unsafe {
        let skb = &*ctx.skb.skb;
        let start = skb.data as usize + offset as usize;
        if start + N > skb.data_end as usize {
            return None;
        }
        Some(&*(start as *const [u8; N]))
    }
}

/// Handles a packet whose socket has no storage. Returns new storage for a socket that was established
/// before the programs were attached, or that carries data before it is established.
#[inline(always)]
fn meet(
    skb: *mut __sk_buff,
    piece: &Piece,
    ip_version: u32,
    watch: WatchedEnd,
    (local, remote): (u16, u16),
    direction: Direction,
    now: u64,
) -> Option<*mut Flow> {
    // SAFETY: the context of the running program.
    let sk = unsafe { full_sock(skb) }?;
    // SAFETY: a full socket, checked for null.
    let tcp_state = unsafe { (*sk).state };
    let has_payload = piece.segment.payload_len > 0;
    match tcp_state {
        state::LISTEN => {
            if matches!(direction, Direction::Rx) {
                keep_early(skb, piece, now);
            }
            return None;
        }
        // A child of TCP Fast Open: its SYN carried data, and its server may answer at once.
        state::SYN_RECV if matches!(direction, Direction::Tx) => {
            let cookie = sock::cookie(skb.cast());
            let flow = sock::new_flow(sk.cast(), cookie, watch, (local, remote), now)?;
            let notes = take_early(flow, now);
            // SAFETY: storage the kernel just handed out, not null.
            unsafe { (*flow).tx_walk.note(notes) };
            return Some(flow);
        }
        // This host opens the connection by TCP Fast Open.
        state::SYN_SENT if has_payload => {
            let watch = WatchedEnd::of_outgoing(remote)?;
            let cookie = sock::cookie(skb.cast());
            return sock::new_flow(sk.cast(), cookie, watch, (local, remote), now);
        }
        state::SYN_SENT | state::SYN_RECV | state::CLOSE | state::NEW_SYN_RECV => return None,
        _ => {}
    }
    let mut watch = watch;
    // A client's port is usually above the server's, and a server usually has a listening socket. Without
    // one, this host opened the connection.
    if watch.role == role::SERVER
        && local > remote
        && has_listener(skb, ip_version, direction as u32, local as u32) == 0
    {
        let Some(by_remote) = WatchedEnd::of_outgoing(remote) else {
            sock::mark_foreign(sk.cast());
            return None;
        };
        watch = by_remote;
    }
    let Some(storage) = sock::flow_or_new(sk.cast()) else {
        count_drop(DropReason::StorageFull);
        return None;
    };
    // SAFETY: storage the kernel just handed out, not null.
    let flow = unsafe { &mut *storage };
    let s = &mut flow.snapshot;
    s.cookie = sock::cookie(skb.cast());
    take_seed(s, now);
    s.local_port = local;
    s.remote_port = remote;
    s.listener = watch.listener;
    s.role = watch.role;
    s.origin = origin::ADOPTED;
    s.multipath = multipath::UNKNOWN;
    flow.join_mid_stream(direction);
    Some(storage)
}

/// Whether a socket of this network namespace listens on the local port of a packet; 0 or 1. A global
/// function, see [`crate::walk`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn has_listener(skb: *mut __sk_buff, ip_version: u32, direction: u32, port: u32) -> u32 {
    const V4: u32 = size_of::<[u32; 3]>() as u32;
    const V6: u32 = size_of::<[u32; 9]>() as u32;
    let ctx = &__sk_buff::context(skb);
    let is_received = direction == Direction::Rx as u32;
    // Remote and local address, then the ports, in network order. No connection has remote port 0.
    let mut tuple = [0_u32; 9];
    let ports = ((port as u16).to_be() as u32) << 16;
    let len = if ip_version == 4 {
        let Ok([source, destination]) = ctx.load::<[u32; 2]>(12) else {
            return 0;
        };
        [tuple[0], tuple[1]] = if is_received {
            [source, destination]
        } else {
            [destination, source]
        };
        tuple[2] = ports;
        V4
    } else {
        let (remote, local) = if is_received { (8, 24) } else { (24, 8) };
        let (Ok(remote), Ok(local)) = (ctx.load::<[u32; 4]>(remote), ctx.load::<[u32; 4]>(local))
        else {
            return 0;
        };
        [tuple[0], tuple[1], tuple[2], tuple[3]] = remote;
        [tuple[4], tuple[5], tuple[6], tuple[7]] = local;
        tuple[8] = ports;
        V6
    };
    // SAFETY: the tuple is a live local of at least `len` bytes.
    unsafe {
        let found = bpf_skc_lookup_tcp(
            skb.cast(),
            tuple.as_mut_ptr().cast(),
            len,
            BPF_F_CURRENT_NETNS as u64,
            0,
        );
        if found.is_null() {
            return 0;
        }
        bpf_sk_release(found.cast());
    }
    1
}

/// Fills in what only a packet shows: addresses, cgroup, and whether the flow is a subflow. A global
/// function, see [`crate::walk`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn identify(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    ip_version: u32,
    direction: u32,
) -> u32 {
    // SAFETY: callers pass null, or storage that lives as long as the call.
    let Some(flow) = (unsafe { flow.as_mut() }) else {
        return 0;
    };
    let s = &mut flow.snapshot;
    let (source, destination) = if direction == Direction::Rx as u32 {
        (&mut s.remote_addr, &mut s.local_addr)
    } else {
        (&mut s.local_addr, &mut s.remote_addr)
    };
    addresses(&__sk_buff::context(skb), ip_version, source, destination);
    s.ip_version = ip_version as u8;
    // SAFETY: the context of the running program.
    if let Some(sk) = unsafe { full_sock(skb) } {
        // SAFETY: a full socket.
        s.cgroup_id = unsafe { bpf_sk_cgroup_id(sk.cast()) };
    }
    // If it can't be read, the next packet shows it.
    let _ = note_options(skb, s, direction);
    0
}

/// Reads the options of a packet, wherever its bytes are.
#[inline(always)]
fn note_options(skb: *mut __sk_buff, s: &mut Snapshot, direction: u32) -> Option<()> {
    let ctx = &__sk_buff::context(skb);
    let ip = ip_header(ctx)?;
    let tcp = ctx.load::<[u8; TCP_HEADER]>(ip.tcp_offset as usize).ok()?;
    let segment = Segment::parse(&tcp, ip.tcp_offset, ctx.len())?;
    let begin = ip.tcp_offset + TCP_HEADER as u32;
    let len = segment.payload_offset - begin;
    let mut options = [0; OPTIONS_ROOM];
    if len > 0 {
        // The mask shows both bounds to the verifier.
        let taken = (opaque(len.into()).wrapping_sub(1) & (OPTIONS_ROOM as u64 - 1)) as u32 + 1;
        // SAFETY: there is room for what `taken` can be.
        let read =
            unsafe { bpf_skb_load_bytes(skb.cast(), begin, options.as_mut_ptr().cast(), taken) };
        if read != 0 {
            return None;
        }
    }
    let direction = match direction == Direction::Rx as u32 {
        true => Direction::Rx,
        false => Direction::Tx,
    };
    s.note_options(direction, &segment, &options, len);
    Some(())
}

/// Reads the addresses of a packet.
#[inline(always)]
pub(crate) fn addresses(
    ctx: &SkBuffContext,
    ip_version: u32,
    source: &mut [u8; 16],
    destination: &mut [u8; 16],
) {
    if ip_version == 4 {
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
}

#[inline(always)]
fn widen(v4: [u8; 4]) -> [u8; 16] {
    (u32::from_le_bytes(v4) as u128).to_le_bytes()
}

const _: () = assert!(protocol::UNKNOWN == 0, "new storage is zeroed");

/// Exceeds the million instructions that the verifier processes, so that it refuses the program.
#[inline(always)]
fn exhaust_verifier() {
    let mut rounds: u64 = 1 << 20;
    while rounds > 0 {
        rounds -= 1;
        // A long body without a branch, so that the verifier stores few states.
        // SAFETY: moves a register to itself.
        unsafe {
            core::arch::asm!(
                ".rept 512",
                "{0} = {0}",
                ".endr",
                inout(reg) rounds,
                options(nomem, nostack)
            );
        }
    }
}
