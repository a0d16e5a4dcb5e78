//! The file system of the image.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{XattrFlags, setxattr};

use super::{below_root, debian_files, libraries::Libraries};
use crate::{
    cross::Target,
    dependencies,
    dist::sbom,
    files::{read, write},
    release_build::PROGRAM,
    third_party, workspace,
};

/// The folder of the licences and of the bill of materials.
const DOCUMENTS: &str = "usr/share/doc/wsmon";

/// The root certificates of the package, without those that were added to this machine.
const CERTIFICATES: &str = "/usr/share/ca-certificates/mozilla";

/// The licences of what is not a crate: the kernel programs, glibc, libgcc, the root certificates.
const OTHER_LICENCES: [&str; 4] = [
    "MIT OR GPL-2.0-only",
    "LGPL-2.1-or-later",
    "GPL-3.0-or-later WITH GCC-exception-3.1",
    "MPL-2.0",
];

/// Every capability that wsmon can use; the container's bounding set says which of them it gets. Numbers of
/// `include/uapi/linux/capability.h`.
const CAPABILITIES: [u32; 6] = [
    2,  // CAP_DAC_READ_SEARCH
    12, // CAP_NET_ADMIN
    19, // CAP_SYS_PTRACE
    21, // CAP_SYS_ADMIN
    38, // CAP_PERFMON
    39, // CAP_BPF
];

/// Writes all files below `folder`, and returns the licences in the image as an SPDX expression. `created` is in
/// seconds since 1970.
///
/// # Errors
/// If a file cannot be read or written, or is not one of Debian.
pub(super) fn stage(folder: &Path, target: &Target, wsmon: &[u8], created: u64) -> Result<String> {
    let tree = Tree { folder };
    let program = Path::new("usr/bin").join(PROGRAM);
    tree.write(&program, wsmon, 0o755)?;
    setxattr(
        folder.join(&program),
        "security.capability",
        &permitted(&CAPABILITIES),
        XattrFlags::empty(),
    )
    .context("could not give the program its capabilities")?;

    let libraries = Libraries::of(wsmon, &debian_files::library_folders(target))?;
    for (name, file) in &libraries.files {
        // The kernel looks for the loader at one place, and the loader for the others in /lib.
        let place = match libraries.interpreter.file_name() {
            Some(loader) if loader == name.as_str() => below_root(&libraries.interpreter),
            _ => Path::new("lib").join(name),
        };
        tree.write(&place, &read(file)?, 0o755)?;
    }
    tree.write("etc/ssl/certs/ca-certificates.crt", &certificates()?, 0o644)?;
    let mut packages = debian_files::packages_of(libraries.files.values().map(AsRef::as_ref))?;
    packages.insert("ca-certificates".to_owned());
    for package in &packages {
        for (path, content) in debian_files::accompanying(package)? {
            tree.write(path, &content, 0o644)?;
        }
    }
    // The distribution of these packages, for scanners.
    tree.write(
        "etc/os-release",
        &read(Path::new("/etc/os-release"))?,
        0o644,
    )?;

    let root = workspace::root();
    for name in ["passwd", "group", "nsswitch.conf"] {
        let path = Path::new("etc").join(name);
        let content = read(&root.join("deploy/container").join(&path))?;
        tree.write(path, &content, 0o644)?;
    }
    let documents = Path::new(DOCUMENTS);
    for name in [
        "LICENSE.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "LICENSE-GPL-2.0",
    ] {
        tree.write(documents.join(name), &read(&root.join(name))?, 0o644)?;
    }
    let third_party = third_party::licences(target.name)?;
    tree.write(
        documents.join(third_party::FILE),
        third_party.as_bytes(),
        0o644,
    )?;
    sbom::write(&folder.join(documents), PROGRAM, target.name, created)?;
    // For the control socket. runc gives a tmpfs the mode of the directory that it covers.
    let run = folder.join("run");
    fs::create_dir(&run)
        .and_then(|()| fs::set_permissions(&run, Permissions::from_mode(0o1777)))
        .context("could not make the folder run")?;
    let crates = dependencies::of(target.name)?;
    let of_crates = crates
        .into_iter()
        .filter_map(|dependency| dependency.license);
    Ok(expression(
        of_crates.chain(OTHER_LICENCES.map(str::to_owned)),
    ))
}

/// The extended attribute that permits these capabilities to a program: `struct vfs_cap_data`, revision 2.
/// None is effective, because a kernel does not execute a program that makes a capability effective which
/// the container may not have. wsmon makes effective what it got.
fn permitted(capabilities: &[u32]) -> [u8; 20] {
    const REVISION_2: u32 = 0x0200_0000;
    let all = capabilities
        .iter()
        .fold(0_u64, |all, number| all | 1 << number);
    let words = [REVISION_2, all as u32, 0, (all >> 32) as u32, 0];
    let mut attribute = [0; 20];
    for (bytes, word) in attribute.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    attribute
}

fn certificates() -> Result<Vec<u8>> {
    let entries = fs::read_dir(CERTIFICATES)
        .with_context(|| format!("could not list {CERTIFICATES}; install ca-certificates"))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    ensure!(!files.is_empty(), "no certificate in {CERTIFICATES}");
    let mut bundle = Vec::new();
    for file in files {
        bundle.extend(read(&file)?);
    }
    Ok(bundle)
}

/// All of them apply. An alternative is in parentheses, as `AND` binds more tightly than `OR`.
fn expression(licences: impl Iterator<Item = String>) -> String {
    let licences: BTreeSet<_> = licences.collect();
    let terms = licences
        .into_iter()
        .map(|licence| match licence.contains(" OR ") {
            true => format!("({licence})"),
            false => licence,
        });
    terms.collect::<Vec<_>>().join(" AND ")
}

/// Files that belong to root, below a folder.
struct Tree<'a> {
    folder: &'a Path,
}

impl Tree<'_> {
    fn write(&self, path: impl AsRef<Path>, content: &[u8], mode: u32) -> Result<()> {
        write(&self.folder.join(path), content, mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_permitted_and_not_effective() {
        // As `setcap cap_net_admin,cap_bpf=p` writes it.
        let attribute = permitted(&[12, 39]);
        let expected = [
            0, 0, 0, 2, 0, 0x10, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(attribute, expected);
    }

    #[test]
    fn alternatives_stay_together_in_the_expression() {
        let licences = ["MIT", "MIT OR Apache-2.0", "ISC", "MIT"].map(str::to_owned);
        assert_eq!(
            expression(licences.into_iter()),
            "ISC AND MIT AND (MIT OR Apache-2.0)"
        );
    }

    #[test]
    fn the_user_of_the_image_is_the_same_everywhere() {
        let file = |name: &str| {
            let path = workspace::root().join("deploy/container").join(name);
            fs::read_to_string(path).unwrap()
        };
        let user = ":65532:";
        assert!(file("etc/passwd").contains(user) && file("etc/group").contains(user));
        assert!(file("Containerfile").contains("USER 65532:65532\n"));
    }
}
