//! The owner of a socket as text.

use std::fmt;

use super::screen::escaped;
use crate::records::owner::OwnerRecord;

/// The pod, or else the container or the systemd unit, on one line. `-` if none of them is known.
pub(super) struct OwnerText<'a>(pub(super) &'a OwnerRecord);

impl fmt::Display for OwnerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = self.0;
        if let (Some(namespace), Some(name)) = (&owner.pod_namespace, &owner.pod_name) {
            let (namespace, name) = (namespace.escape_debug(), name.escape_debug());
            return f.pad(&format!("{namespace}/{name}"));
        }
        // A container's id is as short as its engine prints it.
        let container = owner.container.as_deref();
        let container = container.map(|id| id.get(..12).unwrap_or(id));
        f.pad(&escaped(container.or(owner.unit.as_deref())))
    }
}
