//! The owner of a socket as text. All of it is text of others, so it is escaped.

use crate::records::owner::OwnerRecord;
use crate::records::{owner_text::process_text, printable::printable};

/// What is known, each with its name.
pub(super) fn owner_facts(owner: &OwnerRecord) -> Vec<(&'static str, String)> {
    let pod = owner.pod.as_deref().map(|uid| {
        let uid = printable(uid);
        let workload = printable(owner.workload.as_deref().unwrap_or("-"));
        match (&owner.pod_namespace, &owner.pod_name) {
            (Some(namespace), Some(name)) => {
                let (namespace, name) = (printable(namespace), printable(name));
                format!("{namespace}/{name}, workload {workload}, uid {uid}")
            }
            _ => format!("uid {uid}"),
        }
    });
    let text = |text: &Option<String>| Some(printable(text.as_deref()?));
    let facts = [
        ("pod", pod),
        ("container", text(&owner.container)),
        ("unit", text(&owner.unit)),
        ("process", process_text(owner)),
        ("cgroup", text(&owner.cgroup)),
        ("netns", owner.netns.map(|netns| netns.to_string())),
    ];
    let known = facts.into_iter();
    known
        .filter_map(|(name, text)| Some((name, text?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::owner_text::tests::{hostile, is_safe};

    #[test]
    fn hostile_names_break_neither_a_line_nor_a_terminal() {
        let facts = owner_facts(&hostile());
        assert_eq!(facts.len(), 6);
        assert!(facts.iter().all(|(_, text)| is_safe(text)), "{facts:?}");
        assert!(owner_facts(&OwnerRecord::default()).is_empty());
    }
}
