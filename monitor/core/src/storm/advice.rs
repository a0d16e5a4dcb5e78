//! Human-readable sentences about a storm, with advice.

use std::time::Duration;

use super::finding::{Cause, ClientRow, Pattern, ReconnectStorm, StormPhase};

/// The sentence of a [`ReconnectStorm`] that has `lasted` until now.
pub(super) fn of_storm(storm: &ReconnectStorm, lasted: Duration) -> String {
    match storm.phase {
        StormPhase::MassClose => format!(
            "{} connections were lost at once{}",
            storm.closes,
            because(storm.cause)
        ),
        StormPhase::Storm => format!("{}; {}", seen(storm), advice(storm)),
        StormPhase::Over => over(storm, lasted),
    }
}

/// The sentence of a [`Thrash`](super::finding::Thrash); `rows` are all its clients, heaviest
/// first.
pub(super) fn of_thrash(rows: &[ClientRow]) -> String {
    let shared = rows.iter().filter(|row| row.is_shared()).count();
    let every = rows.first().and_then(|row| row.interval).map_or_else(
        || "repeatedly".to_owned(),
        |interval| format!("every {:.1} s", interval.as_secs_f64()),
    );
    if let [row] = rows
        && row.is_shared()
    {
        return format!(
            "most connections from {}, a proxy, NAT or load balancer ({} connections at once), end within \
             5 s: find what ends them; --client-address distinguishes its clients if it forwards \
             their addresses",
            row.client, row.most_open
        );
    }
    let (who, stay) = match rows {
        [_] => ("a client connects".to_owned(), "stays"),
        many => (format!("{} clients connect", many.len()), "stay"),
    };
    let among = match shared {
        0 => String::new(),
        1 => " (one of them is a proxy, NAT or load balancer)".to_owned(),
        many => format!(" ({many} of them are proxies, NATs or load balancers)"),
    };
    format!(
        "{who} {every} and {stay} for less than 5 s{among}: find what ends these connections, and have \
         clients reset their delay only after a connection has lasted"
    )
}

fn seen(storm: &ReconnectStorm) -> String {
    // Delays that grow show a backoff even if its first delay can't be derived.
    let period = |word| {
        storm.period.map_or(String::new(), |period| {
            format!(" {word} {:.1} s", period.as_secs_f64())
        })
    };
    let how = match storm.pattern {
        Pattern::Lockstep => format!("clients retry{} without jitter", period("every")),
        Pattern::Backoff => format!(
            "clients back off{} without jitter, all in the same rhythm",
            period("from")
        ),
        Pattern::Jittered => "clients retry with jitter".to_owned(),
        Pattern::Unknown => "clients come back at once".to_owned(),
    };
    let after = match storm.closes {
        0 => String::new(),
        closes => format!(" after {closes} were lost{}", because(storm.cause)),
    };
    let tries = match (storm.attempts_per_success, storm.attempts) {
        (Some(tries), _) if tries >= 1.5 => format!(", {tries:.1} for each success"),
        (None, attempts) if attempts > 0 => ", none successful".to_owned(),
        _ => String::new(),
    };
    // There is no usual rate before one was learned.
    let usual = match storm.baseline_rate {
        rate if rate > 0.0 => format!(" where {rate:.1} are usual"),
        _ => String::new(),
    };
    format!(
        "{how}{after}: {:.0} attempts/s{usual}{tries}",
        storm.peak_rate.max(storm.rate),
    )
}

/// Advice about the clients; the advice for the server is always the same.
fn advice(storm: &ReconnectStorm) -> &'static str {
    match storm.pattern {
        Pattern::Lockstep => {
            "have them wait 1 s, twice as long after each failure up to 30 s, plus up to 50 % at random, \
             and answer 429 above a rate per address"
        }
        Pattern::Backoff => {
            "add up to 50 % of the delay at random, with 30 s as the longest, and answer 429 above a rate \
             per address"
        }
        Pattern::Jittered => "answer 429 above a rate per address, and let the delay grow to 30 s",
        Pattern::Unknown => {
            "clients should wait 1 s, twice as long after each failure up to 30 s, plus up to 50 % at \
             random; answer 429 above a rate per address"
        }
    }
}

fn over(storm: &ReconnectStorm, lasted: Duration) -> String {
    let lasted = lasted.as_secs_f64();
    if storm.attempts == 0 {
        return format!(
            "{} connections were lost, and none came back within {lasted:.0} s",
            storm.closes
        );
    }
    format!(
        "over after {lasted:.0} s: {} attempts, {} successful, at most {:.0}/s",
        storm.attempts, storm.successes, storm.peak_rate
    )
}

fn because(cause: Option<Cause>) -> String {
    let seconds = |duration: Duration| duration.as_secs_f64();
    match cause {
        None => String::new(),
        Some(Cause::ServerRestart) => " when the server on this host ended".to_owned(),
        Some(Cause::IdleTimeout(idle)) => {
            format!(
                " after {:.0} s of silence, the idle timeout of a hop",
                seconds(idle)
            )
        }
        Some(Cause::Lifetime(age)) => {
            format!(" at the age of {:.0} s, a maximum lifetime", seconds(age))
        }
        Some(Cause::PeerNetwork) => " as the network to the peers failed".to_owned(),
        Some(Cause::ProxyDeploy(peer)) => format!(" as the proxy {peer} closed them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_without_a_known_first_delay_names_none() {
        let mut storm = ReconnectStorm {
            phase: StormPhase::Storm,
            pattern: Pattern::Backoff,
            period: None,
            rate: 0.0,
            peak_rate: 2000.0,
            baseline_rate: 0.0,
            attempts: 0,
            successes: 0,
            attempts_per_success: None,
            refused: Vec::new(),
            returning_share: None,
            closes: 0,
            cause: None,
            examples: Vec::new(),
        };
        let reason = of_storm(&storm, Duration::ZERO);
        assert!(
            reason.starts_with("clients back off without jitter, all in"),
            "{reason}"
        );
        storm.period = Some(Duration::from_millis(2_940));
        let reason = of_storm(&storm, Duration::ZERO);
        assert!(
            reason.starts_with("clients back off from 2.9 s without jitter"),
            "{reason}"
        );
    }
}
