//! Recently closed connections, kept for later requests.

use std::collections::VecDeque;

use crate::records::{connections::HandshakeSummary, owner::OwnerRecord};
use monitor_core::{Closed, ConnId, Ktime};

/// The number kept; the oldest are dropped first. Each takes about 1 KiB.
pub const REMEMBERED: usize = 1024;

#[derive(Debug, Default)]
pub struct EndedConnections(VecDeque<Past>);

/// A closed connection, as of its end.
#[derive(Debug)]
pub struct Past {
    pub closed: Closed,
    pub handshake: Option<HandshakeSummary>,
    pub requested_at: Option<Ktime>,
    /// What was known of it at the end.
    pub owner: OwnerRecord,
}

impl EndedConnections {
    pub fn remember(&mut self, past: Past) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(past);
    }

    /// The latest end first.
    pub fn iter(&self) -> impl Iterator<Item = &Past> {
        self.0.iter().rev()
    }

    pub fn find(&self, conn: ConnId) -> Option<&Past> {
        let is_it = |past: &&Past| past.closed.detail.facts.conn == conn;
        self.iter().find(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::tests::detail;
    use monitor_core::CloseHow;

    #[test]
    fn the_last_connections_are_kept_up_to_the_limit() {
        let mut history = EndedConnections::default();
        for conn in 0..=REMEMBERED as u64 {
            history.remember(Past {
                closed: Closed {
                    detail: detail(conn),
                    how: CloseHow::Fin,
                },
                handshake: None,
                requested_at: None,
                owner: OwnerRecord::default(),
            });
        }
        assert!(history.find(ConnId(0)).is_none());
        let kept = history.iter().map(|past| past.closed.detail.facts.conn.0);
        assert!(kept.eq((1..=REMEMBERED as u64).rev()), "the latest first");
        for conn in [1, REMEMBERED as u64] {
            let found = history.find(ConnId(conn)).expect("remembered");
            assert_eq!(found.closed.detail.facts.conn, ConnId(conn));
        }
    }
}
