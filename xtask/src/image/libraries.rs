//! The shared libraries that a program needs, and the program that loads them.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

use crate::files::{file_name, read};

/// What a dynamically linked program needs to start.
#[derive(Debug)]
pub(super) struct Libraries {
    /// Where the kernel looks for the loader, `/lib64/ld-linux-x86-64.so.2`.
    pub(super) interpreter: PathBuf,
    /// The file of each library by its name, with the loader's.
    pub(super) files: BTreeMap<String, PathBuf>,
}

impl Libraries {
    /// Of the content of a program, found in `folders`, the first of which wins.
    ///
    /// # Errors
    /// If the program is not dynamically linked, or a library is in none of the folders.
    pub(super) fn of(program: &[u8], folders: &[PathBuf]) -> Result<Self> {
        let links = Links::parse(program).context("the program is not a 64-bit ELF file")?;
        let interpreter = links.interpreter.context("the program has no loader")?;
        let loader = file_name(&interpreter);
        let mut files = BTreeMap::new();
        let mut wanted = links.needed;
        wanted.push(loader);
        while let Some(name) = wanted.pop() {
            if files.contains_key(&name) {
                continue;
            }
            let mut candidates = folders.iter().map(|folder| folder.join(&name));
            let file = candidates.find(|file| file.is_file());
            let file = file.with_context(|| format!("no library {name} in {folders:?}"))?;
            let links = Links::parse(&read(&file)?);
            let links =
                links.with_context(|| format!("{} is no 64-bit ELF file", file.display()))?;
            wanted.extend(links.needed);
            files.insert(name, file);
        }
        Ok(Self { interpreter, files })
    }
}

/// What the header of an ELF file refers to.
struct Links {
    interpreter: Option<PathBuf>,
    needed: Vec<String>,
}

impl Links {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(bytes)?;
        let endian = header.endian()?;
        let mut interpreter = None;
        for segment in header.program_headers(endian, bytes)? {
            if let Some(path) = segment.interpreter(endian, bytes)? {
                interpreter = Some(PathBuf::from(String::from_utf8(path.to_vec())?));
            }
        }
        let dynamic = header
            .sections(endian, bytes)?
            .dynamic_table(endian, bytes)?;
        let needed = dynamic.iter().filter(|entry| entry.tag == DT_NEEDED);
        let needed = needed.map(|entry| Ok(String::from_utf8(dynamic.string(entry)?.to_vec())?));
        let needed = needed.collect::<Result<Vec<_>>>()?;
        // A name with a folder would be found there, and not in the image.
        ensure!(
            !needed.iter().any(|name| name.contains('/')),
            "it needs a library by its path: {needed:?}"
        );
        Ok(Self {
            interpreter,
            needed,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use super::*;
    use crate::image::debian_files;

    #[test]
    fn this_program_needs_the_c_library_and_its_loader() {
        let target = crate::cross::given_or_native(None).unwrap();
        let folders = debian_files::library_folders(target);
        let program = fs::read(env::current_exe().unwrap()).unwrap();
        let libraries = Libraries::of(&program, &folders).unwrap();
        assert!(libraries.files.contains_key("libc.so.6"), "{libraries:?}");
        assert!(libraries.interpreter.is_absolute(), "{libraries:?}");
        let loader = file_name(&libraries.interpreter);
        assert!(libraries.files.contains_key(&loader), "{libraries:?}");
        let error = Libraries::of(&program, &[]).unwrap_err();
        assert!(error.to_string().starts_with("no library "), "{error}");
    }
}
