//! Which connections a list has.

use std::{collections::HashSet, net::IpAddr};

use serde::Deserialize;

use super::parsed;
use crate::{
    kernel::owner_service::OwnerService,
    records::{
        connections::{ConnectionRecord, State},
        endpoint::Endpoint,
        frames::Peers,
        list_order::ListOrder,
        search::Search,
    },
};
use monitor_core::VerdictKind;

/// The parameters of the list of connections.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConnectionsQuery {
    pub(super) listener: Option<String>,
    #[serde(deserialize_with = "parsed")]
    peer: Option<Peers>,
    /// Of either end.
    #[serde(deserialize_with = "parsed")]
    endpoint: Option<Endpoint>,
    state: Option<State>,
    /// The kind of the standing verdict.
    #[serde(deserialize_with = "parsed")]
    kind: Option<VerdictKind>,
    /// Only those with a standing verdict of any kind of zombie.
    zombies: bool,
    #[serde(deserialize_with = "parsed")]
    search: Option<Search>,
    /// Recently ended connections instead of those that exist.
    pub(super) ended: bool,
    pub(super) order: Option<ListOrder>,
    /// How many of those that are wanted to leave out.
    pub(super) offset: usize,
    pub(super) limit: Option<usize>,
}

impl ConnectionsQuery {
    /// Whether only connections with a standing verdict are wanted.
    pub(super) fn needs_verdict(&self) -> bool {
        self.kind.is_some() || self.zombies
    }

    /// All conditions but the search.
    fn accepts(&self, record: &ConnectionRecord) -> bool {
        let Self {
            listener,
            peer,
            endpoint,
            state,
            kind,
            zombies,
            search: _,
            ended: _,
            order: _,
            offset: _,
            limit: _,
        } = self;
        let standing = record.verdict.as_ref();
        let standing = standing.and_then(|verdict| verdict.kind.parse::<VerdictKind>().ok());
        has_listener_and_peer(
            listener.as_deref(),
            *peer,
            &record.listener,
            record.peer.ip(),
        ) && endpoint.is_none_or(|endpoint| endpoint.is_end_of(record))
            && state.is_none_or(|state| state == record.state)
            && kind.is_none_or(|wanted| standing == Some(wanted))
            && (!zombies || standing.is_some_and(VerdictKind::is_zombie))
    }

    fn is_unconditional(&self) -> bool {
        let Self {
            listener,
            peer,
            endpoint,
            state,
            kind,
            zombies,
            search,
            ended: _,
            order: _,
            offset: _,
            limit: _,
        } = self;
        listener.is_none()
            && peer.is_none()
            && endpoint.is_none()
            && state.is_none()
            && kind.is_none()
            && search.is_none()
            && !zombies
    }
}

/// Whether `name` and `address` are the wanted ones, if any are.
pub(super) fn has_listener_and_peer(
    listener: Option<&str>,
    peers: Option<Peers>,
    name: &str,
    address: IpAddr,
) -> bool {
    listener.is_none_or(|wanted| wanted == name)
        && peers.is_none_or(|peers| peers.contains(address))
}

/// Cgroups whose names one search looks up.
const MAX_CGROUPS: usize = 8_192;

/// Selects the records that a query wants.
#[derive(Debug)]
pub(super) struct Selection {
    query: ConnectionsQuery,
    owners: OwnerService,
    /// Cgroups of which the names were looked up, or known.
    cgroups: HashSet<u64>,
}

impl Selection {
    pub(super) fn new(query: ConnectionsQuery, owners: OwnerService) -> Self {
        Self {
            query,
            owners,
            cgroups: HashSet::new(),
        }
    }

    pub(super) fn is_everything(&self) -> bool {
        self.query.is_unconditional()
    }

    /// Keeps those that are wanted, of a page of records without their owners.
    ///
    /// For a search, the names of cgroups are looked up, which are few. A process is considered only if
    /// it is known from an earlier request or alert: to find the processes of all connections takes too
    /// long.
    pub(super) async fn retain(&mut self, records: &mut Vec<ConnectionRecord>) {
        records.retain(|record| self.query.accepts(record));
        let Some(search) = self.query.search.clone() else {
            return;
        };
        self.look_up_cgroups(records).await;
        records.retain(|record| {
            let known = || self.owners.known(record.cookie, cgroup_id(record));
            search.matches(record) || search.matches_owner(&known().into())
        });
    }

    async fn look_up_cgroups(&mut self, records: &[ConnectionRecord]) {
        let mut unknown = Vec::new();
        for record in records {
            if let Some(id) = cgroup_id(record)
                && self.cgroups.len() < MAX_CGROUPS
                && self.cgroups.insert(id)
                && self.owners.known(record.cookie, Some(id)).cgroup.is_none()
            {
                unknown.push(id);
            }
        }
        if !unknown.is_empty() {
            // What was found is in `known`.
            drop(self.owners.of_cgroups(unknown).await);
        }
    }
}

fn cgroup_id(record: &ConnectionRecord) -> Option<u64> {
    record.cgroup_id.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{super::parameters::parse, *};
    use crate::records::connections::{
        VerdictRecord,
        tests::{detail, record},
    };

    #[test]
    fn without_conditions_all_are_wanted_and_each_condition_can_refuse() {
        let mut open = record(&detail(1), None);
        open.verdict = Some(VerdictRecord {
            kind: "expired".to_owned(),
            certainty: "suspected".to_owned(),
            ts: open.ts,
            began_at: open.ts,
            limit_seconds: 60.0,
            reason: String::new(),
        });
        let healthy = ConnectionRecord {
            verdict: None,
            ..open.clone()
        };
        let mut expiring = open.clone();
        if let Some(verdict) = &mut expiring.verdict {
            verdict.kind = "expiring".to_owned();
        }
        assert!(ConnectionsQuery::default().is_unconditional());
        for (condition, record, is_wanted) in [
            ("listener=8080", &open, true),
            ("listener=9000", &open, false),
            ("peer=10.77.1.0/24", &open, true),
            ("peer=10.77.2.0/24", &open, false),
            ("endpoint=10.77.1.12:53787", &open, true),
            ("endpoint=:8080", &open, true),
            ("endpoint=10.77.1.12:8080", &open, false),
            ("state=open", &open, true),
            ("state=closing", &open, false),
            ("kind=expired", &open, true),
            ("kind=expired", &healthy, false),
            ("kind=expired", &expiring, false),
            ("zombies=true", &open, true),
            ("zombies=true", &healthy, false),
            ("zombies=true", &expiring, false),
        ] {
            let query: ConnectionsQuery = query(condition).expect(condition);
            assert!(!query.is_unconditional(), "{condition}");
            assert_eq!(query.accepts(record), is_wanted, "{condition}");
        }
    }

    #[test]
    fn an_invalid_parameter_gets_a_sentence() {
        for (parameter, why) in [
            ("kind=dead", "invalid verdict \"dead\", expected expired"),
            ("endpoint=host", "invalid address \"host\""),
            ("search=", "the text to search for is empty"),
        ] {
            let error = query(parameter).expect_err(parameter).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    fn query(text: &str) -> Result<ConnectionsQuery, impl ToString + std::fmt::Debug> {
        parse(text)
    }
}
