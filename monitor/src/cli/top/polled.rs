//! What the view shows, from the control socket.

use std::path::Path;

use crate::{
    cli::{
        client::{self, ClientError},
        exit::Failure,
    },
    records::{
        alert_text::AlertLine, clients::ClientRecord, connections::ConnectionRecord,
        list_order::ListOrder, status::StatusRecord,
    },
};
use monitor_core::ConnId;

/// Lines of the panes that are read whole. The rest is left out.
pub(super) const MOST_LINES: usize = 500;

/// The last answer to each question.
#[derive(Debug)]
pub(super) struct Polled {
    pub(super) status: StatusRecord,
    pub(super) connections: ConnectionPage,
    /// The most urgent first, at most [`MOST_LINES`], as are the clients.
    pub(super) alerts: Vec<AlertLine>,
    pub(super) clients: Vec<ClientRecord>,
    pub(super) detail: Option<Detail>,
}

/// The shown part of the list of connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionPage {
    /// The place of the first one in the list.
    pub(super) offset: usize,
    pub(super) records: Vec<ConnectionRecord>,
    /// Whether the list may go on.
    pub(super) is_full: bool,
    /// Watched connections when the list was begun, whatever the filter.
    pub(super) total: usize,
}

/// One connection, or why there is none.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) cookie: ConnId,
    pub(super) record: Result<Box<ConnectionRecord>, String>,
}

/// What is asked in one refresh, besides the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Connections {
        order: ListOrder,
        /// Empty for all.
        search: String,
        offset: usize,
        limit: usize,
    },
    Connection(ConnId),
    Alerts,
    Clients,
    /// The status answers it.
    Listeners,
}

/// The answers of one refresh.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusRecord,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Connections(ConnectionPage),
    Connection(Detail),
    Alerts(Vec<AlertLine>),
    Clients(Vec<ClientRecord>),
    Listeners,
}

impl Polled {
    pub(super) fn new(answer: Answer) -> Self {
        let mut polled = Self {
            status: answer.status,
            connections: ConnectionPage::default(),
            alerts: Vec::new(),
            clients: Vec::new(),
            detail: None,
        };
        polled.replace(answer.body);
        polled
    }

    /// Replaces what was asked again.
    pub(super) fn update(&mut self, answer: Answer) {
        self.status = answer.status;
        self.replace(answer.body);
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

/// Asks the daemon for its status and one more thing.
///
/// # Errors
/// If it does not answer, or not with the records of this version.
pub(super) async fn poll(control: &Path, question: &Question) -> Result<Answer, Failure> {
    let mut lines = client::get(control, "/v1/status").await?;
    let status = client::read(&lines.only().await?)?;
    let body = match question {
        Question::Connections {
            order,
            search,
            offset,
            limit,
        } => {
            let query = [
                ("order", Some(order.as_str().to_owned())),
                ("search", (!search.is_empty()).then(|| search.clone())),
                ("offset", (*offset > 0).then(|| offset.to_string())),
                ("limit", Some(limit.to_string())),
            ];
            let target = client::target("/v1/connections", &query);
            let mut lines = client::get(control, &target).await?;
            let mut records = Vec::with_capacity(*limit);
            while let Some(line) = lines.next().await? {
                records.push(client::read(&line)?);
            }
            Body::Connections(ConnectionPage {
                offset: *offset,
                is_full: records.len() >= *limit,
                records,
                total: lines.connections.unwrap_or_default(),
            })
        }
        Question::Connection(cookie) => {
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
        Question::Alerts => {
            let mut lines = client::get(control, "/v1/alerts").await?;
            let mut alerts = Vec::new();
            // The rest is never read, so the daemon does not write it.
            while alerts.len() < MOST_LINES
                && let Some(line) = lines.next().await?
            {
                alerts.push(client::read(&line)?);
            }
            Body::Alerts(alerts)
        }
        Question::Clients => {
            let limit = [("limit", Some(MOST_LINES.to_string()))];
            let mut lines = client::get(control, &client::target("/v1/clients", &limit)).await?;
            let mut clients = Vec::new();
            while let Some(line) = lines.next().await? {
                clients.push(client::read(&line)?);
            }
            Body::Clients(clients)
        }
        Question::Listeners => Body::Listeners,
    };
    Ok(Answer { status, body })
}
