//! What one watched connection costs: bytes in the kernel and in the daemon.
//!
//! Opens the same connections with and without wsmon, in turn (A B B A), and prints the slope per
//! connection of the kernel's slab memory and of the daemon's resident memory. Needs root:
//!
//! ```text
//! cargo build --release -p monitor
//! cargo run --release -p monitor --example connection_cost -- target/release/wsmon 4000
//! ```

use std::{fs, path::Path, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{Client, Daemon, Lab, Manner, Server, wait_until};

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

    println!("bytes per connection, {connections} connections: kernel (both sockets), daemon");
    let mut with = Vec::new();
    let mut without = Vec::new();
    // One round unmeasured: caches and allocators are warm after it.
    round(&wsmon, connections, true)?;
    for watched in [false, true, true, false, false, true, true, false] {
        let Slope { kernel, daemon } = round(&wsmon, connections, watched)?;
        let name = if watched { "watched" } else { "alone" };
        println!("{name:<8} {kernel:>8.0} {daemon:>8.0}");
        if watched { &mut with } else { &mut without }.push(kernel);
    }
    println!(
        "wsmon adds {:.0} bytes of kernel memory per connection (medians)",
        median(with) - median(without)
    );
    Ok(())
}

/// Bytes per connection.
struct Slope {
    kernel: f64,
    daemon: f64,
}

fn round(wsmon: &Path, connections: usize, watched: bool) -> Result<Slope> {
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
    let before = Reading::take(daemon.as_ref())?;
    let rest = (0..connections)
        .map(connect)
        .collect::<Result<Vec<_>, _>>()?;
    settle(&server, daemon.as_ref(), first.len() + rest.len())?;
    let after = Reading::take(daemon.as_ref())?;
    let slope = |before: u64, after: u64| (after as f64 - before as f64) / connections as f64;
    Ok(Slope {
        kernel: slope(before.kernel, after.kernel),
        daemon: slope(before.daemon, after.daemon),
    })
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

struct Reading {
    /// Live slab objects of the kernel, bytes.
    kernel: u64,
    /// Resident memory of the daemon, bytes.
    daemon: u64,
}

impl Reading {
    fn take(daemon: Option<&Daemon>) -> Result<Self> {
        Ok(Self {
            kernel: slab_bytes()?,
            daemon: daemon.map_or(Ok(0), |daemon| resident_bytes(daemon.id()))?,
        })
    }
}

/// `/proc/slabinfo`: name, active objects, objects, object size …
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

fn resident_bytes(pid: u32) -> Result<u64> {
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
