//! `cargo xtask scale --namespaces`: the start and the scans with connections in many network namespaces.

mod population;
mod report;
mod scan_log;
mod scene;
mod worker;

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Args, measured_wsmon, require_memory, require_none};
use crate::progress::Progress;
use population::Layout;
pub(super) use report::Report;
use scene::Plan;

pub(crate) use worker::run as run_worker;

/// Connections that stall and whose verdicts are awaited, at most one in each served namespace.
const STALLED: usize = 20;

/// Plays each scene, the one with the fewest connections and served namespaces first.
///
/// # Errors
/// If something could not be measured; a wrong result is in the report.
pub(super) fn measure(args: &Args, count: u32, progress: &mut Progress<'_>) -> Result<Report> {
    let is_share = |share: &f64| (0.0..=1.0).contains(share);
    ensure!(
        args.served_share.iter().all(is_share),
        "--served-share is a share of the namespaces, such as 0.1"
    );
    let mut numbers = args.connections.clone();
    numbers.sort_unstable();
    numbers.dedup();
    require_memory(numbers.last().copied().unwrap_or_default())?;
    let mut shares = args.served_share.clone();
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    let wsmon = measured_wsmon(args, progress)?;
    let mut scenes = Vec::new();
    for connections in numbers {
        for share in &shares {
            let served = (f64::from(count) * share).round() as usize;
            let plan = Plan {
                layout: Layout {
                    namespaces: count as usize,
                    served: served.max(1),
                    connections: connections as usize,
                },
                steady: args.steady,
                stalled: STALLED,
            };
            scenes.push(scene::play(plan, &wsmon, progress)?);
        }
    }
    Ok(Report { scenes })
}

/// A few namespaces for `cargo xtask test`: checks that everything is found and only what is needed is
/// read, not how fast.
///
/// # Errors
/// If one of these checks fails.
pub(super) fn run_briefly(progress: &mut Progress<'_>) -> Result<()> {
    let plan = Plan {
        layout: Layout {
            namespaces: 6,
            served: 2,
            connections: 60,
        },
        steady: Duration::ZERO,
        // Their verdict takes half a minute.
        stalled: 0,
    };
    let measured = scene::play(plan, &lab::build_wsmon()?, progress)?;
    require_none(&measured.failures())
}
