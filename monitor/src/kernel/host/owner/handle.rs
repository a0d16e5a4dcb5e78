//! Opens a cgroup by its number: `open_by_handle_at(2)` on the cgroup file system.

use std::{
    ffi::{c_int, c_long},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// `FILEID_KERNFS` in `include/linux/exportfs.h`: the handle is the number of the node, which for a
/// cgroup is the cgroup's id.
const FILEID_KERNFS: c_int = 0xfe;

/// `struct file_handle` in `include/uapi/linux/fcntl.h`, with a kernfs handle.
#[repr(C)]
struct FileHandle {
    handle_bytes: u32,
    handle_type: c_int,
    id: [u8; 8],
}

/// The directory of cgroup `id`, on the file system of `mount`. Needs CAP_DAC_READ_SEARCH.
///
/// # Errors
///
/// `ESTALE` if the cgroup does not exist (any more).
pub(super) fn open_cgroup(mount: BorrowedFd<'_>, id: u64) -> io::Result<OwnedFd> {
    let handle = FileHandle {
        handle_bytes: 8,
        handle_type: FILEID_KERNFS,
        id: id.to_ne_bytes(),
    };
    // SAFETY: the handle is a complete `struct file_handle` of the length it states, which the kernel
    // only reads; there is no other pointer.
    let opened: c_long = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw const handle,
            libc::O_PATH | libc::O_CLOEXEC | libc::O_DIRECTORY,
        )
    };
    match c_int::try_from(opened) {
        // SAFETY: a new descriptor that has no other owner.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
