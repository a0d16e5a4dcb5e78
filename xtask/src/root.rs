//! What only root may do, and how to do it as another user.

use std::fmt;

/// The demo with root's rights and the user's toolchain.
pub(crate) const DEMO_AS_ROOT: &str = r#"sudo -E env "PATH=$PATH" cargo xtask demo"#;

/// The benchmark with root's rights and the user's toolchain.
pub(crate) const BENCH_AS_ROOT: &str = r#"sudo -E env "PATH=$PATH" cargo xtask bench"#;

/// The scale measurement with root's rights and the user's toolchain.
pub(crate) const SCALE_AS_ROOT: &str = r#"sudo -E env "PATH=$PATH" cargo xtask scale"#;

/// Regenerates the recordings with root's rights and the user's toolchain.
pub(crate) const RECORD_AS_ROOT: &str = r#"sudo -E env "PATH=$PATH" cargo xtask record"#;

/// The whole test suite with root's rights and the user's toolchain.
pub(crate) const TEST_AS_ROOT: &str = r#"sudo -E env "PATH=$PATH" cargo xtask test"#;

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
