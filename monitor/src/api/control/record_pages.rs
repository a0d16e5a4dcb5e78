//! Reads the records of many connections page by page, if requested with their rates.

use std::{collections::HashMap, time::Duration};

use tokio::time::sleep;

use super::{ControlRequest, ControlRequests, next_page};
use crate::{
    api::http::request_reply,
    records::{
        connections::ConnectionRecord,
        rates::{TrafficRates, TrafficSample},
    },
};
use monitor_core::ConnId;

/// The time between the two readings of a connection.
const BETWEEN_READINGS: Duration = Duration::from_secs(1);

/// Connections whose first readings are kept at once, in about 10 MiB. A list of more waits once for
/// each such slice.
const SLICE: usize = 65_536;

/// Connections in one request to the daemon, which then responds within a millisecond.
pub(super) const PAGE: usize = 256;

/// The records of connections, in their order.
pub(super) struct RecordPages<I> {
    conns: I,
    readings: Option<FirstReadings>,
}

/// The first readings of a slice of the connections.
#[derive(Default)]
struct FirstReadings {
    conns: std::vec::IntoIter<ConnId>,
    samples: HashMap<ConnId, TrafficSample>,
}

/// The daemon has ended.
pub(super) struct DaemonEnded;

impl<I: Iterator<Item = ConnId>> RecordPages<I> {
    pub(super) fn new(conns: I) -> Self {
        Self {
            conns,
            readings: None,
        }
    }

    /// Reads each connection twice, so that its record has rates.
    pub(super) fn with_rates(conns: I) -> Self {
        Self {
            conns,
            readings: Some(FirstReadings::default()),
        }
    }

    /// The records of the next page, without connections that have ended; `None` at the end.
    pub(super) async fn next(
        &mut self,
        requests: &ControlRequests,
    ) -> Result<Option<Vec<ConnectionRecord>>, DaemonEnded> {
        let Some(readings) = &mut self.readings else {
            return match next_page(&mut self.conns) {
                page if page.is_empty() => Ok(None),
                page => records(requests, page).await.map(Some),
            };
        };
        let mut page = next_page(&mut readings.conns);
        if page.is_empty() {
            let slice: Vec<ConnId> = self.conns.by_ref().take(SLICE).collect();
            if slice.is_empty() {
                return Ok(None);
            }
            *readings = FirstReadings::of(slice, requests).await?;
            sleep(BETWEEN_READINGS).await;
            page = next_page(&mut readings.conns);
        }
        let later = traffic(requests, page.clone()).await?;
        let later: HashMap<_, _> = later.into_iter().collect();
        let mut records = records(requests, page).await?;
        for record in &mut records {
            let earlier = readings.samples.get(&record.cookie);
            let both = earlier.zip(later.get(&record.cookie));
            record.rates = both.and_then(|(earlier, later)| TrafficRates::between(earlier, later));
        }
        Ok(Some(records))
    }
}

impl FirstReadings {
    async fn of(slice: Vec<ConnId>, requests: &ControlRequests) -> Result<Self, DaemonEnded> {
        let mut samples = HashMap::new();
        for page in slice.chunks(PAGE) {
            samples.extend(traffic(requests, page.to_vec()).await?);
        }
        Ok(Self {
            conns: slice.into_iter(),
            samples,
        })
    }
}

async fn records(
    requests: &ControlRequests,
    page: Vec<ConnId>,
) -> Result<Vec<ConnectionRecord>, DaemonEnded> {
    let records = request_reply(requests, |reply| ControlRequest::Connections(page, reply));
    records.await.ok_or(DaemonEnded)
}

/// The counts of those that still exist.
async fn traffic(
    requests: &ControlRequests,
    page: Vec<ConnId>,
) -> Result<Vec<(ConnId, TrafficSample)>, DaemonEnded> {
    let samples = request_reply(requests, |reply| ControlRequest::Traffic(page, reply));
    samples.await.ok_or(DaemonEnded)
}

/// The rates of one connection, after a second; `None` if it has ended.
pub(super) async fn rates_of(requests: &ControlRequests, conn: ConnId) -> Option<TrafficRates> {
    let read = || traffic(requests, vec![conn]);
    let (_, earlier) = read().await.ok()?.pop()?;
    sleep(BETWEEN_READINGS).await;
    let (_, later) = read().await.ok()?.pop()?;
    TrafficRates::between(&earlier, &later)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::records::connections::tests::{detail, record};

    /// Responds like the daemon. The counts grow by one frame a second, and every third connection
    /// ends between its two readings. Returns how many connections had their first reading when the first
    /// record was requested.
    async fn respond(mut requests: mpsc::Receiver<ControlRequest>) -> usize {
        let mut readings: HashMap<ConnId, u32> = HashMap::new();
        let mut before_records = None;
        while let Some(request) = requests.recv().await {
            match request {
                ControlRequest::Traffic(conns, reply) => {
                    let sample = |conn: ConnId| {
                        let reading = readings.entry(conn).or_default();
                        *reading += 1;
                        let mut detail = detail(conn.0);
                        let second = u64::from(*reading) * 1_000_000_000;
                        (detail.rx.frames, detail.facts.at.0) = (*reading, second);
                        let sample = TrafficSample::of(&detail, detail.facts.at);
                        (*reading == 1 || has_stayed(&conn)).then_some((conn, sample))
                    };
                    drop(reply.send(conns.into_iter().filter_map(sample).collect()));
                }
                ControlRequest::Connections(conns, reply) => {
                    before_records.get_or_insert(readings.len());
                    let open = conns.iter().filter(|conn| has_stayed(conn));
                    let records = open.map(|conn| record(&detail(conn.0), None));
                    drop(reply.send(records.collect()));
                }
                other => panic!("{other:?}"),
            }
        }
        before_records.unwrap_or_default()
    }

    fn has_stayed(conn: &ConnId) -> bool {
        !conn.0.is_multiple_of(3)
    }

    /// The records of connections 0 to `conns`, and the result of [`respond`].
    fn read(conns: u64, has_rates: bool) -> (Vec<ConnectionRecord>, usize) {
        let (requests, received) = mpsc::channel(16);
        let conns = (0..conns).map(ConnId);
        let reading = async move {
            let mut pages = match has_rates {
                true => RecordPages::with_rates(conns),
                false => RecordPages::new(conns),
            };
            let mut records = Vec::new();
            while let Some(page) = pages.next(&requests).await.ok().expect("a daemon") {
                records.extend(page);
            }
            records
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async { tokio::join!(reading, respond(received)) })
    }

    #[test]
    fn a_connection_has_rates_only_if_it_was_read_twice() {
        for (has_rates, expected) in [(true, Some(1.0)), (false, None)] {
            let (records, _) = read(600, has_rates);
            let found: Vec<u64> = records.iter().map(|record| record.cookie.0).collect();
            let open: Vec<u64> = (0..600).filter(|conn| has_stayed(&ConnId(*conn))).collect();
            assert_eq!(found, open, "in their order, without those that ended");
            for record in records {
                let rate = record.rates.map(|rates| rates.rx.frames_per_second);
                assert_eq!(rate, expected);
            }
        }
    }

    #[test]
    fn the_first_readings_are_bounded_however_many_connections_there_are() {
        let (records, before_records) = read(SLICE as u64 + 2, true);
        assert_eq!(before_records, SLICE);
        assert!(records.iter().all(|record| record.rates.is_some()));
        assert_eq!(records.len(), (SLICE + 2) * 2 / 3);
    }
}
