//! Everything that calls the kernel: load, attach, maps, rings, sockets. All unsafe code of the daemon
//! is here, except the reading of a record in [`decode`](crate::decode).

pub mod bpf;
pub mod clock;
pub mod host;
pub mod owner_service;
pub mod prerequisites;
pub mod sock_diag;
#[cfg(test)]
pub(crate) mod testing;
