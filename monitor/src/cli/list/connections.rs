//! `wsmon list`: lists the watched connections.

use super::ListArgs;
use crate::{
    cli::{
        client,
        color::Color,
        exit::CommandResult,
        screen::{Age, Amount},
        table::{Cell, Column},
    },
    records::{
        connections::{ConnectionRecord, State},
        list_order::ListOrder,
        owner_text::short_owner_text,
        rates::TrafficRates,
        verdict_text::verdict_text,
    },
};

pub(super) async fn show(args: &ListArgs) -> CommandResult {
    let target = || client::target("/v1/connections", &query(args));
    let is_colored = args.color.is_on();
    let row = |record: &_| row(record, is_colored);
    let nothing = match args.has_conditions() {
        true => "no connection matches",
        false => "no connections",
    };
    super::print(args, target, columns(args), row, nothing).await
}

fn query(args: &ListArgs) -> [(&'static str, Option<String>); 9] {
    let text = |set: bool| set.then(|| "true".to_owned());
    [
        ("listener", args.listener.clone()),
        ("state", args.state.map(|state| state.as_str().to_owned())),
        ("peer", args.peer.map(|peers| peers.to_string())),
        ("kind", args.kind.map(|kind| kind.as_str().to_owned())),
        ("zombies", text(args.zombies)),
        ("search", args.search.as_ref().map(ToString::to_string)),
        ("ended", text(args.ended)),
        ("order", args.order().map(|order| order.as_str().to_owned())),
        ("limit", args.limit().map(|limit| limit.to_string())),
    ]
}

/// The columns of the table of connections. The figure by which they are sorted is never left out.
fn columns(args: &ListArgs) -> Vec<Column> {
    let rank = |orders: &[ListOrder], rank| match args.sort {
        Some(order) if orders.contains(&order) => 0,
        _ => rank,
    };
    let by_rate = args.sort.is_some_and(ListOrder::needs_rates);
    let traffic = if by_rate {
        "BYTES/S RX/TX"
    } else {
        "FRAMES RX/TX"
    };
    let counted = [
        ListOrder::Frames,
        ListOrder::Bytes,
        ListOrder::RxRate,
        ListOrder::TxRate,
    ];
    vec![
        Column::new("COOKIE"),
        Column::new("LISTENER").shortened_to(8).left_out(2),
        Column::new("PEER"),
        Column::new("PROTOCOL").shortened_to(9).left_out(7),
        Column::new("STATE").left_out(6),
        Column::number("AGE").left_out(rank(&[ListOrder::Age], 3)),
        Column::number("IDLE"),
        Column::number(traffic).left_out(rank(&counted, 5)),
        Column::number("QUEUE").left_out(rank(&[ListOrder::Queue], 4)),
        Column::new("OWNER").shortened_to(12).left_out(1),
        Column::new(if args.ended { "ENDED" } else { "VERDICT" }),
    ]
}

/// A connection as a row of the table.
fn row(record: &ConnectionRecord, is_colored: bool) -> Vec<Cell> {
    let traffic = match record.rates {
        Some(TrafficRates { rx, tx }) => format!(
            "{}/{}",
            Amount(rx.payload_bytes_per_second),
            Amount(tx.payload_bytes_per_second)
        ),
        None => format!("{}/{}", record.rx.frames, record.tx.frames),
    };
    let queue = record.tcp.send_queue_bytes;
    let owner = short_owner_text(&record.owner);
    let last = record.states.last();
    let ended = last.filter(|change| change.state == State::Closed);
    let outcome = match (&record.verdict, ended) {
        (Some(verdict), _) => Cell::colored(
            verdict_text(verdict),
            Color::of_certainty(&verdict.certainty).filter(|_| is_colored),
        ),
        (None, Some(end)) => format!("{:.3} {}", end.ts, end.reason).into(),
        (None, None) => unknown().into(),
    };
    let cells = [
        record.cookie.0.to_string(),
        record.listener.clone(),
        record.peer.to_string(),
        protocol_text(record),
        record.state.as_str().to_owned(),
        Age(record.age_seconds).to_string(),
        Age(record.idle_seconds).to_string(),
        traffic,
        queue.map_or_else(unknown, |bytes| bytes.to_string()),
        owner.unwrap_or_else(unknown),
    ];
    cells.into_iter().map(Cell::from).chain([outcome]).collect()
}

fn protocol_text(record: &ConnectionRecord) -> String {
    match &record.tls {
        Some(tls) => format!("tls {tls}"),
        None => record.protocol.clone(),
    }
}

fn unknown() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::args, *};
    use crate::{
        cli::table::Table,
        records::{
            connections::{
                VerdictRecord,
                tests::{detail, record},
            },
            tls::tests::with_heartbeat,
        },
    };
    use monitor_core::CloseHow;

    /// The table with one row.
    fn table(flags: &[&str], record: &ConnectionRecord, limit: Option<usize>) -> String {
        let mut table = Table::new(columns(&args(flags)), limit);
        assert!(table.push(row(record, false)).is_empty());
        table.finish().join("\n")
    }

    #[test]
    fn the_table_has_all_columns_in_a_pipe_and_fits_a_terminal() {
        let mut record = record(&detail(315_653), None);
        record.owner.pod_namespace = Some("shop".to_owned());
        record.owner.pod_name = Some("chat-6d4cf56db6-x7k2p".to_owned());
        let whole = "\
COOKIE  LISTENER  PEER              PROTOCOL   STATE     AGE   IDLE  FRAMES RX/TX  QUEUE  OWNER                       VERDICT
315653  8080      10.77.1.12:53787  websocket  open   20.0 s  5.0 s           3/0      -  shop/chat-6d4cf56db6-x7k2p  -";
        assert_eq!(table(&[], &record, None), whole);
        let narrow = "\
COOKIE  LISTENER  PEER                 AGE   IDLE  QUEUE  OWNER          VERDICT
315653  8080      10.77.1.12:53787  20.0 s  5.0 s      -  shop/chat-6d…  -";
        assert_eq!(table(&[], &record, Some(80)), narrow);
        let by_frames = table(&["--sort", "frames"], &record, Some(80));
        assert!(by_frames.contains("FRAMES RX/TX"), "{by_frames}");
    }

    #[test]
    fn a_connection_whose_tls_records_are_followed_says_what_they_show() {
        let mut record = record(&detail(315_653), None);
        record.tls = Some(with_heartbeat());
        let whole = table(&[], &record, None);
        assert!(
            whole.contains("  tls 1.3, heartbeat 25.0 s inferred  "),
            "{whole}"
        );
        let narrow = table(&[], &record, Some(104));
        assert!(narrow.contains("  tls 1.3,…  open  "), "{narrow}");
    }

    #[test]
    fn an_order_by_rate_shows_rates() {
        let mut rated = record(&detail(315_653), None);
        let mut rates = TrafficRates::default();
        rates.rx.payload_bytes_per_second = 12_345_678.0;
        rated.rates = Some(rates);
        let table = table(&["--sort", "rx-rate"], &rated, None);
        assert!(table.contains("BYTES/S RX/TX"), "{table}");
        assert!(table.contains("  12.3M/0  "), "{table}");
    }

    #[test]
    fn an_ended_connection_has_its_end_in_the_last_column() {
        let record = record(&detail(315_653), Some(CloseHow::RstReceived));
        let table = table(&["--ended"], &record, None);
        assert!(table.contains("  closed  "), "{table}");
        assert!(
            table.ends_with("  2026-11-22T18:37:52.500Z rst_received"),
            "{table}"
        );
    }

    #[test]
    fn a_verdict_is_colored_by_its_certainty() {
        let mut record = record(&detail(315_653), None);
        for (certainty, color) in [("suspected", 33), ("confirmed", 31)] {
            record.verdict = Some(VerdictRecord {
                kind: "expired".to_owned(),
                certainty: certainty.to_owned(),
                ts: record.ts,
                began_at: record.ts,
                limit_seconds: 60.0,
                reason: String::new(),
            });
            let mut table = Table::new(columns(&args(&[])), Some(100));
            assert!(table.push(row(&record, true)).is_empty());
            let lines = table.finish();
            let verdict = format!("  \x1b[{color}mexpired ({certainty})\x1b[0m");
            assert!(lines[1].ends_with(&verdict), "{lines:?}");
        }
        assert!(!table(&[], &record, None).contains('\x1b'));
    }

    #[test]
    fn flags_become_conditions_of_the_request() {
        let target = |flags: &[&str]| client::target("/v1/connections", &query(&args(flags)));
        assert_eq!(target(&[]), "/v1/connections?order=urgency&limit=40");
        assert_eq!(
            target(&["--zombies", "--search", "Shop/Chat", "-n", "0"]),
            "/v1/connections?zombies=true&search=shop%2Fchat&order=urgency"
        );
        assert_eq!(
            target(&["--kind", "black_holed", "--json"]),
            "/v1/connections?kind=black_holed"
        );
    }
}
