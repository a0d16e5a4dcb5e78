//! What the view shows, from the control socket.

use std::path::Path;

use super::conditions::Conditions;
use crate::{
    cli::{
        client::{self, ClientError},
        exit::Failure,
        screen::Grouped,
    },
    records::{
        alert_text::AlertLine, clients::ClientRecord, connections::ConnectionRecord,
        list_order::ListOrder, status::StatusRecord,
    },
};
use monitor_core::ConnId;

/// Alerts and clients that are read. The rest is left out.
pub(super) const MAX_RECORDS: usize = 500;

/// The last response to each request.
#[derive(Debug)]
pub(super) struct PollResult {
    pub(super) status: StatusRecord,
    pub(super) connections: ConnectionPage,
    /// The most urgent first.
    pub(super) alerts: FirstRecords<AlertLine>,
    /// Those with the most attempts first.
    pub(super) clients: FirstRecords<ClientRecord>,
    pub(super) detail: Option<Detail>,
}

/// The first [`MAX_RECORDS`] of a list.
#[derive(Debug)]
pub(super) struct FirstRecords<T> {
    pub(super) records: Vec<T>,
    /// Records of the whole list; `None` if there are more than these, and how many is unknown.
    total: Option<usize>,
}

/// The shown part of the list of connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionPage {
    /// The place of the first one in the list.
    pub(super) offset: usize,
    pub(super) records: Vec<ConnectionRecord>,
    /// Whether the list may have more after these.
    pub(super) may_go_on: bool,
    /// Watched connections when the list was begun, whatever the conditions.
    pub(super) total: usize,
}

/// One connection, or why there is none.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) cookie: ConnId,
    pub(super) record: Result<Box<ConnectionRecord>, String>,
}

/// What one refresh requests besides the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Connections {
        order: ListOrder,
        conditions: Conditions,
        offset: usize,
        limit: usize,
    },
    Connection(ConnId),
    Alerts,
    Clients,
    /// They are in the status.
    Listeners,
}

impl Request {
    /// Whether the daemon reads every connection twice for it.
    pub(super) fn needs_rates(&self) -> bool {
        matches!(self, Self::Connections { order, .. } if order.needs_rates())
    }
}

/// What one refresh brought.
#[derive(Debug)]
pub(super) struct Response {
    status: StatusRecord,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Connections(ConnectionPage),
    Connection(Detail),
    Alerts(FirstRecords<AlertLine>),
    Clients(FirstRecords<ClientRecord>),
    Listeners,
}

impl PollResult {
    pub(super) fn new(response: Response) -> Self {
        let mut polled = Self {
            status: response.status,
            connections: ConnectionPage::default(),
            alerts: FirstRecords::default(),
            clients: FirstRecords::default(),
            detail: None,
        };
        polled.replace(response.body);
        polled
    }

    /// Replaces what was requested again.
    pub(super) fn update(&mut self, response: Response) {
        self.status = response.status;
        self.replace(response.body);
    }

    fn replace(&mut self, body: Body) {
        match body {
            Body::Connections(page) => self.connections = page,
            Body::Connection(detail) => self.detail = Some(detail),
            Body::Alerts(alerts) => self.alerts = alerts,
            Body::Clients(clients) => self.clients = clients,
            Body::Listeners => {}
        }
    }
}

impl<T> Default for FirstRecords<T> {
    fn default() -> Self {
        Self::new(Vec::new(), Some(0))
    }
}

impl<T> FirstRecords<T> {
    /// Leaves out those after [`MAX_RECORDS`]. Without a `total` it is that of `records` if they are fewer.
    pub(super) fn new(mut records: Vec<T>, total: Option<usize>) -> Self {
        let read = records.len();
        records.truncate(MAX_RECORDS);
        let is_whole = read == records.len();
        Self {
            total: total.or(is_whole.then_some(read)),
            records,
        }
    }

    /// How many of the list these are; empty if all.
    pub(super) fn left_out(&self) -> String {
        let shown = self.records.len();
        match self.total {
            Some(total) if total <= shown => String::new(),
            Some(total) => format!("{shown} of {}", Grouped(total as u64)),
            None => format!("the first {shown}"),
        }
    }
}

impl ConnectionPage {
    /// The connection at a place in the list.
    pub(super) fn at(&self, place: usize) -> Option<&ConnectionRecord> {
        self.records.get(place.checked_sub(self.offset)?)
    }

    /// The place of a connection in the list.
    pub(super) fn place_of(&self, cookie: ConnId) -> Option<usize> {
        let index = self
            .records
            .iter()
            .position(|record| record.cookie == cookie);
        Some(self.offset + index?)
    }
}

/// Requests the status of the daemon and one more thing.
///
/// # Errors
/// If it does not respond, or not with the records of this version.
pub(super) async fn poll(control: &Path, request: &Request) -> Result<Response, Failure> {
    let mut lines = client::get(control, "/v1/status").await?;
    let status = client::read(&lines.only().await?)?;
    let body = match request {
        Request::Connections {
            order,
            conditions,
            offset,
            limit,
        } => {
            let page = [
                ("order", Some(order.as_str().to_owned())),
                ("offset", (*offset > 0).then(|| offset.to_string())),
                ("limit", Some(limit.to_string())),
            ];
            let query: Vec<_> = conditions.query().into_iter().chain(page).collect();
            let target = client::target("/v1/connections", &query);
            let mut lines = client::get(control, &target).await?;
            let mut records = Vec::with_capacity(*limit);
            while let Some(line) = lines.next().await? {
                records.push(client::read(&line)?);
            }
            let total = lines.connections.unwrap_or_default();
            let may_go_on = match conditions.is_empty() {
                // Connections that ended meanwhile make a page short.
                true => offset + records.len() < total,
                false => records.len() >= *limit,
            };
            Body::Connections(ConnectionPage {
                offset: *offset,
                may_go_on,
                records,
                total,
            })
        }
        Request::Connection(cookie) => {
            let target = format!("/v1/connections/{}", cookie.0);
            let record = match client::get(control, &target).await {
                Ok(mut lines) => Ok(Box::new(client::read(&lines.only().await?)?)),
                Err(ClientError::Refused(reason)) => Err(reason),
                Err(error) => return Err(error.into()),
            };
            Body::Connection(Detail {
                cookie: *cookie,
                record,
            })
        }
        Request::Alerts => {
            let limit = [("limit", Some(MAX_RECORDS.to_string()))];
            let mut lines = client::get(control, &client::target("/v1/alerts", &limit)).await?;
            let mut alerts = Vec::new();
            while let Some(line) = lines.next().await? {
                alerts.push(client::read(&line)?);
            }
            Body::Alerts(FirstRecords::new(alerts, lines.alerts))
        }
        Request::Clients => {
            let limit = [("limit", Some(MAX_RECORDS.to_string()))];
            let mut lines = client::get(control, &client::target("/v1/clients", &limit)).await?;
            let mut clients = Vec::new();
            while let Some(line) = lines.next().await? {
                clients.push(client::read(&line)?);
            }
            Body::Clients(FirstRecords::new(clients, lines.entries))
        }
        Request::Listeners => Body::Listeners,
    };
    Ok(Response { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_are_left_out_are_reported() {
        for (read, total, text) in [
            (2, Some(2), ""),
            (2, None, ""),
            (MAX_RECORDS, None, ""),
            (MAX_RECORDS + 1, None, "the first 500"),
            (MAX_RECORDS, Some(1_234), "500 of 1,234"),
        ] {
            let records = FirstRecords::new(vec![0; read], total);
            assert!(records.records.len() <= MAX_RECORDS);
            assert_eq!(records.left_out(), text, "{read} of {total:?}");
        }
    }
}
