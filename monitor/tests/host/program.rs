//! Small foreign programs, attached with bpf(2) as systemd and Cilium do.

use std::{
    ffi::c_uint,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

/// How a program shares its cgroup (`include/uapi/linux/bpf.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Sharing {
    Exclusive = 0,
    AllowOverride = 1,
    AllowMulti = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Hook {
    Ingress = 0,
    Egress = 1,
}

/// [`Program::dropping_long_packets`] drops packets above this length.
pub(crate) const LONG: usize = 1000;

/// The programs' name in the kernel.
pub(crate) const NAME: &str = "wsmon_test_drop";

/// A loaded program. Once attached, it stays until the cgroup is removed.
pub(crate) struct Program(OwnedFd);

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct ProgAttach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

impl Program {
    /// A filter that passes the packets of handshakes and small frames, and drops long ones.
    pub(crate) fn dropping_long_packets(hook: Hook) -> Self {
        const PROG_LOAD: c_uint = 5;
        const CGROUP_SKB: u32 = 8;
        // struct bpf_insn: code, registers, offset, immediate.
        let instructions: [u64; 5] = [
            instruction(0x61, 0x12, 0, 0),           // r2 = skb->len
            instruction(0xb7, 0x00, 0, 0),           // r0 = 0
            instruction(0x25, 0x02, 1, LONG as u32), // if r2 > LONG goto exit
            instruction(0xb7, 0x00, 0, 1),           // r0 = 1
            instruction(0x95, 0x00, 0, 0),           // exit
        ];
        let mut prog_name = [0; 16];
        prog_name[..NAME.len()].copy_from_slice(NAME.as_bytes());
        let license = c"GPL";
        let mut attr = ProgLoad {
            prog_type: CGROUP_SKB,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            prog_name,
            expected_attach_type: hook as u32,
            ..ProgLoad::default()
        };
        // SAFETY: the instructions and the licence live until the call returns.
        let fd = unsafe { bpf(PROG_LOAD, &mut attr) }.expect("needs root: loads a program");
        // SAFETY: the call returned a new descriptor that has no other owner.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    pub(crate) fn attach(&self, cgroup: &Path, hook: Hook, sharing: Sharing) {
        const PROG_ATTACH: c_uint = 8;
        let cgroup = File::open(cgroup).unwrap();
        let mut attr = ProgAttach {
            target_fd: cgroup.as_raw_fd() as u32,
            attach_bpf_fd: self.0.as_raw_fd() as u32,
            attach_type: hook as u32,
            attach_flags: sharing as u32,
        };
        // SAFETY: it contains no pointers.
        unsafe { bpf(PROG_ATTACH, &mut attr) }.expect("room for the program");
    }
}

fn instruction(code: u8, registers: u8, offset: i16, immediate: u32) -> u64 {
    u64::from(code)
        | u64::from(registers) << 8
        | u64::from(offset as u16) << 16
        | u64::from(immediate) << 32
}

/// # Safety
/// Every pointer in `attr` must be valid for the command's use of it.
unsafe fn bpf<T>(command: c_uint, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the size is that of `attr`; the caller guarantees its pointers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut *attr,
            size_of::<T>() as c_uint,
        )
    };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
