//! Hand-made BTF, valid and damaged.

use btf::{Btf, Kind, Malformed, Member, Shape};

const INTEGER: u32 = 1;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const CONST: u32 = 10;
/// In `info`: member offsets carry bit-field sizes.
const BIT_FIELDS: u32 = 1 << 31;

/// Builds BTF.
#[derive(Default)]
struct Maker {
    types: Vec<u32>,
    strings: Vec<u8>,
}

impl Maker {
    fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, info: u32, size_or_type: u32, rest: &[u32]) -> &mut Self {
        let name = self.name(name);
        self.types.extend([name, info, size_or_type]);
        self.types.extend(rest);
        self
    }

    /// An integer with `bits` bits in `size` bytes.
    fn integer(&mut self, size: u32, bits: u32) -> &mut Self {
        self.add("int", INTEGER << 24, size, &[bits])
    }

    fn record(&mut self, kind: u32, name: &str, members: &[(&str, u32, u32)]) -> &mut Self {
        let info = kind << 24 | members.len() as u32;
        let rest: Vec<u32> = members
            .iter()
            .flat_map(|&(name, id, offset)| [self.name(name), id, offset])
            .collect();
        self.add(name, info, 0, &rest)
    }

    fn bytes(&self) -> Vec<u8> {
        let types = self.types.len() as u32 * 4;
        let header = [0x0001_eb9f, 24, 0, types, types, self.strings.len() as u32];
        let words = header.iter().chain(&self.types);
        let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(&self.strings);
        bytes
    }

    fn parse(&self) -> Btf {
        Btf::parse(self.bytes()).unwrap()
    }
}

/// Ids: 1 `u16`, 2 a typedef of it, 3 a const of that, 4 an anonymous union, 5 `sock`.
fn sample() -> Maker {
    let mut maker = Maker::new();
    maker
        .integer(2, 16)
        .add("u16", TYPEDEF << 24, 1, &[])
        .add("", CONST << 24, 2, &[])
        .record(UNION, "", &[("pair", 1, 0), ("low", 3, 16)])
        .record(
            STRUCT,
            "sock",
            &[("first", 1, 0), ("", 4, 64), ("inner", 5, 96)],
        );
    maker
}

#[test]
fn members_are_found_in_anonymous_unions_and_behind_typedefs() {
    let btf = sample().parse();
    let sock = btf.find(Kind::Struct, "sock").unwrap();
    assert_eq!((sock.id(), sock.name()), (5, &b"sock"[..]));
    let found = |name| sock.member(name).map(|it| (it.bit_offset, it.shape));
    assert_eq!(found("first"), Some((0, Shape::Integer(2))));
    assert_eq!(found("low"), Some((80, Shape::Integer(2))));
    assert_eq!(found("inner"), Some((96, Shape::Struct)));
    assert_eq!(found("none"), None);
    assert!(btf.find(Kind::Struct, "u16").is_none(), "of another kind");
    assert_eq!(btf.find(Kind::Typedef, "u16").unwrap().id(), 2);
}

#[test]
fn every_encoding_of_a_bit_field_differs_from_a_whole_integer() {
    let mut maker = Maker::new();
    maker.integer(4, 32).integer(4, 3);
    let name = maker.name("bits");
    let member = [name, 1, 3 << 24 | 40];
    maker.add("new", BIT_FIELDS | STRUCT << 24 | 1, 8, &member);
    maker.record(STRUCT, "old", &[("bits", 2, 40)]);
    let btf = maker.parse();
    for name in ["new", "old"] {
        let found = btf.find(Kind::Struct, name).unwrap().member("bits");
        let expected = Member {
            bit_offset: 40,
            shape: Shape::Other,
        };
        assert_eq!(found, Some(expected), "{name}");
    }
}

#[test]
fn a_search_ends_in_types_that_contain_themselves() {
    // Each of them has a hundred anonymous members of its own type.
    let mut maker = Maker::new();
    maker.record(STRUCT, "deep", &[("", 1, 8); 100]);
    maker.add("loop", TYPEDEF << 24, 2, &[]);
    maker.record(STRUCT, "looped", &[("it", 2, 0)]);
    let btf = maker.parse();
    let deep = btf.find(Kind::Struct, "deep").unwrap();
    assert_eq!(deep.member("none"), None);
    let looped = btf.find(Kind::Struct, "looped").unwrap();
    assert_eq!(looped.member("it").unwrap().shape, Shape::Other);
}

#[test]
fn truncated_and_foreign_bytes_are_refused() {
    let whole = sample().bytes();
    assert_eq!(Btf::parse(b"Linux".to_vec()).unwrap_err(), Malformed::Magic);
    for len in 0..whole.len() {
        let error = Btf::parse(whole[..len].to_vec()).unwrap_err();
        assert_eq!(error, Malformed::Truncated, "{len} bytes");
    }
    let mut maker = Maker::new();
    maker.add("new", 31 << 24, 0, &[]);
    let unknown = Btf::parse(maker.bytes()).unwrap_err();
    assert_eq!(unknown, Malformed::UnknownKind(31));
    // More members than the section has room for.
    let mut maker = Maker::new();
    maker.add("long", STRUCT << 24 | 9, 0, &[0; 24]);
    assert_eq!(Btf::parse(maker.bytes()).unwrap_err(), Malformed::Truncated);
}

#[test]
fn ids_and_names_out_of_range_are_ignored() {
    let mut maker = Maker::new();
    maker.record(STRUCT, "s", &[("m", 77, 0), ("v", 0, 32)]);
    let unnamed = 1 << 20;
    maker.types[0] = unnamed;
    let btf = maker.parse();
    let structure = btf.types().next().unwrap();
    assert_eq!(structure.name(), b"");
    assert_eq!(structure.member("m").unwrap().shape, Shape::Other);
    assert_eq!(structure.member("v").unwrap().shape, Shape::Other);
}
