//! The cheapest packet capture on Linux: an `AF_PACKET` ring (TPACKET_V3) shared with the kernel, a
//! filter in the kernel, and a reader that visits each packet's headers and the first bytes behind
//! them, and keeps nothing. See `linux/if_packet.h` and Documentation/networking/packet_mmap.rst.

use std::{
    io,
    mem::size_of_val,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use lab::Namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const BLOCK: usize = 1 << 20;
const BLOCKS: usize = 32;

/// The kernel hands over a block after this many milliseconds even if it is not full.
const RETIRE_MILLIS: u32 = 60;

/// Bytes kept of a packet: all headers, and a frame header if one begins the payload.
const SNAP: u32 = 128;

/// Loopback is the first interface of every network namespace.
const LOOPBACK: i32 = 1;

/// Offsets in a block's header (`struct tpacket_block_desc`): status, number of packets, offset of
/// the first packet.
const STATUS: usize = 8;
const PACKETS: usize = 12;
const FIRST: usize = 16;

/// Offsets in a packet's header (`struct tpacket3_hdr`): next packet, bytes kept, start of the
/// packet.
const NEXT: usize = 0;
const KEPT: usize = 12;
const MAC: usize = 24;

/// The reader on its thread.
#[derive(Debug)]
pub(super) struct RingReader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<PacketRing>>,
}

/// Packet counts.
#[derive(Debug)]
pub(super) struct RingCounts {
    /// Passed the filter.
    pub(super) packets: u32,
    /// How many of these the ring had no room for.
    pub(super) dropped: u32,
}

impl RingReader {
    /// Reads packets on loopback in `namespace` from and to `port`.
    pub(super) fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let ring = namespace
            .run(|| PacketRing::open(port))?
            .context("cannot open a packet ring")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut ring = ring;
            ring.read(&stopping);
            ring
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    pub(super) fn stop(mut self) -> Result<RingCounts> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped once already")?;
        let ring = thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ring.taken().context("cannot read the ring's drops")
    }
}

impl Drop for RingReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The socket and the memory shared with the kernel.
#[derive(Debug)]
struct PacketRing {
    socket: OwnedFd,
    memory: NonNull<u8>,
    next: usize,
    /// Packets by the first byte of their payload, as a monitor would count opcodes.
    first_bytes: Box<[u64; 256]>,
}

// SAFETY: only this value and the kernel use the memory.
unsafe impl Send for PacketRing {}

impl PacketRing {
    fn open(port: u16) -> io::Result<Self> {
        // SAFETY: no pointers. With protocol 0 no packet arrives before `bind`.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just created, and not shared.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let filter = filter(port);
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        // Loopback delivers each packet twice, outgoing and incoming.
        let yes: libc::c_int = 1;
        set_option(
            &socket,
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            &yes,
        )?;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK as u32,
            tp_block_nr: BLOCKS as u32,
            tp_frame_size: 2_048,
            tp_frame_nr: (BLOCK * BLOCKS / 2_048) as u32,
            tp_retire_blk_tov: RETIRE_MILLIS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        // SAFETY: a new mapping of the ring just created, with its exact size.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                BLOCK * BLOCKS,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        let memory = match NonNull::new(memory) {
            Some(mapped) if memory != libc::MAP_FAILED => mapped.cast(),
            _ => return Err(io::Error::last_os_error()),
        };
        let ring = Self {
            socket,
            memory,
            next: 0,
            first_bytes: Box::new([0; 256]),
        };
        ring.bind()?;
        Ok(ring)
    }

    fn bind(&self) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: LOOPBACK,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address lives through the call, and its size is correct.
        let bound = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        match bound {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn read(&mut self, stop: &AtomicBool) {
        let timeout = Timespec::try_from(Duration::from_millis(100)).ok();
        while !stop.load(Ordering::Relaxed) {
            if !self.read_block() {
                let mut wanted = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
                // Fails only if a signal interrupts it: then the ring is checked again.
                let _ = poll(&mut wanted, timeout.as_ref());
            }
        }
    }

    /// Reads the next block and returns it to the kernel, if the kernel has handed it over.
    fn read_block(&mut self) -> bool {
        // SAFETY: `next` is below BLOCKS, so the block is inside the mapping, which lives as long
        // as this value. The status is an aligned u32 that passes ownership between kernel and
        // reader.
        let (block, status) = unsafe {
            let block = self.memory.add(self.next * BLOCK);
            (
                block,
                AtomicU32::from_ptr(block.add(STATUS).cast().as_ptr()),
            )
        };
        if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return false;
        }
        // SAFETY: the kernel does not touch the block until the status returns it.
        let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), BLOCK) };
        let mut packet = word(bytes, FIRST) as usize;
        for _ in 0..word(bytes, PACKETS) {
            let mac = packet + usize::from(half(bytes, packet + MAC));
            let kept = word(bytes, packet + KEPT) as usize;
            let first = bytes.get(mac..mac + kept).and_then(first_payload_byte);
            if let Some(first) = first {
                self.first_bytes[usize::from(first)] += 1;
            }
            packet += word(bytes, packet + NEXT) as usize;
        }
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % BLOCKS;
        true
    }

    fn taken(&self) -> io::Result<RingCounts> {
        let mut statistics = libc::tpacket_stats_v3 {
            tp_packets: 0,
            tp_drops: 0,
            tp_freeze_q_cnt: 0,
        };
        let mut size = size_of_val(&statistics) as u32;
        // SAFETY: both live through the call, and the size is the struct's.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut size,
            )
        };
        match result {
            0 => Ok(RingCounts {
                packets: statistics.tp_packets,
                dropped: statistics.tp_drops,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: mapped in `open` with this size; no reference into it exists.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), BLOCK * BLOCKS) };
    }
}

fn set_option<T>(socket: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value lives through the call, and its size is correct.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast(),
            size_of_val(value) as u32,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `ip proto tcp and port PORT`, in classic BPF (`linux/filter.h`).
fn filter(port: u16) -> [libc::sock_filter; 13] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF_BEHIND: u16 = 0x48;
    const HEADER_LENGTH: u16 = 0xb1;
    const IF_EQUAL: u16 = 0x15;
    const IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let op = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let port = u32::from(port);
    [
        op(LOAD_HALF, 12, 0, 0),
        op(IF_EQUAL, 0x0800, 0, 10),
        op(LOAD_BYTE, 23, 0, 0),
        op(IF_EQUAL, 6, 0, 8),
        op(LOAD_HALF, 20, 0, 0),
        op(IF_SET, 0x1fff, 6, 0),
        op(HEADER_LENGTH, 14, 0, 0),
        op(LOAD_HALF_BEHIND, 14, 0, 0),
        op(IF_EQUAL, port, 2, 0),
        op(LOAD_HALF_BEHIND, 16, 0, 0),
        op(IF_EQUAL, port, 0, 1),
        op(RETURN, SNAP, 0, 0),
        op(RETURN, 0, 0, 0),
    ]
}

/// Behind the Ethernet, IPv4 and TCP headers.
fn first_payload_byte(packet: &[u8]) -> Option<u8> {
    let ip = packet.get(14..)?;
    let tcp = ip.get(usize::from(ip.first()? & 0xf) * 4..)?;
    tcp.get(usize::from(tcp.get(12)? >> 4) * 4).copied()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u16::from_ne_bytes)
}
