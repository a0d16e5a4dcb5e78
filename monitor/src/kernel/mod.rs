//! Everything that talks to the running kernel.

pub mod cgroup;
pub mod clock;
mod mountinfo;
pub mod netns;
pub mod prerequisites;
pub mod seed;
pub mod sock_diag;
pub mod tcp_info;
