//! Compressed recordings.

use std::io::{self, Read, Write};

use monitor::replay::{Capture, CaptureError, unpacked};
use proptest::prelude::*;
use wire::Conversation;

use crate::{
    Played,
    formats::{Slow, reported, short_story},
    judge, replay, server,
};

/// The file packed with gzip, xz and zstd, in one piece and in two.
fn packed(file: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let gzip = |part: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(part).expect("memory");
        packer.finish().expect("memory")
    };
    let xz = |part: &[u8]| {
        let options = lzma_rust2::XzOptions::with_preset(1);
        let mut packer = lzma_rust2::XzWriter::new(Vec::new(), options).expect("an xz file");
        packer.write_all(part).expect("memory");
        packer.finish().expect("memory")
    };
    let zstd = |part: &[u8]| {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        compress_to_vec(part, CompressionLevel::Fastest)
    };
    // A skippable frame between the two (RFC 8878 §3.1.2).
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"any"].concat();
    let (first, second) = file.split_at(file.len() / 3);
    vec![
        ("gzip", gzip(file)),
        ("gzip", [gzip(first), gzip(second)].concat()),
        ("xz", xz(file)),
        ("xz", [xz(first), xz(second)].concat()),
        ("zstd", zstd(file)),
        ("zstd", [zstd(first), skippable, zstd(second)].concat()),
    ]
}

/// The records of a packed file, and how it ends.
fn played(source: Box<dyn Read + '_>) -> Result<Played, CaptureError> {
    let mut bytes = Vec::new();
    let mut unpacked = unpacked(source)?;
    match unpacked.read_to_end(&mut bytes) {
        Ok(_) => replay(&bytes, &[server(8080, None)]),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn a_packed_recording_gives_the_same_records() {
    let recording = short_story(Conversation::v4());
    let file = recording.pcap();
    let expected = reported(&judge(&recording, &[server(8080, None)]));
    for (kind, packed) in packed(&file) {
        let played =
            played(Box::new(&packed[..])).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(reported(&played), expected, "{kind}");
    }
    assert_eq!(
        reported(&played(Box::new(&file[..])).expect("as it is")),
        expected
    );
    for short in [&b""[..], b"\x1f", b"abc"] {
        assert!(matches!(
            played(Box::new(short)),
            Err(CaptureError::Unrecognised(_))
        ));
    }
}

#[test]
fn truncation_and_damage_of_a_packed_recording_are_reported() {
    let file = short_story(Conversation::v4()).pcap();
    for (kind, packed) in packed(&file) {
        for cut in [20, packed.len() / 2, packed.len() - 5] {
            let mut capture = match unpacked(&packed[..cut]).map(Capture::open) {
                Ok(Ok(capture)) => capture,
                Ok(Err(CaptureError::Packed("cut off"))) => continue,
                other => panic!("{kind}, {cut}: {:?}", other.map(|opened| opened.err())),
            };
            let last = loop {
                match capture.next_packet() {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            let is_cut = matches!(last, Some(CaptureError::Packed("cut off")));
            // The second of two pieces may be missing without a trace.
            assert!(
                is_cut || matches!(last, Some(CaptureError::Truncated { .. })),
                "{kind}, {cut}: {last:?}"
            );
        }
        let mut damaged = packed.clone();
        for byte in &mut damaged[30..60] {
            *byte ^= 0x5a;
        }
        let error = played(Box::new(&damaged[..])).expect_err(kind);
        let said = error.to_string();
        assert!(said.starts_with("compressed, and "), "{kind}: {said}");
    }
}

#[test]
fn a_read_error_is_not_reported_as_damage() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(5))
        }
    }
    let file = short_story(Conversation::v4()).pcap();
    for (kind, packed) in packed(&file) {
        let mut half = unpacked(packed[..packed.len() / 4].chain(Failing)).expect(kind);
        let error = half.read_to_end(&mut Vec::new()).expect_err(kind);
        assert_eq!(error.raw_os_error(), Some(5), "{kind}: {error}");
    }
}

proptest! {
    #[test]
    fn a_packed_recording_with_wrong_bytes_is_judged_or_refused(
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for (_, mut bytes) in packed(&short_story(Conversation::v4()).pcap()) {
            for (at, byte) in &wrong {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(end.map_or(bytes.len(), |end| end.index(bytes.len())));
            let outcome = |source| match played(source) {
                Ok(played) => reported(&played),
                Err(error) => error.to_string(),
            };
            prop_assert_eq!(outcome(Box::new(&bytes[..])), outcome(Box::new(Slow(&bytes))));
        }
    }
}
