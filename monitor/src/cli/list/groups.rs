//! `wsmon list --by`: lists groups of connections.

use super::ListArgs;
use crate::{
    cli::{
        client,
        exit::CommandResult,
        screen::{Age, Amount, Margin},
        table::Column,
    },
    records::groups::{GroupBy, GroupRecord, MAX_GROUPS},
};

pub(super) async fn show(args: &ListArgs, by: GroupBy) -> CommandResult {
    let target = || {
        let query = [
            ("by", Some(by.as_str().to_owned())),
            ("listener", args.listener.clone()),
            ("peer", args.peer.map(|peers| peers.to_string())),
            ("limit", args.limit().map(|limit| limit.to_string())),
        ];
        client::target("/v1/groups", &query)
    };
    super::print(args, target, columns(by), row, "no connections").await
}

/// The name comes last, because it may be long.
fn columns(by: GroupBy) -> Vec<Column> {
    let name = match by {
        GroupBy::Listener => "LISTENER",
        GroupBy::Pod => "POD",
        GroupBy::Unit => "UNIT",
        GroupBy::Process => "PROCESS",
        GroupBy::Peer => "PEER",
    };
    vec![
        Column::number("OPEN"),
        Column::number("MINUTE").left_out(1),
        Column::number("ZOMBIES"),
        Column::number("MARGIN").left_out(3),
        Column::number("B/S RX/TX").left_out(2),
        Column::number("OLDEST").left_out(4),
        Column::new(name).shortened_to(20),
    ]
}

/// A group as a row of the table.
fn row(record: &GroupRecord) -> Vec<String> {
    let figures = &record.figures;
    let or_more = if record.is_minute_complete { "" } else { "?" };
    let (rx, tx) = (figures.rates.rx, figures.rates.tx);
    let name = match (&record.name, record.is_rest) {
        (_, true) => format!("all but the first {MAX_GROUPS}"),
        (Some(name), false) => name.clone(),
        (None, false) => "-".to_owned(),
    };
    vec![
        figures.open.to_string(),
        format!(
            "+{}/-{}{or_more}",
            figures.opened_in_minute, figures.closed_in_minute
        ),
        figures.zombies.to_string(),
        Margin(figures.heartbeat_margin_seconds).to_string(),
        format!(
            "{}/{}",
            Amount(rx.payload_bytes_per_second),
            Amount(tx.payload_bytes_per_second)
        ),
        Age(figures.oldest_seconds).to_string(),
        name,
    ]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::cli::table::Table;
    use crate::records::groups::GroupFigures;

    fn group(name: Option<&str>) -> GroupRecord {
        GroupRecord {
            ts: Timestamp::UNIX_EPOCH,
            by: GroupBy::Peer,
            name: name.map(str::to_owned),
            is_rest: false,
            is_minute_complete: true,
            figures: GroupFigures::default(),
        }
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let mut full = group(Some("10.77.1.12"));
        full.figures = GroupFigures {
            open: 12_345,
            opened_in_minute: 120,
            closed_in_minute: 1024,
            zombies: 3,
            heartbeat_margin_seconds: Some(-10.04),
            oldest_seconds: Some(11_100.0),
            ..GroupFigures::default()
        };
        full.figures.rates.rx.payload_bytes_per_second = 12_345.0;
        full.is_minute_complete = false;
        let mut rest = group(None);
        rest.is_rest = true;
        let mut table = Table::new(columns(GroupBy::Peer), Some(80));
        for record in [full, group(None), rest] {
            assert!(table.push(row(&record)).is_empty());
        }
        let expected = [
            " OPEN       MINUTE  ZOMBIES   MARGIN  B/S RX/TX   OLDEST  PEER",
            "12345  +120/-1024?        3  -10.0 s    12.3k/0  3 h 5 m  10.77.1.12",
            "    0        +0/-0        0        -        0/0        -  -",
            "    0        +0/-0        0        -        0/0        -  all but the first 100…",
        ];
        assert_eq!(table.finish(), expected);
    }

    #[test]
    fn a_hostile_name_breaks_neither_a_line_nor_a_terminal() {
        for name in ["ev\x1b[2J\u{fffd}il".to_owned(), "a\nb".repeat(2_000)] {
            let mut table = Table::new(columns(GroupBy::Unit), Some(80));
            assert!(table.push(row(&group(Some(&name)))).is_empty());
            let lines = table.finish();
            let is_safe = |line: &String| !line.chars().any(char::is_control) && line.len() <= 82;
            assert!(lines.len() == 2 && lines.iter().all(is_safe), "{lines:?}");
        }
    }
}
