//! The Prometheus exposition, built on scrape from the kernel's aggregates and the core's tallies.
//!
//! Labels come from the configuration and from closed sets only, never from a connection, an address or
//! a peer's text.

mod connections;
mod families;
mod frames;
mod handshakes;
mod health;
mod storms;
mod tcp;
mod verdicts;

use monitor_common::{
    Direction,
    drop_reason::DropReason,
    stats::{Counter, ListenerStats},
};
use prometheus::TextEncoder;

use crate::{
    alerting::sinks::UndeliveredAlerts, config::listeners::ListenerConfig,
    logs::line_log::LostLines,
};
use families::FamilyBuilder;
use monitor_core::{Ktime, Tally};

/// The data of a scrape. `stats` and `tallies` have one entry per listener.
#[derive(Debug)]
pub struct Scrape<'a> {
    pub listeners: &'a [ListenerConfig],
    pub stats: &'a [ListenerStats],
    pub tallies: Vec<&'a Tally>,
    /// The moment to which ages are measured.
    pub now: Ktime,
    pub losses: &'a Losses,
    pub degraded: bool,
    /// Lookups of owners that failed, by reason.
    pub owner_gaps: &'a [(&'static str, u64)],
    /// Warnings and errors suppressed in the log as repetitions.
    pub suppressed_log_lines: u64,
    /// The number of viewers of frames on the control socket.
    pub frame_viewers: usize,
    pub rings: &'a [RingUsage],
    /// Connections in the daemon's table, and the capacity of the snapshot map.
    pub tracked: usize,
    pub max_connections: u32,
    /// Name, runs and seconds of each program; empty unless the kernel keeps run statistics.
    pub programs: &'a [ProgramRuns],
    pub missed_runs: &'a [MissedRuns],
    /// The kernel's release.
    pub kernel: &'a str,
}

/// Losses anywhere between the wire and the reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// By [`DropReason`].
    pub kernel: [u64; DropReason::ALL.len()],
    /// Older connections without room in the snapshot map when they were seeded. The kernel programs
    /// also count such a connection at its first packet.
    pub untracked_at_start: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Connections that were given up because no program reported their end.
    pub unreported_ends: u64,
    /// Handshake records that could not be decoded.
    pub undecodable_handshakes: u64,
    /// Alerts that did not reach a receiver.
    pub undelivered: UndeliveredAlerts,
    /// Lines of the access log.
    pub access_log: LostLines,
}

impl Losses {
    /// All losses that degrade wsmon's results. The losses of a live viewer are not included, because
    /// the viewer gets them itself.
    pub fn total(&self) -> u64 {
        let kernel = self.kernel.iter().sum::<u64>() - self.of(DropReason::SamplesFull);
        kernel
            + self.untracked_at_start
            + self.undecodable
            + self.unreported_ends
            + self.undecodable_handshakes
            + self.undelivered.total()
            + self.access_log.total()
    }

    fn of(&self, reason: DropReason) -> u64 {
        self.kernel[reason as usize]
    }
}

/// How full a ring buffer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingUsage {
    pub name: &'static str,
    /// Bytes.
    pub size: u64,
    /// The most that one drain took in the last one to two minutes, in bytes. More than `size` if
    /// records arrived during a drain.
    pub peak: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProgramRuns {
    pub name: String,
    pub runs: u64,
    pub seconds: f64,
}

/// How often the kernel skipped a program that was already running on the CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissedRuns {
    pub program: String,
    pub missed: u64,
}

/// The text of a scrape.
pub fn render(scrape: &Scrape<'_>) -> Result<String, prometheus::Error> {
    let mut families = Vec::new();
    connections::families(scrape, &mut families);
    handshakes::families(scrape, &mut families);
    storms::families(scrape, &mut families);
    verdicts::families(scrape, &mut families);
    frames::families(scrape, &mut families);
    tcp::families(scrape, &mut families);
    health::families(scrape, &mut families);
    // A family without a series (no hop configured, nothing closed yet) has no text.
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode_to_string(&families)
}

impl Scrape<'_> {
    fn each(&self) -> impl Iterator<Item = (&str, &ListenerStats, &Tally)> {
        self.listeners
            .iter()
            .zip(self.stats)
            .zip(self.tallies.iter().copied())
            .map(|((listener, stats), tally)| (listener.rules.name.as_str(), stats, tally))
    }
}

/// Both directions, with their names as labels.
const DIRECTIONS: [(Direction, &str); 2] = [(Direction::Rx, "rx"), (Direction::Tx, "tx")];

fn count(counter: &Counter) -> f64 {
    counter.get() as f64
}

#[cfg(test)]
mod tests {
    use monitor_common::{
        frame::opcode,
        idle_gap_scale,
        stats::{PongKind, ProtocolError, RTT_BOUNDS, SIZE_BOUNDS, response},
    };

    use super::*;
    use crate::config::listeners::PortRange;
    use monitor_core::{ListenerRules, VerdictKind};

    #[test]
    fn a_scrape_shows_counts_in_base_units() {
        let listeners = [ListenerConfig {
            rules: ListenerRules::new("8080", None),
            ports: vec![PortRange(8080..=8080)],
            remote: false,
        }];
        let mut stats = ListenerStats::EMPTY;
        stats.opened.add(3);
        stats.frames[1][usize::from(opcode::PING)].add(7);
        stats.ping_rtt[1].observe(300_000, &RTT_BOUNDS);
        stats.ping_rtt[1].observe(60_000_000_000, &RTT_BOUNDS);
        for interval in [500_000_000, 30_005_000_000, 31_500_000_000] {
            stats.ping_intervals[0][idle_gap_scale::slot_of(interval)].add(1);
        }
        stats.handshakes[1].add(5);
        stats.handshakes[response::NONE].add(1);
        stats.handshake_time.observe(3_000_000, &RTT_BOUNDS);
        stats.message_sizes[0].observe(126, &SIZE_BOUNDS);
        stats.message_sizes[0].observe(1 << 30, &SIZE_BOUNDS);
        stats.pongs[0][PongKind::Mismatched as usize].add(2);
        stats.protocol_errors[ProtocolError::MaskedServer as usize].add(4);
        let mut tally = Tally {
            handshakes_stuck: 6,
            listen_sockets: 4,
            ..Tally::default()
        };
        tally.zombies[VerdictKind::BlackHoled as usize] = 2;
        let text = render(&Scrape {
            listeners: &listeners,
            stats: &[stats],
            tallies: vec![&tally],
            now: Ktime::ZERO,
            losses: &Losses::default(),
            degraded: false,
            owner_gaps: &[("walk_cut", 8)],
            suppressed_log_lines: 5,
            frame_viewers: 1,
            rings: &["vitals", "handshakes"].map(|name| RingUsage {
                name,
                size: 8 << 20,
                peak: 704,
            }),
            tracked: 9,
            max_connections: 262_144,
            missed_runs: &[],
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
            "wsmon_heartbeat_interval_seconds_bucket{listener=\"8080\",direction=\"rx\",le=\"2\"} 1",
            "wsmon_heartbeat_interval_seconds_bucket{listener=\"8080\",direction=\"rx\",le=\"25\"} 1",
            "wsmon_heartbeat_interval_seconds_bucket{listener=\"8080\",direction=\"rx\",le=\"30\"} 2",
            "wsmon_heartbeat_interval_seconds_bucket{listener=\"8080\",direction=\"rx\",le=\"45\"} 3",
            "wsmon_heartbeat_interval_seconds_count{listener=\"8080\",direction=\"rx\"} 3",
            "wsmon_heartbeat_interval_seconds_count{listener=\"8080\",direction=\"tx\"} 0",
            "wsmon_handshakes_total{listener=\"8080\",status=\"101\"} 5",
            "wsmon_handshakes_total{listener=\"8080\",status=\"none\"} 1",
            "wsmon_listener_sockets{listener=\"8080\"} 4",
            "wsmon_handshakes_stuck{listener=\"8080\"} 6",
            "wsmon_handshake_seconds_sum{listener=\"8080\"} 0.003",
            "wsmon_message_size_bytes_bucket{listener=\"8080\",direction=\"rx\",le=\"125\"} 0",
            "wsmon_message_size_bytes_bucket{listener=\"8080\",direction=\"rx\",le=\"1024\"} 1",
            "wsmon_message_size_bytes_bucket{listener=\"8080\",direction=\"rx\",le=\"+Inf\"} 2",
            "wsmon_message_size_bytes_sum{listener=\"8080\",direction=\"rx\"} 1073741950",
            "wsmon_pongs_total{listener=\"8080\",direction=\"rx\",kind=\"mismatched\"} 2",
            "wsmon_protocol_errors_total{listener=\"8080\",kind=\"masked_server\"} 4",
            "wsmon_zombie_connections{listener=\"8080\",kind=\"black_holed\"} 2",
            "wsmon_events_lost_total{ring=\"vitals\",reason=\"full\"} 0",
            "wsmon_degraded 0",
            "wsmon_owner_gaps_total{reason=\"walk_cut\"} 8",
            "wsmon_log_lines_suppressed_total 5",
            "wsmon_frame_viewers 1",
            "wsmon_ring_size_bytes{ring=\"vitals\"} 8388608",
            "wsmon_ring_peak_bytes{ring=\"handshakes\"} 704",
            "wsmon_map_entries{map=\"snapshots\"} 9",
            "wsmon_map_max_entries{map=\"snapshots\"} 262144",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("lb_idle_timeout"), "no hop is configured");
        assert!(
            !text.contains("status=\"100\""),
            "nothing was counted there"
        );
    }
}
