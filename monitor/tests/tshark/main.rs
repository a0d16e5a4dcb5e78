//! `wsmon replay` and tshark read the same recordings and must agree on every frame.
//!
//! `testdata/recordings/README.md` describes the recordings. Each hand-made one has a list of the
//! frames that were put into it, so wsmon is compared with the truth even if tshark is wrong or
//! cannot know.

mod files;
mod frames;
mod oracle;
mod replay;

use self::files::{Recording, in_parallel};

/// Recordings that tshark reads differently, and why tshark is wrong or cannot know.
const EXCEPTIONS: [(&str, &str); 8] = [
    (
        "cut-14-byte-headers.pcap",
        "the uploads are abandoned before their payload is complete, and tshark shows a frame only when \
         it has the whole payload; the header already has all the facts",
    ),
    (
        "lost-headers.pcap",
        "tshark waits for the lost bytes until the file ends and shows nothing of either direction, \
         not even earlier frames; without out-of-order reassembly it reads payload as headers",
    ),
    (
        "lost-payload.pcap",
        "tshark waits for the lost bytes until the file ends; they are payload of known length, and the \
         next header follows",
    ),
    (
        "mid-payload.pcap",
        "tshark reads the first captured bytes as a header, though their opcode is reserved, and waits \
         for a payload of 2^64 bytes",
    ),
    (
        "mid-stream.pcap",
        "tshark reads the first captured bytes as a header. Here that is correct, but without evidence: \
         wsmon waits for evidence and counts the frames from there on",
    ),
    (
        "snap-length.pcap",
        "tshark does not reassemble truncated payload, and reads the start of the next segment as a \
         header",
    ),
    (
        "snap-length-hides-headers.pcap",
        "tshark shows nothing after the first truncated segment",
    ),
    (
        "upgrade-without-request.pcap",
        "tshark follows an upgrade only if it has seen the request; wsmon takes the protocol from the 101",
    ),
];

#[test]
fn wsmon_and_tshark_agree_on_every_frame() {
    on_each(|recording| {
        if is_exception(recording) {
            return Ok(());
        }
        let (ours, theirs) = (replay::frames(recording)?, oracle::frames(recording)?);
        frames::compare("wsmon", &ours, "tshark", theirs)
    });
}

#[test]
fn wsmon_finds_the_frames_of_hand_made_recordings() {
    on_each(|recording| match recording.truth() {
        Some(truth) => frames::compare("wsmon", &replay::frames(recording)?, "the truth", &truth),
        None => Ok(()),
    });
}

/// A difference means that the generator or tshark's options are wrong. An exception without a
/// difference must be removed.
#[test]
fn tshark_finds_the_frames_of_hand_made_recordings_except_for_the_exceptions() {
    on_each(|recording| {
        let Some(truth) = recording.truth() else {
            return Ok(());
        };
        let comparison = frames::compare("tshark", oracle::frames(recording)?, "the truth", &truth);
        match (comparison, is_exception(recording)) {
            (Ok(()), true) => Err("tshark is right: take it off EXCEPTIONS".to_owned()),
            (Err(_), true) => Ok(()),
            (comparison, false) => comparison,
        }
    });
}

#[test]
fn every_exception_is_a_hand_made_recording() {
    for (name, _) in EXCEPTIONS {
        let recording = Recording::named(name);
        assert!(recording.truth().is_some(), "{name}: no list of frames");
    }
}

#[test]
fn every_recording_is_explained_and_nothing_else() {
    let explained = files::explained();
    let found: Vec<_> = Recording::all()
        .iter()
        .map(|recording| recording.name())
        .collect();
    assert_eq!(explained, found);
    assert!(found.len() >= 40, "{}", found.len());
}

fn is_exception(recording: &Recording) -> bool {
    EXCEPTIONS.iter().any(|(name, _)| *name == recording.name())
}

/// Checks each recording, and fails with all complaints.
fn on_each(look: impl Fn(&Recording) -> Result<(), String> + Sync) {
    let mut complaints: Vec<_> = in_parallel(&Recording::all(), |recording| {
        look(recording).map_err(|complaint| format!("\n{}: {complaint}", recording.name()))
    })
    .into_iter()
    .filter_map(Result::err)
    .collect();
    complaints.sort();
    assert!(
        complaints.is_empty(),
        "{} recordings:{}",
        complaints.len(),
        complaints.concat()
    );
}
