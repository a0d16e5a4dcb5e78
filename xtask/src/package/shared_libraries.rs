//! The version of glibc that a program needs.

use std::fmt;

use anyhow::{Context as _, Result};
use object::{Endianness, elf::FileHeader64, read::elf::FileHeader as _};

/// A version of glibc, such as 2.34.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GlibcVersion(pub(super) u32, pub(super) u32);

impl fmt::Display for GlibcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The newest version of glibc whose symbols `program` uses.
///
/// # Errors
/// If it is not a 64-bit ELF file that uses glibc.
pub(super) fn glibc_version(program: &[u8]) -> Result<GlibcVersion> {
    let header = FileHeader64::<Endianness>::parse(program).context("not a 64-bit ELF file")?;
    let endian = header.endian()?;
    let sections = header.sections(endian, program)?;
    let (mut needed, link) = sections
        .gnu_verneed(endian, program)?
        .context("the program needs no version of a library")?;
    let names = sections.strings(endian, program, link)?;
    let mut newest = None;
    while let Some((_, mut symbols)) = needed.next()? {
        while let Some(symbol) = symbols.next()? {
            let name = symbol.name(endian, names)?;
            newest = newest.max(glibc_symbol_version(name));
        }
    }
    newest.context("the program does not use glibc")
}

/// The version in `GLIBC_2.34` or `GLIBC_2.2.5`.
fn glibc_symbol_version(name: &[u8]) -> Option<GlibcVersion> {
    let version = std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?;
    let mut numbers = version.split('.').map(str::parse);
    Some(GlibcVersion(numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use super::*;

    #[test]
    fn the_newest_version_counts_by_its_numbers() {
        let version = glibc_symbol_version(b"GLIBC_2.2.5");
        assert_eq!(version, Some(GlibcVersion(2, 2)));
        assert!(version < glibc_symbol_version(b"GLIBC_2.34"));
        assert_eq!(glibc_symbol_version(b"GCC_3.0"), None);
        assert_eq!(glibc_symbol_version(b"GLIBC_PRIVATE"), None);
        let tests = fs::read(env::current_exe().unwrap()).unwrap();
        let version = glibc_version(&tests).unwrap();
        assert!(version.to_string().starts_with("2."), "{version}");
    }
}
