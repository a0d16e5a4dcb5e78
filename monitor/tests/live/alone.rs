//! Tests that need the machine for themselves: they run many daemons or thousands of clients, or their
//! clients keep a rhythm. They run one at a time, when no other test runs.

mod fleet;
mod hops;
mod inferred;
mod storms;
mod ten_thousand;
mod thousand;
mod torrent;
