//! Random bytes as a recording, or as a part of one.

use proptest::{prelude::*, sample::select};
use wire::{Conversation, Order, Recording};

use crate::{
    files::{Block, pcapng},
    formats::short_story,
    replay, server,
};

/// A valid file header, so that the rest is parsed.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let link = select(vec![0_u32, 1, 12, 101, 108, 113, 228, 229, 276, 7]);
    (link, any::<bool>(), any::<bool>()).prop_map(|(link, ng, big)| {
        let order = if big { Order::Big } else { Order::Little };
        if ng {
            return [order.section(), order.interface(link, 0, Some(6))].concat();
        }
        let mut header = order.u32(0xa1b2_c3d4).to_vec();
        header.extend([0; 16]);
        header.extend(order.u32(link));
        header
    })
}

/// Random bytes as the content of correctly framed records.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let record = (
        prop::collection::vec(any::<u8>(), 0..120),
        any::<u32>(),
        any::<bool>(),
    );
    prop::collection::vec(record, 0..10).prop_map(|records| {
        let mut bytes = Vec::new();
        for (mut content, time, tcp) in records {
            if tcp && content.len() > 40 {
                // Towards the watched port, mid-stream.
                content[0] = 0x45;
                content[2..4].copy_from_slice(&90_u16.to_be_bytes());
                content[6..8].fill(0);
                content[9] = 6;
                content[20..24].copy_from_slice(&[0x10, 0, 0x1f, 0x90]);
                content[32] = 0x50;
            }
            let len = (content.len() as u32).to_le_bytes();
            bytes.extend(time.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(len);
            bytes.extend(len);
            bytes.extend(content);
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_judged_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = replay(&bytes, &[server(8080, None)]);
    }

    #[test]
    fn any_bytes_behind_a_header_are_judged(header in header(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        replay(&[header, bytes].concat(), &[server(8080, None)]).expect("a valid header");
    }

    #[test]
    fn any_packets_are_judged_or_skipped(link in select(vec![0_u8, 1, 12, 101, 113]), bytes in records()) {
        let mut file = Recording::default().pcap();
        file[20] = link;
        file.extend(bytes);
        let limit = std::time::Duration::from_secs(60);
        let played = replay(&file, &[server(8080, Some(limit))]).expect("a valid header");
        prop_assert!(played.end.is_none());
        let skipped: u64 = played.summary.skipped.iter().map(|(_, packets)| packets).sum();
        prop_assert_eq!(played.summary.segments + skipped, played.summary.packets);
    }

    #[test]
    fn a_recording_with_a_wrong_byte_is_judged(at in any::<prop::sample::Index>(), byte in any::<u8>(), ng in any::<bool>()) {
        let recording = short_story(Conversation::v4());
        let mut file = match ng {
            true => pcapng(&recording, Order::Little, Block::Enhanced, 6),
            false => recording.pcap(),
        };
        *at.get_mut(&mut file) = byte;
        let _ = replay(&file, &[server(8080, None)]);
    }
}
