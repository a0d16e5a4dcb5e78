//! The offsets of the kernel fields that the programs read, from the running kernel's BTF.

use std::{fs, io, path::Path};

use btf::{Btf, Kind, Malformed, Shape, Type};

/// The kernel's own type information.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Byte offsets into `struct sock` (include/net/sock.h), unless another struct is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockOffsets {
    /// `__sk_common.skc_num`: the local port, host order, 16 bits.
    pub skc_num: u32,
    /// `__sk_common.skc_dport`: the remote port, network order, 16 bits.
    pub skc_dport: u32,
    /// `sk_protocol`, 16 bits.
    pub sk_protocol: u32,
    /// `__sk_common.skc_net`: a pointer to the socket's `struct net` (include/net/net_namespace.h).
    pub skc_net: u32,
    /// `ns.inum` in `struct net`: the inode of the namespace, 32 bits.
    pub net_inum: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error("cannot read {path}: {source} (the kernel needs CONFIG_DEBUG_INFO_BTF=y)")]
    Unreadable { path: String, source: io::Error },
    #[error("cannot use the kernel types in {path}: {source}")]
    Malformed { path: String, source: Malformed },
    #[error("the kernel's BTF has no struct {0}")]
    MissingStruct(&'static str),
    #[error("the kernel's BTF has no tracepoint {0}")]
    MissingTracepoint(&'static str),
    #[error("the kernel's struct {in_struct} has no field {field}")]
    MissingField {
        in_struct: &'static str,
        field: &'static str,
    },
    #[error(
        "unexpected type of the kernel's field {field}: this kernel is too new or too old for wsmon"
    )]
    WrongShape { field: &'static str },
}

impl SockOffsets {
    /// Finds the offsets in a kernel's BTF.
    pub(super) fn of(btf: &Btf) -> Result<Self, BtfError> {
        // `__sk_common` is the first member of `struct sock`, so its offsets are the same.
        let common = structure(btf, "sock_common")?;
        let sock = structure(btf, "sock")?;
        let net = structure(btf, "net")?;
        let ns_common = structure(btf, "ns_common")?;
        Ok(Self {
            skc_num: common.offset("skc_num", Shape::Integer(2))?,
            skc_dport: common.offset("skc_dport", Shape::Integer(2))?,
            sk_protocol: sock.offset("sk_protocol", Shape::Integer(2))?,
            // `possible_net_t`: a struct around the pointer.
            skc_net: common.offset("skc_net", Shape::Struct)?,
            net_inum: net.offset("ns", Shape::Struct)?
                + ns_common.offset("inum", Shape::Integer(4))?,
        })
    }
}

/// Reads a BTF file, such as [`VMLINUX_BTF`].
pub(super) fn read(path: &Path) -> Result<Btf, BtfError> {
    let shown = || path.display().to_string();
    let bytes = fs::read(path).map_err(|source| BtfError::Unreadable {
        path: shown(),
        source,
    })?;
    Btf::parse(bytes).map_err(|source| BtfError::Malformed {
        path: shown(),
        source,
    })
}

/// The id of a tracepoint's typedef.
pub(super) fn tracepoint_id(btf: &Btf, name: &'static str) -> Result<u32, BtfError> {
    btf.find(Kind::Typedef, &format!("btf_trace_{name}"))
        .map(|found| found.id())
        .ok_or(BtfError::MissingTracepoint(name))
}

/// A struct of the kernel.
struct Structure<'a> {
    name: &'static str,
    of: Type<'a>,
}

fn structure<'a>(btf: &'a Btf, name: &'static str) -> Result<Structure<'a>, BtfError> {
    btf.find(Kind::Struct, name)
        .map(|of| Structure { name, of })
        .ok_or(BtfError::MissingStruct(name))
}

impl Structure<'_> {
    /// The byte offset of a field that must have this shape.
    fn offset(&self, field: &'static str, shape: Shape) -> Result<u32, BtfError> {
        let found = self.of.member(field).ok_or(BtfError::MissingField {
            in_struct: self.name,
            field,
        })?;
        if found.shape == shape && found.bit_offset % 8 == 0 {
            Ok(found.bit_offset / 8)
        } else {
            Err(BtfError::WrongShape { field })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_the_fields_at_their_usual_offsets() {
        if !Path::new(VMLINUX_BTF).exists() {
            eprintln!("skipped: no {VMLINUX_BTF}");
            return;
        }
        let btf = read(Path::new(VMLINUX_BTF)).expect("readable BTF");
        let offsets = SockOffsets::of(&btf).expect("known fields");
        assert_eq!((offsets.skc_dport, offsets.skc_num), (12, 14));
        assert!(offsets.sk_protocol > 136, "after sock_common");
    }

    #[test]
    fn a_file_without_btf_is_refused_by_name() {
        let error = read(Path::new("/proc/version")).expect_err("no BTF");
        assert!(error.to_string().contains("/proc/version"), "{error}");
    }
}
