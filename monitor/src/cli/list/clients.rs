//! `wsmon list --by client`: lists the clients with the most attempts.

use std::fmt;

use super::ListArgs;
use crate::{
    cli::{client, exit::CommandResult, screen::Age},
    records::clients::ClientRecord,
};

pub(super) async fn show(args: &ListArgs) -> CommandResult {
    let query = [
        ("listener", args.listener.clone()),
        ("peer", args.peer.map(|peers| peers.to_string())),
        ("limit", args.limit().map(|limit| limit.to_string())),
    ];
    let target = client::target("/v1/clients", &query);
    let row = |record: &ClientRecord| TableRow(record).to_string();
    super::print(args, &target, TableRow::HEAD, row, "no clients").await
}

/// A client as a table row.
struct TableRow<'a>(&'a ClientRecord);

impl TableRow<'_> {
    const HEAD: &'static str = "CLIENT                                   LISTENER    ATTEMPTS       PER MIN  \
         ACCEPTED   REFUSED    SHORT     OPEN      EVERY      LAST";
}

impl fmt::Display for TableRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        let figures = &record.figures;
        let least = figures.attempts - figures.at_most_over.min(figures.attempts);
        let attempts = match figures.at_most_over {
            0 => figures.attempts.to_string(),
            _ => format!("{least}-{}", figures.attempts),
        };
        write!(
            f,
            "{:<39}  {:<10}  {attempts:<13}  {:<7.1}  {:<9}  {:<9}  {:<8}  {:<8}  {:<9}  {}",
            figures.client.to_string(),
            record.listener,
            figures.attempts_per_minute,
            figures.accepted,
            figures.refused,
            figures.short_lived,
            figures.open,
            match figures.interval_seconds {
                Some(interval) => format!("{interval:.1} s"),
                None => "-".to_owned(),
            },
            Age(Some(record.last_attempt_seconds)),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use monitor_core::{Ktime, storm::ClientRow};

    #[test]
    fn rows_align_with_their_head_and_a_count_that_may_be_too_high_is_a_range() {
        let row = ClientRow {
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
        let record = ClientRecord::new(&row, "8080", now, Timestamp::UNIX_EPOCH);
        let expected = "\
CLIENT                                   LISTENER    ATTEMPTS       PER MIN  ACCEPTED   REFUSED    SHORT     OPEN      EVERY      LAST
10.77.1.12                               8080        113-120        60.0     1          112        1         0         1.0 s      0.400 s";
        assert_eq!(
            format!("{}\n{}", TableRow::HEAD, TableRow(&record)),
            expected
        );
    }
}
