//! Connections by their figures.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use super::{
    ControlRequests,
    record_pages::{DaemonEnded, RecordPages},
    selection::Selection,
};
use crate::records::{connections::ConnectionRecord, list_order::Figures, rates::TrafficRates};
use monitor_core::ConnId;

/// The selected connections with the highest figures, in this order.
pub(super) struct Ranked {
    pub(super) conns: Vec<ConnId>,
    /// Their rates, if they were read.
    pub(super) rates: HashMap<ConnId, TrafficRates>,
}

impl Ranked {
    /// Reads the record of each connection in `pages`, and keeps not more than `limit`.
    pub(super) async fn read(
        requests: &ControlRequests,
        mut pages: RecordPages<impl Iterator<Item = ConnId>>,
        selection: &mut Selection,
        figures: fn(&ConnectionRecord) -> Figures,
        limit: usize,
    ) -> Result<Self, DaemonEnded> {
        let (mut ranked, mut rates) = (BTreeSet::new(), HashMap::new());
        while let Some(mut records) = pages.next(requests).await? {
            selection.retain(&mut records).await;
            for record in &records {
                ranked.insert((Reverse(figures(record)), record.cookie));
                rates.extend(record.rates.map(|read| (record.cookie, read)));
                if ranked.len() > limit
                    && let Some((_, last)) = ranked.pop_last()
                {
                    rates.remove(&last);
                }
            }
        }
        Ok(Self {
            conns: ranked.into_iter().map(|(_, conn)| conn).collect(),
            rates,
        })
    }
}
