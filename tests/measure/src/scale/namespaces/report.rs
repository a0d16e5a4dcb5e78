//! The results of scenes with many network namespaces: a table and JSON.

use serde_json::{Value, json};

use super::{population::LATE_CONNECTIONS, scene::Measured};
use crate::{machine, statistics::quantile};

const MEBI: f64 = 1_048_576.0;

/// The scenes in the order in which they were played.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) scenes: Vec<Measured>,
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let cells = |name: &str, of: &dyn Fn(&Measured) -> String| {
            let cells = self.scenes.iter().map(|scene| format!("{:>16}", of(scene)));
            format!("{name:<44}{}\n", cells.collect::<String>())
        };
        let seconds = |of: Option<f64>| of.map_or_else(|| "-".to_owned(), |s| format!("{s:.2} s"));
        let mut table = cells("network namespaces", &|it| {
            it.plan.layout.namespaces.to_string()
        });
        table += &cells("  that listen on the watched port", &|it| {
            it.plan.layout.served.to_string()
        });
        table += &cells("connections, both ends here", &|it| {
            it.plan.layout.connections.to_string()
        });
        table += &cells("  to the watched port", &|it| {
            it.plan.layout.served_connections().to_string()
        });
        table += &cells("set-up", &|it| seconds(Some(it.set_up)));
        table += &cells("ready after", &|it| seconds(Some(it.ready)));
        table += &cells("all older connections known after", &|it| {
            seconds(it.all_known)
        });
        table += &cells("one more listens: known after", &|it| {
            seconds(it.late_listening)
        });
        table += &cells(&format!("  its {LATE_CONNECTIONS} connections"), &|it| {
            seconds(it.late_known)
        });
        table += &cells("scans", &|it| it.scans.len().to_string());
        for (name, share) in [("median", 0.5), ("max", 1.0)] {
            table += &cells(&format!("  from one to the next, {name}"), &|it| {
                seconds(quantile(&it.intervals(), share))
            });
        }
        for (name, share) in [("median", 0.5), ("max", 1.0)] {
            table += &cells(&format!("  CPU time of one, {name}"), &|it| {
                seconds(quantile(&it.costs(), share))
            });
        }
        let last = |it: &Measured, of: fn(&super::scan_log::ScanCounts) -> String| {
            it.last_scan().as_ref().map_or_else(|| "-".to_owned(), of)
        };
        table += &cells("  last: namespaces dumped / skipped", &|it| {
            last(it, |scan| format!("{} / {}", scan.dumped, scan.skipped))
        });
        table += &cells("  last: connections queried", &|it| {
            last(it, |scan| scan.queries.to_string())
        });
        table += &cells("daemon, of one core", &|it| {
            format!("{:.2} %", it.daemon_share * 100.0)
        });
        table += &cells("  resident", &|it| mebi(it.resident_bytes));
        table += &cells("  the most it ever was", &|it| mebi(it.peak_bytes));
        table += &cells("stalled connections: all found after", &|it| {
            seconds(it.stalled_found)
        });
        table += &cells("  missed / wrong", &|it| {
            format!("{} / {}", it.missed.len(), it.wrong.len())
        });
        for failure in self.failures() {
            table += &format!("FAILED  {failure}\n");
        }
        table
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.scenes.iter().flat_map(Measured::failures).collect()
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "machine": machine::description(),
            "failures": self.failures(),
            "scenes": self.scenes.iter().map(scene_json).collect::<Vec<_>>(),
        })
    }
}

fn scene_json(scene: &Measured) -> Value {
    let layout = scene.plan.layout;
    let scans = scene.scans.iter().map(|scan| {
        let counts = scan.counts;
        json!({
            "cpu_seconds": counts.cost.as_secs_f64(),
            "namespaces": counts.namespaces,
            "dumped": counts.dumped,
            "queried": counts.queried,
            "queries": counts.queries,
            "skipped": counts.skipped,
        })
    });
    json!({
        "namespaces": layout.namespaces,
        "served": layout.served,
        "connections": layout.connections,
        "served_connections": layout.served_connections(),
        "set_up_seconds": scene.set_up,
        "ready_seconds": scene.ready,
        "all_known_seconds": scene.all_known,
        "late": {
            "listening_seconds": scene.late_listening,
            "connections_seconds": scene.late_known,
        },
        "scans": scans.collect::<Vec<_>>(),
        "scan_interval_seconds": scene.intervals(),
        "daemon": {
            "share_of_a_core": scene.daemon_share,
            "resident_bytes": scene.resident_bytes,
            "peak_resident_bytes": scene.peak_bytes,
        },
        "stalled": {
            "connections": scene.stalled,
            "all_found_seconds": scene.stalled_found,
            "missed": scene.missed.len(),
            "wrong": scene.wrong,
        },
        "untracked": scene.untracked,
    })
}

fn mebi(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / MEBI)
}
