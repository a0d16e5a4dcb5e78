//! The machine of a measurement, without which its numbers mean nothing.

use std::{fs, thread};

use serde_json::{Value, json};

/// The running kernel, the CPUs and the memory.
pub(crate) fn description() -> Value {
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    json!({
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "architecture": std::env::consts::ARCH,
        "cpus": cpus,
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
    })
}
