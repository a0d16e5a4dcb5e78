//! The order of frames in messages (RFC 6455 §5.4): fragments follow their first frame, control frames may
//! come in between.

use crate::{
    bounds::within,
    frame::{Header, opcode},
    stats::ProtocolError,
};

/// The message state of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct MessageState(pub(crate) u8);

impl MessageState {
    /// Anything may follow.
    pub const UNKNOWN: Self = Self(0);
    /// The last message is complete, or there was none.
    pub const BETWEEN: Self = Self(1);
    /// A message waits for its continuation.
    pub const INSIDE: Self = Self(2);

    /// The state after a frame, and the broken rule as a bit by [`ProtocolError`], or 0.
    #[inline(always)]
    pub fn after(self, header: &Header) -> (Self, u16) {
        let op = header.opcode();
        let index = (self.0 & 3) << 3
            | ((op >= opcode::CLOSE) as u8) << 2
            | ((op == opcode::CONTINUATION) as u8) << 1
            | header.fin() as u8;
        let next = NEXT[within(index as usize, NEXT.len() - 1)];
        (Self(next & 3), (next as u16 >> 2) << FIRST_RULE)
    }
}

const FIRST_RULE: u8 = ProtocolError::UnexpectedContinuation as u8;
const UNEXPECTED: u8 = 1 << 2;
const INTERLEAVED: u8 = 2 << 2;

/// By state, control, continuation and FIN: the next state, and above it the broken rule. A table, because
/// the verifier follows every branch.
static NEXT: [u8; 32] = {
    assert!(FIRST_RULE + 1 == ProtocolError::InterleavedMessage as u8);
    let mut table = [0; 32];
    let mut index = 0;
    while index < table.len() {
        let state = MessageState((index >> 3) as u8);
        let (control, continuation, fin) = (index & 4 != 0, index & 2 != 0, index & 1 != 0);
        table[index] = if control {
            state.0
        } else {
            let broken = match (state, continuation) {
                (MessageState::BETWEEN, true) => UNEXPECTED,
                (MessageState::INSIDE, false) => INTERLEAVED,
                _ => 0,
            };
            let next = if fin {
                MessageState::BETWEEN
            } else {
                MessageState::INSIDE
            };
            next.0 | broken
        };
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Head;

    fn frame(first_byte: u8) -> Header {
        Header::parse(&Head([u64::from(first_byte), 0]), 2).expect("complete")
    }

    #[test]
    fn fragments_follow_their_first_frame_and_control_frames_change_nothing() {
        let unexpected = 1 << ProtocolError::UnexpectedContinuation as u16;
        let interleaved = 1 << ProtocolError::InterleavedMessage as u16;
        let (unknown, between, inside) = (
            MessageState::UNKNOWN,
            MessageState::BETWEEN,
            MessageState::INSIDE,
        );
        for (state, first_byte, next, broken) in [
            (unknown, 0x80, between, 0),
            (unknown, 0x01, inside, 0),
            (unknown, 0x89, unknown, 0),
            (between, 0x81, between, 0),
            (between, 0x02, inside, 0),
            (between, 0x80, between, unexpected),
            (between, 0x00, inside, unexpected),
            (inside, 0x00, inside, 0),
            (inside, 0x80, between, 0),
            (inside, 0x8a, inside, 0),
            (inside, 0x88, inside, 0),
            (inside, 0x81, between, interleaved),
            (inside, 0x41, inside, interleaved),
        ] {
            let after = state.after(&frame(first_byte));
            assert_eq!(after, (next, broken), "{state:?} {first_byte:x}");
        }
    }
}
