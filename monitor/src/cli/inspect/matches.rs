//! The connections with one address.

use std::{io, path::Path, process::ExitCode};

use crate::{
    cli::{
        client,
        exit::{CommandResult, Failure},
        format_args::FormatArgs,
        screen::{self, Age, Grouped},
        table::{Column, Table},
    },
    diagnostics::stderr_line,
    records::{connections::ConnectionRecord, endpoint::Endpoint, verdict_text::verdict_text},
};

/// The most that are listed.
const LISTED: usize = 40;

/// The connections of which one end has an address: those that exist, or if there are none, those that
/// have ended.
pub(super) struct Matches {
    endpoint: Endpoint,
    /// As lines of the response, with one more than are listed if there are more.
    lines: Vec<bytes::Bytes>,
    records: Vec<ConnectionRecord>,
}

impl Matches {
    pub(super) async fn request(control: &Path, endpoint: Endpoint) -> Result<Self, Failure> {
        let mut matches = Self {
            endpoint,
            lines: Vec::new(),
            records: Vec::new(),
        };
        for ended in [None, Some("true".to_owned())] {
            if matches.records.is_empty() {
                let query = [
                    ("endpoint", Some(endpoint.to_string())),
                    ("limit", Some((LISTED + 1).to_string())),
                    ("ended", ended),
                ];
                let target = client::target("/v1/connections", &query);
                let mut response = client::get(control, &target).await?;
                while let Some(line) = response.next().await? {
                    matches.records.push(client::read(&line)?);
                    matches.lines.push(line);
                }
            }
        }
        Ok(matches)
    }

    /// The cookie of the connection, if it is the only one.
    pub(super) fn only(&self) -> Option<u64> {
        match self.records.as_slice() {
            [record] => Some(record.cookie.0),
            _ => None,
        }
    }

    /// Lists several connections and fails.
    pub(super) fn refuse(&self, format: FormatArgs) -> CommandResult {
        let endpoint = self.endpoint;
        if self.records.is_empty() {
            return Err(Failure::failed(format!(
                "no connection with {endpoint} is watched or among the last 1,024 that ended; \
                 wsmon list shows those that are watched"
            )));
        }
        let mut out = io::stdout();
        match format.is_json() {
            true => {
                for line in self.lines.iter().take(LISTED) {
                    screen::write_line(&mut out, line)?;
                }
            }
            false => {
                screen::write_lines(&mut out, &table(&self.records, format.table_width()))?;
            }
        }
        let count = match self.records.len() {
            more if more > LISTED => format!("more than {LISTED}"),
            count => Grouped(count as u64).to_string(),
        };
        stderr_line!("{count} connections have {endpoint}: name one of them by its cookie");
        Ok(ExitCode::FAILURE)
    }
}

fn table(records: &[ConnectionRecord], limit: Option<usize>) -> Vec<String> {
    let columns = [
        Column::new("COOKIE"),
        Column::new("PEER"),
        Column::new("LOCAL").left_out(1),
        Column::number("AGE").left_out(2),
        Column::number("IDLE"),
        Column::new("VERDICT"),
    ];
    let mut table = Table::new(columns, limit);
    let mut lines = Vec::new();
    for record in records.iter().take(LISTED) {
        let verdict = record.verdict.as_ref();
        let verdict = verdict.map(verdict_text);
        lines.extend(table.push([
            record.cookie.0.to_string(),
            record.peer.to_string(),
            record.local.to_string(),
            Age(record.age_seconds).to_string(),
            Age(record.idle_seconds).to_string(),
            verdict.unwrap_or("-".to_owned()),
        ]));
    }
    lines.extend(table.finish());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::tests::{detail, record};

    #[test]
    fn the_table_fits_a_terminal() {
        let records = [1, 315_653].map(|cookie| record(&detail(cookie), None));
        let expected = [
            "COOKIE  PEER              LOCAL               AGE   IDLE  VERDICT",
            "1       10.77.1.12:53787  10.77.2.10:8080  20.0 s  5.0 s  -",
            "315653  10.77.1.12:53787  10.77.2.10:8080  20.0 s  5.0 s  -",
        ];
        assert_eq!(table(&records, Some(80)), expected);
        assert_eq!(table(&records, None), expected);
    }
}
