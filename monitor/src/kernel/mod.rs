//! Everything that touches the kernel: load, attach, maps, rings, sockets. The only unsafe code
//! of the daemon is here.

pub mod attached;
mod bpf;
pub mod cgroup;
pub mod clock;
pub mod decode;
pub mod destroy;
mod detail;
pub mod exact;
pub mod features;
mod fill;
pub mod inet_diag;
pub mod load;
pub mod lookup;
pub mod maps;
mod mountinfo;
pub mod netns;
pub mod offsets;
pub mod owner;
mod pace;
pub mod pages;
mod port_filter;
pub mod prerequisites;
pub mod refusal;
pub mod scan;
mod seed;
pub mod sock_diag;
pub mod sweep;
pub mod tcp_info;
#[cfg(test)]
mod testing;
