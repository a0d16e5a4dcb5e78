//! Compares wsmon's verdicts with what really happened.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::crowd::Death;

/// A standing verdict.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) peer: SocketAddr,
    pub(super) kind: String,
    at: SystemTime,
}

/// How well verdicts match deaths.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Deaths without a verdict.
    pub(super) missed: Vec<SocketAddr>,
    /// Verdicts on live connections, of another kind, or before the limit; each as text.
    pub(super) wrong: Vec<String>,
    /// From the limit to the verdict, in seconds.
    latencies: HashMap<SocketAddr, f64>,
}

impl Judgement {
    /// Delay of these verdicts after their limits, in seconds.
    pub(super) fn latencies(&self, deaths: &[Death]) -> Vec<f64> {
        let latency = |death: &Death| self.latencies.get(&death.peer).copied();
        deaths.iter().filter_map(latency).collect()
    }
}

/// Compares the verdicts with the deaths; `limit` is the idle limit of the path.
pub(super) fn judge(deaths: &[Death], limit: Duration, verdicts: &[Verdict]) -> Judgement {
    let offset = monotonic_begin();
    let mut due: HashMap<SocketAddr, SystemTime> = deaths
        .iter()
        .map(|death| (death.peer, offset + death.last_packet + limit))
        .collect();
    let mut judgement = Judgement::default();
    for Verdict { peer, kind, at } in verdicts {
        match due.remove(peer) {
            None => judgement
                .wrong
                .push(format!("{kind} on {peer}, which lives")),
            Some(_) if kind != "expired" => {
                judgement
                    .wrong
                    .push(format!("{kind} on {peer}, which is silent"));
            }
            Some(due) => match at.duration_since(due) {
                Ok(late) => {
                    judgement.latencies.insert(*peer, late.as_secs_f64());
                }
                Err(early) => judgement.wrong.push(format!(
                    "{kind} on {peer} {:.3} s before its limit",
                    early.duration().as_secs_f64()
                )),
            },
        }
    }
    judgement.missed = due.into_keys().collect();
    judgement
}

/// Upper bounds of the delay after the limit at which deaths were counted, in seconds: the earliest
/// death is matched with the first moment at which one was counted, and so on.
pub(super) fn counted(deaths: &[Death], limit: Duration, counts: &[(Duration, f64)]) -> Vec<f64> {
    let mut due: Vec<Duration> = deaths
        .iter()
        .map(|death| death.last_packet + limit)
        .collect();
    due.sort();
    let latency = |(index, due): (usize, Duration)| {
        let (at, _) = counts.iter().find(|(_, count)| *count > index as f64)?;
        Some(at.as_secs_f64() - due.as_secs_f64())
    };
    due.into_iter().enumerate().filter_map(latency).collect()
}

/// The wall-clock time at which the monotonic clock began.
fn monotonic_begin() -> SystemTime {
    let now = clock_gettime(ClockId::Monotonic);
    SystemTime::now() - Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Reads every standing verdict on a connection from a daemon's control socket.
pub(super) fn standing(control: &Path) -> Result<Vec<Verdict>> {
    let mut socket = UnixStream::connect(control)
        .with_context(|| format!("cannot connect to {}", control.display()))?;
    // In HTTP/1.0 the answer ends with the connection.
    socket.write_all(b"GET /v1/alerts HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(head.contains(" 200 "), "the daemon answers {head}");
    let alerts = body.lines().map(serde_json::from_str::<Value>);
    let alerts = alerts.collect::<Result<Vec<_>, _>>()?;
    alerts
        .iter()
        .filter(|alert| !alert["conn"].is_null())
        .map(|alert| verdict(alert).with_context(|| format!("no verdict: {alert}")))
        .collect()
}

fn verdict(line: &Value) -> Option<Verdict> {
    let peer: SocketAddr = line.pointer("/conn/peer")?.as_str()?.parse().ok()?;
    Some(Verdict {
        peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
        kind: line["kind"].as_str()?.to_owned(),
        at: humantime::parse_rfc3339(line["ts"].as_str()?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 2, 0, 0], port))
    }

    fn death(port: u16) -> Death {
        Death {
            peer: peer(port),
            last_packet: Duration::from_secs(1),
        }
    }

    fn verdict(port: u16, kind: &str, after: f64) -> Verdict {
        Verdict {
            peer: peer(port),
            kind: kind.to_owned(),
            at: monotonic_begin() + Duration::from_secs(1) + LIMIT.mul_f64(after / 60.0),
        }
    }

    #[test]
    fn the_delay_of_a_verdict_counts_from_the_limit() {
        let judgement = judge(&[death(1)], LIMIT, &[verdict(1, "expired", 60.5)]);
        let latencies = judgement.latencies(&[death(1)]);
        assert!((latencies[0] - 0.5).abs() < 0.01, "{latencies:?}");
        assert!(judgement.missed.is_empty() && judgement.wrong.is_empty());
    }

    #[test]
    fn verdicts_that_are_early_of_another_kind_or_on_the_living_are_wrong() {
        let verdicts = [
            verdict(1, "expired", 59.0),
            verdict(2, "unresponsive", 61.0),
            verdict(3, "expired", 61.0),
        ];
        let judgement = judge(&[death(1), death(2), death(4)], LIMIT, &verdicts);
        assert_eq!(judgement.wrong.len(), 3, "{:?}", judgement.wrong);
        assert_eq!(judgement.missed, [peer(4)]);
        assert!(judgement.latencies.is_empty());
    }

    #[test]
    fn deaths_are_matched_with_the_counter_in_order() {
        let moment = Duration::from_secs;
        let counts = [(moment(61), 0.0), (moment(62), 1.0), (moment(64), 2.0)];
        let latencies = counted(&[death(1), death(2), death(3)], LIMIT, &counts);
        assert_eq!(latencies, [1.0, 3.0], "one was never counted");
    }

    #[test]
    fn a_verdict_is_read_from_a_line_of_the_alert_log() {
        let line = r#"{"ts":"2026-11-22T21:12:01.505Z","status":"firing","alert":"zombie",
            "kind":"expired","conn":{"peer":"[::ffff:127.2.0.0]:1"}}"#;
        let verdict = super::verdict(&serde_json::from_str(line).unwrap()).unwrap();
        assert_eq!(verdict.peer, peer(1));
        let millis = verdict
            .at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .subsec_millis();
        assert_eq!(millis, 505);
    }
}
