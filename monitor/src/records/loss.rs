//! Lost lines as a record: in the streams of `wsmon frames` and of `/v1/events`.

use serde::{Deserialize, Serialize};

/// Lines that are missing at this place of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "lost")]
pub struct LossRecord {
    /// Lost before they reached the daemon's queue, whatever the viewer's filter; always 0 for
    /// `/v1/events`.
    pub kernel: u64,
    /// Dropped because this viewer did not read fast enough.
    pub viewer: u64,
}

impl LossRecord {
    pub fn is_empty(&self) -> bool {
        self.kernel + self.viewer == 0
    }
}
