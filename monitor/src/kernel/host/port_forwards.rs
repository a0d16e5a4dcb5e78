//! Port forwards: the NAT rules that lead from one port to another, in every network namespace, as nft and
//! iptables show them.

use std::{
    fmt, fs, io,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use strum::IntoStaticStr;

use super::netns::{self, NetNs};
use crate::config::listeners::PortRange;

mod iptables;
mod nftables;
mod ruleset;

use ruleset::Followed;

/// A rule that forwards connections to a port of this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortForward {
    /// The ports to which clients connect.
    pub ports: PortRange,
    /// The addresses to which clients connect; `None` for any.
    pub address: Option<IpNet>,
    /// `None` for an address of the namespace itself.
    pub to_address: Option<IpAddr>,
    /// `None` if the port stays the same.
    pub to_ports: Option<PortRange>,
    pub by: RuleSource,
}

/// Which program shows a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum RuleSource {
    Nftables,
    Iptables,
}

impl RuleSource {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for PortForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = &self.address {
            write!(f, "{address} ")?;
        }
        write!(f, "{} to ", self.ports)?;
        if let Some(address) = &self.to_address {
            write!(f, "{address}")?;
        }
        match &self.to_ports {
            Some(ports) => write!(f, ":{ports}"),
            None => Ok(()),
        }
    }
}

/// The forwards of one network namespace.
#[derive(Clone, Debug)]
struct NamespaceForwards {
    /// Its inode.
    netns: u64,
    /// The addresses of its own, with which forwards can lead to it.
    addresses: Vec<IpAddr>,
    forwards: Vec<PortForward>,
}

/// The forwards of all network namespaces.
#[derive(Clone, Debug, Default)]
pub struct PortForwards {
    namespaces: Vec<NamespaceForwards>,
    /// The rules of all namespaces could be read.
    are_complete: bool,
    /// Namespaces whose rules could not all be read, and why not in the first.
    pub unread: usize,
    pub first_error: Option<String>,
}

/// The longest listing. A rule takes about 300 bytes, and ten times as much while it is parsed.
const LONGEST_LISTING: usize = 32 << 20;

impl PortForwards {
    /// Reads the rules of every namespace, for at most `limit`. What could not be read is in
    /// [`PortForwards::unread`].
    pub fn read(limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        let mut found = Self::default();
        let Ok(list) = netns::enumerate() else {
            return found;
        };
        found.are_complete = list.cut.is_none();
        for namespace in &list.found {
            let Ok(outcome) = netns::in_namespace(namespace, || read_here(namespace, deadline))
            else {
                // Missing privileges for a namespace are reported with its sockets.
                found.are_complete = false;
                continue;
            };
            found.namespaces.push(outcome.0);
            if let Some(error) = outcome.1 {
                found.are_complete = false;
                found.unread += 1;
                found.first_error.get_or_insert(error);
            }
        }
        found
    }

    /// The forwards that lead to a socket that listens on `local` in the namespace with this inode, each
    /// with the inode of the namespace of its rule. `of_ipv4` has the addresses of the IPv4 sockets on the
    /// same port there. `None` if there is none among the rules that could be read.
    pub fn to(
        &self,
        local: SocketAddr,
        netns: u64,
        of_ipv4: &[IpAddr],
    ) -> Option<Vec<(u64, &PortForward)>> {
        let rules = self.namespaces.iter().flat_map(|namespace| {
            let forwards = namespace.forwards.iter();
            forwards.map(move |forward| (namespace, forward))
        });
        let leading: Vec<_> = rules
            .filter(|(namespace, forward)| self.leads_to(namespace, forward, local, netns, of_ipv4))
            .map(|(namespace, forward)| (namespace.netns, forward))
            .collect();
        (self.are_complete || !leading.is_empty()).then_some(leading)
    }

    fn leads_to(
        &self,
        from: &NamespaceForwards,
        forward: &PortForward,
        local: SocketAddr,
        netns: u64,
        of_ipv4: &[IpAddr],
    ) -> bool {
        let ports = forward.to_ports.as_ref().unwrap_or(&forward.ports);
        if !ports.0.contains(&local.port()) {
            return false;
        }
        let Some(to) = forward.to_address else {
            return from.netns == netns;
        };
        let by_ipv4 = || of_ipv4.iter().any(|other| accepts(*other, to, || false));
        let has_it = |namespace: &NamespaceForwards| {
            namespace.netns == netns && namespace.addresses.contains(&to)
        };
        let is_own = to.is_loopback() || from.addresses.contains(&to);
        accepts(local.ip(), to, by_ipv4)
            && match is_own {
                true => from.netns == netns,
                false => self.namespaces.iter().any(has_it),
            }
    }
}

/// Whether a socket that listens on `local` accepts connections to `address`, where `by_ipv4` is whether
/// an IPv4 socket on the same port does. The kernel prefers that one to an IPv6 socket for every address.
pub fn accepts(local: IpAddr, address: IpAddr, by_ipv4: impl FnOnce() -> bool) -> bool {
    match local {
        IpAddr::V4(ip) if ip.is_unspecified() => address.is_ipv4(),
        IpAddr::V6(ip) if ip.is_unspecified() => address.is_ipv6() || !by_ipv4(),
        ip => ip == address,
    }
}

/// The rules of the calling thread's namespace, and why they may be incomplete.
fn read_here(namespace: &NetNs, deadline: Instant) -> (NamespaceForwards, Option<String>) {
    let (mut forwards, mut errors) = (Vec::new(), Vec::new());
    let mut add = |mut followed: Followed, errors: &mut Vec<String>| {
        forwards.append(&mut followed.forwards);
        errors.extend(followed.cut());
    };
    let mut of_iptables = false;
    match run("nft", &["-j", "list", "ruleset"], deadline) {
        Ok(json) => match nftables::parse(&json) {
            Ok((rules, others)) => {
                of_iptables = others;
                add(rules.follow(RuleSource::Nftables), &mut errors);
            }
            Err(error) => errors.push(format!("the output of nft is not understood: {error}")),
        },
        Err(error) => errors.push(error),
    }
    // Listing a table that does not exist would create it, so only its users' programs are run.
    let is_legacy = |names: &str| {
        let tables = fs::read_to_string(format!("/proc/thread-self/net/{names}"));
        tables.is_ok_and(|tables| tables.lines().any(|table| table == "nat"))
    };
    for (program, names) in [
        ("iptables", "ip_tables_names"),
        ("ip6tables", "ip6_tables_names"),
    ] {
        let flavours = [("nft", of_iptables), ("legacy", is_legacy(names))];
        for (flavour, _) in flavours.into_iter().filter(|(_, is_used)| *is_used) {
            let named = format!("{program}-{flavour}-save");
            let program = match find_program(&named) {
                Some(_) => named,
                None => format!("{program}-save"),
            };
            match run(&program, &["-t", "nat"], deadline) {
                Ok(text) => {
                    let rules = iptables::parse(&String::from_utf8_lossy(&text));
                    add(rules.follow(RuleSource::Iptables), &mut errors);
                }
                Err(error) => errors.push(error),
            }
        }
    }
    let found = NamespaceForwards {
        netns: namespace.id().inode,
        addresses: own_addresses(),
        forwards,
    };
    (found, errors.into_iter().next())
}

/// The output of a program, or why there is none.
fn run(name: &str, args: &[&str], deadline: Instant) -> Result<Vec<u8>, String> {
    let path = find_program(name)
        .ok_or_else(|| format!("{name} is not installed; install it to see them"))?;
    let failed = |error: io::Error| format!("cannot run {name}: {error}");
    let too_long = || format!("{name} took too long");
    if Instant::now() >= deadline {
        return Err(too_long());
    }
    let mut child = Command::new(path)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        let mut bytes = Vec::new();
        // What was read before an error is refused by the parser.
        let _ = pipe.map(|pipe| pipe.take(LONGEST_LISTING as u64).read_to_end(&mut bytes));
        bytes
    };
    let stdout = child.stdout.take().map(|pipe| Box::new(pipe) as Box<_>);
    let stderr = child.stderr.take().map(|pipe| Box::new(pipe) as Box<_>);
    thread::scope(|scope| {
        let output = scope.spawn(|| read(stdout));
        let complaint = scope.spawn(|| read(stderr));
        let status = loop {
            match child.try_wait().map_err(failed)? {
                Some(status) => break Some(status),
                None if Instant::now() >= deadline => {
                    child.kill().and_then(|()| child.wait()).map_err(failed)?;
                    break None;
                }
                None => thread::sleep(POLL),
            }
        };
        let output = output.join().unwrap_or_default();
        let complaint = complaint.join().unwrap_or_default();
        let complaint = String::from_utf8_lossy(&complaint);
        let first = complaint.lines().next().unwrap_or_default();
        match status {
            _ if output.len() == LONGEST_LISTING => Err(format!("{name} printed too much")),
            Some(status) if status.success() => Ok(output),
            Some(status) => Err(format!(
                "{name} failed ({status}): {}",
                first.escape_debug()
            )),
            None => Err(too_long()),
        }
    })
}

const POLL: Duration = Duration::from_millis(2);

/// A user's PATH often lacks the folders of system programs.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// The addresses of the calling thread's namespace.
fn own_addresses() -> Vec<IpAddr> {
    let read = |name: &str| {
        let path = Path::new("/proc/thread-self/net").join(name);
        fs::read_to_string(path).unwrap_or_default()
    };
    let (v4, v6) = (read("fib_trie"), read("if_inet6"));
    let v6 = v6.lines().filter_map(v6_address).map(IpAddr::V6);
    let mut addresses: Vec<_> = v4_addresses(&v4).map(IpAddr::V4).chain(v6).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The addresses in `/proc/net/fib_trie`: each is a line, followed by its kinds.
fn v4_addresses(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut last = None;
    text.lines().filter_map(move |line| {
        if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            last = address.parse().ok();
        }
        let is_own = line.trim_start() == "/32 host LOCAL";
        last.filter(|_| is_own)
    })
}

/// The address in a line of `/proc/net/if_inet6`.
fn v6_address(line: &str) -> Option<Ipv6Addr> {
    let digits = line.split(' ').next().filter(|digits| digits.len() == 32)?;
    u128::from_str_radix(digits, 16).ok().map(Ipv6Addr::from)
}

/// A network, or a single address.
fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.into()),
        Err(_) => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(netns: u64, address: &str, forwards: &[(&str, &str)]) -> NamespaceForwards {
        let ports = |text: &str| {
            Some(text)
                .filter(|it| !it.is_empty())
                .map(|it| it.parse().unwrap())
        };
        let forward = |(from, to): &(&str, &str)| {
            let (to_address, to_ports) = to.split_once('/').unwrap();
            PortForward {
                ports: ports(from).unwrap(),
                address: None,
                to_address: to_address.parse().ok(),
                to_ports: ports(to_ports),
                by: RuleSource::Nftables,
            }
        };
        NamespaceForwards {
            netns,
            addresses: ["127.0.0.1", address]
                .map(|it| it.parse().unwrap())
                .to_vec(),
            forwards: forwards.iter().map(forward).collect(),
        }
    }

    #[test]
    fn a_forward_leads_to_the_namespace_that_has_its_address() {
        let found = PortForwards {
            namespaces: vec![
                namespace(
                    1,
                    "10.0.0.1",
                    &[
                        ("80", "10.0.0.2/7741"),
                        ("81", "/7741"),
                        ("82", "127.0.0.1/7741"),
                        ("7000-8000", "10.0.0.2/"),
                    ],
                ),
                namespace(2, "10.0.0.2", &[("83", "10.0.0.2/7741")]),
                namespace(3, "10.0.0.3", &[]),
                // Another bridge with the same addresses.
                namespace(4, "10.0.0.2", &[]),
            ],
            are_complete: true,
            ..PortForwards::default()
        };
        let to = |local: &str, netns| {
            let forwards = found.to(local.parse().unwrap(), netns, &[]).unwrap();
            let forwards = forwards.into_iter();
            let shown = forwards.map(|(netns, forward)| format!("{netns}:{}", forward.ports));
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(to("0.0.0.0:7741", 1), "1:81 1:82");
        assert_eq!(to("0.0.0.0:7741", 2), "1:80 1:7000-8000 2:83");
        assert_eq!(to("[::]:7741", 2), "1:80 1:7000-8000 2:83");
        assert_eq!(to("10.0.0.2:7741", 2), "1:80 1:7000-8000 2:83");
        assert_eq!(to("127.0.0.1:7741", 2), "");
        assert_eq!(to("0.0.0.0:7741", 3), "");
        assert_eq!(
            to("0.0.0.0:7741", 4),
            "1:80 1:7000-8000",
            "as likely as the other"
        );
        assert_eq!(to("0.0.0.0:7742", 2), "1:7000-8000");
        assert_eq!(to("0.0.0.0:80", 2), "");
    }

    #[test]
    fn of_a_pair_of_sockets_for_every_address_ipv4_leads_to_its_own() {
        let forwards = [("80", "10.0.0.1/8080"), ("81", "::1/8080"), ("82", "/8080")];
        let found = PortForwards {
            namespaces: vec![namespace(1, "10.0.0.1", &forwards)],
            are_complete: true,
            ..PortForwards::default()
        };
        let to = |local: &str, of_ipv4: &[&str]| {
            let of_ipv4: Vec<_> = of_ipv4.iter().map(|ip| ip.parse().unwrap()).collect();
            let forwards = found.to(local.parse().unwrap(), 1, &of_ipv4).unwrap();
            let shown = forwards.iter().map(|(_, it)| it.ports.to_string());
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(to("[::]:8080", &[]), "80 81 82");
        assert_eq!(to("[::]:8080", &["0.0.0.0"]), "81 82");
        assert_eq!(to("[::]:8080", &["10.0.0.1"]), "81 82");
        assert_eq!(to("[::]:8080", &["127.0.0.1"]), "80 81 82");
        assert_eq!(to("0.0.0.0:8080", &["0.0.0.0"]), "80 82");
    }

    #[test]
    fn without_all_rules_it_is_unknown_that_no_forward_leads_to_a_socket() {
        let mut found = PortForwards {
            namespaces: vec![namespace(1, "10.0.0.1", &[("80", "/8080")])],
            are_complete: false,
            ..PortForwards::default()
        };
        let count = |found: &PortForwards, port| {
            let local = (Ipv4Addr::UNSPECIFIED, port).into();
            found.to(local, 1, &[]).map(|forwards| forwards.len())
        };
        assert_eq!((count(&found, 8080), count(&found, 8081)), (Some(1), None));
        found.are_complete = true;
        assert_eq!(count(&found, 8081), Some(0));
        let late = PortForwards::read(Duration::ZERO);
        assert!(late.unread > 0 && late.first_error.is_some());
        assert_eq!(count(&late, 8081), None);
    }

    #[test]
    fn the_addresses_of_a_namespace_are_read_from_its_tables() {
        let trie = "\
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 10.77.2.0/24 2 0 2
        |-- 10.77.2.0
           /32 link BROADCAST
        |-- 10.77.2.10
           /32 host LOCAL
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
";
        let found: Vec<_> = v4_addresses(trie).map(|it| it.to_string()).collect();
        assert_eq!(found, ["10.77.2.10"]);
        let line = "fd7700020000000000000000000000 10 02 40 00 80   uplink";
        assert_eq!(v6_address(line), None);
        let line = "fd770002000000000000000000000010 02 40 00 80   uplink";
        assert_eq!(v6_address(line).unwrap().to_string(), "fd77:2::10");
        assert!(own_addresses().contains(&Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_program_that_is_missing_fails_or_hangs_is_named() {
        let soon = Instant::now() + Duration::from_secs(10);
        let missing = run("no-such-program", &[], soon).unwrap_err();
        assert_eq!(
            missing,
            "no-such-program is not installed; install it to see them"
        );
        let failed = run("sh", &["-c", "printf 'n\\033o\\nmore' >&2; exit 3"], soon).unwrap_err();
        assert_eq!(failed, "sh failed (exit status: 3): n\\u{1b}o");
        let hung = run("sleep", &["100"], Instant::now() + POLL).unwrap_err();
        assert_eq!(hung, "sleep took too long");
        let long = run("sh", &["-c", "head -c 1000000 /dev/zero; echo >&2"], soon).unwrap();
        assert_eq!(long.len(), 1_000_000);
        for size in [LONGEST_LISTING, LONGEST_LISTING + 1_000_000] {
            let printed = run("head", &["-c", &size.to_string(), "/dev/zero"], soon);
            assert_eq!(printed.unwrap_err(), "head printed too much");
        }
    }
}
