//! Kernel types in miniature: a struct with an anonymous union, and one with a bit field.

/// Size of `struct btf_header`.
const HEADER_LEN: u32 = 24;

const STRINGS: &[u8] = b"\0u16\0low\0sock\0inner\0";
const U16: u32 = 1;
const LOW: u32 = 5;
const SOCK: u32 = 9;
const INNER: u32 = 14;

pub(super) fn files() -> Vec<(&'static str, Vec<u8>)> {
    let nested = [
        // 1: a 16-bit integer, 2: a typedef of it, 3: a `const` of that.
        &[U16, 1 << 24, 2, 16][..],
        &[U16, 8 << 24, 1],
        &[0, 10 << 24, 2],
        // 4: an anonymous union with one member.
        &[0, (5 << 24) | 1, 2, LOW, 3, 0],
        // 5: a struct that contains that union and itself.
        &[SOCK, (4 << 24) | 2, 16, 0, 4, 64, INNER, 5, 96],
    ]
    .concat();
    // 6: a struct with a 3-bit bit field.
    let bit_field = [SOCK, (1 << 31) | (4 << 24) | 1, 4, LOW, 1, (3 << 24) | 5];
    vec![
        ("bit-field", file(&[&nested[..], &bit_field].concat())),
        ("empty", file(&[])),
        ("nested", file(&nested)),
    ]
}

fn file(types: &[u32]) -> Vec<u8> {
    let types_len = types.len() as u32 * 4;
    let strings_len = STRINGS.len() as u32;
    // Magic number and version, then the header's length, and offset and length of both sections.
    let header = [
        0x0001_eb9f,
        HEADER_LEN,
        0,
        types_len,
        types_len,
        strings_len,
    ];
    let words = header.iter().chain(types);
    let bytes = words.flat_map(|word| word.to_le_bytes());
    bytes.chain(STRINGS.iter().copied()).collect()
}
