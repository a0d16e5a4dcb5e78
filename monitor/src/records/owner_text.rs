//! The owner of a socket as text. All of it is text of others, so it is escaped.

use super::{owner::OwnerRecord, printable::printable};

/// The pod, or else the container, or else the systemd unit. A pod without a known name has that of its
/// container, or its uid.
pub fn workload_text(owner: &OwnerRecord) -> Option<String> {
    if let (Some(namespace), Some(name)) = (&owner.pod_namespace, &owner.pod_name) {
        return Some(printable(&format!("{namespace}/{name}")));
    }
    // A container's id is as short as its engine prints it.
    let container = owner.container.as_deref();
    let container = container.map(|id| id.get(..12).unwrap_or(id));
    let name = container
        .or(owner.pod.as_deref())
        .or(owner.unit.as_deref())?;
    Some(printable(name))
}

/// The process: `node (pid 812)`.
pub fn process_text(owner: &OwnerRecord) -> Option<String> {
    Some(format!("{} (pid {})", comm(owner), owner.pid?))
}

/// The workload, or else the process.
pub fn short_owner_text(owner: &OwnerRecord) -> Option<String> {
    workload_text(owner).or_else(|| process_text(owner))
}

/// The workload and the process: `shop/chat-0 (node, pid 812)`.
pub fn owner_text(owner: &OwnerRecord) -> Option<String> {
    match (workload_text(owner), owner.pid) {
        (Some(workload), Some(pid)) => Some(format!("{workload} ({}, pid {pid})", comm(owner))),
        (workload, _) => workload.or_else(|| process_text(owner)),
    }
}

fn comm(owner: &OwnerRecord) -> String {
    printable(owner.comm.as_deref().unwrap_or("-"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An owner of which everything is known, and is hostile.
    pub(crate) fn hostile() -> OwnerRecord {
        let text = || Some("a\n\x1b[2J\u{9b}\u{2028}\u{202e}\u{fffd}b".to_owned());
        OwnerRecord {
            cgroup: text(),
            unit: text(),
            container: text(),
            pod: text(),
            pod_namespace: text(),
            pod_name: text(),
            workload: text(),
            pid: Some(7),
            comm: text(),
            netns: Some(1),
        }
    }

    /// Whether a terminal shows the text on one line, in order.
    pub(crate) fn is_safe(text: &str) -> bool {
        let moves = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}');
        !text.chars().any(moves)
    }

    #[test]
    fn the_workload_is_the_pod_or_the_container_or_the_unit() {
        let name = |name: &str| Some(name.to_owned());
        let unit = OwnerRecord {
            unit: name("chat.service"),
            pid: Some(7),
            ..OwnerRecord::default()
        };
        let container = OwnerRecord {
            container: Some("0123456789abcdef".repeat(4)),
            ..unit.clone()
        };
        let unnamed = OwnerRecord {
            pod: name("2c48913c-b29f-11e7-9350-020968147796"),
            ..container.clone()
        };
        let bare = OwnerRecord {
            container: None,
            ..unnamed.clone()
        };
        let pod = OwnerRecord {
            pod_namespace: name("shop"),
            pod_name: name("chat-0"),
            ..unnamed.clone()
        };
        for (owner, text) in [
            (OwnerRecord::default(), None),
            (unit, Some("chat.service")),
            (container, Some("0123456789ab")),
            (unnamed, Some("0123456789ab")),
            (bare, Some("2c48913c-b29f-11e7-9350-020968147796")),
            (pod, Some("shop/chat-0")),
        ] {
            assert_eq!(workload_text(&owner).as_deref(), text, "{owner:?}");
        }
    }

    #[test]
    fn an_owner_is_the_workload_and_the_process_if_they_are_known() {
        let owner = |unit: Option<&str>, pid| OwnerRecord {
            unit: unit.map(str::to_owned),
            pid,
            comm: pid.map(|_| "node".to_owned()),
            ..OwnerRecord::default()
        };
        for (owner, text) in [
            (
                owner(Some("chat.service"), Some(812)),
                Some("chat.service (node, pid 812)"),
            ),
            (owner(Some("chat.service"), None), Some("chat.service")),
            (owner(None, Some(812)), Some("node (pid 812)")),
            (owner(None, None), None),
        ] {
            assert_eq!(owner_text(&owner).as_deref(), text);
        }
    }

    #[test]
    fn hostile_names_break_neither_a_line_nor_a_terminal() {
        let owner = hostile();
        for text in [workload_text, process_text, owner_text].map(|text| text(&owner)) {
            let text = text.expect("an owner");
            assert!(is_safe(&text), "{text:?}");
        }
    }
}
