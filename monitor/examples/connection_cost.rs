//! What one watched connection costs: bytes in the kernel and in the daemon.
//!
//! Kernel: opens the same connections with and without wsmon, in turn (A B B A), and compares the
//! slopes of the slab memory. Daemon: fills the core's table with a million idle flows, because a
//! few thousand disappear in the allocator's slack. Needs root:
//!
//! ```text
//! cargo build --release -p monitor
//! cargo run --release -p monitor --example connection_cost -- target/release/wsmon 4000
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Client, Daemon, Lab, Manner, Server, wait_until};
use monitor::{
    core::{Correlator, Event, Facts, Hop, Ktime, ListenerRules, OnExpiry},
    kernel::decode,
};
use monitor_common::snapshot::{Snapshot, protocol};

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let wsmon = PathBuf::from(args.next().context("name the wsmon binary")?);
    let connections: usize = args
        .next()
        .context("name the number of connections")?
        .parse()?;
    ensure!(
        connections <= 9_000,
        "client and server share this process's 20,000 files"
    );

    println!(
        "daemon: {:.0} bytes per connection at {TABLE} connections",
        table_slope()?
    );
    println!("kernel: bytes per connection, both sockets, {connections} connections");
    let mut with = Vec::new();
    let mut without = Vec::new();
    // One round unmeasured: caches and allocators are warm after it.
    round(&wsmon, connections, true)?;
    for watched in [false, true, true, false, false, true, true, false] {
        let kernel = round(&wsmon, connections, watched)?;
        let name = if watched { "watched" } else { "alone" };
        println!("  {name:<8} {kernel:>8.0}");
        if watched { &mut with } else { &mut without }.push(kernel);
    }
    println!(
        "kernel: wsmon adds {:.0} bytes per connection (medians)",
        median(with) - median(without)
    );
    Ok(())
}

/// Connections in the table that is measured.
const TABLE: u64 = 1_000_000;

/// Resident bytes per connection of the daemon's core, each flow armed and idle.
fn table_slope() -> Result<f64> {
    let hop = Hop {
        name: "lb".into(),
        idle_timeout: Duration::from_secs(60),
        on_expiry: OnExpiry::Silent,
    };
    let rules = vec![ListenerRules::new("8080", Some(hop))];
    let mut core = Correlator::new(rules, Duration::from_millis(260));
    let before = resident_bytes("self")?;
    for cookie in 1..=TABLE {
        let born = Ktime(1_000_000_000 + cookie * 1_000);
        core.handle_event(Event::Opened(Box::new(flow(cookie, born))));
    }
    let after = resident_bytes("self")?;
    ensure!(core.len() as u64 == TABLE, "every flow is in the table");
    Ok((after as f64 - before as f64) / TABLE as f64)
}

fn flow(cookie: u64, born: Ktime) -> Facts {
    let snapshot = Snapshot {
        cookie,
        established_at: born.0,
        published_at: born.0,
        ip_version: 4,
        protocol: protocol::WEBSOCKET,
        ..Snapshot::EMPTY
    };
    decode::facts(&snapshot).expect("a valid snapshot")
}

/// Slab bytes per connection.
fn round(wsmon: &Path, connections: usize, watched: bool) -> Result<f64> {
    let lab = Lab::new()?;
    let server = Server::start(lab.server_ns(), lab.server_addr(PORT))?;
    let daemon = if watched {
        let port = PORT.to_string();
        Some(Daemon::start(
            wsmon,
            ["--port", &port, "--lb-timeout", "1h"],
        )?)
    } else {
        None
    };
    let url = server.url("/quiet");
    let connect = |i: usize| {
        Client::connect(
            lab.client_ns(),
            lab.client_addr((i % 32) as u8),
            &url,
            Manner::Responsive,
        )
    };
    // The first ones pay for buffers and threads that the others share.
    let first = (0..200).map(connect).collect::<Result<Vec<_>, _>>()?;
    settle(&server, daemon.as_ref(), first.len())?;
    let before = slab_bytes()?;
    let rest = (0..connections)
        .map(connect)
        .collect::<Result<Vec<_>, _>>()?;
    settle(&server, daemon.as_ref(), first.len() + rest.len())?;
    let after = slab_bytes()?;
    Ok((after as f64 - before as f64) / connections as f64)
}

fn settle(server: &Server, daemon: Option<&Daemon>, connections: usize) -> Result<()> {
    wait_until("the server sees every connection", PATIENCE, || {
        server.counts().opened >= connections as u64
    })?;
    let Some(daemon) = daemon else { return Ok(()) };
    wait_until("wsmon sees every connection", PATIENCE, || {
        daemon
            .metrics()
            .is_ok_and(|metrics| metrics.sum("wsmon_connections", &[]) >= connections as f64)
    })?;
    Ok(())
}

/// Live slab objects of the kernel. `/proc/slabinfo`: name, active objects, objects, object size …
fn slab_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/slabinfo").context("cannot read /proc/slabinfo")?;
    let mut total = 0;
    for line in text.lines().skip(2) {
        let mut fields = line.split_whitespace().skip(1);
        let active: u64 = fields.next().context("active objects")?.parse()?;
        let size: u64 = fields.nth(1).context("object size")?.parse()?;
        total += active * size;
    }
    Ok(total)
}

/// Resident memory of a process.
fn resident_bytes(pid: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    }
}
