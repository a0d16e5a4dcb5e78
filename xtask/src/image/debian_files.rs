//! Files of Debian's packages, and what has to come with them: licences and versions.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::below_root;
use crate::{cross::Target, files::read, root::Prerequisite, workspace};

const COMMON_LICENCES: &str = "/usr/share/common-licenses";

/// Where this machine keeps the libraries for `target`.
pub(super) fn library_folders(target: &Target) -> Vec<PathBuf> {
    let triple = target.name.replace("-unknown", "");
    match target.is_native() {
        true => ["/lib", "/usr/lib"]
            .map(|folder| Path::new(folder).join(&triple))
            .into(),
        // Of the packages with which programs are linked for another processor.
        false => vec![Path::new("/usr").join(triple).join("lib")],
    }
}

/// The names of the packages that own these files, each once.
///
/// # Errors
/// [`Prerequisite`] if dpkg does not know a file.
pub(super) fn packages_of<'a>(
    files: impl IntoIterator<Item = &'a Path>,
) -> Result<BTreeSet<String>> {
    files.into_iter().map(package_of).collect()
}

fn package_of(file: &Path) -> Result<String> {
    let path = file.to_string_lossy();
    // dpkg knows a file by the path in the package, before or after the merge of /lib and /usr/lib.
    let other = match path.strip_prefix("/usr") {
        Some(rest) => rest.to_owned(),
        None => format!("/usr{path}"),
    };
    let known = [path.as_ref(), other.as_str()]
        .into_iter()
        .find_map(|path| workspace::answer("dpkg-query", &["--search", path]));
    let package = known.as_deref().and_then(|line| line.split_once(": "));
    match package {
        Some((package, _)) => Ok(package.to_owned()),
        None => Err(Prerequisite {
            missing: format!("no Debian package has {path}, whose licence belongs into the image"),
            remedy: vec!["build the image on Debian or Ubuntu".to_owned()],
        }
        .into()),
    }
}

/// What comes with files of `package` in the image, as paths below its root: the copyright, the licences that it
/// refers to, and the entry by which scanners know the version.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn accompanying(package: &str) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let name = package.split(':').next().unwrap_or(package);
    let copyright = Path::new("usr/share/doc").join(name).join("copyright");
    let text = read(&Path::new("/").join(&copyright))?;
    let status = workspace::answer("dpkg-query", &["--status", package]);
    let status = status.with_context(|| format!("dpkg-query knows no package {package}"))?;
    let mut files: Vec<_> = common_licences(&String::from_utf8_lossy(&text))
        .into_iter()
        .map(|licence| Path::new(COMMON_LICENCES).join(licence))
        .filter(|path| path.is_file())
        .map(|path| Ok((below_root(&path), read(&path)?)))
        .collect::<Result<_>>()?;
    files.push((copyright, text));
    files.push((
        Path::new("var/lib/dpkg/status.d").join(name),
        status.into_bytes(),
    ));
    Ok(files)
}

/// The names of licences in `/usr/share/common-licenses` that a copyright file refers to.
fn common_licences(copyright: &str) -> BTreeSet<&str> {
    let references = copyright.split(COMMON_LICENCES).skip(1);
    let names = references.map(|rest| {
        let rest = rest.trim_start_matches('/');
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-.".contains(c)));
        // The full stop of a sentence.
        rest[..end.unwrap_or(rest.len())].trim_end_matches('.')
    });
    names.filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_found_where_a_copyright_refers_to_them() {
        let text = "see `/usr/share/common-licenses/LGPL-2.1'.\n\
            In /usr/share/common-licenses/GPL-2. Also\n/usr/share/common-licenses/GPL-2, and the folder\n\
            /usr/share/common-licenses";
        assert_eq!(
            common_licences(text).into_iter().collect::<Vec<_>>(),
            ["GPL-2", "LGPL-2.1"]
        );
    }

    #[test]
    fn a_file_of_no_package_is_refused_with_the_remedy() {
        let error = package_of(Path::new("/nonexistent/lib.so")).unwrap_err();
        assert!(error.is::<Prerequisite>(), "{error}");
    }
}
