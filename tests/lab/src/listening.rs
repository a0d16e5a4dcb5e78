//! Ports and options of the tests' listening sockets.

use std::{
    io,
    os::fd::AsRawFd,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use crate::LabError;

/// Together they stay below the ephemeral ports.
const PROCESSES: u32 = 70;
const PORTS_PER_PROCESS: u16 = 320;

/// A port that no other test watches, in this process or a concurrent one: a daemon sees all
/// namespaces of its host. No other program gets it by chance, because it is not an ephemeral one.
///
/// # Panics
/// If this process has used all of its ports.
pub fn fresh_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
    assert!(taken < PORTS_PER_PROCESS, "raise PORTS_PER_PROCESS");
    // Less than PROCESSES, so it fits.
    let process = (process::id() % PROCESSES) as u16;
    10_000 + process * PORTS_PER_PROCESS + taken
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
