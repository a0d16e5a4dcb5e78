//! Everything that talks to the running kernel.

pub mod cgroup;
pub mod clock;
pub mod inet_diag;
mod mountinfo;
pub mod netns;
pub mod prerequisites;
pub mod seed;
pub mod sock_diag;
pub mod tcp_info;
