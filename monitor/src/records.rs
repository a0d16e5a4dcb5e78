//! The records: every JSON object that leaves the program, each defined once. docs/records.md describes
//! them.
//!
//! All of them share one vocabulary:
//!
//! * `type` names the kind of object.
//! * `cookie` identifies a connection.
//! * `ts` is when the object applies, and `…_at` is another moment; both are RFC 3339.
//! * `…_seconds` is a duration or an age, `…_bytes` an amount.
//! * A direction is `rx` or `tx`, as in the metrics; a side, such as an `initiator`, is `local` or `peer`.
//! * `reason` is a sentence for people.

pub mod alert;
pub mod alert_kind;
pub mod alert_text;
pub mod clients;
pub mod connection_summary;
pub mod connections;
pub mod counted;
pub mod endpoint;
pub mod frames;
pub mod groups;
pub mod heartbeat;
pub(crate) mod json;
pub mod list_order;
pub mod listening_socket;
pub mod loss;
mod now;
pub(crate) mod numbers;
pub mod owner;
pub mod owner_text;
pub mod printable;
pub mod rates;
pub mod recording_summary;
pub mod search;
pub mod skipped;
pub mod status;
pub mod tls;
pub mod transitions;
pub mod verdict_text;
pub mod warning;

pub use now::Now;

/// The header of a list of connections with the number of watched connections when the list was begun.
pub const TOTAL_HEADER: &str = "wsmon-connections";

/// The header of a list of groups or clients with their number, whatever the limit.
pub const TOTAL_ENTRIES_HEADER: &str = "wsmon-entries";

/// The header of a list of alerts, standing or past, with the number of those that match, whatever the limit.
pub const TOTAL_ALERTS_HEADER: &str = "wsmon-alerts";

/// The header of a list of past alerts with the number of older ones that were dropped.
pub const DROPPED_HEADER: &str = "wsmon-dropped";

/// The header of a list of connections, or of a stream of frames, with the watched local ports on which
/// nobody listens.
pub const UNSERVED_HEADER: &str = "wsmon-unserved";
