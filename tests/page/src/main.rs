//! Program behind `cargo xtask page`: serves the status page in several states and checks it in Chromium.
//!
//! Only the data are made up. The server and the page are those of `wsmon run`. `browser.cjs` loads each
//! page at the width of a phone and of a desktop, in the light and the dark colour scheme.

mod scenes;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::Parser;

#[derive(Debug, Parser)]
#[command(
    bin_name = "cargo xtask page",
    about = "Check the status page in Chromium",
    long_about = "Serves the status page in several states and loads each in headless Chromium, 390 and \
1280 pixels wide, in the light and the dark colour scheme. Checks that there is no message on the console, \
no request but that for the page, no horizontal scrolling, and no violation that axe-core finds. Writes a \
screenshot of each.",
    after_help = "Exit codes: 0 nothing found, 1 otherwise, 3 a tool is missing"
)]
struct Args {
    /// Folder for the screenshots [default: target/page/screenshots]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    // At run time, because a copied target folder may hold a binary that was compiled elsewhere.
    let package = env::var_os("CARGO_MANIFEST_DIR").context("start it with cargo xtask page")?;
    let package = Path::new(&package);
    let target = package.join("../../target/page");
    let screenshots = args.out.unwrap_or_else(|| target.join("screenshots"));
    fs::create_dir_all(&screenshots)
        .with_context(|| format!("could not create {}", screenshots.display()))?;
    let mut browser = Command::new("node");
    browser.arg(package.join("browser.cjs")).arg(&screenshots);
    for scene in scenes::all()? {
        browser.arg(format!("{}={}", scene.name, scene.url));
    }
    // `cargo xtask page` has installed axe-core there.
    let status = browser
        .env("NODE_PATH", target.join("node_modules"))
        .status()
        .context("could not start node")?;
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
