//! `wsmon list --by client`: lists the clients with the most attempts.

use super::ListArgs;
use crate::{
    cli::{client, exit::CommandResult, screen::Age, table::Column},
    records::clients::ClientRecord,
};

const NOTHING: &str = "no clients; their attempts are counted since the start of wsmon run";

pub(super) async fn show(args: &ListArgs) -> CommandResult {
    let target = || {
        let query = [
            ("listener", args.listener.clone()),
            ("peer", args.peer.map(|peers| peers.to_string())),
            ("limit", args.limit().map(|limit| limit.to_string())),
        ];
        client::target("/v1/clients", &query)
    };
    super::print(args, target, columns(), row, NOTHING).await
}

pub(in crate::cli) fn columns() -> Vec<Column> {
    vec![
        Column::new("CLIENT"),
        Column::new("LISTENER").shortened_to(8),
        Column::number("ATTEMPTS"),
        Column::number("PER MIN"),
        Column::number("ACCEPTED").left_out(3),
        Column::number("REFUSED"),
        Column::number("SHORT").left_out(5),
        Column::number("OPEN").left_out(4),
        Column::number("EVERY").left_out(1),
        Column::number("LAST"),
    ]
}

/// A client as a row of the table.
pub(in crate::cli) fn row(record: &ClientRecord) -> Vec<String> {
    let figures = &record.figures;
    let least = figures.attempts - figures.at_most_over.min(figures.attempts);
    vec![
        figures.client.to_string(),
        record.listener.clone(),
        match figures.at_most_over {
            0 => figures.attempts.to_string(),
            _ => format!("{least}-{}", figures.attempts),
        },
        format!("{:.1}", figures.attempts_per_minute),
        figures.accepted.to_string(),
        figures.refused.to_string(),
        figures.short_lived.to_string(),
        figures.open.to_string(),
        match figures.interval_seconds {
            Some(interval) => format!("{interval:.1} s"),
            None => "-".to_owned(),
        },
        Age(Some(record.last_attempt_seconds)).to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::cli::table::Table;
    use monitor_core::{Ktime, storm::ClientRow};

    #[test]
    fn the_table_fits_a_terminal_and_a_count_that_may_be_too_high_is_a_range() {
        let client = ClientRow {
            client: "10.77.1.12".parse().expect("an address"),
            attempts: 120,
            at_most_over: 7,
            accepted: 1,
            refused: 112,
            short_lived: 1,
            attempts_per_minute: 60.04,
            interval: Some(Duration::from_secs(1)),
            open: 0,
            most_open: 1,
            last: Ktime(1_000_000_000),
        };
        let now = Ktime(1_400_000_000);
        let record = ClientRecord::new(&client, "8080", now, Timestamp::UNIX_EPOCH);
        let mut table = Table::new(columns(), Some(80));
        assert!(table.push(row(&record)).is_empty());
        let expected = "\
CLIENT      LISTENER  ATTEMPTS  PER MIN  ACCEPTED  REFUSED  OPEN  EVERY     LAST
10.77.1.12  8080       113-120     60.0         1      112     0  1.0 s  0.400 s";
        assert_eq!(table.finish().join("\n"), expected);
    }
}
