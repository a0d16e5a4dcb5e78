//! `wsmon list --by`: lists groups of connections.

use std::fmt;

use super::ListArgs;
use crate::{
    cli::{
        client,
        exit::CommandResult,
        screen::{Age, Amount, Cut},
    },
    records::groups::{GroupBy, GroupRecord, MAX_GROUPS},
};

pub(super) async fn show(args: &ListArgs, by: GroupBy) -> CommandResult {
    let query = [
        ("by", Some(by.as_str().to_owned())),
        ("listener", args.listener.clone()),
        ("peer", args.peer.map(|peers| peers.to_string())),
        ("limit", args.limit().map(|limit| limit.to_string())),
    ];
    let target = client::target("/v1/groups", &query);
    let row = |record: &GroupRecord| TableRow(record).to_string();
    let head = format!("{}{}", TableRow::HEAD, by.as_str().to_uppercase());
    super::print(args, &target, &head, row, "no connections").await
}

/// A group as a table row. The name comes last, because it may be long.
struct TableRow<'a>(&'a GroupRecord);

impl TableRow<'_> {
    /// The name of what the connections are grouped by follows.
    const HEAD: &'static str = "OPEN     MINUTE       ZOMBIES  MARGIN    B/S RX/TX    OLDEST    ";
}

/// The longest name in characters.
const LONGEST: usize = 120;

impl fmt::Display for TableRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        let figures = &record.figures;
        let or_more = if record.is_minute_complete { "" } else { "?" };
        let margin = match figures.heartbeat_margin_seconds {
            Some(margin) if margin < 0.0 => format!("-{}", Age(Some(-margin))),
            margin => Age(margin).to_string(),
        };
        let (rx, tx) = (figures.rates.rx, figures.rates.tx);
        write!(
            f,
            "{:<7}  {:<11}  {:<7}  {margin:<8}  {:<11}  {:<8}  ",
            figures.open,
            format!(
                "+{}/-{}{or_more}",
                figures.opened_in_minute, figures.closed_in_minute
            ),
            figures.zombies,
            format!(
                "{}/{}",
                Amount(rx.payload_bytes_per_second),
                Amount(tx.payload_bytes_per_second)
            ),
            Age(figures.oldest_seconds),
        )?;
        match (&record.name, record.is_rest) {
            (_, true) => write!(f, "all but the first {MAX_GROUPS}"),
            // The creator of a cgroup or process chooses its name, which must not reach the terminal as
            // control characters.
            (Some(name), false) => Cut(&name.escape_debug().to_string(), LONGEST).fmt(f),
            (None, false) => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
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
    fn rows_align_with_their_head_and_most_fit_a_terminal() {
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
        let rows = [full, group(None), rest].map(|record| TableRow(&record).to_string());
        let expected = "\
OPEN     MINUTE       ZOMBIES  MARGIN    B/S RX/TX    OLDEST    PEER
12345    +120/-1024?  3        -10.0 s   12.3k/0      3 h 5 m   10.77.1.12
0        +0/-0        0        -         0/0          -         -
0        +0/-0        0        -         0/0          -         all but the first 10000";
        assert_eq!(
            format!("{}PEER\n{}", TableRow::HEAD, rows.join("\n")),
            expected
        );
        assert!(rows[0].len() <= 80);
    }

    #[test]
    fn a_hostile_name_breaks_neither_a_line_nor_a_terminal() {
        for name in ["ev\x1b[2J\u{fffd}il".to_owned(), "a\nb".repeat(2_000)] {
            let row = TableRow(&group(Some(&name))).to_string();
            assert!(!row.chars().any(char::is_control), "{row:?}");
            assert!(
                row.chars().count() <= TableRow::HEAD.len() + LONGEST,
                "{row}"
            );
        }
    }
}
