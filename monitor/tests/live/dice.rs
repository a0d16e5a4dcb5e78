//! Random messages for the peers.

use std::{ops::RangeInclusive, sync::LazyLock};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame,
    coding::{Data, OpCode},
};

/// Ranges of payload sizes with their weights.
pub(crate) type Sizes = [(u64, RangeInclusive<usize>)];

/// Random numbers that are the same in every run (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// The frames of a message, possibly with a ping among its fragments, or a control frame.
    pub(crate) fn message(&mut self, sizes: &Sizes) -> Vec<Frame> {
        let opcode = [Data::Text, Data::Binary][self.below(2) as usize];
        match self.below(100) {
            0..=2 => vec![Frame::ping(self.payload(opcode, &CONTROL))],
            3 => vec![Frame::pong(self.payload(opcode, &CONTROL))],
            4..=9 => {
                let last = 1 + self.below(4);
                let mut fragments: Vec<_> = (0..=last)
                    .map(|i| {
                        let part = if i == 0 { opcode } else { Data::Continue };
                        let payload = self.sized(opcode, sizes);
                        Frame::message(payload, OpCode::Data(part), i == last)
                    })
                    .collect();
                fragments.insert(1, Frame::ping(self.payload(opcode, &CONTROL)));
                fragments
            }
            _ => {
                let payload = self.sized(opcode, sizes);
                vec![Frame::message(payload, OpCode::Data(opcode), true)]
            }
        }
    }

    fn sized(&mut self, opcode: Data, sizes: &Sizes) -> Bytes {
        let mut left = self.below(sizes.iter().map(|(weight, _)| weight).sum());
        let picked = sizes.iter().find(|(weight, _)| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        });
        let (_, range) = picked.expect("there are sizes");
        self.payload(opcode, range)
    }

    /// Letters for text, any bytes otherwise.
    fn payload(&mut self, opcode: Data, sizes: &RangeInclusive<usize>) -> Bytes {
        const POOL: usize = 200_000;
        static ANYTHING: LazyLock<Bytes> = LazyLock::new(|| {
            let mut dice = Dice(0);
            (0..POOL).map(|_| dice.next() as u8).collect()
        });
        static LETTERS: LazyLock<Bytes> =
            LazyLock::new(|| ANYTHING.iter().map(|byte| b' ' + byte % 95).collect());
        let length = sizes.start() + self.below((sizes.end() - sizes.start() + 1) as u64) as usize;
        let pool = if opcode == Data::Text {
            &LETTERS
        } else {
            &ANYTHING
        };
        let begin = self.below((POOL - length) as u64) as usize;
        pool.slice(begin..begin + length)
    }
}

/// RFC 6455 §5.5.
const CONTROL: RangeInclusive<usize> = 0..=125;
