//! Nanoseconds per packet. Runs `monitor/examples/packet_cost.rs`, which needs access to the kernel
//! programs, with both ends on one CPU and with each where the scheduler puts it.

use std::{
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use crate::progress::Progress;

/// Cost of packets, by the placement of the two ends.
#[derive(Debug)]
pub(super) struct Packets {
    pub(super) one_cpu: Value,
    pub(super) any_cpu: Value,
}

/// Median nanoseconds of one kind of window, for incoming and outgoing packets.
pub(super) struct Kind<'a> {
    pub(super) name: &'a str,
    pub(super) nanos: [f64; 2],
    /// Above the cost of an empty program.
    pub(super) above_floor: [f64; 2],
}

impl Packets {
    /// Builds the example and runs it twice, for about a minute.
    pub(super) fn measure(progress: &mut Progress<'_>) -> Result<Self> {
        let example = lab::build_example("packet_cost")?;
        let run = |one_cpu| {
            let mut command = Command::new(&example);
            command.arg("--json").stderr(Stdio::inherit());
            on_cpus(command, one_cpu)
        };
        progress.check()?;
        progress.at("packets: both ends on one CPU");
        let one_cpu = run(true)?;
        progress.check()?;
        progress.at("packets: both ends where the scheduler puts them");
        let any_cpu = run(false)?;
        Ok(Self { one_cpu, any_cpu })
    }

    /// The kinds of window in one of the two runs.
    pub(super) fn kinds(measured: &Value) -> Vec<Kind<'_>> {
        let of = |kind: &Value, what: &str| {
            ["ingress", "egress"].map(|hook| kind[what][hook].as_f64().unwrap_or(f64::NAN))
        };
        let kinds = measured["kinds"].as_array();
        kinds
            .into_iter()
            .flatten()
            .map(|kind| Kind {
                name: kind["name"].as_str().unwrap_or_default(),
                nanos: of(kind, "median_nanos"),
                above_floor: of(kind, "above_floor_nanos"),
            })
            .collect()
    }
}

/// Runs a command to its end on one CPU, or on all CPUs this process may use, and reads its JSON.
fn on_cpus(mut command: Command, one: bool) -> Result<Value> {
    // A child inherits the CPUs of the thread that starts it.
    let run = move || -> Result<Value> {
        if one {
            let allowed = sched_getaffinity(None)?;
            let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
            let mut set = CpuSet::new();
            set.set(first.context("this process may use no CPU")?);
            sched_setaffinity(None, &set)?;
        }
        let output = command.output().context("cannot start packet_cost")?;
        if !output.status.success() {
            bail!("packet_cost failed: {}", output.status);
        }
        serde_json::from_slice(&output.stdout).context("packet_cost did not print JSON")
    };
    thread::scope(|scope| {
        let worker = scope.spawn(run);
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
