//! Commands of bpf(2) that aya 0.14 does not offer: probes and queries.

use std::{
    ffi::{c_long, c_uint},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
enum BpfCommand {
    ProgLoad = 5,
    ObjGetInfoByFd = 15,
    ProgQuery = 16,
}

/// One instruction (`struct bpf_insn`).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::kernel) struct Instruction {
    code: u8,
    /// The destination in the lower four bits, the source in the upper four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

// The registers are bit fields, whose order depends on the byte order.
const _: () = assert!(cfg!(target_endian = "little"));

impl Instruction {
    pub(in crate::kernel) const EXIT: Self = Self::new(0x95, 0, 0, 0, 0);

    pub(in crate::kernel) const fn new(
        code: u8,
        destination: u8,
        source: u8,
        offset: i16,
        immediate: i32,
    ) -> Self {
        Self {
            code,
            registers: source << 4 | destination,
            offset,
            immediate,
        }
    }

    /// `destination = immediate`
    pub(in crate::kernel) const fn set(destination: u8, immediate: i32) -> Self {
        Self::new(0xb7, destination, 0, 0, immediate)
    }

    /// A call of a helper by its `enum bpf_func_id`.
    pub(in crate::kernel) const fn call(helper: i32) -> Self {
        Self::new(0x85, 0, 0, 0, helper)
    }
}

/// The program type of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum ProgramKind {
    /// `BPF_PROG_TYPE_CGROUP_SKB`.
    CgroupSkb,
    /// `BPF_PROG_TYPE_TRACING` on a tracepoint (`BPF_TRACE_RAW_TP`), by the BTF id of its typedef.
    Tracepoint { btf_id: u32 },
}

/// The verifier's verdict on a probe.
#[derive(Debug)]
pub(in crate::kernel) enum LoadVerdict {
    Loaded(OwnedFd),
    /// With the verifier's log, which is empty if the verifier never saw the program.
    Refused {
        error: io::Error,
        log: String,
    },
}

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads here.
#[repr(C)]
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
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

const _: () = assert!(size_of::<ProgLoad>() == 112);

/// Has the verifier check a program, which is never attached.
pub(in crate::kernel) fn load(kind: ProgramKind, program: &[Instruction]) -> LoadVerdict {
    const CGROUP_SKB: u32 = 8;
    const TRACING: u32 = 26;
    const TRACE_RAW_TP: u32 = 23;
    const BRIEF: u32 = 1;
    let license = c"Dual MIT/GPL";
    let mut log = [0_u8; 4096];
    let (prog_type, expected_attach_type, attach_btf_id) = match kind {
        ProgramKind::CgroupSkb => (CGROUP_SKB, 0, 0),
        ProgramKind::Tracepoint { btf_id } => (TRACING, TRACE_RAW_TP, btf_id),
    };
    let mut attr = ProgLoad {
        prog_type,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: BRIEF,
        log_size: log.len() as u32,
        log_buf: log.as_mut_ptr() as u64,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"wsmon_probe\0\0\0\0\0",
        prog_ifindex: 0,
        expected_attach_type,
        prog_btf_fd: 0,
        func_info_rec_size: 0,
        func_info: 0,
        func_info_cnt: 0,
        line_info_rec_size: 0,
        line_info: 0,
        line_info_cnt: 0,
        attach_btf_id,
    };
    // SAFETY: the pointers in `attr` are to `program`, `license` and `log`, with their lengths, and all
    // three live until the call returns.
    match unsafe { bpf(BpfCommand::ProgLoad, &mut attr) } {
        // SAFETY: a successful BPF_PROG_LOAD returns a new descriptor that has no other owner.
        Ok(fd) => LoadVerdict::Loaded(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(error) => {
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            LoadVerdict::Refused {
                error,
                log: String::from_utf8_lossy(&log[..end]).into_owned(),
            }
        }
    }
}

#[repr(C)]
struct ObjGetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
}

/// Whether a loaded program was compiled to machine code. Without `CAP_BPF` the kernel always reports
/// that it was not.
pub(in crate::kernel) fn is_jited(program: BorrowedFd<'_>) -> io::Result<bool> {
    let mut info = ProgInfo::default();
    let mut attr = ObjGetInfo {
        bpf_fd: program.as_raw_fd() as u32,
        info_len: size_of::<ProgInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: `info` points to that many writable bytes, which live until the call returns.
    unsafe { bpf(BpfCommand::ObjGetInfoByFd, &mut attr) }?;
    Ok(info.jited_prog_len > 0)
}

#[repr(C)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    /// `union bpf_attr` is aligned to eight bytes.
    padding: u32,
}

/// The programs attached to one cgroup at one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Query {
    /// `BPF_F_ALLOW_*`, as given when the first program was attached.
    pub(in crate::kernel) attach_flags: u32,
    pub(in crate::kernel) program_ids: Vec<u32>,
}

/// The programs attached to `cgroup` itself. Needs `CAP_NET_ADMIN`.
pub(in crate::kernel) fn query(cgroup: impl AsFd, attach_type: u32) -> io::Result<Query> {
    // `BPF_CGROUP_MAX_PROGS`
    let mut ids = [0_u32; 64];
    let mut attr = ProgQuery {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        padding: 0,
    };
    // SAFETY: `prog_ids` points to `prog_cnt` writable integers, which live until the call returns.
    unsafe { bpf(BpfCommand::ProgQuery, &mut attr) }?;
    Ok(Query {
        attach_flags: attr.attach_flags,
        program_ids: ids.into_iter().take(attr.prog_cnt as usize).collect(),
    })
}

/// # Safety
/// Every pointer in `attr` must be valid for what `command` reads and writes there.
unsafe fn bpf<T>(command: BpfCommand, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is as long as the size says; the caller guarantees its pointers.
    let result: c_long = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as c_uint,
            &raw mut *attr,
            size_of::<T>() as c_uint,
        )
    };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
