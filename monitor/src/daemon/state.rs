//! The state file keeps what was learned of each listener across restarts.
//!
//! Without it the daemon learns the usual rates of the hour again within a minute, so no problem with
//! the file ends the daemon. The file is replaced atomically. An existing file that is not a state file
//! of wsmon is never overwritten.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use monitor_core::storm::Baseline;

/// The usual rates of each listener, by its name.
pub type Baselines = BTreeMap<String, Baseline>;

/// Format version of the file. A file with another version is not read.
const VERSION: u32 = 1;

/// Maximum size of the file in bytes, far more than 256 listeners need.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    wsmon_state: u32,
    baselines: Baselines,
}

/// An open state file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// The content last read or written. Entries of listeners that are not watched now stay.
    kept: Baselines,
    /// The last write failed, and the failure was reported.
    failing: bool,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot read the state file {}: {source}; make it readable, or choose another with --state", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "{} is not a state file of wsmon, or it is damaged ({why}). It is left untouched: remove it, or choose \
         another with --state",
        path.display()
    )]
    Foreign { path: PathBuf, why: String },
    #[error(
        "the state file {} is of version {found}, this wsmon writes version {VERSION}. It is left untouched: \
         remove it, or choose another with --state",
        path.display()
    )]
    OtherVersion { path: PathBuf, found: u32 },
}

impl StateFile {
    /// Reads the file. A missing file is created once there is something to keep.
    ///
    /// # Errors
    ///
    /// A [`StateError`] for an existing file that must not be overwritten.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let contents = match read(path) {
            Ok(contents) => contents,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                let path = path.to_owned();
                return Err(StateError::Unreadable { path, source });
            }
        };
        Ok(Self {
            path: path.to_owned(),
            kept: match contents {
                Some(text) => parse(path, &text)?,
                None => Baselines::new(),
            },
            failing: false,
        })
    }

    /// The state as read from the file.
    pub fn baselines(&self) -> &Baselines {
        &self.kept
    }

    /// Writes the learned state if it has changed. A failure is reported once, until a write succeeds.
    pub fn keep<'a>(&mut self, learned: impl Iterator<Item = (&'a str, Baseline)>) {
        let mut baselines = self.kept.clone();
        baselines.extend(learned.map(|(name, baseline)| (name.to_owned(), baseline)));
        if baselines == self.kept {
            return;
        }
        match write(&self.path, &baselines) {
            Ok(()) => {
                self.kept = baselines;
                self.failing = false;
            }
            Err(error) if !self.failing => {
                log::warn!(
                    "cannot write the state file {}: {error}; what is learned will be lost when wsmon \
                     ends. Make its directory writable, or choose another with --state",
                    self.path.display()
                );
                self.failing = true;
            }
            Err(_) => {}
        }
    }
}

/// Reads the file; `None` if it is empty, such as a placeholder created by an administrator.
fn read(path: &Path) -> io::Result<Option<String>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        return Ok(Some(String::new()));
    }
    let bytes = fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok((!bytes.is_empty()).then_some(text))
}

fn parse(path: &Path, text: &str) -> Result<Baselines, StateError> {
    #[derive(Deserialize)]
    struct StateVersion {
        wsmon_state: u32,
    }
    let foreign = |error: serde_json::Error| StateError::Foreign {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let StateVersion { wsmon_state: found } = serde_json::from_str(text).map_err(foreign)?;
    if found != VERSION {
        let path = path.to_owned();
        return Err(StateError::OtherVersion { path, found });
    }
    let contents: Contents = serde_json::from_str(text).map_err(foreign)?;
    Ok(contents.baselines)
}

fn write(path: &Path, baselines: &Baselines) -> io::Result<()> {
    let contents = Contents {
        wsmon_state: VERSION,
        baselines: baselines.clone(),
    };
    let text = serde_json::to_string(&contents)? + "\n";
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    // Without this a power failure may leave the new name with an empty file.
    file.sync_data()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(fast: f64) -> Baseline {
        let mut baseline = Baseline::default();
        baseline.arrivals.fast = fast;
        baseline.seconds = 100;
        baseline
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("state.json");
        (folder, path)
    }

    #[test]
    fn learned_state_survives_a_restart_along_with_other_listeners() {
        let (folder, path) = folder();
        let mut state = StateFile::open(&path).expect("none is there yet");
        assert!(state.baselines().is_empty());
        state.keep([("8080", learned(3.5)), ("quote \" name", learned(1.0))].into_iter());
        let mut again = StateFile::open(&path).expect("readable");
        assert_eq!(again.baselines()["8080"], learned(3.5));
        again.keep([("8080", learned(4.0))].into_iter());
        let third = StateFile::open(&path).expect("readable");
        assert_eq!(third.baselines()["8080"], learned(4.0));
        assert_eq!(third.baselines()["quote \" name"], learned(1.0));
        let files = fs::read_dir(folder.path()).expect("readable").count();
        assert_eq!(files, 1, "no temporary file is left");
    }

    #[test]
    fn other_files_are_refused_with_a_remedy_and_left_untouched() {
        let (_folder, path) = folder();
        let cut = "{\"wsmon_state\":1,\"baselines\":{\"8080\":{\"arr";
        for text in ["root:x:0:0", "{}", "[]", cut, "{\"wsmon_state\":2}"] {
            fs::write(&path, text).expect("written");
            let error = StateFile::open(&path).expect_err(text).to_string();
            assert!(error.contains("remove it"), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
        assert!(StateFile::open(Path::new("/")).is_err(), "a directory");
    }

    #[test]
    fn an_empty_file_is_used_as_the_state_file() {
        let (_folder, path) = folder();
        fs::write(&path, "").expect("written");
        assert!(StateFile::open(&path).is_ok());
    }

    #[test]
    fn a_failed_write_is_retried_and_loses_only_the_state() {
        let (folder, path) = folder();
        let missing = folder.path().join("missing/state.json");
        let mut state = StateFile::open(&missing).expect("none is there yet");
        state.keep([("8080", learned(1.0))].into_iter());
        assert!(state.failing);
        fs::create_dir(folder.path().join("missing")).expect("made");
        state.keep([("8080", learned(1.0))].into_iter());
        assert!(!state.failing && missing.exists());
        assert!(!path.exists());
    }
}
