use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// The request of RFC 6455 §1.2, with the headers of a browser behind a proxy.
const REQUEST: &str = "GET /chat?token=secret HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\n\
    Sec-WebSocket-Protocol: chat, superchat\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    X-Forwarded-For: 203.0.113.195\r\n\r\n";

const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
    Sec-WebSocket-Protocol: chat\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n\r\n";

fn request(head: &str) -> UpgradeRequest {
    UpgradeRequest::parse(head.as_bytes())
}

fn response(head: &str) -> UpgradeResponse {
    UpgradeResponse::parse(head.as_bytes())
}

fn faults(faults: impl IntoIterator<Item = HandshakeFault>) -> BTreeSet<HandshakeFault> {
    faults.into_iter().collect()
}

#[test]
fn the_accept_of_rfc_6455_matches_its_key() {
    assert_eq!(
        accept_of("dGhlIHNhbXBsZSBub25jZQ=="),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
}

#[test]
fn a_complete_request_is_read_without_its_query() {
    let read = request(REQUEST);
    let client = read.client.map(ClientAddress::reveal);
    assert_eq!(client, Some([203, 0, 113, 195].into()));
    assert!(!format!("{read:?}").contains("secret"));
    assert_eq!(
        read,
        UpgradeRequest {
            method: Some("GET".into()),
            path: Some("/chat".into()),
            host: Some("server.example.com".into()),
            origin: Some("http://example.com".into()),
            key: Some("dGhlIHNhbXBsZSBub25jZQ==".into()),
            version: Some(13),
            subprotocols: vec!["chat".into(), "superchat".into()],
            deflate_offered: true,
            client: read.client,
            faults: Faults::default(),
        }
    );
}

#[test]
fn a_complete_response_is_read_and_matches_its_request() {
    let read = response(ANSWER);
    assert!(read.faults_after(&request(REQUEST)).is_empty());
    assert_eq!(
        read,
        UpgradeResponse {
            status: Some(101),
            accept: Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into()),
            subprotocol: Some("chat".into()),
            deflate: Some(Deflate {
                client_max_window_bits: Some(12),
                ..Deflate::default()
            }),
            retry_after: None,
            faults: Faults::default(),
        }
    );
}

#[test]
fn each_fault_of_a_request_is_named() {
    use HandshakeFault as Fault;
    for (from, to, fault) in [
        ("GET ", "POST ", Fault::NotGet),
        ("HTTP/1.1", "HTTP/1.0", Fault::OldHttp),
        ("Host: server.example.com\r\n", "", Fault::NoHost),
        ("Upgrade: websocket", "Upgrade: h2c", Fault::NoUpgrade),
        ("keep-alive, Upgrade", "keep-alive", Fault::NoConnection),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", Fault::BadKey),
        (
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "",
            Fault::BadKey,
        ),
        ("Version: 13", "Version: 8", Fault::BadVersion),
        ("Sec-WebSocket-Version: 13\r\n", "", Fault::BadVersion),
        ("GET ", "\x01 ", Fault::Malformed),
    ] {
        let head = REQUEST.replacen(from, to, 1);
        assert_ne!(head, REQUEST);
        assert_eq!(
            faults(request(&head).faults.iter()),
            faults([fault]),
            "{head}"
        );
    }
}

#[test]
fn each_fault_of_a_response_is_named() {
    use HandshakeFault as Fault;
    for (from, to, fault) in [
        ("Upgrade: websocket\r\n", "", Fault::NoUpgrade),
        (
            "Connection: Upgrade",
            "Connection: close",
            Fault::NoConnection,
        ),
        ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "s3pPLMBi", Fault::BadAccept),
        (
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
            "",
            Fault::BadAccept,
        ),
        (
            "Protocol: chat",
            "Protocol: mqtt",
            Fault::UnofferedSubprotocol,
        ),
        ("bits=12", "bits=99", Fault::BadExtension),
        ("HTTP/1.1 101", "SSH-2.0", Fault::Malformed),
    ] {
        let head = ANSWER.replacen(from, to, 1);
        assert_ne!(head, ANSWER);
        let found = response(&head).faults_after(&request(REQUEST));
        assert_eq!(faults(found.iter()), faults([fault]), "{head}");
    }
    let plain = request(&REQUEST.replace("permessage-deflate", "x-other"));
    let found = response(ANSWER).faults_after(&plain);
    assert_eq!(faults(found.iter()), faults([Fault::UnofferedCompression]));
}

#[test]
fn a_refusal_may_name_the_time_of_the_next_try() {
    let refusal = |value: &str| {
        let head = format!("HTTP/1.1 429 Too Many Requests\r\nRetry-After: {value}\r\n\r\n");
        let read = response(&head);
        assert_eq!(read.status, Some(429));
        assert!(read.faults_after(&request(REQUEST)).is_empty());
        read.retry_after
    };
    let delay = RetryAfter::Delay(Duration::from_secs(120));
    assert_eq!(refusal("120"), Some(delay));
    let date = "1994-11-06T08:49:37Z".parse().expect("a date");
    assert_eq!(
        refusal("Sun, 06 Nov 1994 08:49:37 GMT"),
        Some(RetryAfter::At(date))
    );
    assert_eq!(refusal("soon"), None);
}

#[test]
fn only_the_path_of_a_target_is_kept() {
    for (target, path) in [
        ("/chat", "/chat"),
        ("/chat?token=secret", "/chat"),
        ("/chat#fragment", "/chat"),
        ("ws://user:secret@server:8080/chat?x=/y", "/chat"),
        ("http://server?token=secret", "/"),
        ("*", "*"),
        ("?secret", ""),
    ] {
        assert_eq!(path_of(target), path, "{target}");
    }
}

#[test]
fn a_broken_header_line_does_not_hide_the_others() {
    let broken = REQUEST.replace("Origin: http", "Ori gin\x02: http");
    let read = request(&broken);
    assert_eq!(read.origin, None);
    assert_eq!(read.version, Some(13));
    assert_eq!(read.host.as_deref(), Some("server.example.com"));
}

#[test]
fn a_head_cut_anywhere_keeps_its_complete_lines_and_breaks_no_rule() {
    let whole = request(REQUEST);
    for end in 0..REQUEST.len() {
        let cut = request(&REQUEST[..end]);
        assert_eq!(
            faults(cut.faults.iter()),
            faults([HandshakeFault::CutOff]),
            "{end}"
        );
        let has = |line: &str| REQUEST[..end].contains(line);
        let method = has("GET ").then_some("GET".into());
        assert_eq!(cut.method, method, "{end}");
        let path = has("?token=secret ").then_some("/chat".into());
        assert_eq!(cut.path, path, "{end}");
        assert_eq!(
            cut.host,
            whole.host.clone().filter(|_| has("server.example.com\r\n")),
            "{end}"
        );
        assert_eq!(
            cut.key,
            whole.key.clone().filter(|_| has("==\r\n")),
            "{end}"
        );
        assert_eq!(
            cut.version,
            whole.version.filter(|_| has("13\r\n")),
            "{end}"
        );
    }
    for end in 0..ANSWER.len() {
        let cut = response(&ANSWER[..end]);
        let found = faults(cut.faults_after(&whole).iter());
        assert_eq!(found, faults([HandshakeFault::CutOff]), "{end}");
        let accept = "xOo=\r\n";
        assert_eq!(
            cut.accept.is_some(),
            ANSWER[..end].contains(accept),
            "{end}"
        );
    }
}

/// Plausible heads, with every kind of damage.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => select(REQUEST.split_inclusive(' ').collect::<Vec<_>>()).prop_map(|s| s.as_bytes().to_vec()),
        4 => select(ANSWER.split_inclusive(' ').collect::<Vec<_>>()).prop_map(|s| s.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
    ];
    let mangled = (
        select(vec![REQUEST, ANSWER]),
        vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    )
        .prop_map(|(head, bytes)| {
            let mut head = head.as_bytes().to_vec();
            for (index, byte) in bytes {
                let at = index.index(head.len());
                head[at] = byte;
            }
            head
        });
    prop_oneof![
        vec(piece, 0..30).prop_map(|pieces| pieces.concat()),
        mangled,
        vec(any::<u8>(), 0..1100),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_without_the_query(head in damaged()) {
        let request = UpgradeRequest::parse(&head);
        let response = UpgradeResponse::parse(&head);
        response.faults_after(&request);
        if let Some(path) = &request.path {
            prop_assert!(!path.contains('?'), "{path}");
        }
        if let Some(status) = response.status {
            prop_assert!(status < 1000);
        }
    }
}
