//! Program behind `cargo xtask record`: regenerates the recordings in `testdata/recordings`.

mod capture;
mod conversation;
mod format;
mod frame;
mod hand_made;
mod link;
mod live;
mod tls;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Parser;

/// Peers, proxies and tcpdump answer within this time, unless something is wrong.
const SOON: Duration = Duration::from_secs(20);

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask record",
    about = "Regenerate the recordings in testdata/recordings"
)]
struct Args {
    /// Only the hand-made ones, which need no root
    #[arg(long)]
    hand_made: bool,
    /// Only those over TLS, which take five minutes
    #[arg(long, conflicts_with = "hand_made")]
    tls: bool,
    /// Write those over TLS there instead
    #[arg(long, value_name = "FOLDER", requires = "tls")]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let folder = lab::workspace().join("testdata/recordings");
    if !args.tls {
        hand_made::write(&folder)?;
    }
    if args.hand_made {
        return Ok(());
    }
    if !args.tls {
        live::write(&folder)?;
    }
    tls::write(&args.out.unwrap_or_else(|| folder.join("tls")))
}
