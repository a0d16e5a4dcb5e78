//! The owner of a socket, as part of other records.

use serde::{Deserialize, Serialize};

use monitor_core::background::Owner;

/// The cgroup in which a socket was created, what the cgroup's path names, and a process that holds the
/// socket. What could not be found out is `null`. All text is that of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// From the root of the v2 hierarchy.
    pub cgroup: Option<String>,
    pub unit: Option<String>,
    pub container: Option<String>,
    /// The pod's uid.
    pub pod: Option<String>,
    pub pod_namespace: Option<String>,
    pub pod_name: Option<String>,
    /// Derived from `pod_name`.
    pub workload: Option<String>,
    /// A process that holds the socket; there may be others.
    pub pid: Option<u32>,
    pub comm: Option<String>,
    /// The inode of its network namespace.
    pub netns: Option<u64>,
}

impl OwnerRecord {
    /// What `self` lacks, from `other`: the process with its name and namespace, and the cgroup with what
    /// it names.
    pub fn or(self, other: Self) -> Self {
        let (process, cgroup) = match (self.pid, &self.cgroup) {
            (Some(_), Some(_)) => return self,
            (None, Some(_)) => (other, self),
            (Some(_), None) => (self, other),
            (None, None) => return other,
        };
        Self {
            pid: process.pid,
            comm: process.comm,
            netns: process.netns.or(cgroup.netns),
            ..cgroup
        }
    }
}

impl From<Owner> for OwnerRecord {
    fn from(owner: Owner) -> Self {
        let Owner {
            cgroup,
            unit,
            container,
            pod,
            pod_namespace,
            pod_name,
            workload,
            pid,
            comm,
            netns,
        } = owner;
        Self {
            cgroup,
            unit,
            container,
            pod,
            pod_namespace,
            pod_name,
            workload,
            pid,
            comm,
            netns,
        }
    }
}
