//! What only root may do, and how to do it as another user.

use std::fmt;

/// A command with root's rights and the user's toolchain.
pub(crate) fn as_root(command: &str) -> String {
    format!(r#"sudo -E env "PATH=$PATH" cargo xtask {command}"#)
}

/// Whether this process runs with root's rights.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Something is missing that this process cannot install: exit code 3.
#[derive(Debug)]
pub(crate) struct Prerequisite {
    /// What is missing, or why it could not be installed.
    pub(crate) missing: String,
    /// The remedy, one step per entry.
    pub(crate) remedy: Vec<String>,
}

impl fmt::Display for Prerequisite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.missing)?;
        self.remedy
            .iter()
            .try_for_each(|step| write!(f, "\n  {step}"))
    }
}

impl std::error::Error for Prerequisite {}
