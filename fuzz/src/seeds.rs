//! The fuzzers' starting inputs, taken from the life of a connection. `cargo run --package fuzz
//! --example seeds` writes them to `seeds`.
//!
//! Inputs found by a fuzzer are kept there too, under a name that says what broke.

mod btf_file;
mod pcap;
mod ring_record;
mod segment;
mod tls_records;

use std::path::{Path, PathBuf};

/// One input of one target.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The target's name.
    pub target: &'static str,
    /// The file's name.
    pub name: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
}

impl Seed {
    /// Path of its file.
    pub fn path(&self) -> PathBuf {
        folder().join(self.target).join(self.name)
    }
}

/// The folder of all seeds, with a folder per target.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

/// All hand-written seeds.
pub fn all() -> Vec<Seed> {
    let of = |target, seeds: Vec<(&'static str, Vec<u8>)>| {
        seeds.into_iter().map(move |(name, bytes)| Seed {
            target,
            name,
            bytes,
        })
    };
    of("btf_file", btf_file::files())
        .chain(of("frame_header", frame_headers()))
        .chain(of("handshake", handshakes()))
        .chain(of("pcap", pcap::recordings()))
        .chain(of("ring_record", ring_record::records()))
        .chain(of("segment", segment::scripts()))
        .chain(of("tls_records", tls_records::connections()))
        .collect()
}

fn frame_headers() -> Vec<(&'static str, Vec<u8>)> {
    // The first eight are the examples of RFC 6455 §5.7, with long payloads truncated.
    [
        ("text", &b"\x81\x05Hello"[..]),
        (
            "text_masked",
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        ),
        ("fragment_first", b"\x01\x03Hel"),
        ("fragment_last", b"\x80\x02lo"),
        ("ping", b"\x89\x05Hello"),
        (
            "pong_masked",
            b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        ),
        ("binary_256", b"\x82\x7e\x01\x00"),
        ("binary_64k", b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        (
            "text_deflate_masked",
            b"\xc1\x87\x37\xfa\x21\x3d\xc5\xb2\xec\xf4",
        ),
        (
            "binary_64k_masked",
            b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04",
        ),
        ("close_1000", b"\x88\x02\x03\xe8"),
        ("close_1001_masked", b"\x88\x82\x37\xfa\x21\x3d\x34\x13"),
        ("close_empty", b"\x88\x00"),
        ("not_minimal_16", b"\x81\x7e\x00\x7d"),
        (
            "not_minimal_64",
            b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff",
        ),
        ("top_bit", b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"),
        ("ping_long", b"\x89\x7e\x00\x7e"),
        ("reserved_opcode", b"\x83\x00"),
    ]
    .map(|(name, bytes)| (name, bytes.to_vec()))
    .into()
}

fn handshakes() -> Vec<(&'static str, Vec<u8>)> {
    [
        (
            "request_rfc",
            &b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n\
            Sec-WebSocket-Version: 13\r\n\r\n"[..],
        ),
        (
            "response_rfc",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
            Sec-WebSocket-Protocol: chat\r\n\r\n",
        ),
        (
            "request_browser",
            b"GET /ws?token=abc HTTP/1.1\r\nHost: example.com:8080\r\nConnection: Upgrade\r\n\
            Pragma: no-cache\r\nCache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
            Upgrade: websocket\r\nOrigin: https://example.com\r\nSec-WebSocket-Version: 13\r\n\
            Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\nCookie: id=1; theme=dark\r\n\
            Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\
            Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
        ),
        (
            "response_with_frames",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\
            Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\
            Sec-WebSocket-Extensions: permessage-deflate\r\nServer: nginx\r\n\r\n\x81\x02hi",
        ),
        (
            "response_refused",
            b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "response_error_page",
            b"HTTP/1.0 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html></html>",
        ),
        ("health_check", b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("post", b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"),
        ("lines_without_cr", b"GET /ws HTTP/1.1\nHost: a\nUpgrade: websocket\n\n"),
        ("not_utf8", b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\nX: \x80\r\n\r\n"),
        ("cut_in_a_value", b"GET /ws HTTP/1.1\r\nHost: a\r\nCookie: aaaaaaaaaaaaaaaaaaaaaa"),
        ("tls_client_hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ]
    .map(|(name, bytes)| (name, bytes.to_vec()))
    .into()
}
