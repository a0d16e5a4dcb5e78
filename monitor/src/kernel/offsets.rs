//! Where the few fields lie that the programs read, from the running kernel's BTF.

use std::path::Path;

use btf_rs::{Btf, BtfType, Struct, Type};

/// The kernel's own type information.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Byte offsets into `struct sock` (include/net/sock.h), where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockOffsets {
    /// `__sk_common.skc_num`: the local port, host order, 16 bits.
    pub skc_num: u32,
    /// `__sk_common.skc_dport`: the remote port, network order, 16 bits.
    pub skc_dport: u32,
    /// `sk_protocol`, 16 bits.
    pub sk_protocol: u32,
    /// `__sk_common.skc_net`: a pointer to the `struct net` (include/net/net_namespace.h) it is in.
    pub skc_net: u32,
    /// `ns.inum` in `struct net`: the inode of the namespace, 32 bits.
    pub net_inum: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error("cannot read {path}: {source} (the kernel needs CONFIG_DEBUG_INFO_BTF=y)")]
    Unreadable { path: String, source: btf_rs::Error },
    #[error("the kernel's BTF is inconsistent: {0}")]
    Inconsistent(#[from] btf_rs::Error),
    #[error("the kernel's BTF has no struct {0}")]
    NoStruct(&'static str),
    #[error("the kernel's BTF has no tracepoint {0}")]
    NoTracepoint(&'static str),
    #[error("the kernel's struct {in_struct} has no field {field}")]
    NoField {
        in_struct: &'static str,
        field: &'static str,
    },
    #[error(
        "the kernel's field {field} is not of the type that it has had for years: this kernel is too new or too old for wsmon"
    )]
    WrongShape { field: &'static str },
}

impl SockOffsets {
    /// Looks the offsets up in a kernel's BTF.
    pub(super) fn of(btf: &Btf) -> Result<Self, BtfError> {
        // `__sk_common` is the first member of `struct sock`, so its offsets are the same.
        let common = structure(btf, "sock_common")?;
        let sock = structure(btf, "sock")?;
        let net = structure(btf, "net")?;
        let ns_common = structure(btf, "ns_common")?;
        let ns = field(btf, &net, "net", "ns", Shape::Struct)?;
        Ok(Self {
            skc_num: field(btf, &common, "sock_common", "skc_num", Shape::Integer(2))?,
            skc_dport: field(btf, &common, "sock_common", "skc_dport", Shape::Integer(2))?,
            sk_protocol: field(btf, &sock, "sock", "sk_protocol", Shape::Integer(2))?,
            // `possible_net_t`: a struct around the pointer.
            skc_net: field(btf, &common, "sock_common", "skc_net", Shape::Struct)?,
            net_inum: ns + field(btf, &ns_common, "ns_common", "inum", Shape::Integer(4))?,
        })
    }
}

/// Reads a BTF file, such as [`VMLINUX_BTF`].
pub(super) fn read(path: &Path) -> Result<Btf, BtfError> {
    Btf::from_file(path).map_err(|source| BtfError::Unreadable {
        path: path.display().to_string(),
        source,
    })
}

/// The id of the typedef that stands for a tracepoint.
pub(super) fn tracepoint_id(btf: &Btf, name: &'static str) -> Result<u32, BtfError> {
    let ids = btf
        .resolve_ids_by_name(&format!("btf_trace_{name}"))
        .unwrap_or_default();
    for id in ids {
        if matches!(btf.resolve_type_by_id(id)?, Type::Typedef(_)) {
            return Ok(id);
        }
    }
    Err(BtfError::NoTracepoint(name))
}

fn structure(btf: &Btf, name: &'static str) -> Result<Struct, BtfError> {
    btf.resolve_types_by_name(name)?
        .into_iter()
        .find_map(|found| match found {
            Type::Struct(structure) => Some(structure),
            _ => None,
        })
        .ok_or(BtfError::NoStruct(name))
}

/// The byte offset of a field that must have this shape.
fn field(
    btf: &Btf,
    of: &Struct,
    in_struct: &'static str,
    field: &'static str,
    shape: Shape,
) -> Result<u32, BtfError> {
    let found = find(btf, of, 0, field)?.ok_or(BtfError::NoField { in_struct, field })?;
    if found.shape == shape && found.bit_offset % 8 == 0 {
        Ok(found.bit_offset / 8)
    } else {
        Err(BtfError::WrongShape { field })
    }
}

/// A member that was found by name.
struct Member {
    /// From the start of the outermost struct.
    bit_offset: u32,
    shape: Shape,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A whole integer, by its size in bytes.
    Integer(usize),
    Struct,
    Other,
}

/// Looks for a member by name, also inside anonymous structs and unions.
fn find(btf: &Btf, of: &Struct, base: u32, name: &str) -> Result<Option<Member>, BtfError> {
    for member in &of.members {
        let bit_offset = base + member.bit_offset();
        // The kernel leaves the name of an anonymous member empty.
        let member_name = btf.resolve_name(member).unwrap_or_default();
        if member_name == name {
            let whole = member.bitfield_size().unwrap_or(0) == 0;
            let shape = match whole {
                true => shape(btf, member)?,
                false => Shape::Other,
            };
            return Ok(Some(Member { bit_offset, shape }));
        }
        if !member_name.is_empty() {
            continue;
        }
        let nested = match btf.resolve_chained_type(member)? {
            Type::Struct(nested) => nested,
            Type::Union(nested) => nested,
            _ => continue,
        };
        if let Some(found) = find(btf, &nested, bit_offset, name)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What is behind typedefs and qualifiers.
fn shape(btf: &Btf, of: &dyn BtfType) -> Result<Shape, BtfError> {
    let mut current = btf.resolve_chained_type(of)?;
    loop {
        current = match current {
            Type::Int(int) => return Ok(Shape::Integer(int.size())),
            Type::Struct(_) => return Ok(Shape::Struct),
            Type::Typedef(inner) => btf.resolve_chained_type(&inner)?,
            Type::Const(inner) | Type::Volatile(inner) => btf.resolve_chained_type(&inner)?,
            _ => return Ok(Shape::Other),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_the_fields_where_they_have_been_for_a_decade() {
        if !Path::new(VMLINUX_BTF).exists() {
            eprintln!("skipped: no {VMLINUX_BTF}");
            return;
        }
        let btf = read(Path::new(VMLINUX_BTF)).expect("readable BTF");
        let offsets = SockOffsets::of(&btf).expect("known fields");
        assert_eq!((offsets.skc_dport, offsets.skc_num), (12, 14));
        assert!(offsets.sk_protocol > 136, "behind sock_common");
    }

    #[test]
    fn a_file_that_is_no_btf_is_refused_by_name() {
        let error = read(Path::new("/proc/version")).err().expect("no BTF");
        assert!(error.to_string().contains("/proc/version"), "{error}");
    }
}
