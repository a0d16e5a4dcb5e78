use std::time::Duration;

use lab::{TlsCipher, WssStack};

/// A server with one kind of cipher.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) stack: WssStack,
    pub(super) cipher: TlsCipher,
    /// The interval of the server's pings; `None` if it sends none.
    pub(super) ping_every: Option<Duration>,
}

/// All servers with pings and without, and all ciphers. nginx has its own default.
pub(super) const SCENES: [Scene; 19] = [
    pings(WssStack::Websockets, TlsCipher::Tls13),
    pings(WssStack::Websockets, TlsCipher::Tls12Gcm),
    pings(WssStack::Websockets, TlsCipher::Tls12ChaCha20),
    pings(WssStack::Websockets, TlsCipher::Tls12Cbc),
    pings(WssStack::Aiohttp, TlsCipher::Tls13),
    pings(WssStack::Ws, TlsCipher::Tls13),
    pings(WssStack::Gorilla, TlsCipher::Tls13),
    pings(WssStack::Rustls, TlsCipher::Tls13),
    pings(WssStack::Nginx, TlsCipher::Tls12Gcm),
    pings(WssStack::Haproxy, TlsCipher::Tls13),
    pings(WssStack::Jsse, TlsCipher::Tls13),
    no_pings(WssStack::Websockets, TlsCipher::Tls13),
    no_pings(WssStack::Aiohttp, TlsCipher::Tls13),
    no_pings(WssStack::Ws, TlsCipher::Tls13),
    no_pings(WssStack::Gorilla, TlsCipher::Tls13),
    no_pings(WssStack::Rustls, TlsCipher::Tls13),
    no_pings(WssStack::Nginx, TlsCipher::Tls12Gcm),
    no_pings(WssStack::Haproxy, TlsCipher::Tls13),
    no_pings(WssStack::Jsse, TlsCipher::Tls13),
];

const fn pings(stack: WssStack, cipher: TlsCipher) -> Scene {
    Scene {
        stack,
        cipher,
        ping_every: Some(Duration::from_secs(2)),
    }
}

const fn no_pings(stack: WssStack, cipher: TlsCipher) -> Scene {
    Scene {
        stack,
        cipher,
        ping_every: None,
    }
}

impl Scene {
    /// The name of its files, without an extension.
    pub(super) fn name(&self) -> String {
        let (server, cipher) = (self.stack.name(), self.cipher.name());
        match self.ping_every {
            Some(_) => format!("{server}-{cipher}"),
            None => format!("{server}-{cipher}-no-pings"),
        }
    }
}
