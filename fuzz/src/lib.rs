//! The fuzz targets' checks, independent of the fuzzer: `fuzz_targets` passes libFuzzer's input to
//! these functions, and the tests pass the files in `seeds`.

pub mod btf_file;
pub mod frame_header;
pub mod handshake;
pub mod pcap;
pub mod ring_record;
pub mod seeds;
pub mod segment;
pub mod tls_records;

/// A target's check.
pub type Check = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Check); 7] = [
    ("btf_file", btf_file::check),
    ("frame_header", frame_header::check),
    ("handshake", handshake::check),
    ("pcap", pcap::check),
    ("ring_record", ring_record::check),
    ("segment", segment::check),
    ("tls_records", tls_records::check),
];
