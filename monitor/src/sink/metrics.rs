//! The Prometheus exposition: made on scrape from the kernel's aggregates and the core's tallies.
//!
//! Labels come from the configuration and from closed sets only: never a connection, an address
//! or a peer's text.

use monitor_common::{
    Direction as Way,
    drop::DropReason,
    frame::opcode,
    stats::{Counter, GAP_BOUNDS, ListenerStats, RTT_BOUNDS},
};
use prometheus::{TextEncoder, proto::MetricFamily};

use super::families::{Family, core_histogram, kernel_histogram};
use crate::{
    core::{
        CloseHow, Tally, ZombieKind,
        facts::{Direction, Protocol},
    },
    listeners::Listener,
};

/// Everything a scrape is made of. `stats` and `tallies` have one entry per listener.
#[derive(Debug)]
pub struct Scrape<'a> {
    pub listeners: &'a [Listener],
    pub stats: &'a [ListenerStats],
    pub tallies: &'a [Tally],
    pub losses: &'a Losses,
    pub degraded: bool,
    /// Name, runs and seconds of each program; empty unless the kernel keeps run statistics.
    pub programs: &'a [ProgramRuns],
    /// The kernel's release.
    pub kernel: &'a str,
}

/// What was lost, anywhere between the wire and the reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// By [`DropReason`].
    pub kernel: [u64; DropReason::ALL.len()],
    /// Older connections that found no room when they were seeded. The kernel counts such a
    /// connection as well, once it speaks.
    pub no_room_at_start: u64,
    /// Records that made no sense.
    pub undecodable: u64,
    /// Alert lines a slow reader did not take.
    pub alert_lines: u64,
}

impl Losses {
    pub fn total(&self) -> u64 {
        self.kernel.iter().sum::<u64>()
            + self.no_room_at_start
            + self.undecodable
            + self.alert_lines
    }

    fn of(&self, reason: DropReason) -> u64 {
        self.kernel[reason as usize]
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProgramRuns {
    pub name: String,
    pub runs: u64,
    pub seconds: f64,
}

/// The text of a scrape.
pub fn render(scrape: &Scrape<'_>) -> Result<String, prometheus::Error> {
    let mut families = Vec::new();
    connections(scrape, &mut families);
    verdicts(scrape, &mut families);
    frames(scrape, &mut families);
    tcp(scrape, &mut families);
    own_health(scrape, &mut families);
    // A family without a series (no hop configured, nothing closed yet) is no text at all.
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode_to_string(&families)
}

fn connections(scrape: &Scrape<'_>, out: &mut Vec<MetricFamily>) {
    let mut live = Family::gauge("connections", "Connections under watch.");
    let mut opened = Family::counter(
        "connections_opened_total",
        "Connections that finished their upgrade or began TLS since wsmon started.",
    );
    let mut closed = Family::counter(
        "connections_closed_total",
        "Connections that ended, by how.",
    );
    let mut codes = Family::counter(
        "close_codes_total",
        "First close frames, by who sent them and with which code.",
    );
    let mut abnormal = Family::counter(
        "abnormal_closures_total",
        "WebSocket connections that ended without a close frame (what browsers call 1006).",
    );
    for (name, stats, tally) in scrape.each() {
        for protocol in Protocol::ALL {
            let phases = tally.connections[protocol as usize];
            for (state, count) in [("open", phases.open), ("closing", phases.closing)] {
                live.add(
                    &[
                        ("listener", name),
                        ("protocol", protocol.as_str()),
                        ("state", state),
                    ],
                    count as f64,
                );
            }
        }
        opened.add(&[("listener", name)], count(&stats.opened));
        for how in CloseHow::ALL {
            closed.add(
                &[("listener", name), ("how", how.as_str())],
                count(&stats.closed[how as usize]),
            );
        }
        for (&(initiator, code), &n) in &tally.close_codes.counts {
            let code = code.map_or("none".to_owned(), |code| code.to_string());
            codes.add(
                &[
                    ("listener", name),
                    ("initiator", side(initiator)),
                    ("code", &code),
                ],
                n as f64,
            );
        }
        if tally.close_codes.overflow > 0 {
            let labels = [("listener", name), ("initiator", "any"), ("code", "other")];
            codes.add(&labels, tally.close_codes.overflow as f64);
        }
        abnormal.add(&[("listener", name)], tally.abnormal_closures as f64);
    }
    out.extend([live, opened, closed, codes, abnormal].map(Family::finish));
}

fn verdicts(scrape: &Scrape<'_>, out: &mut Vec<MetricFamily>) {
    let mut zombies = Family::gauge(
        "zombie_connections",
        "Connections that are dead and look open.",
    );
    let mut detected = Family::counter("zombies_detected_total", "Zombies found, one per episode.");
    let mut recovered = Family::counter(
        "zombies_recovered_total",
        "Zombies whose peer was heard again.",
    );
    let mut at_risk = Family::gauge(
        "at_risk_connections",
        "Connections idle for at least 0.8 of the tightest hop's limit.",
    );
    let mut limits = Family::gauge(
        "lb_idle_timeout_seconds",
        "The configured idle timeout of a hop on the path.",
    );
    let mut idle_at_death = Family::histogram(
        "idle_at_death_seconds",
        "Silence before a connection died without a close frame; a spike names the hop.",
    );
    let mut age_at_death = Family::histogram(
        "age_at_death_seconds",
        "Age of connections that died without a close frame; a spike names a maximum lifetime.",
    );
    for ((name, _, tally), listener) in scrape.each().zip(scrape.listeners) {
        for kind in ZombieKind::ALL {
            let labels = [("listener", name), ("kind", kind.as_str())];
            zombies.add(&labels, tally.zombies[kind as usize] as f64);
            detected.add(&labels, tally.detected[kind as usize] as f64);
            recovered.add(&labels, tally.recovered[kind as usize] as f64);
        }
        at_risk.add(&[("listener", name)], tally.at_risk as f64);
        if let Some(hop) = &listener.rules.tightest_hop {
            limits.add(
                &[("listener", name), ("hop", &hop.name)],
                hop.idle_timeout.as_secs_f64(),
            );
        }
        idle_at_death.add_histogram(&[("listener", name)], core_histogram(&tally.idle_at_death));
        age_at_death.add_histogram(&[("listener", name)], core_histogram(&tally.age_at_death));
    }
    out.extend(
        [
            zombies,
            detected,
            recovered,
            at_risk,
            limits,
            idle_at_death,
            age_at_death,
        ]
        .map(Family::finish),
    );
}

fn frames(scrape: &Scrape<'_>, out: &mut Vec<MetricFamily>) {
    const KNOWN: [u8; 6] = [
        opcode::CONTINUATION,
        opcode::TEXT,
        opcode::BINARY,
        opcode::CLOSE,
        opcode::PING,
        opcode::PONG,
    ];
    let mut frames = Family::counter("frames_total", "WebSocket frames, by opcode.");
    let mut bytes = Family::counter("frame_payload_bytes_total", "Payload of WebSocket frames.");
    let mut fragmented = Family::counter(
        "fragmented_messages_total",
        "Messages that came in more than one frame.",
    );
    let mut unsynced = Family::counter(
        "unsynced_bytes_total",
        "Stream bytes that could not be attributed to frames.",
    );
    let mut pings = Family::counter("pings_total", "Ping frames.");
    let mut unanswered = Family::counter(
        "pings_unanswered_total",
        "Pings that saw no pong before the next ping.",
    );
    let mut rtt = Family::histogram(
        "ping_rtt_seconds",
        "Time from a ping to its pong, by the side that sent the ping.",
    );
    let mut gaps = Family::histogram(
        "idle_gap_seconds",
        "Silences of at least one second that ended.",
    );
    for (name, stats, _) in scrape.each() {
        for (way, direction) in [(Way::Rx, "rx"), (Way::Tx, "tx")] {
            let i = way.index();
            for op in KNOWN {
                frames.add(
                    &[
                        ("listener", name),
                        ("direction", direction),
                        ("opcode", opcode::name(op)),
                    ],
                    count(&stats.frames[i][usize::from(op)]),
                );
            }
            let labels = [("listener", name), ("direction", direction)];
            bytes.add(&labels, count(&stats.payload_bytes[i]));
            fragmented.add(&labels, count(&stats.fragmented_messages[i]));
            unsynced.add(&labels, count(&stats.unsynced_bytes[i]));
            pings.add(&labels, count(&stats.frames[i][usize::from(opcode::PING)]));
            unanswered.add(&labels, count(&stats.pings_unanswered[i]));
            rtt.add_histogram(&labels, kernel_histogram(&stats.ping_rtt[i], &RTT_BOUNDS));
        }
        gaps.add_histogram(
            &[("listener", name)],
            kernel_histogram(&stats.idle_gaps, &GAP_BOUNDS),
        );
    }
    out.extend(
        [
            frames, bytes, fragmented, unsynced, pings, unanswered, rtt, gaps,
        ]
        .map(Family::finish),
    );
}

fn tcp(scrape: &Scrape<'_>, out: &mut Vec<MetricFamily>) {
    let mut retransmits = Family::counter("tcp_retransmits_total", "TCP retransmissions.");
    let mut duplicates = Family::counter(
        "tcp_duplicate_acks_total",
        "Duplicate acknowledgements received while bytes were outstanding.",
    );
    let mut zero_windows = Family::counter(
        "tcp_zero_windows_total",
        "Times that a receive window closed: the peer's (rx) or this host's (tx).",
    );
    for (name, stats, _) in scrape.each() {
        retransmits.add(&[("listener", name)], count(&stats.retransmits));
        duplicates.add(&[("listener", name)], count(&stats.duplicate_acks));
        for (way, direction) in [(Way::Rx, "rx"), (Way::Tx, "tx")] {
            let labels = [("listener", name), ("direction", direction)];
            zero_windows.add(&labels, count(&stats.zero_windows[way.index()]));
        }
    }
    out.extend([retransmits, duplicates, zero_windows].map(Family::finish));
}

fn own_health(scrape: &Scrape<'_>, out: &mut Vec<MetricFamily>) {
    let losses = scrape.losses;
    let mut lost = Family::counter(
        "events_lost_total",
        "What wsmon failed to see or to say, by where.",
    );
    for (ring, reason, n) in [
        ("vitals", "full", losses.of(DropReason::VitalsFull)),
        ("vitals", "undecodable", losses.undecodable),
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
        (
            "packets",
            "walk_too_long",
            losses.of(DropReason::WalkTooLong),
        ),
        ("alerts", "full", losses.alert_lines),
    ] {
        lost.add(&[("ring", ring), ("reason", reason)], n as f64);
    }
    let mut untracked = Family::counter(
        "untracked_connections_total",
        "Connections on watched ports that could not be tracked.",
    );
    for reason in [DropReason::SnapshotsFull, DropReason::StorageFull] {
        untracked.add(&[("reason", reason.as_str())], losses.of(reason) as f64);
    }
    untracked.add(
        &[("reason", "no_room_at_start")],
        losses.no_room_at_start as f64,
    );
    let mut degraded = Family::gauge(
        "degraded",
        "1 while something was lost within the last five minutes.",
    );
    degraded.add(&[], f64::from(u8::from(scrape.degraded)));
    let mut runs = Family::counter(
        "bpf_program_runs_total",
        "Runs of each kernel program, while kernel.bpf_stats_enabled is on.",
    );
    let mut seconds = Family::counter(
        "bpf_program_seconds_total",
        "Time spent in each kernel program, while kernel.bpf_stats_enabled is on.",
    );
    for program in scrape.programs {
        runs.add(&[("program", &program.name)], program.runs as f64);
        seconds.add(&[("program", &program.name)], program.seconds);
    }
    let mut build = Family::gauge(
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
    out.extend([lost, untracked, degraded, runs, seconds, build].map(Family::finish));
}

impl Scrape<'_> {
    fn each(&self) -> impl Iterator<Item = (&str, &ListenerStats, &Tally)> {
        self.listeners
            .iter()
            .zip(self.stats)
            .zip(self.tallies)
            .map(|((listener, stats), tally)| (listener.rules.name.as_str(), stats, tally))
    }
}

fn side(initiator: Direction) -> &'static str {
    match initiator {
        Direction::Rx => "peer",
        Direction::Tx => "local",
    }
}

fn count(counter: &Counter) -> f64 {
    counter.get() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ListenerRules;

    #[test]
    fn a_scrape_shows_what_was_counted_in_base_units() {
        let listeners = [Listener {
            rules: ListenerRules::new("8080", None),
            ports: 8080..=8080,
            remote: false,
        }];
        let mut stats = ListenerStats::EMPTY;
        stats.opened.add(3);
        stats.frames[1][usize::from(opcode::PING)].add(7);
        stats.ping_rtt[1].observe(300_000, &RTT_BOUNDS);
        stats.ping_rtt[1].observe(60_000_000_000, &RTT_BOUNDS);
        let mut tally = Tally::default();
        tally.zombies[ZombieKind::BlackHoled as usize] = 2;
        let text = render(&Scrape {
            listeners: &listeners,
            stats: &[stats],
            tallies: &[tally],
            losses: &Losses::default(),
            degraded: false,
            programs: &[],
            kernel: "6.1.0",
        })
        .expect("valid families");
        for line in [
            "wsmon_connections_opened_total{listener=\"8080\"} 3",
            "wsmon_frames_total{listener=\"8080\",direction=\"tx\",opcode=\"ping\"} 7",
            "wsmon_pings_total{listener=\"8080\",direction=\"tx\"} 7",
            "wsmon_ping_rtt_seconds_bucket{listener=\"8080\",direction=\"tx\",le=\"0.00025\"} 0",
            "wsmon_ping_rtt_seconds_bucket{listener=\"8080\",direction=\"tx\",le=\"0.0005\"} 1",
            "wsmon_ping_rtt_seconds_bucket{listener=\"8080\",direction=\"tx\",le=\"+Inf\"} 2",
            "wsmon_ping_rtt_seconds_sum{listener=\"8080\",direction=\"tx\"} 60.0003",
            "wsmon_zombie_connections{listener=\"8080\",kind=\"black_holed\"} 2",
            "wsmon_events_lost_total{ring=\"vitals\",reason=\"full\"} 0",
            "wsmon_degraded 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("lb_idle_timeout"), "no hop is configured");
    }
}
