//! Tests that run many daemons or thousands of clients, or whose clients keep a rhythm. They run two at a time, when no
//! other test runs.

mod fleet;
mod hops;
mod inferred;
mod storms;
mod thousand;
