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

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{Client, Daemon, Lab, Manner, Server, wait_until};
use monitor::{
    core::{
        Correlator, Event, Facts, Hop, Ktime, ListenerRules, OnExpiry,
        event::Asker,
        handshake::{UpgradeAnswer, UpgradeRequest},
    },
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

    println!("daemon: bytes per connection at {TABLE} connections");
    // Kept to the end: memory that is given back would serve the next table.
    let mut tables = Vec::new();
    for (handshake, path) in [
        ("handshake not seen", None),
        ("one path for all", Some(Path::One)),
        ("a path of 36 bytes each", Some(Path::Own)),
    ] {
        let (bytes, table) = table_slope(path)?;
        println!("  {handshake:<24} {bytes:>4.0}");
        tables.push(table);
    }
    drop(tables);
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

/// What the upgrade requests ask for.
#[derive(Clone, Copy)]
enum Path {
    One,
    Own,
}

/// Resident bytes per connection of the daemon's core, each flow armed and idle.
fn table_slope(path: Option<Path>) -> Result<(f64, Correlator)> {
    let hop = Hop::new("lb", Duration::from_secs(60), OnExpiry::Silent);
    let rules = vec![ListenerRules::new("8080", Some(hop))];
    let mut core = Correlator::new(rules, Duration::from_millis(260));
    let before = resident_bytes("self")?;
    for cookie in 1..=TABLE {
        let born = Ktime(1_000_000_000 + cookie * 1_000);
        let facts = flow(cookie, born);
        if let Some(path) = path {
            upgrade(&mut core, &facts, path);
        }
        core.handle_event(Event::Opened(Box::new(facts)));
        while core.poll_action().is_some() {}
    }
    let after = resident_bytes("self")?;
    ensure!(core.len() as u64 == TABLE, "every flow is in the table");
    Ok(((after as f64 - before as f64) / TABLE as f64, core))
}

/// The heads of a browser's handshake.
fn upgrade(core: &mut Correlator, facts: &Facts, path: Path) {
    let of = Asker {
        at: facts.at,
        conn: facts.conn,
        listener: facts.listener,
        role: facts.role,
        local: facts.local,
        peer: facts.peer,
        established_at: facts.established_at,
    };
    let path = match path {
        Path::One => "/socket".to_owned(),
        Path::Own => format!("/rooms/{:029}", facts.conn.0),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: chat.example.com\r\nOrigin: https://example.com\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    );
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    core.handle_event(Event::UpgradeRequested {
        of: Box::new(of.clone()),
        request: Box::new(UpgradeRequest::parse(request.as_bytes())),
    });
    core.handle_event(Event::UpgradeAnswered {
        of: Box::new(of),
        answer: Box::new(UpgradeAnswer::parse(answer.as_bytes())),
    });
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
fn round(wsmon: &std::path::Path, connections: usize, watched: bool) -> Result<f64> {
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
