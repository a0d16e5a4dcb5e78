//! The frame filter flags, shared by every command that shows frames.

use clap::Args;

use super::{connection_name::ConnectionName, number};
use crate::records::frames::{Opcodes, Peers};
use monitor_core::facts::Direction;

#[derive(Args, Clone, Debug, Default)]
pub struct FilterArgs {
    /// Only this connection, by its cookie, or those with this address at either end
    #[arg(value_name = "CONNECTION", conflicts_with = "cookie")]
    pub connection: Option<ConnectionName>,

    /// Only connections with this port at either end
    #[arg(long, value_name = "PORT", value_parser = number::port)]
    pub port: Option<u16>,

    /// Only peers with this address, or in this network
    #[arg(long, value_name = "IP[/BITS]")]
    pub peer: Option<Peers>,

    /// Only these opcodes: continuation, text, binary, close, ping, pong,
    /// reserved-3 …
    #[arg(long, value_name = "NAME,…")]
    pub opcode: Option<Opcodes>,

    /// Only frames that this host received (rx) or has sent (tx)
    #[arg(long, value_name = "DIRECTION")]
    pub direction: Option<Direction>,

    /// Only this connection, by its cookie: the argument CONNECTION under its former names
    #[arg(long, alias = "conn", hide = true, value_name = "COOKIE", value_parser = cookie)]
    pub cookie: Option<u64>,

    /// Only control frames: close, ping, pong
    #[arg(long)]
    pub control_only: bool,
}

fn cookie(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| "expected a number, as in alerts and wsmon list".to_owned())
}
