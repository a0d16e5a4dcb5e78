//! What leaves the program about a connection, a client or a frame, each record defined once.

pub mod clients;
pub mod connections;
pub mod frame_stream;
pub mod frames;
pub(crate) mod json;
