//! A verdict as text.

use super::{connections::VerdictRecord, printable::printable};

/// `expired (confirmed)`.
pub fn verdict_text(verdict: &VerdictRecord) -> String {
    printable(&format!("{} ({})", verdict.kind, verdict.certainty))
}
