//! `wsmon ports`: lists the listening TCP sockets of this host with their owners.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

mod sightings;
mod survey;

pub(super) use self::survey::PortSurvey;
use super::{
    exit::{CommandResult, Failure, PREREQUISITE_MISSING},
    format_args::FormatArgs,
    screen::{self, Shown},
    table::{Column, Table},
    watch::positive_duration,
};
use crate::{
    config,
    diagnostics::stderr_line,
    kernel::{host::owner::Owners, prerequisites::capabilities},
    records::{json, listening_socket::ListeningSocketRecord, owner_text::workload_text},
};

/// List the listening TCP sockets of this host, in all network namespaces, with their owners.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon ports                                       which port to watch
  wsmon ports --watch 10s                           and on which WebSockets are in use
  wsmon ports --json | jq -r 'select(.comm == \"node\") | .port'
  wsmon ports --json | jq 'select(.container)'      only those in containers

Needs no daemon. PUBLISHED is the port from which a NAT rule of nft or
iptables forwards connections. NETNS is the inode of the network namespace, as
in alerts. OWNER is the pod, the container or the systemd unit. Behind NAT or
a proxy, watch the port on which the server itself listens.

Without root, other namespaces and the processes of other users are missing,
and stderr says so.

Exit status: 0, 1 for a failure, 2 for invalid input, 3 if the list may be
incomplete because privileges are missing.")]
pub struct PortsArgs {
    #[command(flatten)]
    pub format: FormatArgs,

    /// Watch the ports this long for upgrades and frames of WebSockets, and for TLS
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        default_missing_value = "5s",
        value_parser = positive_duration
    )]
    pub watch: Option<Duration>,

    /// Directory of the logs of Kubernetes pods, with the names of the pods
    #[arg(long, value_name = "DIR", default_value = config::DEFAULT_POD_LOGS)]
    pub pod_logs: PathBuf,
}

/// How long reading the port forwards may take.
const LONGEST_LISTING: Duration = Duration::from_secs(10);

/// Prints the list to stdout, and what is missing to stderr.
pub fn run(args: &PortsArgs) -> CommandResult {
    capabilities::make_effective();
    if args.watch.is_some() {
        sightings::refuse_unable()?;
    }
    let owners = |cgroup_root: &Path| Owners::unhurried(cgroup_root, &args.pod_logs);
    let mut survey = PortSurvey::take(LONGEST_LISTING, owners)
        .map_err(|error| Failure::failed(error.to_string()))?;
    if let Some(duration) = args.watch {
        stderr_line!("watching for {} …", humantime::format_duration(duration));
        let watch = sightings::watch(&mut survey.sockets, duration);
        survey.missed_openings = screen::block_on(watch)??;
    }
    if print(&survey.sockets, args)? == Shown::NobodyReads {
        return Ok(ExitCode::SUCCESS);
    }
    for gap in survey.gaps() {
        stderr_line!("{gap}");
    }
    match survey.lacks_privileges() {
        true => Ok(ExitCode::from(PREREQUISITE_MISSING)),
        false => Ok(ExitCode::SUCCESS),
    }
}

fn print(sockets: &[ListeningSocketRecord], args: &PortsArgs) -> Result<Shown, Failure> {
    let lines: Vec<String> = match args.format.is_json() {
        true => sockets
            .iter()
            .map(json::to_string)
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?,
        false if sockets.is_empty() => vec!["no listening sockets".to_owned()],
        false => table(sockets, args.watch.is_some(), args.format.table_width()),
    };
    screen::write_lines(&mut io::stdout().lock(), &lines)
}

/// The head and one line per socket. `limit` is the width of the terminal, if there is one.
fn table(sockets: &[ListeningSocketRecord], is_watched: bool, limit: Option<usize>) -> Vec<String> {
    let mut columns = vec![
        Column::number("PORT"),
        Column::new("ADDRESS").shortened_to(15),
        Column::new("NETNS").left_out(2),
        Column::number("PID"),
        Column::new("PROCESS").shortened_to(15),
        Column::new("PUBLISHED").shortened_to(9),
        Column::new("OWNER").shortened_to(12).left_out(1),
    ];
    if is_watched {
        columns.insert(1, Column::new("SEEN"));
    }
    let mut table = Table::new(columns, limit);
    let mut lines = Vec::new();
    for socket in sockets {
        let mut cells = row(socket).to_vec();
        if is_watched {
            cells.insert(1, socket.protocol.unwrap_or("-").to_owned());
        }
        lines.extend(table.push(cells));
    }
    lines.extend(table.finish());
    lines
}

/// The cells of a row: port, address, namespace, pid, process, publication, owner.
fn row(socket: &ListeningSocketRecord) -> [String; 7] {
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let owner = &socket.owner;
    let published = socket.published.iter().flatten();
    let mut published: Vec<&str> = published
        .map(|published| published.ports.as_str())
        .collect();
    published.sort_unstable();
    published.dedup();
    [
        socket.port.to_string(),
        socket.local.ip().to_string(),
        number(owner.netns),
        number(owner.pid.map(u64::from)),
        owner.comm.clone().unwrap_or("-".to_owned()),
        match published.is_empty() {
            true => "-".to_owned(),
            false => published.join(","),
        },
        workload_text(owner).unwrap_or("-".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::records::{listening_socket::PublicationRecord, owner::OwnerRecord};

    pub(super) fn socket(local: &str, owner: OwnerRecord) -> ListeningSocketRecord {
        let local = local.parse().expect("an address");
        ListeningSocketRecord::new(Timestamp::UNIX_EPOCH, local, owner)
    }

    pub(super) fn owner(comm: &str) -> OwnerRecord {
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
        let published = |ports: &str| PublicationRecord {
            ports: ports.to_owned(),
            address: None,
            to_address: None,
            by: "nftables",
            netns: 1,
        };
        let mut sockets = [
            socket("0.0.0.0:7741", container),
            socket("[fe80::1234:5678:9abc:def0]:8080", unit),
            socket(
                "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535",
                OwnerRecord::default(),
            ),
        ];
        sockets[0].published = Some(vec![published("80"), published("443"), published("80")]);
        sockets[1].published = Some(Vec::new());
        sockets[0].protocol = Some("websocket");
        let expected = [
            " PORT  ADDRESS                 NETNS       PID  PROCESS  PUBLISHED  OWNER",
            " 7741  0.0.0.0                 4026531840  812  node     443,80     0123456789ab",
            " 8080  fe80::1234:5678:9abc:…  4026531840  812  nginx    -          very-long-v…",
            "65535  2001:db8:1234:5678:9a…  -             -  -        -          -",
        ];
        assert_eq!(table(&sockets, false, Some(80)), expected);
        let watched = table(&sockets, true, None);
        let seen: Vec<_> = watched.iter().map(|line| &line[..16]).collect();
        assert_eq!(
            seen,
            [
                " PORT  SEEN     ",
                " 7741  websocket",
                " 8080  -        ",
                "65535  -        "
            ]
        );
        for limit in 50..150 {
            let lines = table(&sockets, true, Some(limit));
            assert!(lines.iter().all(|line| line.chars().count() <= limit));
        }
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
            let lines = table(std::slice::from_ref(&record), false, Some(80));
            assert_eq!(lines.len(), 2, "{lines:?}");
            let safe = |c: char| !c.is_control() && !matches!(c, '\u{202e}' | '\u{2028}');
            assert!(lines[1].chars().all(safe), "{lines:?}");
            assert!(lines[1].chars().count() <= 80, "{lines:?}");
        }
    }
}
