//! `cargo xtask record`: regenerates the recordings in `testdata/recordings`.

mod capture_file;
mod conversation;
mod frame;
mod hand_made;
mod live;
mod packet;

use anyhow::Result;

use crate::{
    root::{Prerequisite, RECORD_AS_ROOT, is_root},
    setup, workspace,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the hand-made ones, which need no root
    #[arg(long)]
    hand_made: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = workspace::root().join("testdata/recordings");
    hand_made::write(&folder)?;
    if args.hand_made {
        return Ok(());
    }
    if !is_root() {
        return Err(Prerequisite {
            missing: "recording real peers needs root: network namespaces".to_owned(),
            remedy: vec![
                RECORD_AS_ROOT.to_owned(),
                "without root: cargo xtask record --hand-made".to_owned(),
            ],
        }
        .into());
    }
    setup::recording_quietly()?;
    live::write(&folder)
}
