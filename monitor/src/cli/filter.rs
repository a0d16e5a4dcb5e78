//! The frame filter flags, shared by every command that shows frames.

use clap::Args;

use crate::records::frames::{Filter, Opcodes, Peers};
use monitor_core::{ConnId, facts::Direction};

#[derive(Args, Clone, Debug, Default)]
pub struct FilterArgs {
    /// Only connections with this port at either end
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Only peers with this address, or in this network
    #[arg(long, value_name = "IP[/BITS]")]
    pub peer: Option<Peers>,

    /// Only these opcodes: continuation, text, binary, close, ping, pong, reserved-3 …
    #[arg(long, value_name = "NAME[,NAME]")]
    pub opcode: Option<Opcodes>,

    /// Only frames that this host received (rx) or sent (tx)
    #[arg(long, value_name = "DIRECTION")]
    pub direction: Option<Direction>,

    /// Only this connection, by its cookie
    #[arg(long, value_name = "COOKIE")]
    pub cookie: Option<u64>,

    /// Only control frames: close, ping, pong
    #[arg(long)]
    pub control_only: bool,
}

impl From<&FilterArgs> for Filter {
    fn from(args: &FilterArgs) -> Self {
        Self {
            port: args.port,
            peer: args.peer,
            opcodes: args.opcode,
            direction: args.direction,
            endpoint: None,
            cookie: args.cookie.map(ConnId),
            control_only: args.control_only,
        }
    }
}
