use std::{
    fs, iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZero,
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::{LabError, Namespace, command, load_balancer, namespace};

/// Number of addresses per family in the client namespace, so that each story has its own.
pub const CLIENT_ADDRESSES: u8 = 32;

const FIRST_CLIENT: u8 = 11;
const LB_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 10);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 2, 0, 0, 0, 0, 0, 0x10);
const NAME_PREFIX: &str = "wsmon-";

/// Client, load balancer and server, each in its own network namespace.
///
/// The load balancer forwards everything until configured otherwise; see
/// [`silent_idle_timeout`](Self::silent_idle_timeout) and [`black_hole`](Self::black_hole).
#[derive(Debug)]
pub struct Lab {
    client: Namespace,
    pub(crate) lb: Namespace,
    server: Namespace,
}

impl Lab {
    /// Builds the network. First removes what a killed process has left behind, and raises the
    /// limit of open files to the hard limit, because a lab may hold thousands of sockets.
    ///
    /// # Errors
    /// [`LabError::NotRoot`], [`LabError::MissingProgram`], or an error of `ip` or `nft`.
    pub fn new() -> Result<Self, LabError> {
        prepare()?;
        let instance = fresh_instance();
        let add = |role| Namespace::add(name(instance, role));
        let lab = Self {
            client: add("client")?,
            lb: add("lb")?,
            server: add("server")?,
        };
        for namespace in [&lab.client, &lab.lb, &lab.server] {
            namespace.run(disable_address_detection)??;
        }
        lab.connect()?;
        lab.lb.run(enable_forwarding)??;
        load_balancer::install(&lab.lb)?;
        Ok(lab)
    }

    /// The clients' namespace.
    pub fn client_ns(&self) -> &Namespace {
        &self.client
    }

    /// The load balancer's namespace, which forwards or drops packets.
    pub fn lb_ns(&self) -> &Namespace {
        &self.lb
    }

    /// The server's namespace.
    pub fn server_ns(&self) -> &Namespace {
        &self.server
    }

    /// The load balancer's IPv4 address on the clients' side, with `port`.
    pub fn lb_addr(&self, port: u16) -> SocketAddr {
        SocketAddr::from((LB_V4, port))
    }

    /// The server's IPv4 address with `port`.
    pub fn server_addr(&self, port: u16) -> SocketAddr {
        SocketAddr::from((SERVER_V4, port))
    }

    /// The server's IPv6 address with `port`.
    pub fn server_addr_v6(&self, port: u16) -> SocketAddr {
        SocketAddr::from((SERVER_V6, port))
    }

    /// The client namespace's IPv4 address number `index`.
    ///
    /// # Panics
    /// If `index` is not below [`CLIENT_ADDRESSES`].
    pub fn client_addr(&self, index: u8) -> IpAddr {
        client_v4(index).into()
    }

    /// The client namespace's IPv6 address number `index`.
    ///
    /// # Panics
    /// If `index` is not below [`CLIENT_ADDRESSES`].
    pub fn client_addr_v6(&self, index: u8) -> IpAddr {
        client_v6(index).into()
    }

    /// Assigns every address of an IPv4 network, such as `10.78.0.0/16`, to the client namespace.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn add_client_network(&self, network: &str) -> Result<(), LabError> {
        let gateway = self.client_addr(0);
        ip_batch(
            Some(self.client.name()),
            &format!("route replace local {network} dev lo\n"),
        )?;
        ip_batch(
            Some(self.lb.name()),
            &format!("route replace {network} via {gateway}\n"),
        )
    }

    /// From now on one CPU handles all packets of a connection, as behind a network card that
    /// spreads connections by hash. Without this, two packets sent on two CPUs can overtake each
    /// other between the namespaces.
    ///
    /// # Errors
    /// If the shell that writes the kernel's parameters fails.
    pub fn keep_each_connection_on_one_cpu(&self) -> Result<(), LabError> {
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        let mask = u32::MAX >> 32_usize.saturating_sub(cpus).min(31);
        let spread = format!(
            "set -e; for queue in /sys/class/net/*/queues/rx-*; do \
             echo {mask:x} > $queue/rps_cpus; done"
        );
        for namespace in [&self.client, &self.lb, &self.server] {
            // The namespace's own /sys exists only for programs started by `ip netns exec`.
            let mut shell = namespace.command("sh");
            shell.args(["-c", &spread]);
            command::run(shell, "")?;
        }
        Ok(())
    }

    fn connect(&self) -> Result<(), LabError> {
        let (client, lb, server) = (self.client.name(), self.lb.name(), self.server.name());
        ip_batch(
            None,
            &format!(
                "link add uplink netns {client} type veth peer name clients netns {lb}\n\
                 link add uplink netns {server} type veth peer name servers netns {lb}\n"
            ),
        )?;
        ip_batch(
            Some(lb),
            "addr add 10.77.1.1/24 dev clients\n\
             addr add fd77:1::1/64 dev clients\n\
             addr add 10.77.2.1/24 dev servers\n\
             addr add fd77:2::1/64 dev servers\n\
             link set lo up\nlink set clients up\nlink set servers up\n",
        )?;
        let mut client_side = String::new();
        for index in 0..CLIENT_ADDRESSES {
            client_side += &format!("addr add {}/24 dev uplink\n", client_v4(index));
            client_side += &format!("addr add {}/64 dev uplink\n", client_v6(index));
        }
        client_side += &bring_up("10.77.1.1", "fd77:1::1");
        ip_batch(Some(client), &client_side)?;
        let server_side = format!(
            "addr add {SERVER_V4}/24 dev uplink\naddr add {SERVER_V6}/64 dev uplink\n{}",
            bring_up("10.77.2.1", "fd77:2::1")
        );
        ip_batch(Some(server), &server_side)
    }
}

impl Namespace {
    /// A network with only loopback, for traffic at the lowest cost. Prepares as [`Lab::new`] does.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn loopback() -> Result<Self, LabError> {
        prepare()?;
        add_loopback()
    }

    /// Any number of such networks, each made when it is taken.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn loopbacks() -> Result<impl Iterator<Item = Result<Self, LabError>>, LabError> {
        prepare()?;
        Ok(iter::repeat_with(add_loopback))
    }
}

fn add_loopback() -> Result<Namespace, LabError> {
    let namespace = Namespace::add(name(fresh_instance(), "loopback"))?;
    ip_batch(Some(namespace.name()), "link set lo up\n")?;
    Ok(namespace)
}

fn prepare() -> Result<(), LabError> {
    if !geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    command::require_programs()?;
    raise_open_files_limit()?;
    remove_leftovers();
    Ok(())
}

fn fresh_instance() -> u32 {
    static INSTANCE: AtomicU32 = AtomicU32::new(0);
    INSTANCE.fetch_add(1, Ordering::Relaxed)
}

fn name(instance: u32, role: &str) -> String {
    format!("{NAME_PREFIX}{}-{instance}-{role}", process::id())
}

fn client_v4(index: u8) -> Ipv4Addr {
    assert!(index < CLIENT_ADDRESSES, "no client address {index}");
    Ipv4Addr::new(10, 77, 1, FIRST_CLIENT + index)
}

fn client_v6(index: u8) -> Ipv6Addr {
    assert!(index < CLIENT_ADDRESSES, "no client address {index}");
    let host = u16::from(FIRST_CLIENT + index);
    Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, host)
}

fn bring_up(gateway_v4: &str, gateway_v6: &str) -> String {
    format!(
        "link set lo up\nlink set uplink up\n\
         route add default via {gateway_v4}\nroute add ::/0 via {gateway_v6}\n"
    )
}

fn ip_batch(namespace: Option<&str>, script: &str) -> Result<(), LabError> {
    let mut ip = command::command("ip");
    if let Some(name) = namespace {
        ip.args(["-netns", name]);
    }
    ip.args(["-batch", "-"]);
    command::run(ip, script).map(drop)
}

/// Interfaces created from now on use an IPv6 address at once, without two seconds of duplicate
/// address detection: the lab has no duplicates.
fn disable_address_detection() -> Result<(), LabError> {
    write_sysctl("net/ipv6/conf/default/accept_dad", 0)
}

fn enable_forwarding() -> Result<(), LabError> {
    for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        write_sysctl(name, 1)?;
    }
    Ok(())
}

/// Sets a kernel parameter of the calling thread's network namespace.
pub(crate) fn write_sysctl(name: &str, value: u64) -> Result<(), LabError> {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value.to_string()).map_err(LabError::io(format!("write {value} to {path}")))
}

/// Raises this process's limit of open files to the hard limit.
///
/// # Errors
/// [`LabError::Io`] when the kernel refuses.
pub fn raise_open_files_limit() -> Result<(), LabError> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(std::io::Error::from)
        .map_err(LabError::io("raise the limit of open files"))
}

/// Removes the namespaces of labs whose process is gone. If the pid now belongs to another program,
/// the leftovers stay: better than removing a foreign network.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return; // no namespace was ever made here
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if owner(&name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            namespace::remove(&name);
        }
    }
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(NAME_PREFIX)?
        .split('-')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_name_identifies_its_process() {
        assert_eq!(owner("wsmon-4711-0-client"), Some(4711));
        assert_eq!(owner("wsmon-production"), None);
        assert_eq!(owner("cni-4711-0-client"), None);
    }
}
