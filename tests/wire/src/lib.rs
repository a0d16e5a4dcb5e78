//! Bytes of WebSocket connections for tests, fuzz seeds and recordings: frames, opening handshakes,
//! TCP packets, TLS records, whole conversations, and the capture files that hold them.

mod capture;
mod conversation;
mod frame;
mod handshake;
mod packet;
mod tls;

pub use capture::{MICROSECONDS, NANOSECONDS, Order, Pcap};
pub use conversation::{Conversation, End, MILLI, Recording, SECOND, START};
pub use frame::{
    BINARY, CLOSE, CONTINUATION, LengthForm, MaskingKey, PING, PONG, TEXT, ZERO_KEY, frame, header,
};
pub use handshake::{REQUEST, RESPONSE, upgrade};
pub use packet::{ACK, FIN, Headers, PSH, RST, SYN, Segment, ethernet, ip};
pub use tls::{
    APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, client_hello, server_hello, tls_record,
};
