//! What only root may do, and what to tell everyone else.

use std::fmt;

/// How to run the demo with root's rights and one's own toolchain.
pub(crate) const DEMO_AS_ROOT: &str = r#"sudo -E env "PATH=$PATH" cargo xtask demo"#;

/// How to compare with root's rights and one's own toolchain.
pub(crate) const BENCH_AS_ROOT: &str = r#"sudo -E env "PATH=$PATH" cargo xtask bench"#;

/// How to measure many connections with root's rights and one's own toolchain.
pub(crate) const SCALE_AS_ROOT: &str = r#"sudo -E env "PATH=$PATH" cargo xtask scale"#;

/// How to make the recordings anew with root's rights and one's own toolchain.
pub(crate) const RECORD_AS_ROOT: &str = r#"sudo -E env "PATH=$PATH" cargo xtask record"#;

/// How to run the whole test suite with root's rights and one's own toolchain.
pub(crate) const TEST_AS_ROOT: &str = r#"sudo -E env "PATH=$PATH" cargo xtask test"#;

/// Whether this process runs with root's rights.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Something has to be installed that this process cannot install: exit code 3.
#[derive(Debug)]
pub(crate) struct Prerequisite {
    /// What is missing, or why it could not be installed.
    pub(crate) missing: String,
    /// What to do about it, one step an entry.
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
