//! `wsmon inspect`: shows everything known about one connection.

use std::{fmt, io, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    client::{self, DEFAULT_CONTROL},
    exit::{CommandResult, Failure},
    format_args::FormatArgs,
    owner::OwnerLines,
    screen::{self, Age, Shown},
};
use crate::records::{
    connections::{ConnectionRecord, DirectionRecord, HandshakeSummary, State, StateChange},
    frames::RoundTrip,
    rates::{DirectionRates, TrafficRates},
    transitions::TransitionRecord,
};

/// Show everything that is known about one connection.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon inspect 315653               the cookie is in every alert and in `wsmon list`
  wsmon inspect 315653 --follow      then its changes until it is closed
  wsmon inspect 315653 --json | jq .verdict

Needs a running `wsmon run`, which also keeps the last 1,024 ended connections. An
open one is read twice, a second apart, for its rates.

Exit status: 0, 1 if there is no daemon or no such connection, 2 for invalid
arguments, 3 if this user may not connect.")]
pub struct InspectArgs {
    /// Cookie of the connection
    #[arg(value_name = "COOKIE")]
    pub cookie: u64,

    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONTROL)]
    pub control: PathBuf,

    /// Follow its state changes until it is closed
    #[arg(short, long)]
    pub follow: bool,

    #[command(flatten)]
    pub format: FormatArgs,
}

/// Prints the connection to stdout.
pub fn run(args: &InspectArgs) -> CommandResult {
    screen::block_on(screen::until_interrupted(show(args)))?
}

async fn show(args: &InspectArgs) -> CommandResult {
    // Subscribe before the connection is requested, so that no change is missed in between.
    let mut changes = match args.follow {
        true => Some(client::get(&args.control, "/v1/events").await?),
        false => None,
    };
    let target = format!("/v1/connections/{}?rates=true", args.cookie);
    let mut lines = client::get(&args.control, &target).await?;
    let line = lines.next_of_stream().await?;
    let record: ConnectionRecord = client::read(&line)?;
    let mut out = io::stdout();
    let mut shown = match args.format.is_json() {
        true => screen::write_line(&mut out, &line)?,
        false => screen::write_line(&mut out, Page(&record).to_string().as_bytes())?,
    };
    let mut known: Vec<State> = record.states.iter().map(|change| change.state).collect();
    while let Some(changes) = &mut changes
        && !known.contains(&State::Closed)
        && shown == Shown::Written
    {
        let line = changes.next_of_stream().await?;
        shown = match client::read(&line)? {
            FollowedRecord::Transition(change)
                if change.cookie == record.cookie && !known.contains(&change.to) =>
            {
                known.push(change.to);
                match args.format.is_json() {
                    true => screen::write_line(&mut out, &line)?,
                    false => {
                        screen::write_line(&mut out, ChangeLine(&change).to_string().as_bytes())?
                    }
                }
            }
            FollowedRecord::Transition(_) => Shown::Written,
            // The lost changes may belong to this connection. A new request returns the right states.
            FollowedRecord::Lost {} => {
                return Err(Failure::failed(
                    "state changes were lost, because they were not read fast enough; inspect it \
                     again",
                ));
            }
        };
    }
    Ok(ExitCode::SUCCESS)
}

/// A line of the stream of changes.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum FollowedRecord {
    Transition(TransitionRecord),
    Lost {},
}

/// A change of state as a line below the page.
struct ChangeLine<'a>(&'a TransitionRecord);

impl fmt::Display for ChangeLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TransitionRecord { ts, to, reason, .. } = self.0;
        write!(f, "             {}", Change(*to, *ts, reason))
    }
}

/// A connection as a page of text.
pub(super) struct Page<'a>(pub(super) &'a ConnectionRecord);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        writeln!(f, "connection {}", record.cookie.0)?;
        writeln!(
            f,
            "  listener   {}, this host is the {}",
            record.listener, record.role
        )?;
        writeln!(f, "  local      {}", record.local)?;
        writeln!(f, "  peer       {}", record.peer)?;
        writeln!(
            f,
            "  protocol   {}, known by its {}",
            record.protocol, record.known_from
        )?;
        if let Some(cgroup) = &record.cgroup_id {
            writeln!(f, "  cgroup id  {cgroup}")?;
        }
        write!(f, "{}", OwnerLines(&record.owner))?;
        writeln!(f, "  state      {}", record.state.as_str())?;
        for change in &record.states {
            let StateChange { state, ts, reason } = change;
            writeln!(f, "             {}", Change(*state, *ts, reason))?;
        }
        match &record.handshake {
            Some(handshake) => writeln!(f, "  handshake  {}", HandshakeText(handshake))?,
            None => writeln!(f, "  handshake  not seen")?,
        }
        match &record.verdict {
            Some(verdict) => writeln!(
                f,
                "  verdict    {} ({}) since {}: {}",
                verdict.kind,
                verdict.certainty,
                verdict.ts.strftime("%H:%M:%S.%3f"),
                verdict.reason
            )?,
            None => writeln!(f, "  verdict    none")?,
        }
        writeln!(
            f,
            "  silent     {}, of {} since TCP was established",
            Age(record.idle_seconds),
            Age(record.age_seconds)
        )?;
        writeln!(f, "  received   {}", DirectionText(&record.rx))?;
        writeln!(f, "  sent       {}", DirectionText(&record.tx))?;
        if let Some(TrafficRates { rx, tx }) = record.rates {
            writeln!(f, "  rates      received {}, sent {}", Rates(rx), Rates(tx))?;
        }
        writeln!(f, "  pings in   {}", Pings(&record.rx))?;
        writeln!(f, "  pings out  {}", Pings(&record.tx))?;
        let tcp = &record.tcp;
        writeln!(
            f,
            "  tcp        unacknowledged bytes {}, for {}; last progress {} ago",
            tcp.unacked_bytes,
            Age(tcp.unacked_seconds),
            Age(tcp.last_ack_seconds)
        )?;
        write!(
            f,
            "             retransmissions {}, without progress since {}; unanswered transmissions {}, \
             for {}",
            tcp.retransmits_total,
            tcp.retransmits,
            tcp.unanswered_transmissions,
            Age(tcp.unanswered_seconds)
        )?;
        if let Some(bytes) = tcp.send_queue_bytes {
            write!(f, "\n             send queue bytes {bytes}")?;
        }
        if let Some(close) = &record.close {
            let code = close
                .code
                .map_or("no code".to_owned(), |c| format!("code {c}"));
            write!(
                f,
                "\n  close      {code}, first {}",
                match close.initiator {
                    monitor_core::facts::Direction::Rx => "from the peer",
                    monitor_core::facts::Direction::Tx => "from this host",
                }
            )?;
        }
        Ok(())
    }
}

/// A state and when it began.
struct Change<'a>(State, Timestamp, &'a str);

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(state, ts, reason) = self;
        let when = ts.strftime("%Y-%m-%d %H:%M:%S.%3fZ");
        write!(f, "{when}  {:<10}  {reason}", state.as_str())
    }
}

/// The client's text is quoted and escaped, because it must not reach the terminal as control
/// sequences.
struct HandshakeText<'a>(&'a HandshakeSummary);

impl fmt::Display for HandshakeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HandshakeSummary {
            path,
            host,
            origin,
            subprotocol,
            compressed,
            faults,
        } = self.0;
        match path {
            Some(path) => write!(f, "path {path:?}")?,
            None => f.write_str("path not seen")?,
        }
        for (name, text) in [
            ("host", host),
            ("origin", origin),
            ("subprotocol", subprotocol),
        ] {
            if let Some(text) = text {
                write!(f, ", {name} {text:?}")?;
            }
        }
        if *compressed {
            f.write_str(", compressed")?;
        }
        for fault in faults {
            write!(f, ", {fault}")?;
        }
        Ok(())
    }
}

struct DirectionText<'a>(&'a DirectionRecord);

impl fmt::Display for DirectionText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = self.0;
        write!(
            f,
            "frames {}, payload bytes {}; last packet {} ago, data {} ago, frame {} ago, data \
             frame {} ago",
            side.frames,
            side.payload_bytes,
            Age(side.last_packet_seconds),
            Age(side.last_payload_seconds),
            Age(side.last_frame_seconds),
            Age(side.last_data_frame_seconds)
        )
    }
}

/// The mean of a second.
struct Rates(DirectionRates);

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DirectionRates {
            frames_per_second,
            payload_bytes_per_second,
        } = self.0;
        write!(
            f,
            "{frames_per_second:.1} frames/s with {payload_bytes_per_second:.0} bytes/s"
        )
    }
}

struct Pings<'a>(&'a DirectionRecord);

impl fmt::Display for Pings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = self.0;
        if side.pings == 0 {
            return f.write_str("none");
        }
        write!(
            f,
            "{}, unanswered {}, the last {} ago",
            side.pings,
            side.pings_unanswered,
            Age(side.last_ping_seconds),
        )?;
        if let (Some(interval), Some(jitter)) =
            (side.ping_interval_seconds, side.ping_jitter_seconds)
        {
            let (interval, jitter) = (Age(Some(interval)), Age(Some(jitter)));
            write!(f, ", every {interval}, jitter {jitter}")?;
        }
        let rtt = side.ping_rtt_seconds.map(Duration::try_from_secs_f64);
        match rtt {
            Some(Ok(rtt)) => write!(f, ", round trip {}", RoundTrip(rtt)),
            Some(Err(_)) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::tests::{detail, record};
    use monitor_core::CloseHow;

    #[test]
    fn a_page_shows_everything_and_says_never_where_nothing_happened() {
        let mut record = record(&detail(7), Some(CloseHow::Fin));
        record.rates = Some(TrafficRates {
            rx: DirectionRates {
                frames_per_second: 2.04,
                payload_bytes_per_second: 1234.5,
            },
            tx: DirectionRates::default(),
        });
        record.handshake = Some(HandshakeSummary {
            path: Some("/chat\x1b".to_owned()),
            host: None,
            origin: None,
            subprotocol: None,
            compressed: true,
            faults: vec!["bad_key".to_owned()],
        });
        record.tcp.send_queue_bytes = Some(512);
        record.owner.unit = Some("chat\n.service".to_owned());
        record.owner.pid = Some(812);
        record.owner.comm = Some("node".to_owned());
        let page = Page(&record).to_string();
        for line in [
            "connection 7",
            "  listener   8080, this host is the server",
            "  protocol   websocket, known by its establishment",
            "  cgroup id  7",
            "  unit       chat\\n.service",
            "  process    node (pid 812)",
            "  state      closed",
            "             2026-11-22 18:37:33.500Z  open        101 after 1000 ms",
            "  handshake  path \"/chat\\u{1b}\", compressed, bad_key",
            "  silent     5.0 s, of 20.0 s since TCP was established",
            "  pings in   2, unanswered 0, the last - ago, every 15.0 s, jitter 0.000 s, round trip 250 µs",
            "  rates      received 2.0 frames/s with 1234 bytes/s, sent 0.0 frames/s with 0 bytes/s",
            "  pings out  none",
            "  verdict    none",
            "             send queue bytes 512",
        ] {
            assert!(
                page.lines().any(|l| l == line),
                "{line:?} is not in\n{page}"
            );
        }
        assert!(page.contains("frames 3, payload bytes 0; last packet 5.0 s ago, data - ago"));
    }
}
