use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::LabError;

/// A temporary folder for the configuration and the files of a program, until it is dropped.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// `purpose` is a part of its name.
    ///
    /// # Errors
    /// [`LabError::Io`] if it cannot be made.
    pub(crate) fn new(purpose: &str) -> Result<Self, LabError> {
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        let name = format!("wsmon-lab-{purpose}-{}-{taken}", process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)
            .map_err(LabError::io(format!("create {}", folder.display())))?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its path.
    ///
    /// # Errors
    /// [`LabError::Io`] if it cannot be written.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf, LabError> {
        let file = self.0.join(name);
        fs::write(&file, content).map_err(LabError::io(format!("write {}", file.display())))?;
        Ok(file)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is in the temporary folder, where leftovers do no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}
