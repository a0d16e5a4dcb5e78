//! `wsmon ports`: lists the listening TCP sockets of this host with their owners.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

use clap::Args;
use jiff::Timestamp;

use super::{
    exit::{CommandResult, Failure, PREREQUISITE_MISSING},
    owner::OwnerText,
    screen::{self, Cut, Shown, escaped},
};
use crate::{
    config,
    config::listeners::PortRange,
    kernel::{
        host::{
            cgroup,
            netns::NetNsError,
            owner::{OwnedSocket, OwnerMisses, Owners},
        },
        sock_diag::scan::{self, HostListener, Scan},
    },
    records::{listening_socket::ListeningSocketRecord, owner::OwnerRecord},
};

/// List the listening TCP sockets of this host, in all network namespaces, with their owners.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon ports                                       which port to watch
  wsmon ports --json | jq -r 'select(.comm == \"node\") | .port'
  wsmon ports --json | jq 'select(.container)'      only those in containers

Needs no daemon. NETNS is the inode of the network namespace, as in alerts.
OWNER is the pod, the container or the systemd unit. Behind NAT or a proxy, watch the
port on which the server itself listens.

Without root, other namespaces and the processes of other users are missing,
and stderr says so.

Exit status: 0, 1 for a failure, 2 for invalid arguments, 3 if the list may be
incomplete because privileges are missing.")]
pub struct PortsArgs {
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,

    /// Directory of the logs of Kubernetes pods, whose names wsmon reads there
    #[arg(long, value_name = "DIR", default_value = config::DEFAULT_POD_LOGS)]
    pub pod_logs: PathBuf,
}

/// Prints the list to stdout, and what is missing to stderr.
pub fn run(args: &PortsArgs) -> CommandResult {
    let survey = PortSurvey::take(|cgroup_root| Owners::unhurried(cgroup_root, &args.pod_logs))
        .map_err(|error| Failure::failed(error.to_string()))?;
    if print(&survey.sockets, args.json)? == Shown::NobodyReads {
        return Ok(ExitCode::SUCCESS);
    }
    for gap in survey.gaps() {
        eprintln!("{gap}");
    }
    match survey.lacks_privileges() {
        true => Ok(ExitCode::from(PREREQUISITE_MISSING)),
        false => Ok(ExitCode::SUCCESS),
    }
}

fn print(sockets: &[ListeningSocketRecord], json: bool) -> Result<Shown, Failure> {
    let lines: Vec<String> = match json {
        true => sockets
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?,
        false if sockets.is_empty() => vec!["no listening sockets".to_owned()],
        false => table(sockets),
    };
    let mut out = io::stdout().lock();
    for line in lines {
        if screen::write_line(&mut out, line.as_bytes())? == Shown::NobodyReads {
            return Ok(Shown::NobodyReads);
        }
    }
    Ok(Shown::Written)
}

/// The listening sockets of this host, and what a survey of them missed.
#[derive(Debug)]
pub(super) struct PortSurvey {
    /// Sorted by port.
    pub(super) sockets: Vec<ListeningSocketRecord>,
    scan: Scan,
    misses: OwnerMisses,
}

impl PortSurvey {
    /// `open` opens the search for owners below the root of the cgroup hierarchy. Fails only if the
    /// network namespaces cannot be listed.
    pub(super) fn take(open: impl FnOnce(&Path) -> Owners) -> Result<Self, NetNsError> {
        let (listening, scan) = scan::all_listening()?;
        // Without a hierarchy no cgroup has a path.
        let cgroup_root =
            cgroup::find_cgroup2().unwrap_or_else(|_| PathBuf::from("/sys/fs/cgroup"));
        let mut owners = open(&cgroup_root);
        let owned: Vec<_> = listening.iter().map(OwnedSocket::from).collect();
        let ts = Timestamp::now();
        let mut sockets: Vec<_> = listening
            .iter()
            .zip(owners.of(&owned))
            .map(|(HostListener { socket, .. }, owner)| {
                ListeningSocketRecord::new(ts, socket.local, OwnerRecord::from(owner))
            })
            .collect();
        sockets.sort_by_key(|socket| {
            (
                socket.port,
                socket.owner.netns,
                socket.local,
                socket.owner.pid,
            )
        });
        Ok(Self {
            sockets,
            scan,
            misses: owners.misses(),
        })
    }

    /// The other process that listens on the port nearest to these, at most [`NEAR`] away.
    pub(super) fn nearest(&self, range: &PortRange) -> Option<Neighbour<'_>> {
        let (first, last) = (*range.0.start(), *range.0.end());
        let distance = |port: u16| first.saturating_sub(port).max(port.saturating_sub(last));
        let known = self.sockets.iter().filter_map(|socket| {
            Some(Neighbour {
                comm: socket.owner.comm.as_deref()?,
                pid: socket.owner.pid.filter(|pid| *pid != process::id())?,
                port: socket.port,
                netns: socket.owner.netns?,
            })
        });
        known
            .filter(|neighbour| (1..=NEAR).contains(&distance(neighbour.port)))
            .min_by_key(|neighbour| distance(neighbour.port))
    }

    /// What is missing, each with the remedy.
    fn gaps(&self) -> Vec<String> {
        let (scan, misses) = (&self.scan, &self.misses);
        let refused = scan.refused.first().map(|first| {
            format!(
                "network namespaces that are missing: {}; {}; {PRIVILEGED}",
                scan.refused.len(),
                first.error
            )
        });
        let hidden = (scan.hidden > 0).then(|| {
            format!(
                "processes whose network namespace is hidden: {}; {PRIVILEGED}, or grant \
                 CAP_SYS_PTRACE",
                scan.hidden
            )
        });
        let unknown = (misses.processes_unknown > 0).then(|| {
            let cause = match (misses.walks_cut, self.lacks_processes()) {
                (1.., _) => "the search took too long".to_owned(),
                (0, true) => format!(
                    "the open files of {} processes are hidden; {PRIVILEGED}, or grant \
                     CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
                    misses.processes_refused
                ),
                (0, false) => "it has ended meanwhile, or the kernel itself listens".to_owned(),
            };
            format!(
                "sockets without a known process: {}; {cause}",
                misses.processes_unknown
            )
        });
        let cgroups = (misses.cgroups_unknown > 0).then(|| {
            format!(
                "sockets without a known cgroup: {}; it is gone, or hidden",
                misses.cgroups_unknown
            )
        });
        let changed = (scan.unparsed > 0 || scan.interrupted > 0)
            .then(|| "sockets changed meanwhile, some may be missing; try again".to_owned());
        let pods = (misses.pods_unknown > 0).then(|| {
            format!(
                "sockets of pods without a known name: {}; their logs are not where --pod-logs names",
                misses.pods_unknown
            )
        });
        [refused, hidden, unknown, cgroups, pods, changed]
            .into_iter()
            .flatten()
            .collect()
    }

    fn lacks_processes(&self) -> bool {
        self.misses.processes_unknown > 0 && self.misses.processes_refused > 0
    }

    fn lacks_privileges(&self) -> bool {
        !self.scan.refused.is_empty() || self.scan.hidden > 0 || self.lacks_processes()
    }
}

/// Root may be restricted too.
const PRIVILEGED: &str = "run as root, outside of containers and sandboxes";

/// How far a port may be from another to be the one that was meant.
const NEAR: u16 = 100;

/// A process that listens on a port near another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour<'a> {
    comm: &'a str,
    pid: u32,
    port: u16,
    netns: u64,
}

impl fmt::Display for Neighbour<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            comm,
            pid,
            port,
            netns,
        } = self;
        let comm = comm.escape_debug();
        write!(
            f,
            "{comm} (pid {pid}) listens on {port} in network namespace {netns}"
        )
    }
}

/// The cells of a row: port, address, namespace, pid, process, owner.
type Row = [String; 6];

const HEAD: [&str; 6] = ["PORT", "ADDRESS", "NETNS", "PID", "PROCESS", "OWNER"];

/// The width of a terminal.
const WIDTH: usize = 80;
/// The widest address and process. A link-local IPv6 address and a name without escapes fit.
const WIDEST: [usize; 6] = [5, 25, 10, 10, 15, WIDTH];

/// The head and one line per socket, within [`WIDTH`]. A cell that does not fit ends in `…`.
fn table(sockets: &[ListeningSocketRecord]) -> Vec<String> {
    let head = HEAD.map(str::to_owned);
    let rows: Vec<Row> = [head].into_iter().chain(sockets.iter().map(row)).collect();
    let mut widths = WIDEST;
    for (column, width) in widths.iter_mut().enumerate() {
        let longest = rows.iter().map(|row| row[column].chars().count()).max();
        *width = longest.unwrap_or(0).min(*width);
    }
    let [others @ .., owner] = &mut widths;
    let used: usize = others.iter().map(|width| width + 2).sum();
    *owner = WIDTH.saturating_sub(used);
    let line = |row: &Row| {
        let cells = row.iter().zip(widths);
        let cells: Vec<_> = cells
            .map(|(text, width)| format!("{:<width$}", Cut(text, width)))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(socket: &ListeningSocketRecord) -> Row {
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let owner = &socket.owner;
    [
        socket.port.to_string(),
        socket.local.ip().to_string(),
        number(owner.netns),
        number(owner.pid.map(u64::from)),
        escaped(owner.comm.as_deref()),
        OwnerText(owner).to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    fn socket(local: &str, owner: OwnerRecord) -> ListeningSocketRecord {
        let local = local.parse().expect("an address");
        ListeningSocketRecord::new(Timestamp::UNIX_EPOCH, local, owner)
    }

    fn owner(comm: &str) -> OwnerRecord {
        OwnerRecord {
            pid: Some(812),
            comm: Some(comm.to_owned()),
            netns: Some(4_026_531_840),
            ..OwnerRecord::default()
        }
    }

    #[test]
    fn rows_align_with_their_head_and_fit_a_terminal() {
        let container = OwnerRecord {
            container: Some("0123456789abcdef".repeat(4)),
            unit: Some("docker-0123456789abcdef.scope".to_owned()),
            ..owner("node")
        };
        let unit = OwnerRecord {
            unit: Some(format!("{}.service", "very-long-".repeat(9))),
            ..owner("nginx")
        };
        let sockets = [
            socket("0.0.0.0:7741", container),
            socket("[fe80::1234:5678:9abc:def0]:8080", unit),
            socket(
                "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535",
                OwnerRecord::default(),
            ),
        ];
        let expected = "\
PORT   ADDRESS                    NETNS       PID  PROCESS  OWNER
7741   0.0.0.0                    4026531840  812  node     0123456789ab
8080   fe80::1234:5678:9abc:def0  4026531840  812  nginx    very-long-very-long…
65535  2001:db8:1234:5678:9abc:…  -           -    -        -";
        let lines = table(&sockets);
        assert_eq!(lines.join("\n"), expected);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn a_hostile_name_breaks_neither_a_line_nor_a_terminal() {
        for name in [
            "ev\x1b[2J\u{fffd}il",
            "a\nb\r\t\u{9b}",
            "\u{202e}\u{2028}x",
            "a b",
        ] {
            let unit = OwnerRecord {
                unit: Some(name.to_owned()),
                ..owner(name)
            };
            let record = socket("127.0.0.1:80", unit);
            let lines = table(std::slice::from_ref(&record));
            assert_eq!(lines.len(), 2, "{lines:?}");
            let safe = |c: char| !c.is_control() && !matches!(c, '\u{202e}' | '\u{2028}');
            assert!(lines[1].chars().all(safe), "{lines:?}");
            assert!(lines[1].chars().count() <= WIDTH, "{lines:?}");
        }
    }

    #[test]
    fn the_nearest_port_of_a_known_process_is_named() {
        let survey = PortSurvey {
            sockets: vec![
                socket("0.0.0.0:22", owner("sshd")),
                socket("0.0.0.0:7700", owner("far")),
                socket("0.0.0.0:7741", owner("no\nde")),
                socket("0.0.0.0:7743", OwnerRecord::default()),
            ],
            scan: Scan::default(),
            misses: OwnerMisses::default(),
        };
        let nearest = |range: &str| {
            let range = range.parse().expect("a range");
            survey.nearest(&range).map(|nearest| nearest.to_string())
        };
        let line = "no\\nde (pid 812) listens on 7741 in network namespace 4026531840";
        for range in ["7742", "7742-7800", "7739-7740"] {
            assert_eq!(nearest(range).as_deref(), Some(line), "{range}");
        }
        assert_eq!(nearest("8080"), None);
        assert_eq!(nearest("65535"), None);
    }

    #[test]
    fn what_is_missing_is_reported_once_with_its_remedy() {
        let survey = |scan, misses| PortSurvey {
            sockets: Vec::new(),
            scan,
            misses,
        };
        let complete = survey(Scan::default(), OwnerMisses::default());
        assert_eq!(complete.gaps(), Vec::<String>::new());
        assert!(!complete.lacks_privileges());

        let ended = OwnerMisses {
            processes_unknown: 1,
            ..OwnerMisses::default()
        };
        let vanished = survey(Scan::default(), ended);
        assert!(!vanished.lacks_privileges(), "no privilege helps");
        assert_eq!(vanished.gaps().len(), 1);

        let hidden = Scan {
            hidden: 7,
            ..Scan::default()
        };
        let refused = OwnerMisses {
            processes_refused: 9,
            ..ended
        };
        let hidden = survey(hidden, refused);
        assert!(hidden.lacks_privileges());
        let gaps = hidden.gaps();
        assert_eq!(gaps.len(), 2, "{gaps:?}");
        assert!(
            gaps.iter().all(|gap| gap.contains("run as root")),
            "{gaps:?}"
        );
    }
}
