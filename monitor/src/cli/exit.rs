//! Exit codes of the commands.

use std::{fmt, process::ExitCode};

/// 3: a prerequisite of the kernel or of the privileges is missing.
pub const PREREQUISITE_MISSING: u8 = 3;

/// The result of a command: its exit code, or why it failed.
pub type CommandResult = Result<ExitCode, Failure>;

/// A failure with its exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// 1: something went wrong.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(1, message)
    }

    /// 2: the request is invalid here.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(2, message)
    }

    /// 3: the kernel or the privileges are insufficient.
    pub fn prerequisite(message: impl Into<String>) -> Self {
        Self::new(PREREQUISITE_MISSING, message)
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
