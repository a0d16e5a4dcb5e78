//! The handshake of an open connection, in its compact form.

use std::net::IpAddr;

use super::{
    handshake::{ClientAddress, Deflate, Faults, UpgradeRequest, UpgradeResponse},
    interner::{Interner, Symbol},
    time::Ktime,
};

/// How a connection was opened. A field is `None` if the head was lost, was cut off, or does not
/// have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake<'a> {
    pub requested_at: Option<Ktime>,
    /// Without the query.
    pub path: Option<&'a str>,
    pub host: Option<&'a str>,
    pub origin: Option<&'a str>,
    /// The agreed subprotocol.
    pub subprotocol: Option<&'a str>,
    /// The agreed compression (RFC 7692).
    pub deflate: Option<Deflate>,
    pub client: Option<ClientAddress>,
    pub faults: Faults,
}

impl<'a> Handshake<'a> {
    pub(super) fn of(
        requested_at: Option<Ktime>,
        request: Option<&'a UpgradeRequest>,
        response: Option<&'a UpgradeResponse>,
    ) -> Self {
        let mut handshake = Self {
            requested_at,
            ..Self::default()
        };
        if let Some(request) = request {
            handshake.path = request.path.as_deref();
            handshake.host = request.host.as_deref();
            handshake.origin = request.origin.as_deref();
            handshake.client = request.client;
            handshake.faults = request.faults;
        }
        if let Some(response) = response {
            handshake.subprotocol = response.subprotocol.as_deref();
            handshake.deflate = response.deflate;
            let faults = request.map_or(response.faults, |request| response.faults_after(request));
            handshake.faults = handshake.faults.union(faults);
        }
        handshake
    }
}

/// A [`Handshake`] in 40 bytes: strings are shared, and the address, which few connections have, is
/// boxed.
#[derive(Debug)]
pub(super) struct InternedHandshake {
    /// [`Ktime::NEVER`] if the request was not seen.
    requested_at: Ktime,
    client: Option<Box<IpAddr>>,
    path: Option<Symbol>,
    host: Option<Symbol>,
    origin: Option<Symbol>,
    subprotocol: Option<Symbol>,
    deflate: Option<Deflate>,
    faults: Faults,
}

impl InternedHandshake {
    pub(super) fn new(handshake: &Handshake<'_>, interner: &mut Interner) -> Self {
        let mut intern = |text: Option<&str>| text.map(|text| interner.intern(text));
        Self {
            requested_at: handshake.requested_at.unwrap_or(Ktime::NEVER),
            client: handshake.client.map(|client| Box::new(client.reveal())),
            path: intern(handshake.path),
            host: intern(handshake.host),
            origin: intern(handshake.origin),
            subprotocol: intern(handshake.subprotocol),
            deflate: handshake.deflate,
            faults: handshake.faults,
        }
    }

    pub(super) fn view<'a>(&'a self, interner: &'a Interner) -> Handshake<'a> {
        let text = |symbol: &'a Option<Symbol>| symbol.as_ref().map(|symbol| interner.get(symbol));
        Handshake {
            requested_at: Some(self.requested_at).filter(|at| *at != Ktime::NEVER),
            path: text(&self.path),
            host: text(&self.host),
            origin: text(&self.origin),
            subprotocol: text(&self.subprotocol),
            deflate: self.deflate,
            client: self.client(),
            faults: self.faults,
        }
    }

    pub(super) fn client(&self) -> Option<ClientAddress> {
        self.client.as_deref().copied().map(ClientAddress::new)
    }

    /// Releases the strings.
    pub(super) fn release(self, interner: &mut Interner) {
        let symbols = [self.path, self.host, self.origin, self.subprotocol];
        for symbol in symbols.into_iter().flatten() {
            interner.release(symbol);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_takes_40_bytes_and_is_returned_unchanged() {
        assert_eq!(size_of::<InternedHandshake>(), 40);
        let mut interner = Interner::default();
        let handshake = Handshake {
            requested_at: Some(Ktime(7)),
            path: Some("/chat"),
            host: Some("server"),
            origin: None,
            subprotocol: Some("chat"),
            deflate: Some(Deflate::default()),
            client: Some(ClientAddress::new([192, 0, 2, 1].into())),
            faults: Faults::default(),
        };
        let many: Vec<InternedHandshake> = (0..10)
            .map(|_| InternedHandshake::new(&handshake, &mut interner))
            .collect();
        assert_eq!(interner.len(), 3, "strings are shared");
        for interned in many {
            assert_eq!(interned.view(&interner), handshake);
            interned.release(&mut interner);
        }
        let empty = InternedHandshake::new(&Handshake::default(), &mut interner);
        assert_eq!(empty.view(&interner), Handshake::default());
        assert_eq!(
            interner.len(),
            0,
            "strings are freed with their last holder"
        );
    }
}
