//! A [`Direction`] as a type, so that each direction gets its own code.

use monitor_common::Direction;

use crate::{
    handshake::{recognise_received, recognise_sent},
    packet::PacketContext,
    records::{records_received, records_sent},
    walk::{step_received, step_sent, walk_on_received, walk_on_sent},
};

/// The direction of the current packet, and the global functions that process it. See [`crate::walk`] for
/// why they are global.
pub(crate) trait DirectionMarker {
    const DIRECTION: Direction;

    /// Returns the length of the PROXY header with which the segment begins.
    fn recognise(packet: &mut PacketContext) -> u32;

    /// Follows the TLS records of the piece.
    fn follow_records(packet: &mut PacketContext);

    /// One step of the walk; 1 to continue. Only the compiler, not the verifier, knows that it is 0 or 1.
    fn step(packet: &mut PacketContext) -> u32;

    fn walk_on(packet: &mut PacketContext);
}

pub(crate) enum Rx {}
pub(crate) enum Tx {}

impl DirectionMarker for Rx {
    const DIRECTION: Direction = Direction::Rx;

    #[inline(always)]
    fn recognise(packet: &mut PacketContext) -> u32 {
        let (skb, flow, stats, piece, now) = packet.arguments();
        recognise_received(skb, flow, stats, piece, now)
    }

    #[inline(always)]
    fn follow_records(packet: &mut PacketContext) {
        let (skb, flow, stats, piece, now) = packet.arguments();
        records_received(skb, flow, stats, piece, now);
    }

    #[inline(always)]
    fn step(packet: &mut PacketContext) -> u32 {
        let (skb, flow, stats, piece, now) = packet.arguments();
        step_received(skb, flow, stats, piece, now)
    }

    #[inline(always)]
    fn walk_on(packet: &mut PacketContext) {
        let (skb, flow, stats, piece, now) = packet.arguments();
        walk_on_received(skb, flow, stats, piece, now);
    }
}

impl DirectionMarker for Tx {
    const DIRECTION: Direction = Direction::Tx;

    #[inline(always)]
    fn recognise(packet: &mut PacketContext) -> u32 {
        let (skb, flow, stats, piece, now) = packet.arguments();
        recognise_sent(skb, flow, stats, piece, now)
    }

    #[inline(always)]
    fn follow_records(packet: &mut PacketContext) {
        let (skb, flow, stats, piece, now) = packet.arguments();
        records_sent(skb, flow, stats, piece, now);
    }

    #[inline(always)]
    fn step(packet: &mut PacketContext) -> u32 {
        let (skb, flow, stats, piece, now) = packet.arguments();
        step_sent(skb, flow, stats, piece, now)
    }

    #[inline(always)]
    fn walk_on(packet: &mut PacketContext) {
        let (skb, flow, stats, piece, now) = packet.arguments();
        walk_on_sent(skb, flow, stats, piece, now);
    }
}
