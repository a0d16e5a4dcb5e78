//! Clients that connect repeatedly and stay only for seconds.

use std::time::Duration;

use super::{StormDetector, Thrashing, advice, finding::Thrash};
use crate::{alert::Subject, time::Ktime};

impl StormDetector {
    pub(super) fn begin_thrash(&mut self, at: Ktime) {
        self.thrash = Some(Thrashing {
            since: at,
            clients: 0,
            reported: 0,
            due: at,
        });
        self.evaluate_thrash(at);
    }

    /// Reports all thrashing clients in one finding, and again when their number has doubled.
    pub(super) fn evaluate_thrash(&mut self, now: Ktime) {
        let mut rows = self.with_open(self.clients.thrashing(now));
        let Some(thrash) = &mut self.thrash else {
            return;
        };
        thrash.due = now + THRASH_EVERY;
        let clients = rows.len() as u64;
        thrash.clients = clients;
        let firing = clients > 0;
        if firing && clients < thrash.reported * 2 {
            return;
        }
        thrash.reported = clients;
        let since = thrash.since;
        if !firing {
            self.thrash = None;
        }
        let reason = match firing {
            true => advice::of_thrash(&rows),
            false => "no client has kept reconnecting for a minute".into(),
        };
        rows.truncate(Thrash::EXAMPLES);
        let thrash = Thrash {
            clients,
            examples: rows,
        };
        self.report(firing, now, since, reason, Subject::Thrash(thrash));
    }
}

const THRASH_EVERY: Duration = Duration::from_secs(10);
