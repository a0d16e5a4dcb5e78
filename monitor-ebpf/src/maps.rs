//! The maps, and the constants that the daemon writes before loading.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use monitor_common::{
    connection_totals::ConnectionTotals,
    drop_reason::DropReason,
    early_data::EarlySegment,
    event::{FrameSample, HandshakeRecord, VitalEvent},
    flow::Flow,
    holes::Holes,
    listener::{ListenerLimits, PortWatch},
    published::Published,
    stats::{Counter, ListenerStats},
    tls::TlsFlow,
};

/// The facts of each watched socket. Freed with the socket, so it cannot leak.
#[btf_map]
pub(crate) static FLOWS: SkStorage<Flow> = SkStorage::new();

/// The pending runs after holes in a socket's received stream. Rare, and deleted when the holes are filled.
#[btf_map]
pub(crate) static HOLES: SkStorage<Holes> = SkStorage::new();

/// What the records of a TLS connection show. Exists from the first record on.
#[btf_map]
pub(crate) static TLS: SkStorage<TlsFlow> = SkStorage::new();

/// What each connection carried. Empty without [`KEEP_TOTALS`].
#[btf_map]
pub(crate) static TOTALS: SkStorage<ConnectionTotals> = SkStorage::new();

/// The last segment with payload that reached a listening socket, on each CPU. Kept until its socket is
/// created, which the kernel does next.
#[btf_map]
pub(crate) static EARLY: PerCpuArray<EarlySegment, 1> = PerCpuArray::new();

/// What the daemon reads, by socket cookie. Its size is set at load. Never an LRU, because that would evict
/// idle sockets first, and those matter most here.
#[btf_map]
pub(crate) static SNAPSHOTS: HashMap<u64, Published, 262_144, { BPF_F_NO_PREALLOC }> =
    HashMap::new();

/// Which listener watches a port. One array access shows that a packet is not watched.
#[btf_map]
pub(crate) static PORTS: Array<PortWatch, 65_536> = Array::new();

/// By listener; sized at load.
#[btf_map]
pub(crate) static LISTENERS: Array<ListenerLimits, 256> = Array::new();

/// By listener; sized at load.
#[btf_map]
pub(crate) static STATS: PerCpuArray<ListenerStats, 256> = PerCpuArray::new();

/// By [`DropReason`].
#[btf_map]
pub(crate) static DROPS: PerCpuArray<Counter, { DropReason::COUNT as usize }> = PerCpuArray::new();

/// Events of connections, and the few records of listening sockets: never sampled. 8 MiB hold about 21,000
/// records. Sized at load: twice as large with [`KEEP_TOTALS`].
#[btf_map]
pub(crate) static VITALS: RingBuf<VitalEvent, { 8 << 20 }> = RingBuf::new();

/// The heads of upgrade requests and responses, parsed by the daemon. 4 MiB hold from 3,700 of the longest
/// to 12,400 of up to 256 bytes.
#[btf_map]
pub(crate) static HANDSHAKES: RingBuf<HandshakeRecord, { 4 << 20 }> = RingBuf::new();

/// Frame headers for a live viewer: sampled, may drop.
#[btf_map]
pub(crate) static SAMPLES: RingBuf<FrameSample, { 1 << 20 }> = RingBuf::new();

/// One entry: send every n-th frame header to `SAMPLES`; 0 = no viewer.
#[btf_map]
pub(crate) static SAMPLE_EVERY: Array<u32, 1> = Array::new();

/// Minimum nanoseconds between two publications of a busy flow.
#[unsafe(no_mangle)]
pub(crate) static PUBLISH_INTERVAL_NS: Global<u64> = Global::new(250_000_000);

/// Offsets into `struct sock` of the running kernel, from its BTF.
#[unsafe(no_mangle)]
pub(crate) static SKC_NUM_OFFSET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static SKC_DPORT_OFFSET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static SK_PROTOCOL_OFFSET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static SKC_NET_OFFSET: Global<u32> = Global::new(0);

/// Offset of a network namespace's inode number in `struct net`.
#[unsafe(no_mangle)]
pub(crate) static NET_INUM_OFFSET: Global<u32> = Global::new(0);

/// A [`loop_kind`]. Frozen at load, so that the verifier prunes the other one.
#[unsafe(no_mangle)]
pub(crate) static LOOP_KIND: Global<u8> = Global::new(loop_kind::BPF_LOOP);

/// Which helper repeats a step; the daemon selects what the running kernel supports.
pub(crate) mod loop_kind {
    /// `bpf_loop`, Linux 5.17. Any other value means `bpf_for_each_map_elem`, Linux 5.13.
    pub(crate) const BPF_LOOP: u8 = 0;
}

/// 1 = this processor makes stores visible in order, as x86 does, so a plain store releases a lock.
#[unsafe(no_mangle)]
pub(crate) static STORES_ARE_ORDERED: Global<u8> = Global::new(0);

/// 1 = every kernel refuses `ingress` as too large. Only for a test of the refusal.
#[unsafe(no_mangle)]
pub(crate) static REFUSED_SHAPE: Global<u8> = Global::new(0);

/// 1 = account for each connection in [`TOTALS`], for the access log. Frozen at load, so that the verifier
/// prunes the branches.
#[unsafe(no_mangle)]
pub(crate) static KEEP_TOTALS: Global<u8> = Global::new(0);

/// 1 = also watch remote ports. Frozen at load, so that the verifier prunes the branch.
#[unsafe(no_mangle)]
pub(crate) static WATCH_REMOTE: Global<u8> = Global::new(0);

/// 1 = log rare events through aya-log. Frozen at load; pruned by default.
#[unsafe(no_mangle)]
pub(crate) static DEBUG_LOG: Global<u8> = Global::new(0);

const BPF_F_NO_PREALLOC: usize = aya_ebpf::bindings::BPF_F_NO_PREALLOC as usize;
