//! Decodes a byte string into a connection. Every byte string is a valid script, and every script
//! can be written as one.

use monitor_common::Direction;

/// Later acts are ignored: they would only make runs slow.
const MOST_ACTS: usize = 512;

/// A connection and its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// This host is the client.
    pub is_client: bool,
    pub start: Start,
    /// The listener has an idle limit.
    pub idle_limit: bool,
    /// How far each direction's initial sequence number lies below the wrap.
    pub below_wrap: [u16; 2],
    pub acts: Vec<Act>,
}

/// How the monitor first sees the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From the handshake on, so all of its bytes are seen.
    Established,
    /// From the handshake on, with the upgrade complete.
    Upgraded,
    /// In mid-stream.
    Adopted,
}

/// One event, `wait` after the previous one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub direction: Direction,
    /// 0 = at once, else 2^(2 * wait + 8) nanoseconds: 1 µs to 275 s.
    pub wait: u8,
    pub action: Action,
}

/// Writing appends to a direction's stream; the monitor sees only deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes a legal frame: `first` gives FIN, RSV1 and the opcode, `len` its length (see
    /// [`frame_len`]), `fill` its payload and masking key.
    Frame { first: u8, len: u8, fill: u8 },
    /// Writes arbitrary bytes.
    Bytes(Vec<u8>),
    /// Writes one of the [`crate::segment::HTTP`] texts.
    Http(u8),
    /// Delivers what was written but neither delivered nor lost, up to a [`segment_len`].
    Deliver(u8),
    /// The network loses what `Deliver` would deliver; `Again` may deliver it later.
    Lose(u8),
    /// Delivers up to a [`segment_len`] from `back` bytes before the end of the sent bytes: a
    /// duplicate, an overlap or a late arrival.
    Again { back: u16, len: u8 },
    /// A segment without payload. `flags` as on the wire; bit 6 sends it one sequence number early,
    /// like a keepalive probe. `ack` is relative to everything sent.
    Control { flags: u8, ack: i8, window: u8 },
    /// A segment that is not part of the stream, `ahead` of the sent bytes.
    Stray { ahead: i32, payload: Vec<u8> },
}

/// Payload length of a frame: every encoding with its edges.
pub fn frame_len(code: u8) -> usize {
    const LONG: [usize; 6] = [300, 1400, 3000, 0xffff, 0x1_0000, 70_000];
    match code {
        0..250 => usize::from(code),
        _ => LONG[usize::from(code - 250)],
    }
}

/// Payload length of a segment: from zero to what GRO merges.
pub fn segment_len(code: u8) -> usize {
    match code {
        0..=199 => usize::from(code),
        _ => usize::from(code - 199) * 1448,
    }
}

impl Script {
    /// Reads a script; missing bytes at the end are zero.
    pub fn read(data: &[u8]) -> Self {
        let mut bytes = Bytes(data);
        let setup = bytes.u8();
        let mut script = Self {
            is_client: setup & 1 != 0,
            start: match setup >> 1 & 3 {
                1 => Start::Upgraded,
                2 => Start::Adopted,
                _ => Start::Established,
            },
            idle_limit: setup & 8 != 0,
            below_wrap: [bytes.u16(), bytes.u16()],
            acts: Vec::new(),
        };
        while !bytes.0.is_empty() && script.acts.len() < MOST_ACTS {
            script.acts.push(Act::read(&mut bytes));
        }
        script
    }

    /// Initial sequence number of each direction.
    pub(super) fn isn(&self) -> [u32; 2] {
        self.below_wrap
            .map(|below| 0_u32.wrapping_sub(below.into()))
    }

    /// The bytes that [`Script::read`] reads as this script.
    pub fn write(&self) -> Vec<u8> {
        let start = match self.start {
            Start::Established => 0,
            Start::Upgraded => 1,
            Start::Adopted => 2,
        };
        let setup = u8::from(self.is_client) | start << 1 | u8::from(self.idle_limit) << 3;
        let mut bytes = vec![setup];
        for below in self.below_wrap {
            bytes.extend(below.to_le_bytes());
        }
        for act in &self.acts {
            act.write(&mut bytes);
        }
        bytes
    }
}

impl Act {
    fn read(bytes: &mut Bytes<'_>) -> Self {
        let tag = bytes.u8();
        Self {
            direction: Direction::ALL[usize::from(tag >> 3 & 1)],
            wait: tag >> 4,
            action: match tag & 7 {
                0 => Action::Frame {
                    first: bytes.u8(),
                    len: bytes.u8(),
                    fill: bytes.u8(),
                },
                1 => Action::Bytes(bytes.some()),
                2 => Action::Http(bytes.u8()),
                3 => Action::Deliver(bytes.u8()),
                4 => Action::Lose(bytes.u8()),
                5 => Action::Again {
                    back: bytes.u16(),
                    len: bytes.u8(),
                },
                6 => Action::Control {
                    flags: bytes.u8(),
                    ack: bytes.u8().cast_signed(),
                    window: bytes.u8(),
                },
                _ => Action::Stray {
                    ahead: i32::from_le_bytes(bytes.array()),
                    payload: bytes.some(),
                },
            },
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let (kind, rest) = match &self.action {
            Action::Frame { first, len, fill } => (0, vec![*first, *len, *fill]),
            Action::Bytes(some) => (1, with_len(some)),
            Action::Http(which) => (2, vec![*which]),
            Action::Deliver(len) => (3, vec![*len]),
            Action::Lose(len) => (4, vec![*len]),
            Action::Again { back, len } => (5, [&back.to_le_bytes()[..], &[*len]].concat()),
            Action::Control { flags, ack, window } => {
                (6, vec![*flags, ack.cast_unsigned(), *window])
            }
            Action::Stray { ahead, payload } => {
                (7, [&ahead.to_le_bytes()[..], &with_len(payload)].concat())
            }
        };
        bytes.push(kind | (self.direction as u8) << 3 | self.wait << 4);
        bytes.extend(rest);
    }
}

fn with_len(bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![bytes.len() as u8];
    all.extend(bytes);
    all
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (front, back) = self.0.split_at(N.min(self.0.len()));
        self.0 = back;
        let mut array = [0; N];
        array[..front.len()].copy_from_slice(front);
        array
    }

    fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// A length byte and that many bytes, or as many as remain.
    fn some(&mut self) -> Vec<u8> {
        let len = usize::from(self.u8()).min(self.0.len());
        let (front, back) = self.0.split_at(len);
        self.0 = back;
        front.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_was_written() {
        let deeds = [
            Action::Frame {
                first: 0x81,
                len: 7,
                fill: 0xff,
            },
            Action::Bytes(vec![1, 2, 3]),
            Action::Http(4),
            Action::Deliver(200),
            Action::Lose(9),
            Action::Again { back: 300, len: 8 },
            Action::Control {
                flags: 0x11,
                ack: -3,
                window: 2,
            },
            Action::Stray {
                ahead: -70_000,
                payload: vec![5; 255],
            },
        ];
        let acts = deeds.into_iter().zip(0..).map(|(action, i)| Act {
            direction: Direction::ALL[usize::from(i % 2 == 0)],
            wait: i,
            action,
        });
        let script = Script {
            is_client: true,
            start: Start::Adopted,
            idle_limit: true,
            below_wrap: [3, 40_000],
            acts: acts.collect(),
        };
        assert_eq!(Script::read(&script.write()), script);
    }

    #[test]
    fn a_truncated_act_is_filled_with_zeros() {
        let script = Script::read(&[2, 0, 0, 0, 0, 0, 0x81]);
        let frame = Action::Frame {
            first: 0x81,
            len: 0,
            fill: 0,
        };
        assert_eq!(script.start, Start::Upgraded);
        assert_eq!(script.acts.last().map(|act| &act.action), Some(&frame));
    }
}
