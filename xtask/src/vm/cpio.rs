//! A cpio archive in the "newc" format, which the kernel unpacks into its initial file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const TRAILER: &str = "TRAILER!!!";

/// An archive under construction. Files may be added in any order; their folders are added
/// automatically.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// Adds an empty folder, unless it already exists.
    pub(crate) fn folder(&mut self, path: &Path) {
        let mut folder = String::new();
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            if !folder.is_empty() {
                folder.push('/');
            }
            folder.push_str(&name.to_string_lossy());
            if self.folders.insert(folder.clone()) {
                self.entry(&folder, DIRECTORY, &[]);
            }
        }
    }

    /// Adds a file that root may run. `path` is absolute, with or without the leading slash.
    pub(crate) fn file(&mut self, path: &Path, content: &[u8]) {
        if let Some(folder) = path.parent() {
            self.folder(folder);
        }
        let name = path.strip_prefix("/").unwrap_or(path);
        self.entry(&name.to_string_lossy(), FILE, content);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let number = |length: usize| u32::try_from(length).expect("less than 4 GiB");
        let fields = [
            self.entries, // inode: two files with the same inode would be hard links
            mode,
            0, // owner
            0, // group
            1, // links
            0, // modification time
            number(content.len()),
            0, // device
            0,
            0, // device node's device
            0,
            number(name.len() + 1),
            0, // checksum: none in this format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of every entry, parsed according to the format's description.
    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < archive.len() {
            assert_eq!(&archive[at..at + 6], b"070701", "at {at}");
            let field = |index: usize| {
                let from = at + 6 + index * 8;
                let digits = std::str::from_utf8(&archive[from..from + 8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = &archive[at + 110..at + 110 + name_size];
            let (name, nul) = name.split_at(name_size - 1);
            assert_eq!(nul, [0]);
            let content = (at + 110 + name_size).next_multiple_of(4);
            entries.push((
                String::from_utf8(name.to_vec()).unwrap(),
                mode,
                archive[content..content + size].to_vec(),
            ));
            at = (content + size).next_multiple_of(4);
        }
        entries
    }

    #[test]
    fn folders_come_before_their_files_and_once() {
        let mut archive = Archive::default();
        archive.file(Path::new("/lib/x/one"), b"1");
        archive.file(Path::new("lib/x/three"), b"333");
        archive.folder(Path::new("/lib/y"));
        let expected = [
            ("lib", DIRECTORY, ""),
            ("lib/x", DIRECTORY, ""),
            ("lib/x/one", FILE, "1"),
            ("lib/x/three", FILE, "333"),
            ("lib/y", DIRECTORY, ""),
            (TRAILER, 0, ""),
        ];
        let expected = expected.map(|(n, m, c)| (n.to_owned(), m, c.as_bytes().to_vec()));
        assert_eq!(entries(&archive.finish()), expected);
    }

    #[test]
    fn entries_start_at_multiples_of_four() {
        for name in ["a", "ab", "abc", "abcd"] {
            for length in 0..5 {
                let mut archive = Archive::default();
                archive.file(Path::new(name), &vec![7; length]);
                let archive = archive.finish();
                assert_eq!(archive.len() % 4, 0);
                let read = entries(&archive);
                assert_eq!(read[0], (name.to_owned(), FILE, vec![7; length]));
                assert_eq!(read.len(), 2);
            }
        }
    }
}
