//! Connections by what they have in common, as records: for `wsmon list --by`.

use std::collections::HashMap;

use clap::ValueEnum;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::{
    connections::{ConnectionRecord, DirectionRecord},
    json,
    numbers::thousandths,
    rates::TrafficRates,
};
use monitor_core::VerdictKind;

/// The number of groups that are distinguished. The others share one record.
pub const MAX_GROUPS: usize = 10_000;

const MINUTE: f64 = 60.0;

/// What the connections of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum GroupBy {
    /// The listener that watches them
    Listener,
    /// The Kubernetes pod of this host's end
    Pod,
    /// The systemd unit of this host's end
    Unit,
    /// The process that holds this host's end
    Process,
    /// The address of the peer, without its port
    Peer,
}

impl GroupBy {
    /// The name in queries and records.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the name of a group is in the owner of its connections.
    pub fn needs_owner(self) -> bool {
        matches!(self, Self::Pod | Self::Unit | Self::Process)
    }

    /// The name of the group of a connection; `None` if it is not known.
    fn name_of(self, record: &ConnectionRecord) -> Option<String> {
        let owner = &record.owner;
        match self {
            Self::Listener => Some(record.listener.clone()),
            Self::Pod => match (&owner.pod_namespace, &owner.pod_name) {
                (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
                _ => owner.pod.clone(),
            },
            Self::Unit => owner.unit.clone(),
            Self::Process => match (&owner.comm, owner.pid?) {
                (Some(comm), pid) => Some(format!("{comm} (pid {pid})")),
                (None, pid) => Some(format!("pid {pid}")),
            },
            Self::Peer => Some(record.peer.ip().to_string()),
        }
    }
}

/// One group of connections at the moment `ts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "group")]
pub struct GroupRecord {
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    pub by: GroupBy,
    /// `null` for connections whose group is not known, and in the record of the rest.
    pub name: Option<String>,
    /// Whether this record has all groups beyond the first [`MAX_GROUPS`].
    pub is_rest: bool,
    /// False if connections that ended within the minute are already forgotten.
    pub is_minute_complete: bool,
    #[serde(flatten)]
    pub figures: GroupFigures,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupFigures {
    /// Connections that exist.
    pub open: u64,
    pub opened_in_minute: u64,
    pub closed_in_minute: u64,
    /// Connections with a standing verdict that looks open and is dead.
    pub zombies: u64,
    /// The smallest margin of its connections; `null` without a limit.
    pub heartbeat_margin_seconds: Option<f64>,
    /// The age of the oldest one; `null` if all are older than the monitor.
    pub oldest_seconds: Option<f64>,
    pub rates: TrafficRates,
}

impl GroupFigures {
    fn add_open(&mut self, record: &ConnectionRecord) {
        self.open += 1;
        self.opened_in_minute += u64::from(record.age_seconds.is_some_and(|age| age < MINUTE));
        let is_zombie = |verdict: &str| VerdictKind::zombies().any(|kind| kind.as_str() == verdict);
        let verdict = record.verdict.as_ref();
        self.zombies += u64::from(verdict.is_some_and(|verdict| is_zombie(&verdict.kind)));
        let margins = [self.heartbeat_margin_seconds, margin(record)];
        self.heartbeat_margin_seconds = margins.into_iter().flatten().reduce(f64::min);
        let ages = [self.oldest_seconds, record.age_seconds];
        self.oldest_seconds = ages.into_iter().flatten().reduce(f64::max);
        self.rates += record.rates.unwrap_or_default();
    }

    /// `ended` is how long ago the connection ended, in seconds.
    fn add_ended(&mut self, record: &ConnectionRecord, ended: f64) {
        let opened = record.age_seconds.map(|age| ended + age);
        self.opened_in_minute += u64::from(opened.is_some_and(|ago| ago < MINUTE));
        self.closed_in_minute += u64::from(ended < MINUTE);
    }
}

/// The idle limit of a connection, less its current silence or the interval of its pings, whichever
/// is longer. Pings of either side keep it.
fn margin(record: &ConnectionRecord) -> Option<f64> {
    let interval = |direction: &DirectionRecord| direction.ping_interval_seconds;
    let intervals = [interval(&record.rx), interval(&record.tx)];
    let heartbeat = intervals.into_iter().flatten().reduce(f64::min);
    let silences = [heartbeat, record.idle_seconds].into_iter().flatten();
    Some(thousandths(
        record.idle_limit_seconds? - silences.reduce(f64::max)?,
    ))
}

/// Counts connections by group.
#[derive(Debug)]
pub struct Groups {
    by: GroupBy,
    ts: Timestamp,
    /// At most [`MAX_GROUPS`]: those whose connections were added first.
    groups: HashMap<Option<String>, GroupFigures>,
    rest: Option<GroupFigures>,
    is_minute_complete: bool,
}

impl Groups {
    /// `ts` is the moment before the first connection is added.
    pub fn new(by: GroupBy, ts: Timestamp) -> Self {
        Self {
            by,
            ts,
            groups: HashMap::new(),
            rest: None,
            is_minute_complete: true,
        }
    }

    /// Adds a connection that exists.
    pub fn add_open(&mut self, record: &ConnectionRecord) {
        self.group_of(record).add_open(record);
    }

    /// Adds a connection that has ended, if that was within the minute.
    pub fn add_ended(&mut self, record: &ConnectionRecord) {
        let ended = self.seconds_since(record.ts);
        if ended < MINUTE {
            self.group_of(record).add_ended(record, ended);
        }
    }

    /// Connections that ended before `ts` are forgotten.
    pub fn remember_since(&mut self, ts: Timestamp) {
        self.is_minute_complete = self.seconds_since(ts) >= MINUTE;
    }

    /// The groups, those with the most connections first, and the rest at the end.
    pub fn into_records(self) -> Vec<GroupRecord> {
        let record = |name, is_rest, figures| GroupRecord {
            ts: self.ts,
            by: self.by,
            name,
            is_rest,
            is_minute_complete: self.is_minute_complete,
            figures,
        };
        let groups = self.groups.into_iter();
        let mut records: Vec<_> = groups
            .map(|(name, figures)| record(name, false, figures))
            .collect();
        records.sort_by(|a, b| {
            let open = b.figures.open.cmp(&a.figures.open);
            open.then_with(|| a.name.cmp(&b.name))
        });
        records.extend(self.rest.map(|figures| record(None, true, figures)));
        records
    }

    fn seconds_since(&self, ts: Timestamp) -> f64 {
        self.ts.duration_since(ts).as_secs_f64()
    }

    fn group_of(&mut self, record: &ConnectionRecord) -> &mut GroupFigures {
        let name = self.by.name_of(record);
        match self.groups.len() < MAX_GROUPS || self.groups.contains_key(&name) {
            true => self.groups.entry(name).or_default(),
            false => self.rest.get_or_insert_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;
    use crate::records::{
        connections::{
            VerdictRecord,
            tests::{detail, record},
        },
        rates::DirectionRates,
    };
    use monitor_core::CloseHow;

    fn open(peer: u32) -> ConnectionRecord {
        let mut record = record(&detail(1), None);
        record.peer.set_ip(std::net::Ipv4Addr::from(peer).into());
        record
    }

    fn only(groups: Groups) -> GroupRecord {
        let [record] = <[_; 1]>::try_from(groups.into_records()).expect("one group");
        record
    }

    #[test]
    fn each_kind_of_group_has_its_own_name() {
        let name = |text: &str| Some(text.to_owned());
        let unknown = open(0x0a00_0001);
        let mut pod = unknown.clone();
        pod.owner.pod = name("2c48913c");
        let mut named = pod.clone();
        (named.owner.pod_namespace, named.owner.pod_name) = (name("shop"), name("chat-0"));
        named.owner.unit = name("cri-0.scope");
        named.owner.pid = Some(812);
        let mut process = named.clone();
        process.owner.comm = name("node");
        let names = |record: &ConnectionRecord| {
            GroupBy::value_variants()
                .iter()
                .map(|by| by.name_of(record).unwrap_or("-".to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&unknown), ["8080", "-", "-", "-", "10.0.0.1"]);
        assert_eq!(names(&pod)[1], "2c48913c");
        assert_eq!(
            names(&named)[1..4],
            ["shop/chat-0", "cri-0.scope", "pid 812"]
        );
        assert_eq!(names(&process)[3], "node (pid 812)");
    }

    #[test]
    fn figures_are_sums_and_extremes_of_the_connections() {
        let mut groups = Groups::new(GroupBy::Listener, Timestamp::UNIX_EPOCH);
        let rates = TrafficRates {
            rx: DirectionRates {
                frames_per_second: 1.5,
                payload_bytes_per_second: 100.0,
            },
            ..TrafficRates::default()
        };
        // It pings every 15 s and is silent for 5 s, with a limit of 60 s.
        let young = ConnectionRecord {
            rates: Some(rates),
            ..open(1)
        };
        let silent = ConnectionRecord {
            age_seconds: Some(100.0),
            idle_seconds: Some(70.0),
            rates: Some(rates),
            verdict: Some(VerdictRecord {
                kind: "expired".to_owned(),
                certainty: "suspected".to_owned(),
                ts: Timestamp::UNIX_EPOCH,
                began_at: Timestamp::UNIX_EPOCH,
                limit_seconds: 60.0,
                reason: String::new(),
            }),
            ..open(2)
        };
        let older = ConnectionRecord {
            age_seconds: None,
            idle_limit_seconds: None,
            ..open(3)
        };
        groups.add_open(&young);
        assert_eq!(margin(&young), Some(44.983));
        for record in [&silent, &older] {
            groups.add_open(record);
        }
        let record = only(groups);
        assert_eq!(
            (record.name.as_deref(), record.is_rest),
            (Some("8080"), false)
        );
        let expected = GroupFigures {
            open: 3,
            opened_in_minute: 1,
            closed_in_minute: 0,
            zombies: 1,
            heartbeat_margin_seconds: Some(-10.0),
            oldest_seconds: Some(100.0),
            rates: TrafficRates {
                rx: DirectionRates {
                    frames_per_second: 3.0,
                    payload_bytes_per_second: 200.0,
                },
                ..TrafficRates::default()
            },
        };
        assert_eq!(record.figures, expected);
    }

    #[test]
    fn ends_of_the_last_minute_count_and_a_short_memory_is_reported() {
        // Its age was 20 s when it ended.
        let ended = record(&detail(1), Some(CloseHow::Fin));
        for (ago, expected) in [
            (39, Some((1, 1, false))),
            (41, Some((0, 1, false))),
            (59, Some((0, 1, false))),
            (60, None),
        ] {
            let mut groups = Groups::new(GroupBy::Peer, ended.ts + ago.seconds());
            groups.add_ended(&ended);
            groups.remember_since(ended.ts);
            let found = groups.into_records().pop().map(|record| {
                let figures = record.figures;
                assert_eq!(figures.open, 0);
                (
                    figures.opened_in_minute,
                    figures.closed_in_minute,
                    record.is_minute_complete,
                )
            });
            assert_eq!(found, expected, "{ago} s ago");
        }
        let mut groups = Groups::new(GroupBy::Peer, ended.ts + 61.seconds());
        groups.remember_since(ended.ts);
        groups.add_open(&open(1));
        assert!(only(groups).is_minute_complete);
    }

    #[test]
    fn groups_beyond_the_limit_share_one_record_and_no_connection_is_lost() {
        let mut groups = Groups::new(GroupBy::Peer, Timestamp::UNIX_EPOCH);
        let many = MAX_GROUPS as u32 + 7;
        for peer in 0..many {
            groups.add_open(&open(peer));
        }
        groups.add_open(&open(3));
        groups.add_open(&open(many));
        let records = groups.into_records();
        assert_eq!(records.len(), MAX_GROUPS + 1);
        assert_eq!(records[0].name.as_deref(), Some("0.0.0.3"));
        let rest = records.last().expect("a record");
        assert_eq!(
            (rest.is_rest, &rest.name, rest.figures.open),
            (true, &None, 8)
        );
        assert_eq!(records.iter().filter(|record| record.is_rest).count(), 1);
        let sum: u64 = records.iter().map(|record| record.figures.open).sum();
        assert_eq!(sum, u64::from(many) + 2);
    }
}
