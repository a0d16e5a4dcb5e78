//! Where the few `struct sock` fields lie that the programs read, from the running kernel's BTF.

use std::path::Path;

use btf_rs::{Btf, BtfType, Struct, Type};

/// The kernel's own type information.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Byte offsets into `struct sock` (include/net/sock.h); each field is 16 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockOffsets {
    /// `__sk_common.skc_num`: the local port, host order.
    pub skc_num: u32,
    /// `__sk_common.skc_dport`: the remote port, network order.
    pub skc_dport: u32,
    /// `sk_protocol`
    pub sk_protocol: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error("cannot read {path}: {source} (the kernel needs CONFIG_DEBUG_INFO_BTF=y)")]
    Unreadable { path: String, source: btf_rs::Error },
    #[error("the kernel's BTF is inconsistent: {0}")]
    Inconsistent(#[from] btf_rs::Error),
    #[error("the kernel's BTF has no struct {0}")]
    NoStruct(&'static str),
    #[error("the kernel's struct {in_struct} has no field {field}")]
    NoField {
        in_struct: &'static str,
        field: &'static str,
    },
    #[error(
        "the kernel's field {field} is not a plain 16-bit integer: this kernel is too new or too old for wsmon"
    )]
    WrongShape { field: &'static str },
}

impl SockOffsets {
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        Self::of_btf(Path::new(VMLINUX_BTF))
    }

    /// Reads the offsets from a BTF file.
    pub fn of_btf(path: &Path) -> Result<Self, BtfError> {
        let btf = Btf::from_file(path).map_err(|source| BtfError::Unreadable {
            path: path.display().to_string(),
            source,
        })?;
        // `__sk_common` is the first member of `struct sock`, so its offsets are the same.
        let common = structure(&btf, "sock_common")?;
        let sock = structure(&btf, "sock")?;
        Ok(Self {
            skc_num: u16_field(&btf, &common, "sock_common", "skc_num")?,
            skc_dport: u16_field(&btf, &common, "sock_common", "skc_dport")?,
            sk_protocol: u16_field(&btf, &sock, "sock", "sk_protocol")?,
        })
    }
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

fn u16_field(
    btf: &Btf,
    of: &Struct,
    in_struct: &'static str,
    field: &'static str,
) -> Result<u32, BtfError> {
    let found = find(btf, of, 0, field)?.ok_or(BtfError::NoField { in_struct, field })?;
    match found {
        Member {
            bit_offset,
            size: 2,
        } if bit_offset % 8 == 0 => Ok(bit_offset / 8),
        _ => Err(BtfError::WrongShape { field }),
    }
}

/// A member that was found by name.
struct Member {
    /// From the start of the outermost struct.
    bit_offset: u32,
    /// Bytes; 0 for anything but a whole integer.
    size: usize,
}

/// Looks for a member by name, also inside anonymous structs and unions.
fn find(btf: &Btf, of: &Struct, base: u32, name: &str) -> Result<Option<Member>, BtfError> {
    for member in &of.members {
        let bit_offset = base + member.bit_offset();
        // The kernel leaves the name of an anonymous member empty.
        let member_name = btf.resolve_name(member).unwrap_or_default();
        if member_name == name {
            let whole = member.bitfield_size().unwrap_or(0) == 0;
            let size = if whole { integer_size(btf, member)? } else { 0 };
            return Ok(Some(Member { bit_offset, size }));
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

/// The size of an integer behind typedefs and qualifiers; 0 if it is no integer.
fn integer_size(btf: &Btf, of: &dyn BtfType) -> Result<usize, BtfError> {
    let mut current = btf.resolve_chained_type(of)?;
    loop {
        current = match current {
            Type::Int(int) => return Ok(int.size()),
            Type::Typedef(inner) => btf.resolve_chained_type(&inner)?,
            Type::Const(inner) | Type::Volatile(inner) => btf.resolve_chained_type(&inner)?,
            _ => return Ok(0),
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
        let offsets = SockOffsets::of_running_kernel().expect("readable BTF");
        assert_eq!((offsets.skc_dport, offsets.skc_num), (12, 14));
        assert!(offsets.sk_protocol > 136, "behind sock_common");
    }

    #[test]
    fn a_file_that_is_no_btf_is_refused_by_name() {
        let error = SockOffsets::of_btf(Path::new("/proc/version")).expect_err("no BTF");
        assert!(error.to_string().contains("/proc/version"), "{error}");
    }
}
