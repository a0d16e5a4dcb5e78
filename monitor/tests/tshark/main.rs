//! `wsmon replay` and tshark read the same recordings; they must agree on every frame.
//!
//! `testdata/recordings/README.md` says what the recordings are. Beside each hand-made one lies the
//! list of the frames that were put into it, so where tshark is wrong or cannot tell, wsmon is still
//! held to the truth.

mod files;
mod frames;
mod oracle;
mod replay;

use self::files::{Recording, in_parallel};

/// Recordings that tshark reads differently, and why it is tshark that is wrong or cannot tell.
const EXCEPTIONS: [(&str, &str); 8] = [
    (
        "cut-14-byte-headers.pcap",
        "the uploads are given up before their payload is whole, and tshark shows no frame before it \
         has all of it; the header says what there is to know",
    ),
    (
        "lost-headers.pcap",
        "tshark waits for the lost bytes until the file ends and shows nothing of either direction, \
         not even what came before; without reassembling out of order it takes payload for headers",
    ),
    (
        "lost-payload.pcap",
        "tshark waits for the lost bytes until the file ends; they are payload, whose length is known, \
         and the next header is behind them",
    ),
    (
        "mid-payload.pcap",
        "tshark takes the bytes the capture happens to start with for a header, though their opcode \
         is reserved, and waits for a payload of 2^64 bytes",
    ),
    (
        "mid-stream.pcap",
        "tshark takes whatever a capture starts with for a header. Here it is one, but nothing tells \
         so: wsmon waits for evidence and counts the frames from there on",
    ),
    (
        "snap-length.pcap",
        "tshark puts no payload together that was not captured whole, and takes the start of the next \
         segment for a header",
    ),
    (
        "snap-length-hides-headers.pcap",
        "tshark shows nothing behind the first segment that was not captured whole",
    ),
    (
        "upgrade-without-request.pcap",
        "tshark follows an upgrade only when it has seen the request; the 101 names the protocol",
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
fn wsmon_finds_the_frames_that_were_put_into_hand_made_recordings() {
    on_each(|recording| match recording.truth() {
        Some(truth) => frames::compare("wsmon", &replay::frames(recording)?, "the truth", &truth),
        None => Ok(()),
    });
}

/// Otherwise the generator, or the way tshark is asked, is wrong. An exception that is none must go.
#[test]
fn tshark_finds_the_frames_that_were_put_into_hand_made_recordings_but_for_the_exceptions() {
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
        assert!(
            recording.truth().is_some(),
            "{name}: what should wsmon say?"
        );
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

/// Looks at each recording, and fails with all there is to complain about.
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
