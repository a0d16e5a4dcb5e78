//! wsmon itself: its losses and its cost.

use monitor_common::drop_reason::DropReason;
use prometheus::proto::MetricFamily;

use super::{FamilyBuilder, MissedRuns, Scrape};

pub(super) fn families(scrape: &Scrape<'_>, out: &mut Vec<MetricFamily>) {
    let losses = scrape.losses;
    let undelivered = &losses.undelivered;
    let mut lost = FamilyBuilder::counter(
        "events_lost_total",
        "Records, packets and alerts that were lost, by place and reason.",
    );
    for (ring, reason, n) in [
        ("vitals", "full", losses.of(DropReason::VitalsFull)),
        ("vitals", "undecodable", losses.undecodable),
        ("vitals", "unreported", losses.unreported_ends),
        ("handshakes", "full", losses.of(DropReason::HandshakesFull)),
        ("handshakes", "undecodable", losses.undecodable_handshakes),
        ("samples", "full", losses.of(DropReason::SamplesFull)),
        (
            "packets",
            "header_unreadable",
            losses.of(DropReason::HeaderUnreadable),
        ),
        (
            "packets",
            "payload_unreadable",
            losses.of(DropReason::PayloadUnreadable),
        ),
        ("packets", "contended", losses.of(DropReason::Contended)),
        (
            "packets",
            "walk_too_long",
            losses.of(DropReason::WalkTooLong),
        ),
        ("alerts", "full", undelivered.lines.full),
        ("alerts", "unwritten", undelivered.lines.unwritten),
        ("alerts", "unencodable", undelivered.lines.unencodable),
        ("access_log", "full", losses.access_log.full),
        ("access_log", "unwritten", losses.access_log.unwritten),
        ("access_log", "unencodable", losses.access_log.unencodable),
        ("alertmanager", "full", undelivered.alertmanager.full),
        ("alertmanager", "refused", undelivered.alertmanager.refused),
        ("webhook", "full", undelivered.webhook.full),
        ("webhook", "refused", undelivered.webhook.refused),
    ] {
        lost.add(&[("ring", ring), ("reason", reason)], n as f64);
    }
    let mut untracked = FamilyBuilder::counter(
        "untracked_connections_total",
        "Connections on watched ports that could not be tracked.",
    );
    for reason in [DropReason::SnapshotsFull, DropReason::StorageFull] {
        untracked.add(&[("reason", reason.as_str())], losses.of(reason) as f64);
    }
    untracked.add(
        &[("reason", "no_room_at_start")],
        losses.untracked_at_start as f64,
    );
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
