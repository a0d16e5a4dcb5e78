//! Which connections the list has.

use std::net::IpAddr;

use crate::records::{printable::printable, search::Search};

/// The listener or the client whose connections are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Listener(String),
    Peer(IpAddr),
}

/// Without any, all connections are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) scope: Option<Scope>,
    /// Text that a connection must have; empty for all.
    pub(super) search: String,
}

impl Conditions {
    pub(super) fn searched(search: Option<&Search>) -> Self {
        Self {
            scope: None,
            search: search.map(Search::to_string).unwrap_or_default(),
        }
    }

    pub(super) fn of(scope: Scope) -> Self {
        Self {
            scope: Some(scope),
            search: String::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.scope.is_none() && self.search.is_empty()
    }

    /// The parameters of a request.
    pub(super) fn query(&self) -> [(&'static str, Option<String>); 3] {
        let (listener, peer) = match &self.scope {
            Some(Scope::Listener(name)) => (Some(name.clone()), None),
            Some(Scope::Peer(address)) => (None, Some(address.to_string())),
            None => (None, None),
        };
        let search = (!self.search.is_empty()).then(|| self.search.clone());
        [("listener", listener), ("peer", peer), ("search", search)]
    }

    /// For people, without control characters; empty if there are none.
    pub(super) fn text(&self) -> String {
        let scope = self.scope.as_ref().map(|scope| match scope {
            Scope::Listener(name) => format!("listener {}", printable(name)),
            Scope::Peer(address) => format!("peer {address}"),
        });
        let search = format!("search {}", printable(&self.search));
        let search = (!self.search.is_empty()).then_some(search);
        let parts: Vec<_> = scope.into_iter().chain(search).collect();
        parts.join("  ")
    }
}
