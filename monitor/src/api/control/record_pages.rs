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
pub(super) const BETWEEN_READINGS: Duration = Duration::from_secs(1);

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
pub(super) async fn traffic(
    requests: &ControlRequests,
    page: Vec<ConnId>,
) -> Result<Vec<(ConnId, TrafficSample)>, DaemonEnded> {
    let samples = request_reply(requests, |reply| ControlRequest::Traffic(page, reply));
    samples.await.ok_or(DaemonEnded)
}
