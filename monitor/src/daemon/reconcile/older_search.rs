//! Searches for connections older than the programs, on a thread of its own.
//!
//! Each network namespace with connections is dumped once, those first in which something listens on a watched
//! port. The start waits for a limited time; the rest is found while the daemon runs.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::{
    config::listeners::ListenerConfig,
    kernel::{
        host::netns::NetNsError,
        sock_diag::scan::{
            self, Scan, SurveyedNamespace,
            locations::{Locations, MAX_KEYS_EACH},
        },
    },
};
use monitor_core::Facts;

/// Connections in one slice, and slices in the channel, so the search is never far ahead.
const SLICE: usize = 512;
const WAITING: usize = 4;

/// Rest after each namespace while the daemon runs, in multiples of the CPU time that it took: the search takes
/// at most a fifth of a core.
const REST: u32 = 4;

/// A running search for older connections.
#[derive(Debug)]
pub struct Older {
    progress: Receiver<SearchProgress>,
    /// Returns the survey, with what the search read.
    search: thread::JoinHandle<Result<Scan, NetNsError>>,
}

/// What a search reports before its end.
#[derive(Debug)]
pub enum SearchProgress {
    Connections(Vec<Facts>),
    /// The start need not wait for the rest.
    MayStart {
        unsearched: usize,
    },
}

/// Where a search has found connections, for the scans that run meanwhile.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundLocations(Arc<Mutex<Locations>>);

impl FoundLocations {
    /// What was found since the last call.
    pub(super) fn take(&self) -> Locations {
        self.lock().split_off()
    }

    fn lock(&self) -> MutexGuard<'_, Locations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Older {
    /// Searches the namespaces of a survey.
    pub(super) fn search(
        listeners: Vec<ListenerConfig>,
        surveyed: Vec<SurveyedNamespace>,
        survey: Scan,
        start_limit: Duration,
        locations: FoundLocations,
    ) -> Result<Self, NetNsError> {
        let (sender, progress) = mpsc::channel(WAITING);
        let search = thread::Builder::new()
            .name("older".to_owned())
            .spawn(move || {
                search(
                    &listeners,
                    surveyed,
                    survey,
                    start_limit,
                    &locations,
                    &sender,
                )
            })
            .map_err(|source| NetNsError::Thread {
                name: "own".to_owned(),
                source,
            })?;
        Ok(Self { progress, search })
    }

    /// Waits for more; `None` when all were found.
    pub async fn next(&mut self) -> Option<SearchProgress> {
        self.progress.recv().await
    }

    /// The survey, with what the search read. Waits for the end of the search.
    pub(super) fn join(self) -> Result<Scan, NetNsError> {
        let ended = self.search.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Sends what it finds. A send fails only after the daemon has stopped or its start has failed; the rest is
/// not needed then.
fn search(
    listeners: &[ListenerConfig],
    surveyed: Vec<SurveyedNamespace>,
    survey: Scan,
    start_limit: Duration,
    locations: &FoundLocations,
    progress: &Sender<SearchProgress>,
) -> Result<Scan, NetNsError> {
    let begun = Instant::now();
    let mut found = survey;
    let (populated, idle): (Vec<_>, Vec<_>) =
        surveyed.into_iter().partition(|it| it.has_connections);
    found.skipped += idle.len();
    let mut unsearched = populated.len();
    let (served, rest): (Vec<_>, Vec<_>) = populated.into_iter().partition(|it| it.is_served);
    let mut slice = Vec::with_capacity(SLICE);
    let send = |slice: &mut Vec<Facts>| {
        let full = std::mem::replace(slice, Vec::with_capacity(SLICE));
        drop(progress.blocking_send(SearchProgress::Connections(full)));
    };
    let mut may_start = false;
    for it in served.into_iter().chain(rest) {
        if !may_start && begun.elapsed() >= start_limit {
            may_start = true;
            send(&mut slice);
            drop(progress.blocking_send(SearchProgress::MayStart { unsearched }));
        }
        if progress.is_closed() {
            break;
        }
        let mut keys = Vec::new();
        let scan = scan::connections(listeners, &[&it.netns], |socket| {
            let Some(facts) = socket.facts() else {
                return;
            };
            if keys.len() <= MAX_KEYS_EACH {
                keys.push(socket.key());
            }
            slice.push(facts);
            if slice.len() >= SLICE {
                send(&mut slice);
            }
        })?;
        let mut locations = locations.lock();
        locations.measure_dump(&scan);
        locations.set(it.netns.id(), keys);
        drop(locations);
        unsearched -= 1;
        if may_start {
            send(&mut slice);
            thread::sleep(scan.cost * REST);
        }
        found.add_connections(scan);
    }
    send(&mut slice);
    found.elapsed = begun.elapsed();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{
        config::listeners::PortRange,
        daemon::reconcile::socket_scan,
        kernel::testing::{Namespace, key_of},
    };
    use monitor_core::{ConnId, ListenerRules};

    #[test]
    #[ignore = "needs root: makes network namespaces"]
    fn the_start_waits_for_a_limited_time_and_everything_is_found() {
        const PORT: u16 = 18_261;
        let namespaces = [Namespace::new(), Namespace::new(), Namespace::new()];
        let address = format!("127.0.0.1:{PORT}");
        let connections = [0, 1].map(|index| namespaces[index].connect(&address, &address));
        // Only the second is served, and the third has nothing but a listening socket.
        let _listening = [1, 2].map(|index| {
            let port = if index == 1 { PORT } else { PORT + 1 };
            namespaces[index].enter(|| TcpListener::bind(("127.0.0.2", port)).unwrap())
        });
        let listeners = [ListenerConfig {
            rules: ListenerRules::new("l", None),
            ports: vec![PortRange(PORT..=PORT)],
            remote: false,
        }];
        let (surveyed, survey) = scan::survey(&listeners).unwrap();
        let populated = surveyed.iter().filter(|it| it.has_connections).count();
        let third = namespaces[2].netns().id();
        let idle = surveyed.iter().find(|it| it.netns.id() == third);
        assert!(!idle.unwrap().has_connections);

        let (limit, survey_cost) = (Duration::ZERO, survey.cost);
        let locations = FoundLocations::default();
        let mut older = Older::search(
            listeners.to_vec(),
            surveyed,
            survey,
            limit,
            locations.clone(),
        )
        .unwrap();
        let mut found = Vec::new();
        let mut started = None;
        while let Some(progress) = older.progress.blocking_recv() {
            match progress {
                SearchProgress::Connections(facts) => {
                    found.extend(facts.iter().map(|it| it.conn.0));
                }
                SearchProgress::MayStart { unsearched } => {
                    assert_eq!((unsearched, found.len()), (populated, 0));
                    started = Some(());
                }
            }
        }
        assert!(started.is_some());
        let [unserved, served] = connections.each_ref().map(|it| key_of(&it.server).cookie());
        assert_eq!(found, [served, unserved]);
        let scan = older.join().unwrap();
        assert_eq!(scan.dumped + scan.refused.len(), populated);
        let cost = scan.cost - survey_cost;
        assert!(scan.elapsed >= cost * REST, "{:?}, {cost:?}", scan.elapsed);
        // A scan in the meantime finds what was found.
        let mut locations = locations.take();
        let known = scan::known::KnownConnections {
            conns: &socket_scan::sorted([served, unserved].map(ConnId)),
            lookup: &|_| None,
            everywhere: false,
        };
        let (_, fates) =
            scan::known::known_connections(&listeners, &known, &mut locations, |_| {}).unwrap();
        assert_eq!(fates, [scan::known::Fate::Found; 2]);
    }
}
