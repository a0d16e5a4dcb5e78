//! A reader of BTF, the type information of kernels and of BPF objects: lists types, and finds the
//! offsets of struct members.
//!
//! The format is that of Documentation/bpf/btf.rst in the kernel's sources, in little-endian order.
//! No input makes this code panic, and every lookup takes bounded time.
#![forbid(unsafe_code)]

use std::{error::Error, fmt, ops::Range};

/// Types and their names.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    /// Offset of each type; the first one has id 1.
    types: Vec<usize>,
    strings: Range<usize>,
}

/// One type of a [`Btf`].
#[derive(Clone, Copy, Debug)]
pub struct Type<'a> {
    btf: &'a Btf,
    id: u32,
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Struct,
    Union,
    /// Declared here, defined elsewhere.
    Forward,
    Typedef,
    /// `const`, `volatile`, `restrict` or a tag.
    Qualifier,
    Other,
}

/// A member found by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// From the start of the outermost struct.
    pub bit_offset: u32,
    pub shape: Shape,
}

/// A member's type, behind typedefs and qualifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A whole integer, with its size in bytes.
    Integer(u32),
    Struct,
    /// Anything else, bit fields included.
    Other,
}

/// Why bytes are not valid BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Wrong magic number.
    Magic,
    /// A part lies beyond the end of the file or of its section.
    Truncated,
    /// A type of unknown length: the types behind it can't be found.
    UnknownKind(u32),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not little-endian BTF"),
            Self::Truncated => f.write_str("truncated BTF"),
            Self::UnknownKind(kind) => write!(f, "a BTF type of the unknown kind {kind}"),
        }
    }
}

impl Error for Malformed {}

const MAGIC: [u8; 2] = [0x9f, 0xeb];
/// Size of `struct btf_type`, without the data its kind adds.
const TYPE_LEN: usize = 12;
/// Size of `struct btf_member`.
const MEMBER_LEN: usize = 12;
/// Longest chain of typedefs and qualifiers around a type. The kernel has fewer than ten.
const MAX_CHAIN: usize = 32;
/// Deepest nesting of anonymous structs and unions. The kernel has fewer than ten.
const MAX_DEPTH: usize = 16;
/// Members that one search visits. The kernel's largest struct has some hundreds.
const MAX_MEMBERS: usize = 1 << 16;

impl Btf {
    /// # Errors
    /// [`Malformed`]: not BTF, truncated, or with a type of unknown kind.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Malformed> {
        if bytes.get(..2).ok_or(Malformed::Truncated)? != MAGIC {
            return Err(Malformed::Magic);
        }
        let header = |at| word(&bytes, at).map(|word| word as usize);
        let header_len = header(4)?;
        let section = |offset: usize, len: usize| {
            let begin = header_len + offset;
            let end = begin + len;
            (end <= bytes.len())
                .then_some(begin..end)
                .ok_or(Malformed::Truncated)
        };
        let types = section(header(8)?, header(12)?)?;
        let strings = section(header(16)?, header(20)?)?;
        let types = find_types(&bytes[types.clone()], types.start)?;
        Ok(Self {
            bytes,
            types,
            strings,
        })
    }

    /// All types, in the order of their ids.
    pub fn types(&self) -> impl Iterator<Item = Type<'_>> {
        (1..)
            .zip(&self.types)
            .map(|(id, &at)| Type { btf: self, id, at })
    }

    /// The first type with this kind and name.
    pub fn find(&self, kind: Kind, name: &str) -> Option<Type<'_>> {
        self.types()
            .find(|it| it.kind() == kind && it.name() == name.as_bytes())
    }

    /// `None` for id 0 (`void`).
    fn get(&self, id: u32) -> Option<Type<'_>> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        let &at = self.types.get(index)?;
        Some(Type { btf: self, id, at })
    }

    /// Up to the terminating zero; empty if the offset lies outside the strings.
    fn string(&self, offset: u32) -> &[u8] {
        let strings = &self.bytes[self.strings.clone()];
        let rest = strings.get(offset as usize..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0);
        &rest[..end.unwrap_or(rest.len())]
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, id: u32) -> Option<Type<'_>> {
        let mut current = self.get(id)?;
        for _ in 0..MAX_CHAIN {
            match current.kind() {
                Kind::Typedef | Kind::Qualifier => current = self.get(current.word(8))?,
                _ => return Some(current),
            }
        }
        None
    }

    fn shape(&self, id: u32) -> Shape {
        let Some(resolved) = self.resolve(id) else {
            return Shape::Other;
        };
        match resolved.kind() {
            Kind::Integer => {
                let (size, encoding) = (resolved.word(8), resolved.word(TYPE_LEN));
                // Number of bits and bit offset: some compilers encode bit fields this way.
                if encoding & 0x00ff_00ff == size.saturating_mul(8) {
                    Shape::Integer(size)
                } else {
                    Shape::Other
                }
            }
            Kind::Struct => Shape::Struct,
            _ => Shape::Other,
        }
    }
}

impl<'a> Type<'a> {
    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn kind(&self) -> Kind {
        match kind_of(self.word(4)) {
            1 => Kind::Integer,
            4 => Kind::Struct,
            5 => Kind::Union,
            7 => Kind::Forward,
            8 => Kind::Typedef,
            9..=11 | 18 => Kind::Qualifier,
            _ => Kind::Other,
        }
    }

    /// Empty for an anonymous type.
    pub fn name(&self) -> &'a [u8] {
        self.btf.string(self.word(0))
    }

    /// The member of a struct or union with this name; anonymous members are searched too.
    pub fn member(&self, name: &str) -> Option<Member> {
        let mut left = MAX_MEMBERS;
        self.search(name.as_bytes(), 0, MAX_DEPTH, &mut left)
    }

    /// Visits at most `left` members.
    fn search(&self, name: &[u8], base: u32, depth: usize, left: &mut usize) -> Option<Member> {
        let info = self.word(4);
        let has_bit_fields = info >> 31 != 0;
        for index in 0..vlen(info) {
            *left = left.checked_sub(1)?;
            let at = TYPE_LEN + index * MEMBER_LEN;
            let member_name = self.btf.string(self.word(at));
            let (id, packed) = (self.word(at + 4), self.word(at + 8));
            let (size, offset) = if has_bit_fields {
                (packed >> 24, packed & 0x00ff_ffff)
            } else {
                (0, packed)
            };
            let bit_offset = base.checked_add(offset)?;
            if member_name == name {
                let shape = if size == 0 {
                    self.btf.shape(id)
                } else {
                    Shape::Other
                };
                return Some(Member { bit_offset, shape });
            }
            if !member_name.is_empty() || depth == 0 {
                continue;
            }
            let nested = self.btf.resolve(id);
            let nested = nested.filter(|it| matches!(it.kind(), Kind::Struct | Kind::Union));
            let found = nested.and_then(|it| it.search(name, bit_offset, depth - 1, left));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The word at `offset` of the type. It is in bounds: `find_types` checked the length.
    fn word(&self, offset: usize) -> u32 {
        word(&self.btf.bytes, self.at + offset).unwrap_or_default()
    }
}

/// Offset of each type in the section, which starts at `base` in the file.
fn find_types(section: &[u8], base: usize) -> Result<Vec<usize>, Malformed> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < section.len() {
        let info = word(section, at + 4)?;
        found.push(base + at);
        at += TYPE_LEN + added(kind_of(info), vlen(info))?;
        if at > section.len() {
            return Err(Malformed::Truncated);
        }
    }
    Ok(found)
}

/// Bytes behind `struct btf_type`, by kind and number of entries.
fn added(kind: u32, vlen: usize) -> Result<usize, Malformed> {
    match kind {
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => Ok(0),
        // Integer, variable, declaration tag.
        1 | 14 | 17 => Ok(4),
        // Array.
        3 => Ok(12),
        // Enumeration, prototype.
        6 | 13 => Ok(vlen * 8),
        // Struct, union, data section, enumeration of 64 bits.
        4 | 5 | 15 | 19 => Ok(vlen * MEMBER_LEN),
        _ => Err(Malformed::UnknownKind(kind)),
    }
}

fn kind_of(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

fn vlen(info: u32) -> usize {
    (info & 0xffff) as usize
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    Ok(u32::from_le_bytes(*bytes.ok_or(Malformed::Truncated)?))
}
