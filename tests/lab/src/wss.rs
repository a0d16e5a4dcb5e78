//! WebSocket connections over TLS: eight servers behind one interface, and clients that can be
//! stopped.

mod certificate;
mod clients;
mod rustls;
mod server;
mod tls_cipher;

pub use certificate::Certificate;
pub use clients::{Traffic, WssClients, WssConnection};
pub use server::{WssServer, WssStack};
pub use tls_cipher::TlsCipher;
