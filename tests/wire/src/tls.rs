//! Records and hellos of TLS (RFC 8446, RFC 5246). Nothing is encrypted: bodies are as long as ciphertext
//! would be.

/// Content type of a record that is none of the others: from TLS 1.3's handshake on, of every record.
pub const APPLICATION_DATA: u8 = 23;
/// Content type of handshake messages.
pub const HANDSHAKE: u8 = 22;
/// Content type of the message that precedes encryption.
pub const CHANGE_CIPHER_SPEC: u8 = 20;

/// One record with this body.
///
/// # Panics
/// If the body is longer than a record can be.
pub fn tls_record(content_type: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).expect("a body of a record");
    let mut record = vec![content_type, 3, 3];
    record.extend(len.to_be_bytes());
    record.extend(body);
    record
}

/// A record with a ClientHello that offers these application protocols, none if empty. `padding` bytes of
/// other extensions precede them.
pub fn client_hello(protocols: &[&str], padding: usize) -> Vec<u8> {
    let mut extensions = extension(0x0015, &vec![0; padding]);
    if !protocols.is_empty() {
        extensions.extend(extension(16, &names(protocols)));
    }
    extensions.extend(extension(43, &[4, 3, 4, 3, 3]));
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([32]);
    body.extend([9; 32]);
    body.extend([0, 4, 0x13, 0x01, 0xc0, 0x2f, 1, 0]);
    body.extend(sized(&extensions));
    tls_record(HANDSHAKE, &message(1, &body))
}

/// A record with a ServerHello of TLS 1.3, or else 1.2, that selects this suite and, in TLS 1.2, this
/// application protocol.
pub fn server_hello(is_1_3: bool, suite: u16, protocol: Option<&str>) -> Vec<u8> {
    let mut extensions = extension(0xff01, &[0]);
    if let Some(protocol) = protocol {
        extensions.extend(extension(16, &names(&[protocol])));
    }
    if is_1_3 {
        extensions.extend(extension(51, &[0; 36]));
        extensions.extend(extension(43, &[3, 4]));
    }
    let mut body = vec![3, 3];
    body.extend([8; 32]);
    body.extend([0]);
    body.extend(suite.to_be_bytes());
    body.extend([0]);
    body.extend(sized(&extensions));
    tls_record(HANDSHAKE, &message(2, &body))
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, len @ ..] = u32::try_from(body.len()).expect("a message").to_be_bytes();
    [&[kind][..], &len, body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(body)].concat()
}

fn names(protocols: &[&str]) -> Vec<u8> {
    let name = |name: &&str| [&[name.len() as u8], name.as_bytes()].concat();
    sized(&protocols.iter().flat_map(name).collect::<Vec<_>>())
}

/// With two bytes of length in front.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a short list");
    [&len.to_be_bytes()[..], bytes].concat()
}
