//! A [`Direction`] as a type, so that each gets code of its own.

use monitor_common::Direction;

use crate::{
    handshake::{recognise_received, recognise_sent},
    packet::PacketContext,
    walk::{step_received, step_sent, walk_on_received, walk_on_sent},
};

/// The direction of the packet in hand, and the global functions that work on it. See
/// [`crate::walk`] for why they are global.
pub(crate) trait DirectionMarker {
    const DIRECTION: Direction;

    fn recognise(packet: &PacketContext);

    /// One step of the walk; 1 to go on. Only the compiler knows that it is 0 or 1, not the verifier.
    fn step(packet: &PacketContext) -> u32;

    fn walk_on(packet: &PacketContext);
}

pub(crate) enum Rx {}
pub(crate) enum Tx {}

impl DirectionMarker for Rx {
    const DIRECTION: Direction = Direction::Rx;

    #[inline(always)]
    fn recognise(p: &PacketContext) {
        recognise_received(p.skb, p.flow, p.stats, p.piece, p.now);
    }

    #[inline(always)]
    fn step(p: &PacketContext) -> u32 {
        step_received(p.skb, p.flow, p.stats, p.piece, p.now)
    }

    #[inline(always)]
    fn walk_on(p: &PacketContext) {
        walk_on_received(p.skb, p.flow, p.stats, p.piece, p.now);
    }
}

impl DirectionMarker for Tx {
    const DIRECTION: Direction = Direction::Tx;

    #[inline(always)]
    fn recognise(p: &PacketContext) {
        recognise_sent(p.skb, p.flow, p.stats, p.piece, p.now);
    }

    #[inline(always)]
    fn step(p: &PacketContext) -> u32 {
        step_sent(p.skb, p.flow, p.stats, p.piece, p.now)
    }

    #[inline(always)]
    fn walk_on(p: &PacketContext) {
        walk_on_sent(p.skb, p.flow, p.stats, p.piece, p.now);
    }
}
