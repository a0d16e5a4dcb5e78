//! The Prometheus exposition, built on scrape from the kernel's aggregates and the core's tallies.
//!
//! Labels come from the configuration and from closed sets only, never from a connection, an address or
//! a peer's text. The exception is the workload, on request and up to a limit.

mod connections;
mod exposition;
mod families;
mod frames;
mod handshakes;
mod health;
mod losses;
mod openmetrics;
mod process;
mod storms;
mod tcp;
mod verdicts;

use std::borrow::Cow;

use jiff::Timestamp;
use monitor_common::{
    Direction,
    stats::{Counter, ListenerStats},
};

use crate::{
    config::listeners::ListenerConfig, kernel::host::own_process::ProcessFigures, records::Now,
};
pub use exposition::{Exposition, Format, ServerFigures};
use families::{Family, FamilyBuilder};
pub use losses::{LossFigure, Losses};
use monitor_core::{
    Ktime, Tally, Workloads,
    tally::{ConnectionCounts, Turnover},
};

/// The data of a scrape. `stats` and `tallies` have one entry per listener.
#[derive(Debug)]
pub struct Scrape<'a> {
    pub listeners: &'a [ListenerConfig],
    pub stats: &'a [ListenerStats],
    pub tallies: Vec<&'a Tally>,
    /// One entry per listener if series have the label of a workload; else empty.
    pub workloads: Vec<&'a Workloads>,
    /// The moment to which ages are measured.
    pub now: Ktime,
    /// The start on both clocks, the same in every scrape, so that a moment always has the same time.
    pub clocks: Now,
    /// When the process started.
    pub started: Timestamp,
    /// `None` if it cannot be read. The metrics of the process are then left out.
    pub process: Option<&'a ProcessFigures>,
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

impl Scrape<'_> {
    fn each(&self) -> impl Iterator<Item = (&str, &ListenerStats, &Tally)> {
        self.listeners
            .iter()
            .zip(self.stats)
            .zip(self.tallies.iter().copied())
            .map(|((listener, stats), tally)| (listener.rules.name.as_str(), stats, tally))
    }

    /// The counts of each listener, or of each workload of each listener.
    fn counts(&self) -> Vec<LabelledCounts<'_>> {
        if self.workloads.is_empty() {
            let listeners = self.each();
            return listeners
                .map(|(name, stats, tally)| LabelledCounts {
                    labels: vec![("listener", name)],
                    since: None,
                    counts: Cow::Owned(ConnectionCounts {
                        // Exact, whatever the daemon misses.
                        turnover: Turnover::of(stats),
                        ..tally.counts.clone()
                    }),
                })
                .collect();
        }
        let listeners = self.each().zip(&self.workloads);
        listeners
            .flat_map(|((name, ..), workloads)| {
                workloads.series().map(move |series| LabelledCounts {
                    labels: vec![
                        ("listener", name),
                        ("namespace", series.namespace),
                        ("workload", series.workload),
                    ],
                    since: series.since,
                    counts: series.counts,
                })
            })
            .collect()
    }
}

/// Counts with the labels that identify what they are of.
struct LabelledCounts<'a> {
    labels: Vec<(&'static str, &'a str)>,
    /// Since when they count; `None` if since the start.
    since: Option<Ktime>,
    counts: Cow<'a, ConnectionCounts>,
}

impl LabelledCounts<'_> {
    /// The labels, and one or more others.
    fn and<'b>(&'b self, more: &[(&'static str, &'b str)]) -> Vec<(&'static str, &'b str)> {
        [&self.labels, more].concat()
    }
}

/// Both directions, with their names as labels.
const DIRECTIONS: [(Direction, &str); 2] = [(Direction::Rx, "rx"), (Direction::Tx, "tx")];

fn count(counter: &Counter) -> f64 {
    counter.get() as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use monitor_common::{
        frame::opcode,
        idle_gap_scale,
        stats::{PongKind, ProtocolError, RTT_BOUNDS, SIZE_BOUNDS, response},
    };

    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::config::listeners::PortRange;
    use monitor_core::{
        CloseHow, ConnId, Correlator, Event, Facts, ListenerId, ListenerRules, VerdictKind,
        WorkloadName,
        facts::{Origin, Protocol, Role},
    };

    fn process() -> ProcessFigures {
        ProcessFigures {
            started: Timestamp::UNIX_EPOCH,
            cpu: Duration::from_millis(1_230),
            resident_bytes: 5_000_000,
            virtual_bytes: 9_000_000,
            open_fds: 42,
            max_fds: Some(1024),
            threads: 6,
        }
    }

    /// Of one listener that saw nothing.
    pub(crate) fn exposition() -> Exposition {
        exposition_with(Some(process()))
    }

    fn exposition_with(process: Option<ProcessFigures>) -> Exposition {
        let tally = Tally::default();
        exposed(&ListenerStats::EMPTY, &tally, Vec::new(), process)
    }

    fn scraped(stats: &ListenerStats, tally: &Tally, workloads: Vec<&Workloads>) -> String {
        let exposition = exposed(stats, tally, workloads, Some(process()));
        exposition.encode(Format::Text).expect("valid families")
    }

    fn exposed(
        stats: &ListenerStats,
        tally: &Tally,
        workloads: Vec<&Workloads>,
        process: Option<ProcessFigures>,
    ) -> Exposition {
        let listeners = [ListenerConfig {
            rules: ListenerRules::new("8080", None),
            ports: vec![PortRange(8080..=8080)],
            remote: false,
        }];
        Exposition::of(&Scrape {
            listeners: &listeners,
            stats: std::slice::from_ref(stats),
            tallies: vec![tally],
            workloads,
            now: Ktime::ZERO,
            clocks: Now {
                at: Ktime::ZERO,
                ts: Timestamp::UNIX_EPOCH,
            },
            started: Timestamp::UNIX_EPOCH,
            process: process.as_ref(),
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
    }

    #[test]
    fn a_process_that_cannot_be_read_leaves_out_only_its_own_metrics() {
        let lines = |process| {
            let text = exposition_with(process).encode(Format::OpenMetrics);
            let text = text.expect("valid families");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let (full, without) = (lines(Some(process())), lines(None));
        let others = full.iter().filter(|line| !line.contains("process_"));
        assert_eq!(
            without.iter().collect::<Vec<_>>(),
            others.collect::<Vec<_>>()
        );
        assert!(full.len() > without.len());
    }

    #[test]
    fn a_scrape_shows_counts_in_base_units() {
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
            thrashing_clients: 7,
            lifetime_mismatch: true,
            listen_sockets: 4,
            ..Tally::default()
        };
        tally.counts.zombies[VerdictKind::BlackHoled as usize] = 2;
        let text = scraped(&stats, &tally, Vec::new());
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
            "wsmon_thrashing_clients{listener=\"8080\"} 7",
            "wsmon_limit_mismatch{listener=\"8080\",kind=\"limit_mismatch\"} 0",
            "wsmon_limit_mismatch{listener=\"8080\",kind=\"lifetime_mismatch\"} 1",
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
            "process_cpu_seconds_total 1.23",
            "process_resident_memory_bytes 5000000",
            "process_open_fds 42",
            "process_max_fds 1024",
            "process_threads 6",
            "process_start_time_seconds 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("lb_idle_timeout"), "no hop is configured");
        assert!(
            !text.contains("status=\"100\""),
            "nothing was counted there"
        );
    }

    #[test]
    fn with_workloads_five_families_have_their_labels_and_add_up_to_the_same() {
        const LABELLED: [&str; 5] = [
            "wsmon_connections",
            "wsmon_connections_opened_total",
            "wsmon_connections_closed_total",
            "wsmon_zombie_connections",
            "wsmon_connection_duration_seconds",
        ];
        let rules = vec![ListenerRules::new("8080", None)];
        let mut core = Correlator::new(rules, Duration::ZERO).with_workloads(2);
        let mut stats = ListenerStats::EMPTY;
        for cgroup in 0..6_u8 {
            let facts = Box::new(Facts {
                origin: Origin::Establishment,
                cgroup_id: (cgroup > 0).then_some(cgroup.into()),
                established_at: Some(Ktime(1)),
                ..Facts::new(
                    Ktime(2_000_000_001),
                    ConnId(cgroup.into()),
                    ListenerId(0),
                    Role::Server,
                    Protocol::WebSocket,
                    ([10, 0, 0, 1], 8080).into(),
                    ([10, 0, 0, 2], 40_000).into(),
                )
            });
            stats.opened.add(1);
            core.handle_event(Event::Opened(facts.clone()));
            if cgroup % 2 == 1 {
                let how = CloseHow::Fin;
                stats.closed[how as usize].add(1);
                core.handle_event(Event::Closed { facts, how });
            }
        }
        let chat = WorkloadName::new("shop", "chat");
        let hostile = WorkloadName::new("", "a\"b\\c\nwsmon_degraded 1\u{1b}.service");
        for (cgroup, name) in [(1, &chat), (2, &hostile), (3, &chat), (4, &chat)] {
            core.handle_workload(cgroup, Some(name));
        }
        core.handle_workload(5, Some(&WorkloadName::new("shop", "late")));
        let tally = core.tallies()[0].clone();
        let plain = scraped(&stats, &tally, Vec::new());
        let labelled = scraped(&stats, &tally, core.workloads());
        for line in [
            "wsmon_connections{listener=\"8080\",namespace=\"shop\",workload=\"chat\",\
             protocol=\"websocket\",state=\"open\"} 1",
            "wsmon_connections_opened_total{listener=\"8080\",namespace=\"shop\",workload=\"chat\"} 3",
            "wsmon_connections_closed_total{listener=\"8080\",namespace=\"shop\",workload=\"chat\",\
             how=\"fin\"} 2",
            "wsmon_connection_duration_seconds_bucket{listener=\"8080\",namespace=\"shop\",\
             workload=\"chat\",le=\"2\"} 2",
            "wsmon_connections_opened_total{listener=\"8080\",namespace=\"\",\
             workload=\"a\\\"b\\\\c\u{fffd}wsmon_degraded 1\u{fffd}.service\"} 1",
            "wsmon_connections_opened_total{listener=\"8080\",namespace=\"\",workload=\"unknown\"} 1",
            "wsmon_connections_opened_total{listener=\"8080\",namespace=\"\",workload=\"other\"} 1",
            "wsmon_workloads_over_limit_total{listener=\"8080\"} 1",
        ] {
            assert!(
                labelled.lines().any(|l| l == line),
                "{line} is not in\n{labelled}"
            );
        }
        assert!(!plain.contains("workload"), "{plain}");

        // The value of each series without the two labels, or of all that have them.
        let sums = |text: &str| {
            let mut sums = BTreeMap::<String, f64>::new();
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let family = ["_bucket", "_sum", "_count"]
                    .into_iter()
                    .find_map(|suffix| name.strip_suffix(suffix))
                    .unwrap_or(name);
                let has_workload =
                    labels.contains(",namespace=\"") && labels.contains(",workload=\"");
                let is_labelled = text == labelled && LABELLED.contains(&family);
                assert_eq!(has_workload, is_labelled, "{line}");
                let labels = labels.split("\",").filter(|label| {
                    !label.starts_with("namespace=") && !label.starts_with("workload=")
                });
                let labels: Vec<_> = labels
                    .map(|label| label.trim_end_matches(['"', '}']))
                    .collect();
                let key = format!("{name} {}", labels.join(","));
                *sums.entry(key).or_default() += value.parse::<f64>().expect("a number");
            }
            sums.retain(|key, _| !key.starts_with("wsmon_workloads_over_limit_total"));
            sums
        };
        assert_eq!(sums(&plain), sums(&labelled));
    }
}
