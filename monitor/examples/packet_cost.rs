//! Measures the cost of a packet: nanoseconds per run of `ingress` and `egress`, and the floor of the
//! method, which is a program that does nothing.
//!
//! ```text
//! cargo xtask bench                                             # with all other measurements
//! cargo run --release -p monitor --example packet_cost          # as root, about half a minute
//! cargo run --release -p monitor --example packet_cost -- 30    # more windows of each kind
//! ```
//!
//! `--json` prints JSON instead of a table.
//!
//! One client and one server exchange frames of 125 bytes over loopback, or TLS records as long as the
//! longest ping and its pong, in their own network namespace. The kinds of window alternate as
//! A B C D E A' A' E D C B A, so that a drift of the machine affects all alike. A and A' are the same kind, and their difference is the error. The figures are
//! the kernel's own (`run_time_ns / run_cnt`), medians over the windows.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSkb, ProgramInfo},
    sys::{Stats, enable_stats},
};
use monitor::{
    config::listeners::{ListenerConfig, PortRange},
    kernel::{
        bpf::loader::{LoadSettings, Loaded, PACKET_HOOKS},
        host::cgroup::find_cgroup2,
    },
};
use monitor_core::ListenerRules;
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use wire::{BINARY, REQUEST, RESPONSE, ZERO_KEY, frame};

const WATCHED: u16 = 28_201;
const ROUND_TRIPS: u32 = 10_000;
const WINDOWS: usize = 12;
/// The order of the kinds: A B C D E A' A' E D C B A.
const TURNS: [usize; 12] = [0, 2, 3, 4, 5, 1, 1, 5, 4, 3, 2, 0];
/// The kind of the programs that account for each connection.
const ACCOUNTED: usize = 5;

const PAYLOAD: usize = 125;

fn main() -> Result<()> {
    let (mut windows, mut json) = (WINDOWS, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            count => {
                windows = count
                    .parse()
                    .context("the number of windows of each kind")?;
            }
        }
    }
    let measurement = thread::spawn(move || {
        // SAFETY: file descriptors stay shared; only this new thread changes its namespace.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("this needs root")?;
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()?;
        ensure!(up.success(), "cannot bring loopback up");
        measure(windows)
    });
    let kinds = measurement
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    match json {
        true => println!("{:#}", as_json(&kinds)),
        false => report(&kinds),
    }
    Ok(())
}

fn measure(windows: usize) -> Result<[Kind; 6]> {
    let root = find_cgroup2()?;
    let cgroup = |name| Cgroup::new(&root, name);
    let (idle, own, accounted) = (cgroup("empty")?, cgroup("own")?, cgroup("accounted")?);
    let _counting = enable_stats(Stats::RunTime).context("cannot switch bpf_stats on")?;

    let mut empty = Ebpf::load(&empty_object()?)?;
    for (name, hook) in PACKET_HOOKS {
        let program = empty_program(&mut empty, name)?;
        program.load()?;
        program.attach(File::open(&idle.path)?, hook, CgroupAttachMode::Single)?;
    }
    let listener = ListenerConfig {
        rules: ListenerRules::new("bench", None),
        ports: vec![PortRange(WATCHED..=WATCHED + 2)],
        remote: false,
    };
    let load = |keep_totals, cgroup: &Cgroup| -> Result<Loaded> {
        let settings = LoadSettings {
            keep_totals,
            ..LoadSettings::default()
        };
        let mut loaded = Loaded::new(std::slice::from_ref(&listener), &settings)?;
        loaded.attach(&cgroup.path)?;
        Ok(loaded)
    };
    let (mut wsmon, mut accounting) = (load(false, &own)?, load(true, &accounted)?);

    let (frames, records) = (Content::frames(), Content::records());
    let mut kinds = [
        Kind::new("empty program", &idle, 0, &frames)?,
        Kind::new("empty program, again", &idle, 0, &frames)?,
        Kind::new("wsmon, watched port", &own, WATCHED, &frames)?,
        Kind::new("wsmon, TLS records", &own, WATCHED + 1, &records)?,
        Kind::new("wsmon, another port", &own, 0, &frames)?,
        Kind::new("with an access log", &accounted, WATCHED + 2, &frames)?,
    ];
    for kind in &mut kinds {
        kind.connection.echo(ROUND_TRIPS / 2)?;
    }
    for turn in TURNS.iter().cycle().take(windows * kinds.len()) {
        let mut runs = || -> Result<[Runs; 2]> {
            let of = |name| match turn {
                0 | 1 => empty_program(&mut empty, name)?.info().map_err(Into::into),
                &ACCOUNTED => accounting
                    .packet_program(name)?
                    .info()
                    .map_err(anyhow::Error::from),
                _ => wsmon
                    .packet_program(name)?
                    .info()
                    .map_err(anyhow::Error::from),
            };
            let [ingress, egress] = PACKET_HOOKS.map(|(name, _)| name).map(of);
            Ok([Runs::of(&ingress?), Runs::of(&egress?)])
        };
        let before = runs()?;
        kinds[*turn].connection.echo(ROUND_TRIPS)?;
        let after = runs()?;
        for (i, nanos) in kinds[*turn].nanos.iter_mut().enumerate() {
            nanos.push(after[i].nanos_each_since(&before[i]));
        }
    }
    Ok(kinds)
}

/// The cost of a program that does nothing, by hook.
fn floor(kinds: &[Kind; 6]) -> [f64; 2] {
    [0, 1].map(|hook| kinds[0].median(hook).midpoint(kinds[1].median(hook)))
}

fn as_json(kinds: &[Kind; 6]) -> serde_json::Value {
    let floor = floor(kinds);
    let tenths = |nanos: f64| (nanos * 10.0).round() / 10.0;
    let both = |of: &dyn Fn(usize) -> f64| serde_json::json!({ "ingress": tenths(of(0)), "egress": tenths(of(1)) });
    let kinds = kinds.iter().map(|kind| {
        serde_json::json!({
            "name": kind.name,
            "median_nanos": both(&|hook| kind.median(hook)),
            "lower_quartile_nanos": both(&|hook| kind.quartile(hook, 1)),
            "upper_quartile_nanos": both(&|hook| kind.quartile(hook, 3)),
            "above_floor_nanos": both(&|hook| kind.median(hook) - floor[hook]),
        })
    });
    serde_json::json!({
        "payload_bytes": PAYLOAD,
        "kinds": kinds.collect::<Vec<_>>(),
    })
}

fn report(kinds: &[Kind; 6]) {
    let floor = floor(kinds);
    println!(
        "nanoseconds per run, median (and quartiles) of {} windows",
        kinds[0].nanos[0].len()
    );
    println!(
        "{:<26}{:>26}{:>26}{:>14}",
        "", "ingress", "egress", "above floor"
    );
    for kind in kinds {
        let column = |hook: usize| {
            let [low, median, high] = [1, 2, 3].map(|quarter| kind.quartile(hook, quarter));
            format!("{median:.0} ({low:.0} to {high:.0})")
        };
        let above = [0, 1].map(|hook| kind.median(hook) - floor[hook]);
        println!(
            "{:<26}{:>26}{:>26}{:>7.0}{:>7.0}",
            kind.name,
            column(0),
            column(1),
            above[0],
            above[1]
        );
    }
}

/// A kind of window and the results of its windows, by hook.
struct Kind {
    name: &'static str,
    connection: Connection,
    nanos: [Vec<f64>; 2],
}

impl Kind {
    fn new(name: &'static str, cgroup: &Cgroup, port: u16, content: &Content) -> Result<Self> {
        Ok(Self {
            name,
            connection: Connection::new(cgroup, port, content)?,
            nanos: [Vec::new(), Vec::new()],
        })
    }

    fn median(&self, hook: usize) -> f64 {
        self.quartile(hook, 2)
    }

    fn quartile(&self, hook: usize, quarter: usize) -> f64 {
        let mut sorted = self.nanos[hook].clone();
        sorted.sort_by(f64::total_cmp);
        sorted
            .get((sorted.len() * quarter / 4).min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    }
}

/// The kernel's counts for a program.
struct Runs {
    nanos: u128,
    count: u64,
}

impl Runs {
    fn of(info: &ProgramInfo) -> Self {
        Self {
            nanos: info.run_time().as_nanos(),
            count: info.run_count(),
        }
    }

    fn nanos_each_since(&self, before: &Self) -> f64 {
        (self.nanos - before.nanos) as f64 / (self.count - before.count) as f64
    }
}

/// What the client and the server send: first once, then again and again.
#[derive(Clone)]
struct Content {
    first: [Vec<u8>; 2],
    next: [Vec<u8>; 2],
}

impl Content {
    fn frames() -> Self {
        let of = |key| frame(BINARY, &[0; PAYLOAD], key);
        Self {
            first: [REQUEST.to_vec(), RESPONSE.to_vec()],
            next: [of(ZERO_KEY), of(None)],
        }
    }

    /// Of the lengths from which a heartbeat is inferred, which cost the most.
    fn records() -> Self {
        const HANDSHAKE: u8 = 22;
        const APPLICATION_DATA: u8 = 23;
        const PING: usize = PAYLOAD + 19;
        let of = |content_type, len: usize| {
            let head = [content_type, 3, 3, 0, len as u8];
            [&head[..], &vec![0; len]].concat()
        };
        Self {
            first: [of(HANDSHAKE, 64), of(HANDSHAKE, 64)],
            next: [of(APPLICATION_DATA, PING + 4), of(APPLICATION_DATA, PING)],
        }
    }
}

/// A connection of which only the server's socket is in the measured cgroup.
struct Connection {
    client: TcpStream,
    content: Content,
}

impl Connection {
    fn new(cgroup: &Cgroup, port: u16, content: &Content) -> Result<Self> {
        // A socket belongs to the cgroup its process was in when it was created; an accepted one to its
        // listener's.
        let listener = cgroup.inside(|| TcpListener::bind(("127.0.0.1", port)))??;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let content = content.clone();
        thread::spawn({
            let content = content.clone();
            move || serve(server, &content)
        });
        let [request, response] = &content.first;
        client.write_all(request)?;
        client.read_exact(&mut response.clone())?;
        Ok(Self { client, content })
    }

    fn echo(&mut self, round_trips: u32) -> Result<()> {
        let [sent, mut received] = self.content.next.clone();
        for _ in 0..round_trips {
            self.client.write_all(&sent)?;
            self.client.read_exact(&mut received)?;
        }
        Ok(())
    }
}

/// Answers everything until the client closes.
fn serve(mut server: TcpStream, content: &Content) -> Result<()> {
    let [mut request, mut received] = [&content.first[0], &content.next[0]].map(Clone::clone);
    server.read_exact(&mut request)?;
    server.write_all(&content.first[1])?;
    loop {
        server.read_exact(&mut received)?;
        server.write_all(&content.next[1])?;
    }
}

/// A cgroup of this measurement, removed on drop.
struct Cgroup {
    path: PathBuf,
    home: PathBuf,
}

impl Cgroup {
    fn new(root: &Path, name: &str) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let home = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .context("this process is in no cgroup v2")?;
        let path = root.join(format!("wsmon-packet-cost-{}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            path,
            home: root.join(home),
        })
    }

    /// Runs `act` with the whole process in this cgroup.
    fn inside<T>(&self, act: impl FnOnce() -> T) -> Result<T> {
        let enter = |path: &Path| {
            fs::write(path.join("cgroup.procs"), std::process::id().to_string())
                .with_context(|| format!("cannot enter {}", path.display()))
        };
        enter(&self.path)?;
        let outcome = act();
        enter(&self.home)?;
        Ok(outcome)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("{} is left behind: {error}", self.path.display());
        }
    }
}

/// An object with `return 1` on both hooks.
fn empty_object() -> Result<Vec<u8>> {
    const RETURN_1: [u8; 16] = [
        0xb7, 0, 0, 0, 1, 0, 0, 0, // r0 = 1
        0x95, 0, 0, 0, 0, 0, 0, 0, // exit
    ];
    let mut elf = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = elf.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    elf.append_section_data(license, b"Dual MIT/GPL\0", 1);
    for (name, _) in PACKET_HOOKS {
        let section = format!("cgroup_skb/{name}").into_bytes();
        let section = elf.add_section(Vec::new(), section, SectionKind::Text);
        elf.append_section_data(section, &RETURN_1, 8);
        elf.add_symbol(Symbol {
            name: name.into(),
            value: 0,
            size: RETURN_1.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    Ok(elf.write()?)
}

fn empty_program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSkb> {
    Ok(ebpf
        .program_mut(name)
        .context("no such program in the empty object")?
        .try_into()?)
}
