//! The kernel programs and their maps: probes, loading, attaching, reading.

pub mod attachments;
pub mod features;
pub mod loader;
pub mod maps;
mod missed_runs;
pub mod offsets;
pub mod refusal;
mod ring_peak;
pub mod snapshot_pages;
pub mod snapshot_reader;
pub mod snapshot_sweep;
pub(super) mod syscall;
