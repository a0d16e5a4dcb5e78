//! The opening handshake: as the kernel programs classify it and as userspace parses it.

use monitor_common::{
    frame::Head,
    handshake::{HeadEnd, OPENING_LEN, Opening},
};
use monitor_core::handshake::{HandshakeFault, UpgradeRequest, UpgradeResponse, accept_of};

/// Reads `data` as the beginning of a connection.
///
/// # Panics
/// If it is misclassified, if the end of its head depends on how it is cut, or if a parsed part
/// changes when more bytes follow.
pub fn check(data: &[u8]) {
    for have in 0..=data.len().min(OPENING_LEN as usize) {
        check_opening(&data[..have]);
    }
    let end = data.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.map(|at| at + 4);
    for piece in 1..=HeadEnd::CHUNK as usize {
        assert_eq!(head_end(data, piece), end, "{piece} bytes at a time");
    }
    let request = check_request(data);
    let answer = check_answer(data);
    let faults = answer.faults_after(&request);
    assert!(answer.faults.iter().all(|fault| faults.contains(fault)));
}

fn check_request(data: &[u8]) -> UpgradeRequest {
    let whole = UpgradeRequest::parse(data);
    assert_eq!(whole, UpgradeRequest::parse(data), "not deterministic");
    let path = whole.path.as_deref().unwrap_or_default();
    assert!(!path.contains(['?', '#']), "a query was kept: {path}");
    if let Some(key) = &whole.key {
        assert_eq!(accept_of(key).len(), 28);
    }
    if is_complete(whole.faults) {
        for len in lengths(data.len()) {
            let cut = UpgradeRequest::parse(&data[..len]);
            if cut.faults.contains(HandshakeFault::CutOff) {
                assert_part(&cut.method, &whole.method);
                assert_part(&cut.path, &whole.path);
                assert_part(&cut.host, &whole.host);
                assert_part(&cut.origin, &whole.origin);
                assert_part(&cut.key, &whole.key);
                assert_part(&cut.version, &whole.version);
                assert!(whole.subprotocols.starts_with(&cut.subprotocols));
                assert!(whole.deflate_offered || !cut.deflate_offered);
            }
        }
    }
    whole
}

fn check_answer(data: &[u8]) -> UpgradeResponse {
    let whole = UpgradeResponse::parse(data);
    assert_eq!(whole, UpgradeResponse::parse(data), "not deterministic");
    if data.starts_with(b"HTTP/1.") && whole.status.is_some() {
        let switching = whole.status == Some(UpgradeResponse::SWITCHING_PROTOCOLS);
        let seen = opening(&data[..data.len().min(OPENING_LEN as usize)]);
        assert_eq!(
            switching,
            seen == Opening::Switching,
            "the kernel disagrees"
        );
    }
    // A field may continue on the next line (obsolete folding, RFC 9112 §5.2). Its first line is
    // then complete, but not the whole value.
    let folded = data
        .windows(2)
        .any(|two| matches!(two, [b'\n', b' ' | b'\t']));
    if is_complete(whole.faults) && !folded {
        for len in lengths(data.len()) {
            let cut = UpgradeResponse::parse(&data[..len]);
            if cut.faults.contains(HandshakeFault::CutOff) {
                assert_part(&cut.status, &whole.status);
                assert_part(&cut.accept, &whole.accept);
                assert_part(&cut.subprotocol, &whole.subprotocol);
            }
        }
    }
    whole
}

fn is_complete(faults: monitor_core::handshake::Faults) -> bool {
    !faults.contains(HandshakeFault::CutOff) && !faults.contains(HandshakeFault::Malformed)
}

/// Places to cut: a sample, because all of them would make runs slow.
fn lengths(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(1 + len / 64)
}

/// A part of a head gives the same values as the whole head.
fn assert_part<T: PartialEq + std::fmt::Debug>(cut: &Option<T>, whole: &Option<T>) {
    assert!(cut.is_none() || cut == whole, "{cut:?} of {whole:?}");
}

fn check_opening(bytes: &[u8]) {
    const METHODS: [&[u8]; 7] = [
        b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"PATC",
    ];
    let expected = if bytes.len() >= 3 && bytes.starts_with(&[0x16, 0x03]) {
        Opening::Tls
    } else if bytes.len() >= 8 && bytes.starts_with(b"HTTP/1.") {
        if bytes.get(8..12) == Some(b" 101") {
            Opening::Switching
        } else {
            Opening::Response
        }
    } else if METHODS.iter().any(|method| bytes.starts_with(method)) {
        Opening::Request
    } else {
        Opening::Other
    };
    assert_eq!(opening(bytes), expected, "{bytes:x?}");
}

fn opening(bytes: &[u8]) -> Opening {
    let mut head = Head::default();
    for (i, byte) in (0..).zip(bytes) {
        head.put(i, *byte);
    }
    Opening::of(&head, bytes.len() as u32)
}

/// End of the head, searched in pieces of this many bytes.
fn head_end(data: &[u8], piece: usize) -> Option<usize> {
    let mut end = HeadEnd::START;
    let mut at = 0;
    for piece in data.chunks(piece) {
        let mut chunk = [0; HeadEnd::CHUNK as usize];
        chunk[..piece.len()].copy_from_slice(piece);
        let (taken, found) = end.scan(u64::from_le_bytes(chunk), piece.len() as u32);
        at += taken as usize;
        if found {
            return Some(at);
        }
        assert_eq!(taken as usize, piece.len(), "no end: all bytes consumed");
    }
    None
}
