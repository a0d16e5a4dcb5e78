//! The archive that the kernel unpacks into its initial file system.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::Path,
};

use cpio::newc::{Builder, trailer};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

/// An archive under construction. Files may be added in any order; their folders are added
/// automatically. Paths are absolute, with or without the leading slash.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// Adds an empty folder, unless it already exists.
    ///
    /// # Errors
    /// Never: it is written to memory.
    pub(crate) fn folder(&mut self, path: &Path) -> io::Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        let name = path.to_string_lossy().into_owned();
        if name.is_empty() || !self.folders.insert(name.clone()) {
            return Ok(());
        }
        self.entry(&name, DIRECTORY, &[])
    }

    /// Adds a file that root may run.
    ///
    /// # Errors
    /// If it has 4 GiB or more.
    pub(crate) fn file(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        if let Some(folder) = path.parent() {
            self.folder(folder)?;
        }
        self.entry(&path.to_string_lossy(), FILE, content)
    }

    /// The whole archive.
    ///
    /// # Errors
    /// Never: it is written to memory.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        trailer(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let len = u32::try_from(content.len()).map_err(io::Error::other)?;
        // Two files with the same inode would be hard links.
        let entry = Builder::new(name).ino(self.entries).mode(mode);
        let mut writer = entry.write(&mut self.bytes, len);
        writer.write_all(content)?;
        writer.finish().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use cpio::newc::Reader;

    use super::*;

    #[test]
    fn folders_come_before_their_files_and_once() {
        let mut archive = Archive::default();
        archive.file(Path::new("/lib/x/one"), b"1").unwrap();
        archive.file(Path::new("lib/x/three"), b"333").unwrap();
        archive.folder(Path::new("/lib/y")).unwrap();
        let archive = archive.finish().unwrap();
        let mut rest = &archive[..];
        for (name, mode, expected) in [
            ("lib", DIRECTORY, ""),
            ("lib/x", DIRECTORY, ""),
            ("lib/x/one", FILE, "1"),
            ("lib/x/three", FILE, "333"),
            ("lib/y", DIRECTORY, ""),
        ] {
            let mut reader = Reader::new(rest).unwrap();
            assert_eq!((reader.entry().name(), reader.entry().mode()), (name, mode));
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            assert_eq!(content, expected);
            rest = reader.finish().unwrap();
        }
        assert!(Reader::new(rest).unwrap().entry().is_trailer());
    }
}
