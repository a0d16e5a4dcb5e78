//! Finds the owner of a socket: its cgroup, the systemd unit or Kubernetes pod of the cgroup, and the
//! process.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use self::{cgroup_names::CgroupNames, cgroups::Cgroups, pods::Pods, processes::Processes};
use super::{duty_cycle, netns::NetNsId};

mod cgroup_names;
mod cgroups;
mod handle;
mod pods;
mod processes;
mod workload;

pub use monitor_core::background::Owner;

/// The longest search for processes of a command.
const UNHURRIED: Duration = Duration::from_secs(10);

/// The known properties of a socket whose owner is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnedSocket {
    /// The inode of the socket's file; 0 once the application has closed it.
    pub inode: u32,
    pub cgroup_id: Option<u64>,
    pub netns: Option<NetNsId>,
}

/// Failed lookups since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerMisses {
    /// Lookups of a cgroup without a result: it is gone, hidden, or was not reached.
    pub cgroups_unknown: u64,
    /// Lookups of a pod's names without a result: it has no directory of logs, or it was not reached.
    pub pods_unknown: u64,
    /// Sockets with a file for which no process was found.
    pub processes_unknown: u64,
    /// Walks through `/proc`, the cgroups or the pods that were cut because time or memory ran out.
    pub walks_cut: u64,
    /// Walks that were postponed because the last one was too recent.
    pub walks_put_off: u64,
    /// Processes whose open files we may not read (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH).
    pub processes_refused: u64,
}

/// Finds the owners of sockets. Each call takes 0.1 s at most, unless constructed for a command.
#[derive(Debug)]
pub struct Owners {
    cgroup_root: PathBuf,
    cgroups: Cgroups,
    pods: Pods,
    processes: Processes,
    misses: OwnerMisses,
}

impl OwnerMisses {
    /// Each count with its reason as in the metrics.
    pub fn by_reason(self) -> [(&'static str, u64); 6] {
        let Self {
            cgroups_unknown,
            pods_unknown,
            processes_unknown,
            walks_cut,
            walks_put_off,
            processes_refused,
        } = self;
        [
            ("cgroup_unknown", cgroups_unknown),
            ("pod_unknown", pods_unknown),
            ("process_unknown", processes_unknown),
            ("walk_cut", walks_cut),
            ("walk_put_off", walks_put_off),
            ("process_refused", processes_refused),
        ]
    }
}

impl Owners {
    /// `cgroup_root` is the mount point of the cgroup v2 hierarchy, for example from
    /// [`usable_cgroup2`](super::cgroup::usable_cgroup2); `pod_logs` is where the kubelet keeps the logs
    /// of pods.
    pub fn new(cgroup_root: &Path, pod_logs: &Path) -> Self {
        Self {
            cgroup_root: cgroup_root.to_owned(),
            cgroups: Cgroups::new(cgroup_root),
            pods: Pods::new(pod_logs),
            processes: Processes::new(duty_cycle::LONGEST),
            misses: OwnerMisses::default(),
        }
    }

    /// For a command, which may take its time: a search for processes takes 10 s at most.
    pub fn unhurried(cgroup_root: &Path, pod_logs: &Path) -> Self {
        Self {
            processes: Processes::new(UNHURRIED),
            ..Self::new(cgroup_root, pod_logs)
        }
    }

    /// The owners of `sockets`, in their order. Pass all sockets of a burst at once: their processes
    /// are found in one walk.
    pub fn of(&mut self, sockets: &[OwnedSocket]) -> Vec<Owner> {
        let paths: Vec<_> = sockets
            .iter()
            .map(|socket| {
                let id = socket.cgroup_id?;
                let path = self.cgroups.path(id, &mut self.misses);
                self.misses.cgroups_unknown += u64::from(path.is_none());
                path
            })
            .collect();

        let cgroups: HashSet<_> = paths.iter().flatten().collect();
        let near = cgroups
            .into_iter()
            .map(|path| self.cgroup_root.join(path).join("cgroup.procs"));
        let inodes = sockets
            .iter()
            .map(|socket| socket.inode)
            .filter(|&inode| inode != 0)
            .collect();
        let processes = self.processes.find(inodes, near, &mut self.misses);

        sockets
            .iter()
            .zip(paths)
            .map(|(socket, path)| {
                let cgroup = path.map(|path| format!("/{}", path.to_string_lossy()));
                let names = cgroup.as_deref().map(CgroupNames::of).unwrap_or_default();
                let pod = names.pod.as_deref();
                let pod = pod.and_then(|uid| self.pods.names(uid, &mut self.misses));
                let process = processes.get(&socket.inode);
                self.misses.processes_unknown += u64::from(socket.inode != 0 && process.is_none());
                Owner {
                    cgroup,
                    unit: names.unit,
                    container: names.container,
                    pod: names.pod,
                    pod_namespace: pod.as_ref().map(|pod| pod.namespace.clone()),
                    pod_name: pod.as_ref().map(|pod| pod.name.clone()),
                    workload: pod.as_ref().map(|pod| pod.workload().to_owned()),
                    pid: process.map(|process| process.pid),
                    comm: process.and_then(|process| process.comm.clone()),
                    netns: socket.netns.map(|id| id.inode),
                }
            })
            .collect()
    }

    /// Why the directory of pods' logs cannot be read, if a pod was looked up and it cannot.
    pub fn pods_failure(&self) -> Option<&io::Error> {
        self.pods.failure()
    }

    pub fn misses(&self) -> OwnerMisses {
        self.misses
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::TcpListener,
        process::{Child, Command},
    };

    use super::*;
    use crate::kernel::{
        host::{cgroup::find_cgroup2, netns::NetNs},
        sock_diag::{
            SockDiag, port_filter::PortFilter, socket_finder::SocketFinder, socket_query::SocketKey,
        },
        testing::{CgroupDir, Connection, key_of, wait_for},
    };

    #[test]
    fn unknown_properties_of_a_socket_remain_unknown_of_its_owner() {
        let mut owners = Owners::new(&find_cgroup2().unwrap(), Path::new("/nowhere"));
        assert_eq!(owners.of(&[OwnedSocket::default()]), [Owner::default()]);
        assert_eq!(owners.misses(), OwnerMisses::default());
        assert_eq!(owners.of(&[]), []);
    }

    #[test]
    fn each_socket_without_an_owner_is_counted() {
        let mut owners = Owners::new(&find_cgroup2().unwrap(), Path::new("/nowhere"));
        let lost = OwnedSocket {
            inode: u32::MAX,
            cgroup_id: Some(u64::MAX),
            netns: None,
        };
        assert_eq!(
            owners.of(&[lost, lost]),
            [Owner::default(), Owner::default()]
        );
        let misses = owners.misses();
        assert_eq!((misses.cgroups_unknown, misses.processes_unknown), (2, 2));
    }

    /// A client that has connected from inside a cgroup; ended on drop.
    struct Client(Child);

    impl Drop for Client {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    #[ignore = "needs root: makes cgroups"]
    fn the_client_in_a_container_is_found_by_the_socket_alone() {
        let id = "0123456789abcdef".repeat(4);
        let kubepods = CgroupDir::new("kubepods.slice");
        let pod = kubepods.below("kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice");
        let cgroup = pod.below(&format!("cri-containerd-{id}.scope"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = "echo $$ > $0/cgroup.procs && exec 3<>/dev/tcp/127.0.0.1/$1 && exec sleep 60";
        let client = Client(
            Command::new("bash")
                .args(["-c", script])
                .args([cgroup.path.as_os_str(), port.to_string().as_ref()])
                .spawn()
                .unwrap(),
        );
        let (server, peer) = listener.accept().unwrap();
        let ours = key_of(&server);

        let mut sock_diag = SockDiag::open().unwrap();
        let mut cookie = 0;
        let wanted = |local, _| local == peer.port();
        let all = PortFilter::default();
        sock_diag
            .dump(&all, wanted, |socket| cookie = socket.cookie)
            .unwrap();
        let key = SocketKey::new(cookie, peer, ours.local()).unwrap();
        let mut finder = SocketFinder::open().unwrap();
        let found = finder.find(&key).unwrap().unwrap();
        let pod_logs = tempfile::tempdir().unwrap();
        let logs = "shop_chat-6d4cf56db6-x7k2p_2c48913c-b29f-11e7-9350-020968147796";
        fs::create_dir(pod_logs.path().join(logs)).unwrap();
        let owner = wait_for("bash to become sleep", || {
            // A process that was found keeps its name for a minute.
            let mut owners = Owners::new(&cgroup.root, pod_logs.path());
            let [owner] = <[Owner; 1]>::try_from(owners.of(&[OwnedSocket::from(&found)])).unwrap();
            (owner.comm.as_deref() == Some("sleep")).then_some(owner)
        });

        let path = cgroup.path.strip_prefix(&cgroup.root).unwrap();
        let expected = Owner {
            cgroup: Some(format!("/{}", path.display())),
            unit: Some(format!("cri-containerd-{id}.scope")),
            container: Some(id),
            pod: Some("2c48913c-b29f-11e7-9350-020968147796".to_owned()),
            pod_namespace: Some("shop".to_owned()),
            pod_name: Some("chat-6d4cf56db6-x7k2p".to_owned()),
            workload: Some("chat".to_owned()),
            pid: Some(client.0.id()),
            comm: Some("sleep".to_owned()),
            netns: Some(NetNs::own().unwrap().id().inode),
        };
        assert_eq!(owner, expected);
    }

    #[test]
    #[ignore = "needs root: walks through all processes"]
    fn a_burst_needs_one_walk() {
        let connections: Vec<_> = (0..20)
            .map(|_| Connection::new("127.0.0.1:0", "127.0.0.1:0"))
            .collect();
        let mut finder = SocketFinder::open().unwrap();
        let sockets: Vec<_> = connections
            .iter()
            .map(|connection| {
                let found = finder.find(&key_of(&connection.server)).unwrap();
                OwnedSocket::from(&found.unwrap())
            })
            .collect();
        let mut owners = Owners::new(&find_cgroup2().unwrap(), Path::new("/nowhere"));
        let started = std::time::Instant::now();
        let found = owners.of(&sockets);
        println!("owners of 20 sockets: {:?}", started.elapsed());
        let pid = Some(std::process::id());
        assert!(found.iter().all(|owner| owner.pid == pid), "{found:#?}");
        // Even root may be denied access to some processes.
        let misses = OwnerMisses {
            processes_refused: owners.misses().processes_refused,
            ..OwnerMisses::default()
        };
        assert_eq!(owners.misses(), misses);
    }
}
