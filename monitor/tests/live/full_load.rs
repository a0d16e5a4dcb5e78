//! Tests that use all CPUs from beginning to end. They run one at a time, when no other test runs.

mod ten_thousand;
mod torrent;
