//! wsmon itself: its losses and its cost.

use super::{Family, FamilyBuilder, LossFigure, MissedRuns, Scrape};

pub(super) fn families(scrape: &Scrape<'_>, out: &mut Vec<Family>) {
    let mut lost = FamilyBuilder::counter(
        "events_lost_total",
        "Records, packets and alerts that were lost, by place and reason.",
    );
    for LossFigure {
        ring,
        reason,
        count,
    } in scrape.losses.events()
    {
        lost.add(&[("ring", ring), ("reason", reason)], count as f64);
    }
    let mut untracked = FamilyBuilder::counter(
        "untracked_connections_total",
        "Connections on watched ports that could not be tracked.",
    );
    for LossFigure { reason, count, .. } in scrape.losses.untracked() {
        untracked.add(&[("reason", reason)], count as f64);
    }
    let mut degraded = FamilyBuilder::gauge(
        "degraded",
        "1 if something was lost within the last five minutes.",
    );
    degraded.add(&[], f64::from(u8::from(scrape.degraded)));
    let mut owner_gaps = FamilyBuilder::counter(
        "owner_gaps_total",
        "Failed lookups of the owner of a connection, by reason.",
    );
    for (reason, n) in scrape.owner_gaps {
        owner_gaps.add(&[("reason", reason)], *n as f64);
    }
    let mut suppressed = FamilyBuilder::counter(
        "log_lines_suppressed_total",
        "Repeated warnings and errors that were left out of the log.",
    );
    suppressed.add(&[], scrape.suppressed_log_lines as f64);
    let mut viewers = FamilyBuilder::gauge(
        "frame_viewers",
        "Connected frame viewers; frame headers leave the kernel only while there is one.",
    );
    viewers.add(&[], scrape.frame_viewers as f64);
    let mut size = FamilyBuilder::gauge("ring_size_bytes", "Capacity of a ring buffer.");
    let mut peak = FamilyBuilder::gauge(
        "ring_peak_bytes",
        "Highest fill of a ring buffer in the last one to two minutes.",
    );
    for ring in scrape.rings {
        size.add(&[("ring", ring.name)], ring.size as f64);
        peak.add(&[("ring", ring.name)], ring.peak as f64);
    }
    let snapshots = [("map", "snapshots")];
    let mut entries = FamilyBuilder::gauge(
        "map_entries",
        "Entries of the kernel's table of connections, as the daemon counts them.",
    );
    entries.add(&snapshots, scrape.tracked as f64);
    let mut max_entries = FamilyBuilder::gauge(
        "map_max_entries",
        "Capacity of the kernel's table of connections.",
    );
    max_entries.add(&snapshots, f64::from(scrape.max_connections));
    let mut runs = FamilyBuilder::counter(
        "bpf_program_runs_total",
        "Runs of each kernel program, while kernel.bpf_stats_enabled is on.",
    );
    let mut seconds = FamilyBuilder::counter(
        "bpf_program_seconds_total",
        "Time spent in each kernel program, while kernel.bpf_stats_enabled is on.",
    );
    for program in scrape.programs {
        runs.add(&[("program", &program.name)], program.runs as f64);
        seconds.add(&[("program", &program.name)], program.seconds);
    }
    let mut missed = FamilyBuilder::counter(
        "bpf_program_missed_runs_total",
        "Runs of each kernel program that the kernel skipped, because it was already running on the CPU.",
    );
    for MissedRuns { program, missed: n } in scrape.missed_runs {
        missed.add(&[("program", program)], *n as f64);
    }
    let mut build = FamilyBuilder::gauge(
        "build_info",
        "Version of wsmon and of the kernel it runs on.",
    );
    build.add(
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("kernel", scrape.kernel),
        ],
        1.0,
    );
    let families = [
        lost,
        untracked,
        degraded,
        owner_gaps,
        suppressed,
        viewers,
        size,
        peak,
        entries,
        max_entries,
        runs,
        seconds,
        missed,
        build,
    ];
    out.extend(families.map(FamilyBuilder::finish));
}
