//! The owner of a socket as text. All of it is text of others, so it is escaped.

use std::fmt;

use super::screen::escaped;
use crate::records::owner::OwnerRecord;
pub(super) use crate::records::owner_text::{process_text, workload_text};

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
    use crate::records::owner_text::tests::{hostile, is_safe};

    #[test]
    fn hostile_names_break_neither_a_line_nor_a_terminal() {
        let lines = OwnerLines(&hostile()).to_string();
        assert_eq!(lines.lines().count(), 6, "{lines}");
        assert!(lines.lines().all(is_safe), "{lines:?}");
        assert_eq!(OwnerLines(&OwnerRecord::default()).to_string(), "");
    }
}
