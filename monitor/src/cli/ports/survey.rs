//! The listening sockets of this host, and what leads to them.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
    process,
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    config::listeners::PortRange,
    kernel::{
        host::{
            cgroup,
            netns::NetNsError,
            owner::{OwnedSocket, OwnerMisses, Owners},
            port_forwards::{PortForward, PortForwards},
        },
        sock_diag::scan::{self, HostListener, Scan},
    },
    records::{
        listening_socket::{ListeningSocketRecord, PublicationRecord},
        owner::OwnerRecord,
    },
};

/// The listening sockets of this host, and what a survey of them missed.
#[derive(Debug)]
pub(in crate::cli) struct PortSurvey {
    /// Sorted by port.
    pub(in crate::cli) sockets: Vec<ListeningSocketRecord>,
    forwards: PortForwards,
    scan: Scan,
    misses: OwnerMisses,
    /// Openings that were not reported while the ports were watched.
    pub(super) missed_openings: u64,
}

impl PortSurvey {
    /// `open` opens the search for owners below the root of the cgroup hierarchy. Fails only if the
    /// network namespaces cannot be listed. `limit` is how long reading the port forwards may take.
    pub(in crate::cli) fn take(
        limit: Duration,
        open: impl FnOnce(&Path) -> Owners,
    ) -> Result<Self, NetNsError> {
        let (listening, scan) = scan::all_listening()?;
        let forwards = PortForwards::read(limit);
        let mut of_ipv4 = HashMap::<_, Vec<IpAddr>>::new();
        for HostListener { socket, netns } in &listening {
            if socket.local.is_ipv4() {
                let port = (netns.inode, socket.local.port());
                of_ipv4.entry(port).or_default().push(socket.local.ip());
            }
        }
        let mut owners = open(&cgroup::cgroup2_root());
        let owned: Vec<_> = listening.iter().map(OwnedSocket::from).collect();
        let ts = Timestamp::now();
        let mut sockets: Vec<_> = listening
            .iter()
            .zip(owners.of(&owned))
            .map(|(HostListener { socket, netns }, owner)| {
                let (local, netns) = (socket.local, netns.inode);
                let of_ipv4 = of_ipv4.get(&(netns, local.port()));
                let published = forwards.to(local, netns, of_ipv4.map_or(&[], Vec::as_slice));
                let published = published.map(|rules| {
                    let rules = rules.into_iter();
                    rules
                        .map(|(of, rule)| publication(local, of, rule))
                        .collect()
                });
                ListeningSocketRecord {
                    published,
                    ..ListeningSocketRecord::new(ts, socket.local, OwnerRecord::from(owner))
                }
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
            forwards,
            scan,
            misses: owners.misses(),
            missed_openings: 0,
        })
    }

    /// Another port to which a rule forwards connections to these, and its process.
    pub(in crate::cli) fn forwarded(&self, range: &PortRange) -> Option<Forwarded<'_>> {
        self.sockets.iter().find_map(|socket| {
            let publications = socket.published.iter().flatten();
            let mut leading_here = publications.filter(|publication| {
                let ports = publication.ports.parse::<PortRange>();
                ports.is_ok_and(|ports| ports.overlaps(range))
            });
            Some(Forwarded {
                publication: leading_here.next()?,
                process: Neighbour::of(socket)?,
            })
        })
    }

    /// The other process that listens on the port nearest to these, at most [`NEAR`] away.
    pub(in crate::cli) fn nearest(&self, range: &PortRange) -> Option<Neighbour<'_>> {
        let (first, last) = (*range.0.start(), *range.0.end());
        let distance = |port: u16| first.saturating_sub(port).max(port.saturating_sub(last));
        let known = self.sockets.iter().filter_map(Neighbour::of);
        known
            .filter(|neighbour| (1..=NEAR).contains(&distance(neighbour.port)))
            .min_by_key(|neighbour| distance(neighbour.port))
    }

    /// What is missing, each with the remedy.
    pub(super) fn gaps(&self) -> Vec<String> {
        let (scan, misses) = (&self.scan, &self.misses);
        let refused = scan.refused.first().map(|first| {
            format!(
                "network namespaces that are missing: {}; {}; {PRIVILEGED}",
                scan.refused.len(),
                first.error
            )
        });
        let cut = scan.cut.as_ref().map(ToString::to_string);
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
        let rules = self.forwards.first_error.as_ref().map(|error| {
            format!(
                "network namespaces of which not all port forwards are known: {}; {error}",
                self.forwards.unread
            )
        });
        let missed = (self.missed_openings > 0).then(|| {
            format!(
                "openings of connections that were missed: {}; watch again for SEEN",
                self.missed_openings
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
        [
            refused, cut, hidden, unknown, cgroups, pods, rules, changed, missed,
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn lacks_processes(&self) -> bool {
        self.misses.processes_unknown > 0 && self.misses.processes_refused > 0
    }

    pub(super) fn lacks_privileges(&self) -> bool {
        !self.scan.refused.is_empty() || self.scan.hidden > 0 || self.lacks_processes()
    }
}

/// Root may be restricted too.
const PRIVILEGED: &str = "run as root, outside of containers and sandboxes";

/// How far a port may be from another to be the one that was meant.
const NEAR: u16 = 100;

/// A process that listens on a port near another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Neighbour<'a> {
    comm: &'a str,
    pid: u32,
    port: u16,
    netns: u64,
}

impl<'a> Neighbour<'a> {
    /// `None` if it is not known, or this process.
    fn of(socket: &'a ListeningSocketRecord) -> Option<Self> {
        let owner = &socket.owner;
        Some(Self {
            comm: owner.comm.as_deref()?,
            pid: owner.pid.filter(|pid| *pid != process::id())?,
            port: socket.port,
            netns: owner.netns?,
        })
    }
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

/// A process to which a rule forwards connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Forwarded<'a> {
    publication: &'a PublicationRecord,
    process: Neighbour<'a>,
}

impl fmt::Display for Forwarded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PublicationRecord { ports, by, .. } = self.publication;
        let Neighbour {
            comm,
            pid,
            port,
            netns,
        } = self.process;
        let comm = comm.escape_debug();
        let to = match self.publication.to_address {
            Some(address) => SocketAddr::new(address, port).to_string(),
            None => port.to_string(),
        };
        write!(
            f,
            "{by} forwards {ports} to {to}, on which {comm} (pid {pid}) listens in network namespace \
             {netns}"
        )
    }
}

/// What a rule of the namespace `netns` publishes of a socket that listens on `local`.
fn publication(local: SocketAddr, netns: u64, forward: &PortForward) -> PublicationRecord {
    let ports = match forward.to_ports {
        Some(_) => forward.ports.to_string(),
        None => local.port().to_string(),
    };
    PublicationRecord {
        ports,
        address: forward.address.map(|address| address.to_string()),
        to_address: forward.to_address,
        by: forward.by.as_str(),
        netns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::ports::tests::{owner, socket},
        kernel::host::port_forwards::RuleSource,
    };

    #[test]
    fn the_nearest_port_of_a_known_process_is_named() {
        let survey = PortSurvey {
            sockets: vec![
                socket("0.0.0.0:22", owner("sshd")),
                socket("0.0.0.0:7700", owner("far")),
                socket("0.0.0.0:7741", owner("no\nde")),
                socket("0.0.0.0:7743", OwnerRecord::default()),
            ],
            forwards: PortForwards::default(),
            scan: Scan::default(),
            misses: OwnerMisses::default(),
            missed_openings: 0,
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
    fn a_forward_to_an_unserved_port_names_the_process_behind_it() {
        let rule = |ports: &str, to: Option<&str>, to_ports: &str| PortForward {
            ports: ports.parse().expect("ports"),
            address: None,
            to_address: to.map(|to| to.parse().expect("an address")),
            to_ports: to_ports.parse().ok(),
            by: RuleSource::Nftables,
        };
        let local: SocketAddr = "0.0.0.0:7741".parse().expect("an address");
        let published = |rule: &PortForward| {
            let published = vec![publication(local, 1, rule)];
            let mut socket = socket("0.0.0.0:7741", owner("no\nde"));
            socket.published = Some(published);
            let survey = PortSurvey {
                sockets: vec![socket],
                forwards: PortForwards::default(),
                scan: Scan::default(),
                misses: OwnerMisses::default(),
                missed_openings: 0,
            };
            let forwarded = |range: &str| {
                let range = range.parse().expect("a range");
                survey
                    .forwarded(&range)
                    .map(|forwarded| forwarded.to_string())
            };
            assert_eq!(forwarded("79"), None);
            forwarded("80-81").or_else(|| forwarded("7741"))
        };
        let rest = "on which no\\nde (pid 812) listens in network namespace 4026531840";
        for (rule, expected) in [
            (rule("80", Some("10.0.0.2"), "7741"), "80 to 10.0.0.2:7741"),
            (rule("80", None, "7741"), "80 to 7741"),
            (
                rule("81-90", Some("10.0.0.2"), "7740-7749"),
                "81-90 to 10.0.0.2:7741",
            ),
            (
                rule("7000-8000", Some("10.0.0.2"), ""),
                "7741 to 10.0.0.2:7741",
            ),
        ] {
            let found = published(&rule).expect("a forward");
            assert_eq!(found, format!("nftables forwards {expected}, {rest}"));
        }
    }

    #[test]
    fn what_is_missing_is_reported_once_with_its_remedy() {
        let survey = |scan, misses| PortSurvey {
            sockets: Vec::new(),
            forwards: PortForwards::default(),
            scan,
            misses,
            missed_openings: 0,
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
