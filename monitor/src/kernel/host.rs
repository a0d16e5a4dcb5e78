//! The host around the sockets: cgroups, network namespaces, processes.

pub mod cgroup;
pub(super) mod duty_cycle;
pub(crate) mod generations;
mod mountinfo;
pub mod netns;
pub mod open_files;
pub mod own_process;
pub mod owner;
pub mod port_forwards;
pub(super) mod sockstat;

use rustix::system::uname;

/// The release of the running kernel, for example `6.1.0-37-amd64`.
pub fn kernel_release() -> String {
    uname().release().to_string_lossy().into_owned()
}
