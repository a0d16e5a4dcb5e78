//! The process of the daemon, under the names that the client libraries of Prometheus use.

use prometheus::proto::MetricType;

use super::{FamilyBuilder, families::Family};
use crate::kernel::host::own_process::ProcessFigures;

pub(super) fn families(process: &ProcessFigures, out: &mut Vec<Family>) {
    let started = process.started.as_millisecond() as f64 / 1000.0;
    let counter = MetricType::COUNTER;
    let gauge = MetricType::GAUGE;
    let figures = [
        (
            "process_cpu_seconds_total",
            counter,
            "CPU time of the process, in user mode and in the kernel.",
            process.cpu.as_secs_f64(),
        ),
        (
            "process_resident_memory_bytes",
            gauge,
            "Memory of the process that is in RAM.",
            process.resident_bytes as f64,
        ),
        (
            "process_virtual_memory_bytes",
            gauge,
            "Size of the address space of the process.",
            process.virtual_bytes as f64,
        ),
        (
            "process_open_fds",
            gauge,
            "Open file descriptors of the process.",
            process.open_fds as f64,
        ),
        (
            "process_max_fds",
            gauge,
            "Maximum number of open file descriptors.",
            process.max_fds.map_or(f64::INFINITY, |max| max as f64),
        ),
        (
            "process_threads",
            gauge,
            "Threads of the process.",
            process.threads as f64,
        ),
        (
            "process_start_time_seconds",
            gauge,
            "When the process started, in seconds since 1970.",
            started,
        ),
    ];
    out.extend(figures.map(|(name, kind, help, value)| {
        let mut family = FamilyBuilder::shared(name, help, kind);
        family.add(&[], value);
        family.finish()
    }));
}
