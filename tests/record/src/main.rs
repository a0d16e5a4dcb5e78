//! Program behind `cargo xtask record`: regenerates the recordings in `testdata/recordings`.

mod conversation;
mod format;
mod frame;
mod hand_made;
mod link;
mod live;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask record",
    about = "Regenerate the recordings in testdata/recordings"
)]
struct Args {
    /// Only the hand-made ones, which need no root
    #[arg(long)]
    hand_made: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let folder = lab::workspace().join("testdata/recordings");
    hand_made::write(&folder)?;
    if args.hand_made {
        return Ok(());
    }
    live::write(&folder)
}
