//! Which ports the kernel programs watch.

/// Maximum number of listeners per daemon.
pub const MAX_LISTENERS: usize = 256;

/// One entry of the `PORTS` array, indexed by port: the index of the watching listener plus one; 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortWatch {
    /// As the local port of a server socket (`--port`).
    pub local: u16,
    /// As the remote port of an outgoing socket (`--remote-port`).
    pub remote: u16,
}

/// One entry of the `LISTENERS` array, indexed by listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ListenerLimits {
    /// The tightest hop's idle timeout in nanoseconds; 0 = no limit known.
    pub idle_limit_ns: u64,
}

const _: () = assert!(size_of::<PortWatch>() == 4);
const _: () = assert!(size_of::<ListenerLimits>() == 8);

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding.
unsafe impl aya::Pod for PortWatch {}
#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding.
unsafe impl aya::Pod for ListenerLimits {}
