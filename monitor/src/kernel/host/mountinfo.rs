//! Parses `/proc/self/mountinfo`, the list of mounts (proc_pid_mountinfo(5)).

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// One mount of this process's mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The part of the file system that is mounted; `net:[4026531840]` for a namespace file.
    pub(super) root: OsString,
    pub(super) mount_point: PathBuf,
    /// `cgroup2`, `nsfs`, …
    pub(super) filesystem: OsString,
}

pub(super) fn read() -> io::Result<Vec<Mount>> {
    let path = Path::new("/proc/self/mountinfo");
    fs::read(path).map(|text| parse(&text).collect())
}

/// Skips lines without the fields we need. A newer kernel may add fields, but never remove any.
pub(super) fn parse(text: &[u8]) -> impl Iterator<Item = Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line)
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw`: any number of optional
/// fields before the single dash.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = fields.nth(3)?;
    let mount_point = fields.next()?;
    let filesystem = fields.skip_while(|&field| field != b"-").nth(1)?;
    Some(Mount {
        root: unescape(root),
        mount_point: unescape(mount_point).into(),
        filesystem: unescape(filesystem),
    })
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(mut field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    while let Some((&first, rest)) = field.split_first() {
        match (first, rest.first_chunk().copied().and_then(octal)) {
            (b'\\', Some(byte)) => {
                plain.push(byte);
                field = &rest[3..];
            }
            _ => {
                plain.push(first);
                field = rest;
            }
        }
    }
    OsString::from_vec(plain)
}

fn octal(digits: [u8; 3]) -> Option<u8> {
    let value = digits.iter().try_fold(0u16, |value, digit| match digit {
        b'0'..=b'7' => Some(value * 8 + u16::from(digit - b'0')),
        _ => None,
    })?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Option<Mount> {
        parse_line(line.as_bytes())
    }

    #[test]
    fn optional_fields_may_be_missing_or_many() {
        let none = one("36 35 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw").unwrap();
        let many = one("36 35 0:30 / /sys/fs/cgroup rw shared:9 master:1 - cgroup2 c rw").unwrap();
        assert_eq!(none, many);
        assert_eq!(none.mount_point, Path::new("/sys/fs/cgroup"));
        assert_eq!(none.filesystem, "cgroup2");
    }

    #[test]
    fn escaped_paths_are_unescaped() {
        let mount = one(r"36 35 0:30 / /mnt/my\040cgroup\134x\011 rw - cgroup2 c rw").unwrap();
        assert_eq!(mount.mount_point, Path::new("/mnt/my cgroup\\x\t"));
    }

    #[test]
    fn a_backslash_without_three_octal_digits_stays() {
        assert_eq!(unescape(br"a\04"), r"a\04");
        assert_eq!(unescape(br"a\999b"), r"a\999b");
        assert_eq!(unescape(br"a\777"), r"a\777");
        assert_eq!(unescape(br"\"), r"\");
    }

    #[test]
    fn short_lines_are_skipped() {
        let text = b"36 35 0:30 /\n\n36 35 0:4 net:[4026532001] /run/netns/lb rw - nsfs nsfs rw\n36 35 0:4 / /x rw -";
        let mounts: Vec<_> = parse(text).collect();
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].root, "net:[4026532001]");
    }

    #[test]
    fn the_mounts_of_the_running_kernel_are_parsed() {
        let mounts = read().unwrap();
        assert!(mounts.iter().any(|mount| mount.filesystem == "proc"));
    }
}
