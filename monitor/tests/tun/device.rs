//! The network device between the kernel's sockets and a hand-written peer.
//!
//! The kernel processes a packet completely before the write to the device returns, so that
//! direction needs no waiting.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    mem::size_of,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd},
        unix::fs::OpenOptionsExt,
    },
    process::Command,
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    ioctl::{Setter, ioctl},
};

const TUN: &str = "/dev/net/tun";
/// Destination, source and type.
const ETHERNET_HEADER: usize = 14;

/// The device; packets written to it arrive at the kernel, packets for the peers come out of it.
pub(crate) struct Tun {
    file: File,
    /// Length of the header before every packet; zero with a tun device.
    header: usize,
}

impl Tun {
    /// A tun device, or a pair of netkit devices (Linux 6.7) if the kernel has none.
    pub(super) fn new() -> Self {
        let device = if fs::exists(TUN).expect("a readable /dev") {
            Self {
                file: tun(),
                header: 0,
            }
        } else {
            Self {
                file: netkit(),
                header: ETHERNET_HEADER,
            }
        };
        ip("addr add 10.99.0.1/24 dev peer");
        ip("addr add fd99::1/64 dev peer");
        ip("link set peer mtu 65535");
        ip("link set peer up");
        ip("link set lo up");
        device
    }

    pub(crate) fn write(&mut self, packet: &[u8]) {
        let mut bytes = vec![0; self.header];
        if let Some(kind) = bytes.last_chunk_mut() {
            let is_v6 = packet[0] >> 4 == 6;
            *kind = if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        }
        bytes.extend(packet);
        assert_eq!(self.file.write(&bytes).unwrap(), bytes.len());
    }

    /// The next outgoing packet; `None` if there is none before `until`.
    pub(crate) fn read(&mut self, until: Instant) -> Option<Vec<u8>> {
        let mut packet = vec![0; ETHERNET_HEADER + 0x1_0000];
        loop {
            match self.file.read(&mut packet) {
                Ok(len) => {
                    packet.truncate(len);
                    packet.drain(..self.header);
                    return Some(packet);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = until.checked_duration_since(Instant::now())?;
                    let left = Timespec::try_from(left).unwrap();
                    poll(
                        &mut [PollFd::from_borrowed_fd(self.file.as_fd(), PollFlags::IN)],
                        Some(&left),
                    )
                    .unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A tun device called `peer`.
fn tun() -> File {
    const TUNSETIFF: u32 = 0x4004_54ca;
    const IFF_TUN_NO_PI: u16 = 0x1001;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(TUN)
        .expect("a tun device");
    // struct ifreq: the name in 16 bytes, then the flags.
    let mut request = [0_u8; 40];
    request[..4].copy_from_slice(b"peer");
    request[16..18].copy_from_slice(&IFF_TUN_NO_PI.to_ne_bytes());
    // SAFETY: TUNSETIFF reads one struct ifreq.
    unsafe { ioctl(&file, Setter::<TUNSETIFF, _>::new(request)) }.expect("a new tun device");
    file
}

/// A device called `peer`, and a packet socket on the other device of the pair.
fn netkit() -> File {
    ip("link add peer type netkit");
    // The kernel numbers unnamed devices separately in each namespace.
    ip("link set nk0 mtu 65535");
    ip("link set nk0 up");
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; a new descriptor has no other owner.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, kind, i32::from(protocol));
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        File::from_raw_fd(fd)
    };
    // SAFETY: the name ends with a zero byte.
    let index = unsafe { libc::if_nametoindex(c"nk0".as_ptr()) };
    // SAFETY: all zeroes is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the pointer is to a sockaddr_ll of this length.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    socket
}

/// Both iproute2 and busybox understand these arguments.
fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}
