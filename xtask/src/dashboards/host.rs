//! One host: what its wsmon sees, loses and costs.

use super::{
    dashboard::{Dashboard, Row, Variable},
    panel::{BYTES, COUNT, PER_SECOND, Panel, SECONDS, SHARE},
};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "wsmon-host",
        title: "wsmon: host",
        description: "wsmon on one host: what it watches, what it loses and what it costs.",
        variables: &[Variable::Job, Variable::Instance],
        rows: vec![now(), watched(), losses(), cost()],
    }
}

fn now() -> Row {
    Row {
        title: "Now",
        panels: vec![
            Panel::number("Up", "sum(up{@})").about("Selected hosts whose wsmon was scraped."),
            Panel::faults("Degraded", "sum(wsmon_degraded{@})")
                .about("Selected hosts whose wsmon lost something within the last five minutes."),
            Panel::number("Connections", "sum(wsmon_connections{@})")
                .about("Watched connections, open and closing ones."),
            Panel::faults("Zombies", "sum(wsmon_zombie_connections{@})")
                .about("Connections with a standing verdict, suspected ones too."),
            Panel::number("Listening sockets", "sum(wsmon_listener_sockets{@})").about(
                "Sockets that listen on watched ports. 0: a server is down, or the port is wrong.",
            ),
            Panel::number("Frame viewers", "sum(wsmon_frame_viewers{@})")
                .about("Open live views of frames. Frame headers leave the kernel only for them."),
            Panel::table("Version")
                .query("wsmon_build_info{@}", "running")
                .width(6)
                .about("The version of wsmon and of the kernel."),
        ],
    }
}

fn watched() -> Row {
    Row {
        title: "What it watches",
        panels: vec![
            Panel::stacked("Connections", COUNT)
                .query("sum by (listener) (wsmon_connections{@})", "{{listener}}")
                .about("Watched connections by listener."),
            Panel::stacked("Zombies", COUNT)
                .query("sum by (kind) (wsmon_zombie_connections{@})", "{{kind}}")
                .about("Connections with a standing verdict."),
            Panel::lines("Opened and closed", PER_SECOND)
                .query(
                    "sum by (listener) (rate(wsmon_connections_opened_total{@}[$__rate_interval]))",
                    "{{listener}} opened",
                )
                .query(
                    "sum by (listener) (rate(wsmon_connections_closed_total{@}[$__rate_interval]))",
                    "{{listener}} closed",
                )
                .about("Connections that were opened and closed."),
            Panel::lines("Frames", PER_SECOND)
                .query(
                    "sum by (listener, direction) (rate(wsmon_frames_total{@}[$__rate_interval]))",
                    "{{listener}} {{direction}}",
                )
                .about("Received (rx) and sent (tx) WebSocket frames."),
        ],
    }
}

fn losses() -> Row {
    Row {
        title: "What it loses",
        panels: vec![
            Panel::lines("Lost events", PER_SECOND)
                .query("sum by (ring, reason) (rate(wsmon_events_lost_total{@}[$__rate_interval]))", "{{ring}} {{reason}}")
                .about("Records, packets and alerts that were lost, by place and reason."),
            Panel::lines("Untracked connections", PER_SECOND)
                .query("sum by (reason) (rate(wsmon_untracked_connections_total{@}[$__rate_interval]))", "{{reason}}")
                .about("Connections that could not be tracked. Raise --max-connections if the table is full."),
            Panel::lines("Fill of rings and tables", SHARE)
                .query("max by (instance, ring) (wsmon_ring_peak_bytes{@} / wsmon_ring_size_bytes{@})", "{{instance}} {{ring}}")
                .query("max by (instance, map) (wsmon_map_entries{@} / wsmon_map_max_entries{@})", "{{instance}} {{map}}")
                .about("Near 1, something is about to be lost."),
            Panel::states("Degraded")
                .query("wsmon_degraded{@}", "{{instance}}")
                .about("When something was lost or untracked."),
            Panel::lines("Lookups of owners that failed", PER_SECOND)
                .query("sum by (reason) (rate(wsmon_owner_gaps_total{@}[$__rate_interval]))", "{{reason}}")
                .about("Alerts and lists without a pod, unit or process."),
            Panel::lines("Log lines left out", PER_SECOND)
                .query("sum by (instance) (rate(wsmon_log_lines_suppressed_total{@}[$__rate_interval]))", "{{instance}}")
                .about("Repeated warnings and errors that are not in wsmon's log."),
        ],
    }
}

fn cost() -> Row {
    Row {
        title: "What it costs",
        panels: vec![
            Panel::lines("Entries in the table of connections", COUNT)
                .query("sum by (instance) (wsmon_map_entries{@})", "{{instance}}")
                .about("Each takes about 1,000 bytes of the kernel's memory and 144 of wsmon's."),
            Panel::lines("Memory of rings", BYTES)
                .query("sum by (ring) (wsmon_ring_size_bytes{@})", "{{ring}}")
                .about("Capacity of the ring buffers between the kernel and wsmon."),
            Panel::lines("Skipped runs of programs", PER_SECOND)
                .query("sum by (program) (rate(wsmon_bpf_program_missed_runs_total{@}[$__rate_interval]))", "{{program}}")
                .about("Runs of kernel programs that the kernel skipped."),
            Panel::lines("CPU", SHARE)
                .query("rate(process_cpu_seconds_total{@}[$__rate_interval])", "{{instance}}")
                .about("Share of one processor that the daemon takes, without the kernel programs."),
            Panel::lines("Memory", BYTES)
                .query("process_resident_memory_bytes{@}", "{{instance}}")
                .about("The daemon's memory, without the kernel's tables."),
            Panel::lines("Open files", COUNT)
                .query("process_open_fds{@}", "{{instance}}")
                .about("Open file descriptors of the daemon."),
            Panel::lines("Duration of a scrape", SECONDS)
                .query("max by (instance) (scrape_duration_seconds{@})", "{{instance}} in all")
                .query("max by (instance) (wsmon_scrape_duration_seconds{@})", "{{instance}} in wsmon")
                .about("As Prometheus measures it, and the part of it in wsmon."),
            Panel::lines("Samples of a scrape", COUNT)
                .query("max by (instance) (scrape_samples_scraped{@})", "{{instance}}")
                .about("Series that wsmon exports."),
        ],
    }
}
