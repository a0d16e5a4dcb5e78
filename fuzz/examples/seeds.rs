//! Writes the seeds of the fuzz targets: `cargo run --package fuzz --example seeds`.

use std::{fs, io};

fn main() -> io::Result<()> {
    for seed in fuzz::seeds::all() {
        let path = seed.path();
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, seed.bytes)?;
    }
    Ok(())
}
