//! The bytes that the ends of a story send.

use wire::{BINARY, CLOSE, PING, PONG};

use crate::story::Act;

/// The bytes an end writes for this act, or `None` if it needs none. Pings are numbered.
pub(crate) fn bytes_of(act: Act, masked: bool, pings: &mut u8) -> Option<Vec<u8>> {
    Some(match act {
        Act::Message(len) => frame(BINARY, &vec![0x77; len], masked),
        Act::Ping => return bytes_of(Act::Pings(1), masked, pings),
        Act::Pings(count) => {
            let mut bytes = Vec::new();
            for _ in 0..count {
                *pings = pings.wrapping_add(1);
                bytes.extend(frame(PING, &[*pings], masked));
            }
            bytes
        }
        Act::Pong => frame(PONG, b"", masked),
        Act::Close(code) => frame(CLOSE, &code.to_be_bytes(), masked),
        Act::Raw(bytes) => bytes.to_vec(),
        Act::Fin | Act::Rst | Act::KeepAlive => return None,
    })
}

/// The pongs for these pings.
pub(crate) fn pongs(pings: &[u8], masked: bool) -> Vec<u8> {
    let pongs = pings.iter().flat_map(|n| frame(PONG, &[*n], masked));
    pongs.collect()
}

/// The bytes in a TLS record.
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    let len = (bytes.len() as u16).to_be_bytes();
    [&[0x17, 3, 3][..], &len, bytes].concat()
}

pub(crate) fn header(opcode: u8, len: usize, masked: bool) -> Vec<u8> {
    wire::header(0x80 | opcode, len, masked.then_some([0; 4]))
}

fn frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    wire::frame(opcode, payload, masked.then_some([0; 4]))
}

/// The payloads of the pings at the beginning of a segment of the host.
pub(crate) fn pings_in(mut bytes: &[u8], is_tls: bool) -> Vec<u8> {
    let mut pings = Vec::new();
    if is_tls {
        bytes = bytes.get(5..).unwrap_or_default();
    }
    while let [first, len, rest @ ..] = bytes
        && *first == 0x80 | PING
    {
        let rest = if len & 0x80 != 0 {
            rest.get(4..)
        } else {
            Some(rest)
        };
        let Some([number, rest @ ..]) = rest else {
            break;
        };
        pings.push(*number);
        bytes = rest;
    }
    pings
}

/// The received bytes of an end, parsed for pings.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    held: Vec<u8>,
    /// Bytes to skip: the rest of a frame.
    skip: usize,
}

impl Incoming {
    /// The numbers of the pings that these bytes complete.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut pings = Vec::new();
        self.held.extend(bytes);
        loop {
            let passed = self.skip.min(self.held.len());
            self.held.drain(..passed);
            self.skip -= passed;
            let Some((header, len)) = lengths(&self.held) else {
                return pings;
            };
            if self.held[0] & 0xf == PING {
                let Some(number) = self.held.get(header) else {
                    return pings;
                };
                // The mask is zero.
                pings.push(*number);
            }
            self.skip = header + len;
        }
    }
}

/// The lengths of a frame's header and payload, once they have arrived.
fn lengths(frame: &[u8]) -> Option<(usize, usize)> {
    let second = *frame.get(1)?;
    let mask = usize::from(second >> 7) * 4;
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    Some(match second & 0x7f {
        126 => (4 + mask, number(frame.get(2..4)?)),
        127 => (10 + mask, number(frame.get(2..10)?)),
        len => (2 + mask, usize::from(len)),
    })
}
