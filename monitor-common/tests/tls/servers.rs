//! Servers and clients by the sizes of their records.

/// A server with its TLS library.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) is_1_3: bool,
    pub(crate) suite: u16,
    /// Bytes that encryption adds to a record; 0 with a suite in CBC mode.
    pub(crate) overhead: usize,
    /// Zeros that the server adds to each record.
    pub(crate) padding: usize,
    /// All encrypted messages of its handshake come in one record.
    pub(crate) packs: bool,
    /// Payload of its pings.
    pub(crate) ping: usize,
}

/// What a client offers, and how the monitor meets the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) protocols: &'static [&'static str],
    /// It sends the pings, not the server.
    pub(crate) pings: bool,
    /// Zeros that it adds to each record.
    pub(crate) padding: usize,
    /// Records of its handshake before Finished, and of early data before and after the ServerHello. Lengths
    /// without padding.
    pub(crate) flight: &'static [usize],
    pub(crate) early_data: &'static [usize],
    /// How long its TCP waits for something to acknowledge with, nanoseconds.
    pub(crate) ack_delay: u64,
    /// The connection is older than the monitor.
    pub(crate) is_older: bool,
}

pub(crate) const BROWSER: Client = Client {
    protocols: &["http/1.1"],
    pings: false,
    padding: 0,
    flight: &[],
    early_data: &[],
    ack_delay: 0,
    is_older: false,
};

/// The servers whose records were recorded, and how long their pings and pongs are on the wire.
pub(crate) const SERVERS: [(Server, u16, u16); 10] = {
    const OPENSSL: Server = Server {
        name: "Python websockets",
        is_1_3: true,
        suite: 0x1302,
        overhead: 17,
        padding: 0,
        packs: false,
        ping: 4,
    };
    const GCM_1_2: Server = Server {
        name: "Python websockets, TLS 1.2 GCM",
        is_1_3: false,
        suite: 0xc030,
        overhead: 24,
        ..OPENSSL
    };
    const CHACHA_1_2: Server = Server {
        name: "Python websockets, TLS 1.2 ChaCha20",
        suite: 0xcca8,
        overhead: 16,
        ..GCM_1_2
    };
    const NODE: Server = Server {
        name: "node ws",
        ping: 0,
        ..OPENSSL
    };
    const GORILLA: Server = Server {
        name: "Go gorilla",
        suite: 0x1301,
        ..NODE
    };
    const RUSTLS: Server = Server {
        name: "tokio-tungstenite and rustls",
        packs: true,
        ..NODE
    };
    const NGINX: Server = Server {
        name: "nginx",
        ..GCM_1_2
    };
    const HAPROXY: Server = Server {
        name: "haproxy",
        ..OPENSSL
    };
    const AIOHTTP: Server = Server {
        name: "aiohttp",
        ..NODE
    };
    const JSSE: Server = Server {
        name: "Java JSSE",
        padding: 16,
        ..NODE
    };
    [
        (OPENSSL, 23, 27),
        (GCM_1_2, 30, 34),
        (CHACHA_1_2, 22, 26),
        (NODE, 19, 23),
        (GORILLA, 19, 23),
        (RUSTLS, 19, 23),
        (NGINX, 30, 34),
        (HAPROXY, 23, 27),
        (AIOHTTP, 19, 23),
        (JSSE, 35, 23),
    ]
};
