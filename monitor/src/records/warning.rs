//! A warning as a record: in the output of `wsmon replay --json`.

use serde::Serialize;

/// A warning that is also on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "warning")]
pub struct WarningRecord<'a> {
    pub message: &'a str,
}
