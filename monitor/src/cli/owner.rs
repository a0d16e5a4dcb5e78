//! The owner of a socket as text. All of it is text of others, so it is escaped.

use std::fmt;

use super::screen::escaped;
use crate::records::owner::OwnerRecord;

/// The pod, or else the container, or else the systemd unit. A pod without a known name has that of its
/// container, or its uid.
pub(super) fn workload_text(owner: &OwnerRecord) -> Option<String> {
    if let (Some(namespace), Some(name)) = (&owner.pod_namespace, &owner.pod_name) {
        let (namespace, name) = (namespace.escape_debug(), name.escape_debug());
        return Some(format!("{namespace}/{name}"));
    }
    // A container's id is as short as its engine prints it.
    let container = owner.container.as_deref();
    let container = container.map(|id| id.get(..12).unwrap_or(id));
    let name = container
        .or(owner.pod.as_deref())
        .or(owner.unit.as_deref())?;
    Some(name.escape_debug().to_string())
}

/// The process.
pub(super) fn process_text(owner: &OwnerRecord) -> Option<String> {
    let pid = owner.pid?;
    Some(format!("{} (pid {pid})", escaped(owner.comm.as_deref())))
}

/// The lines of a page; none for what is unknown.
pub(super) struct OwnerLines<'a>(pub(super) &'a OwnerRecord);

impl fmt::Display for OwnerLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = self.0;
        let pod = owner.pod.as_deref().map(|uid| {
            let uid = uid.escape_debug();
            let workload = escaped(owner.workload.as_deref());
            match (&owner.pod_namespace, &owner.pod_name) {
                (Some(namespace), Some(name)) => {
                    let (namespace, name) = (namespace.escape_debug(), name.escape_debug());
                    format!("{namespace}/{name}, workload {workload}, uid {uid}")
                }
                _ => format!("uid {uid}"),
            }
        });
        let text = |text: &Option<String>| Some(text.as_deref()?.escape_debug().to_string());
        for (name, text) in [
            ("pod", pod),
            ("container", text(&owner.container)),
            ("unit", text(&owner.unit)),
            ("process", process_text(owner)),
            ("cgroup", text(&owner.cgroup)),
            ("netns", owner.netns.map(|netns| netns.to_string())),
        ] {
            if let Some(text) = text {
                writeln!(f, "  {name:<9}  {text}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An owner of which everything is known, and is hostile.
    fn hostile() -> OwnerRecord {
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
    fn hostile_names_break_neither_a_line_nor_a_terminal() {
        let owner = hostile();
        let lines = OwnerLines(&owner).to_string();
        assert_eq!(lines.lines().count(), 6, "{lines}");
        let texts = [
            lines.replace('\n', ""),
            workload_text(&owner).expect("a pod"),
            process_text(&owner).expect("a process"),
        ];
        for text in texts {
            let is_safe = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{202e}');
            assert!(text.chars().all(is_safe), "{text:?}");
        }
        assert_eq!(OwnerLines(&OwnerRecord::default()).to_string(), "");
    }
}
