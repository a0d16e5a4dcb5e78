//! The reader of kernel types.

use btf::{Btf, Kind};

/// Names that the seeds have.
const NAMES: [&str; 3] = ["inner", "low", "none"];

/// Reads `data` as BTF, and looks members up in structs and unions.
///
/// # Panics
/// When a type can't be found by the kind and name that it has.
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
