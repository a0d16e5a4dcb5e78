//! The reader of kernel types.

use btf::{Btf, Kind};

/// Names that occur in the seeds.
const NAMES: [&str; 3] = ["inner", "low", "none"];

/// Reads `data` as BTF and searches members in its structs and unions.
///
/// # Panics
/// If a type can't be found by its own kind and name.
pub fn check(data: &[u8]) {
    let Ok(btf) = Btf::parse(data.to_vec()) else {
        return;
    };
    // One search takes bounded time, but a file may have thousands of structs.
    for found in btf.types().take(64) {
        if matches!(found.kind(), Kind::Struct | Kind::Union) {
            for name in NAMES {
                let _ = found.member(name);
            }
        }
        if let Ok(name) = str::from_utf8(found.name()) {
            let first = btf.find(found.kind(), name).expect("at least this one");
            assert!(first.id() <= found.id(), "the first of that name");
        }
    }
}
