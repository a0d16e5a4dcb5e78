//! TLS connections: record headers and hellos from segments however they are cut, and pings from the sizes
//! and times of records.

mod heartbeats;
mod records;
mod servers;
mod traffic;
