//! Everything that calls the kernel: load, attach, maps, rings, sockets. All unsafe code of the daemon
//! is here, except the reading of a record in [`decode`](crate::decode).

pub mod attachments;
mod bpf;
pub mod cgroup;
pub mod clock;
mod duty_cycle;
pub mod features;
pub mod inet_diag;
pub mod loader;
pub mod maps;
mod mountinfo;
pub mod netns;
pub mod offsets;
pub mod owner;
mod port_filter;
pub mod prerequisites;
pub mod refusal;
mod ring_peak;
pub mod scan;
mod seed;
pub mod snapshot_pages;
pub mod snapshot_sweep;
pub mod sock_destroy;
pub mod sock_diag;
pub mod socket_finder;
pub mod socket_query;
pub mod tcp_info;
#[cfg(test)]
mod testing;
