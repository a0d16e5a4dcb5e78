//! A text that is searched in connections.

use std::{fmt, str::FromStr};

use super::{connections::ConnectionRecord, owner::OwnerRecord};

/// The longest text, in bytes: the largest name of a pod or container is not longer.
pub const MAX_BYTES: usize = 256;

/// A text without regard to case. It is never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSearch {
    #[error("the text to search for is empty")]
    Empty,
    #[error("the text to search for has {0} bytes, at most {MAX_BYTES} are possible")]
    TooLong(usize),
}

impl Search {
    /// Whether the peer, the listener, the protocol, the kind of the verdict or the owner contains it.
    pub fn matches(&self, record: &ConnectionRecord) -> bool {
        let verdict = record.verdict.as_ref();
        self.is_in(&record.peer.to_string())
            || self.is_in(&record.listener)
            || self.is_in(&record.protocol)
            || verdict.is_some_and(|verdict| self.is_in(&verdict.kind))
            || self.matches_owner(&record.owner)
    }

    /// Whether the pod, the container, the unit or the name of the process contains it.
    pub fn matches_owner(&self, owner: &OwnerRecord) -> bool {
        let pod = owner.pod_namespace.as_ref().zip(owner.pod_name.as_ref());
        let pod = pod.map(|(namespace, name)| format!("{namespace}/{name}"));
        let texts = [&pod, &owner.container, &owner.unit, &owner.comm];
        texts.into_iter().flatten().any(|text| self.is_in(text))
    }

    fn is_in(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.0)
    }
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Search {
    type Err = InvalidSearch;

    fn from_str(text: &str) -> Result<Self, InvalidSearch> {
        match text.len() {
            0 => Err(InvalidSearch::Empty),
            bytes if bytes > MAX_BYTES => Err(InvalidSearch::TooLong(bytes)),
            _ => Ok(Self(text.to_lowercase())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::{
        VerdictRecord,
        tests::{detail, record},
    };

    #[test]
    fn each_text_of_a_connection_can_be_searched() {
        let mut record = record(&detail(315_653), None);
        record.listener = "Checkout".to_owned();
        record.verdict = Some(VerdictRecord {
            kind: "black_holed".to_owned(),
            certainty: "confirmed".to_owned(),
            ts: record.ts,
            began_at: record.ts,
            limit_seconds: 60.0,
            reason: "sentence".to_owned(),
        });
        record.owner = OwnerRecord {
            cgroup: Some("/kubepods".to_owned()),
            unit: Some("chat.service".to_owned()),
            container: Some("0123456789ab".to_owned()),
            pod_namespace: Some("shop".to_owned()),
            pod_name: Some("chat-6d4cf".to_owned()),
            comm: Some("Node".to_owned()),
            ..OwnerRecord::default()
        };
        let matches = |text: &str| text.parse::<Search>().expect(text).matches(&record);
        for text in [
            "10.77.1.12:53787",
            ".12:",
            "checkOUT",
            "websocket",
            "holed",
            "shop/chat",
            "0123",
            "chat.serv",
            "nOdE",
        ] {
            assert!(matches(text), "{text}");
        }
        for text in [
            "10.77.2.10",
            "315653",
            "confirmed",
            "sentence",
            "kubepods",
            "nodes",
        ] {
            assert!(!matches(text), "{text}");
        }
    }

    #[test]
    fn a_text_is_neither_empty_nor_long() {
        assert_eq!("".parse::<Search>(), Err(InvalidSearch::Empty));
        assert!("x".repeat(MAX_BYTES).parse::<Search>().is_ok());
        let error = "x".repeat(MAX_BYTES + 1).parse::<Search>();
        assert_eq!(error, Err(InvalidSearch::TooLong(257)));
    }
}
