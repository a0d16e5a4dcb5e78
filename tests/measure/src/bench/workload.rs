//! The traffic to be disturbed: as fast as possible, over loopback, for the whole comparison.
//!
//! Except for node, the peers do next to nothing with a frame. Nearly all of the time is spent in
//! the kernel's TCP, so the relative cost of an observer is as large as it can be. An application's
//! own work hides it.

use lab::{find_program, node_modules};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Workload {
    /// 64 connections, frames of 125 bytes to and fro
    Echo,
    /// The same with node's `ws` for a server, as people run it
    Node,
    /// One server to 200 clients, frames of 1 KiB
    Broadcast,
    /// 8 connections, frames of 64 KiB to and fro
    Bulk,
    /// A ping and its pong on one after the other of 9,000 idle connections
    Idle,
}

impl Workload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Node => "node",
            Self::Broadcast => "broadcast",
            Self::Bulk => "bulk",
            Self::Idle => "idle",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Echo => "echo of 125-byte frames, 64 connections",
            Self::Node => "echo of 125-byte frames by node's ws, 64 connections",
            Self::Broadcast => "broadcast of 1 KiB frames to 200 connections",
            Self::Bulk => "echo of 64 KiB frames, 8 connections",
            Self::Idle => "pings on 9,000 idle connections",
        }
    }

    /// The unit that is counted.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Echo | Self::Node | Self::Bulk => "round trips",
            Self::Broadcast => "frames",
            Self::Idle => "pings with their pongs",
        }
    }

    /// Frames that pass the server's sockets per unit.
    pub(super) fn frames_each(self) -> u64 {
        match self {
            Self::Echo | Self::Node | Self::Bulk | Self::Idle => 2,
            Self::Broadcast => 1,
        }
    }

    /// The missing prerequisite, with the remedy.
    pub(super) fn missing(self) -> Option<&'static str> {
        let there =
            self != Self::Node || (find_program("node").is_some() && node_modules().is_dir());
        (!there).then_some("node or its ws is not installed: cargo xtask setup --tests")
    }

    pub(super) fn connections(self) -> usize {
        match self {
            Self::Echo | Self::Node => 64,
            Self::Broadcast => 200,
            Self::Bulk => 8,
            Self::Idle => 9_000,
        }
    }
}
