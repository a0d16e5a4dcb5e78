//! Ports and options of the tests' listening sockets.

use std::{
    io,
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

use crate::LabError;

/// Together they stay below the ephemeral ports.
const BLOCKS: u16 = 70;
const PORTS_PER_BLOCK: u16 = 320;

/// A port that no other test watches, in this process or a concurrent one: a daemon sees all
/// namespaces of its host. No other program gets it by chance, because it is not an ephemeral one.
///
/// # Panics
/// If this process has used all of its ports, or other processes have claimed all blocks.
pub fn fresh_port() -> u16 {
    static BLOCK: OnceLock<PortBlock> = OnceLock::new();
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let PortBlock { number, .. } = BLOCK.get_or_init(PortBlock::claim);
    let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
    assert!(taken < PORTS_PER_BLOCK, "raise PORTS_PER_BLOCK");
    10_000 + number * PORTS_PER_BLOCK + taken
}

/// The ports of one process. The kernel frees the socket's name when the process ends.
struct PortBlock {
    number: u16,
    _claim: UnixDatagram,
}

impl PortBlock {
    /// The first free block from one that differs from process to process, so that ports rest after
    /// their use.
    fn claim() -> Self {
        // Less than BLOCKS, so it fits.
        let first = (process::id() % u32::from(BLOCKS)) as u16;
        let mut numbers = (first..BLOCKS).chain(0..first);
        let free = numbers.find_map(Self::try_claim);
        free.expect("all blocks of ports are claimed: raise BLOCKS")
    }

    /// `None` if another process has claimed it.
    fn try_claim(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("wsmon-lab-ports-{number}"));
        let claim = UnixDatagram::bind_addr(&name.ok()?).ok()?;
        Some(Self {
            number,
            _claim: claim,
        })
    }
}

/// From now on connections reach this listening socket with their first data (TCP_DEFER_ACCEPT,
/// tcp(7)).
///
/// # Errors
/// [`LabError::Io`] if the kernel refuses.
pub fn defer_accept(listener: &impl AsRawFd) -> Result<(), LabError> {
    let seconds: libc::c_int = 5;
    // SAFETY: the option is an int, and the pointer is to one.
    let set = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).map_err(LabError::io("set TCP_DEFER_ACCEPT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_ports_is_claimed_once() {
        let block = PortBlock::claim();
        assert!(PortBlock::try_claim(block.number).is_none());
        assert_ne!(PortBlock::claim().number, block.number);
    }

    #[test]
    fn ports_are_fresh_and_not_ephemeral() {
        let ports = [(); 3].map(|()| fresh_port());
        assert!(ports.is_sorted_by(|port, next| port < next), "{ports:?}");
        assert!(ports[2] < 32_768, "{ports:?}");
    }
}
