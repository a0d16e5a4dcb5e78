//! Metadata of a kernel module's file.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _};

/// The kernel's name for the module in a file; `None` if the file is not a module.
pub(crate) fn name(path: &Path) -> Option<String> {
    let (name, compression) = path.file_name()?.to_str()?.rsplit_once(".ko")?;
    matches!(compression, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

/// The dependencies of an uncompressed module.
///
/// # Errors
/// If it is not a module.
pub(crate) fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module).context("no ELF file")?;
    let section = file
        .section_by_name(".modinfo")
        .context("no .modinfo section")?;
    Ok(depends(section.data()?))
}

/// The wanted modules and their dependencies, each once and after its dependencies. `read` returns
/// a module's content and the names of its dependencies.
///
/// # Errors
/// If `read` fails.
/// When `read` fails.
pub(crate) fn in_order<M>(
    wanted: &[&str],
    mut read: impl FnMut(&str) -> Result<(M, Vec<String>)>,
) -> Result<Vec<(String, M)>> {
    enum Step<M> {
        Visit(String),
        Add(String, M),
    }
    let mut seen = BTreeSet::new();
    let mut ordered = Vec::new();
    let visit = |name: &&str| Step::Visit((*name).to_owned());
    let mut steps: Vec<_> = wanted.iter().rev().map(visit).collect();
    while let Some(step) = steps.pop() {
        match step {
            Step::Visit(name) if seen.insert(name.clone()) => {
                let (content, needed) = read(&name)?;
                steps.push(Step::Add(name, content));
                steps.extend(needed.into_iter().rev().map(Step::Visit));
            }
            Step::Visit(_) => {}
            Step::Add(name, content) => ordered.push((name, content)),
        }
    }
    Ok(ordered)
}

/// The value of `depends=` among the NUL-terminated strings of `.modinfo`.
fn depends(modinfo: &[u8]) -> Vec<String> {
    modinfo
        .split(|byte| *byte == 0)
        .filter_map(|entry| entry.strip_prefix(b"depends="))
        .flat_map(|list| list.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        // The kernel's build writes file names here.
        .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_the_name_that_the_kernel_uses() {
        let name = |path: &str| name(Path::new(path));
        assert_eq!(name("/lib/nf-log_x.ko.xz").as_deref(), Some("nf_log_x"));
        assert_eq!(name("tun.ko").as_deref(), Some("tun"));
        assert_eq!(name("modules.order"), None);
        assert_eq!(name("tun.ko.sig"), None);
    }

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let modinfo = b"license=GPL\0depends=nfnetlink,libcrc32c,nf-log\0name=nf_tables\0";
        assert_eq!(depends(modinfo), ["nfnetlink", "libcrc32c", "nf_log"]);
        assert!(depends(b"depends=\0license=GPL\0").is_empty());
        assert!(depends(b"").is_empty());
    }

    #[test]
    fn a_module_comes_once_and_after_its_dependencies() {
        let needed = |name: &str| match name {
            "nf_tables" => vec!["nfnetlink", "libcrc32c"],
            "nft_ct" => vec!["nf_conntrack", "nf_tables"],
            "nf_conntrack" => vec!["nf_defrag", "libcrc32c"],
            _ => vec![],
        };
        let read = |name: &str| {
            let needed = needed(name).into_iter().map(str::to_owned).collect();
            Ok(((), needed))
        };
        let ordered = in_order(&["tun", "nft_ct", "nf_tables"], read).unwrap();
        let names: Vec<_> = ordered.iter().map(|(name, ())| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "tun",
                "nf_defrag",
                "libcrc32c",
                "nf_conntrack",
                "nfnetlink",
                "nf_tables",
                "nft_ct"
            ]
        );
    }

    #[test]
    fn a_file_without_a_module_is_refused() {
        assert!(dependencies(b"not an ELF file").is_err());
    }
}
