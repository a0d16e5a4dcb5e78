//! Finds the names of pods by their uid, without the API server: the kubelet keeps the logs of each pod
//! in a directory `<namespace>_<name>_<uid>`.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{OwnerMisses, cgroup_names::is_pod_uid, workload::workload};
use crate::kernel::host::duty_cycle::DutyCycle;

/// Entries of the directory that are read, and names that are remembered: more than a node has pods, and
/// about 4 MB.
const MAX_PODS: usize = 16_384;

/// The longest name of a namespace, and of a pod (RFC 1123, as Kubernetes applies it).
const LONGEST_NAMESPACE: usize = 63;
const LONGEST_NAME: usize = 253;

/// The names of a pod. Both have the characters that Kubernetes allows, and no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodNames {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl PodNames {
    /// The workload that the pod belongs to, derived from its name.
    pub(super) fn workload(&self) -> &str {
        workload(&self.name)
    }
}

/// The names of pods, read from the directory of their logs.
///
/// A pod keeps its names for life, and its uid is not reused, so a known name stays valid. The directory
/// is read again only for an unknown uid.
#[derive(Debug)]
pub(super) struct Pods {
    logs: PathBuf,
    remembered: HashMap<String, Arc<PodNames>>,
    duty_cycle: DutyCycle,
    /// Why the directory could not be read the last time.
    failure: Option<io::Error>,
}

impl Pods {
    pub(super) fn new(logs: &Path) -> Self {
        Self {
            logs: logs.to_owned(),
            remembered: HashMap::new(),
            duty_cycle: DutyCycle::default(),
            failure: None,
        }
    }

    /// `None`, counted, if the pod has no directory or it was not reached.
    pub(super) fn names(&mut self, uid: &str, misses: &mut OwnerMisses) -> Option<Arc<PodNames>> {
        if !self.remembered.contains_key(uid) {
            self.read(misses);
        }
        let names = self.remembered.get(uid).cloned();
        misses.pods_unknown += u64::from(names.is_none());
        names
    }

    /// Why the directory could not be read, if it could not.
    pub(super) fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    fn read(&mut self, misses: &mut OwnerMisses) {
        let started = Instant::now();
        if !self.duty_cycle.is_due(started) {
            misses.walks_put_off += 1;
            return;
        }
        let listing = list(&self.logs);
        self.duty_cycle.took(started, Instant::now());
        match listing {
            Ok(listing) => {
                self.failure = None;
                misses.walks_cut += u64::from(listing.cut);
                let before = std::mem::take(&mut self.remembered);
                self.remembered = with_gone(listing.found, before);
            }
            Err(error) => self.failure = Some(error),
        }
    }
}

/// The pods found, and those known before for which there is room. Pods that are gone may still have
/// connections that are remembered.
fn with_gone(
    mut found: HashMap<String, Arc<PodNames>>,
    mut before: HashMap<String, Arc<PodNames>>,
) -> HashMap<String, Arc<PodNames>> {
    before.retain(|uid, _| !found.contains_key(uid));
    let room = MAX_PODS.saturating_sub(found.len());
    found.extend(before.into_iter().take(room));
    found
}

#[derive(Debug, Default)]
struct PodListing {
    found: HashMap<String, Arc<PodNames>>,
    /// There are more entries than are read.
    cut: bool,
}

/// Reads the names of the pods in `logs`.
fn list(logs: &Path) -> io::Result<PodListing> {
    let mut listing = PodListing::default();
    let mut entries = fs::read_dir(logs)?;
    for entry in entries.by_ref().take(MAX_PODS) {
        let name = entry?.file_name();
        if let Some((uid, names)) = name.to_str().and_then(parse) {
            listing.found.insert(uid.to_owned(), Arc::new(names));
        }
    }
    listing.cut = entries.next().is_some();
    Ok(listing)
}

/// The uid and the names in the name of a directory; `None` if the kubelet did not make it.
fn parse(directory: &str) -> Option<(&str, PodNames)> {
    let (names, uid) = directory.rsplit_once('_')?;
    let (namespace, name) = names.split_once('_')?;
    let is_namespace = is_dns_name(namespace, LONGEST_NAMESPACE);
    (is_pod_uid(uid) && is_namespace && is_dns_name(name, LONGEST_NAME)).then(|| {
        let names = PodNames {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        (uid, names)
    })
}

fn is_dns_name(text: &str, longest: usize) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    (1..=longest).contains(&text.len()) && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, time::Duration};

    use super::*;
    use crate::kernel::testing::wait_for;

    const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

    fn uid(number: usize) -> String {
        format!("00000000-0000-0000-0000-{number:012x}")
    }

    fn add(logs: &Path, name: impl AsRef<OsStr>) {
        fs::create_dir(logs.join(name.as_ref())).unwrap();
    }

    #[test]
    fn a_pod_is_found_by_its_uid_and_has_a_workload() {
        let logs = tempfile::tempdir().unwrap();
        add(logs.path(), format!("shop_chat-6d4cf56db6-x7k2p_{UID}"));
        add(
            logs.path(),
            "kube-system_etcd-node.a_0123456789abcdef0123456789abcdef",
        );
        let mut misses = OwnerMisses::default();
        let mut pods = Pods::new(logs.path());
        let chat = pods.names(UID, &mut misses).unwrap();
        assert_eq!(
            (chat.namespace.as_str(), chat.name.as_str(), chat.workload()),
            ("shop", "chat-6d4cf56db6-x7k2p", "chat")
        );
        let etcd = pods.names("0123456789abcdef0123456789abcdef", &mut misses);
        assert_eq!(etcd.unwrap().name, "etcd-node.a");
        assert_eq!(misses, OwnerMisses::default());
    }

    #[test]
    fn a_hostile_directory_names_no_pod() {
        let logs = tempfile::tempdir().unwrap();
        for name in [
            &b"shop_a\x1b[2J_"[..],
            b"shop_a\n_",
            b"shop_\xff_",
            b"shop_a b_",
            b"shop__",
            b"_a_",
            b"a_",
            b"shop_a_b_",
            "shop_\u{202e}_".as_bytes(),
        ] {
            let name = [name, UID.as_bytes()].concat();
            add(logs.path(), OsStr::from_bytes(&name));
        }
        add(logs.path(), "shop_a_not-a-uid");
        add(logs.path(), format!("{}_a_{UID}", "n".repeat(64)));
        let mut misses = OwnerMisses::default();
        assert_eq!(Pods::new(logs.path()).names(UID, &mut misses), None);
        assert_eq!(misses.pods_unknown, 1);
        assert_eq!(
            parse(&format!("shop_{}_{UID}", "a".repeat(4096))),
            None,
            "longer than a file system allows"
        );
    }

    #[test]
    fn without_the_directory_each_pod_is_unknown_and_counted() {
        let mut misses = OwnerMisses::default();
        let mut pods = Pods::new(Path::new("/nowhere/pods"));
        assert_eq!(pods.names(UID, &mut misses), None);
        assert!(pods.failure().is_some());
        pods.duty_cycle = DutyCycle::default();
        assert_eq!(pods.names(UID, &mut misses), None);
        assert_eq!(misses.pods_unknown, 2);
    }

    #[test]
    fn the_directory_is_read_again_for_an_unknown_pod_only() {
        let logs = tempfile::tempdir().unwrap();
        add(logs.path(), format!("shop_a_{}", uid(1)));
        let mut misses = OwnerMisses::default();
        let mut pods = Pods::new(logs.path());
        assert!(pods.names(&uid(1), &mut misses).is_some());
        // Known without a directory from now on.
        fs::remove_dir(logs.path().join(format!("shop_a_{}", uid(1)))).unwrap();
        assert!(pods.names(&uid(1), &mut misses).is_some());
        add(logs.path(), format!("shop_b_{}", uid(2)));
        let b = wait_for("a read to be due", || pods.names(&uid(2), &mut misses));
        assert_eq!(b.name, "b");
        assert!(pods.names(&uid(1), &mut misses).is_some(), "still known");
    }

    #[test]
    fn a_pod_that_is_gone_takes_the_last_room_and_no_more() {
        let pods = |numbers: std::ops::Range<usize>| -> HashMap<_, _> {
            let names = |number| parse(&format!("shop_a_{}", uid(number))).unwrap().1.into();
            numbers.map(|number| (uid(number), names(number))).collect()
        };
        let known = with_gone(pods(1..MAX_PODS), pods(0..MAX_PODS));
        assert!(known.contains_key(&uid(0)));
        assert_eq!(known.len(), MAX_PODS);
        assert_eq!(
            with_gone(pods(0..MAX_PODS), pods(MAX_PODS..MAX_PODS + 9)),
            pods(0..MAX_PODS)
        );
    }

    #[test]
    fn a_read_right_after_another_is_postponed_and_counted() {
        let logs = tempfile::tempdir().unwrap();
        add(logs.path(), format!("shop_a_{UID}"));
        let mut pods = Pods::new(logs.path());
        let now = Instant::now();
        pods.duty_cycle.took(now, now + Duration::from_secs(60));
        let mut misses = OwnerMisses::default();
        assert_eq!(pods.names(UID, &mut misses), None);
        assert_eq!((misses.walks_put_off, misses.pods_unknown), (1, 1));
    }

    #[test]
    fn ten_thousand_pods_are_known_and_more_than_fit_are_cut_and_counted() {
        let logs = tempfile::tempdir().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        // Only names count, and a link is the cheapest.
        let add = |number: usize| {
            let name = format!("shop_chat-{number}_{}", uid(number));
            fs::hard_link(file.path(), logs.path().join(name)).unwrap();
        };
        (0..10_000).for_each(add);
        let mut misses = OwnerMisses::default();
        let mut pods = Pods::new(logs.path());
        let started = Instant::now();
        let last = pods.names(&uid(9_999), &mut misses).unwrap();
        println!("10,000 pods: {:?}", started.elapsed());
        assert_eq!(last.name, "chat-9999");
        assert_eq!(pods.remembered.len(), 10_000);
        assert_eq!(misses, OwnerMisses::default());

        (10_000..=MAX_PODS).for_each(add);
        pods.duty_cycle = DutyCycle::default();
        assert_eq!(pods.names("unknown", &mut misses), None);
        assert_eq!(pods.remembered.len(), MAX_PODS);
        assert_eq!((misses.walks_cut, misses.pods_unknown), (1, 1));
    }
}
