//! The totals of what is watched, on one line.

use std::{
    fmt,
    io::{self, IsTerminal},
    path::Path,
};

use bytes::Bytes;

use super::{
    client,
    exit::Failure,
    screen::{Counted, Grouped, Margin},
};
use crate::records::status::StatusRecord;

/// `3 listeners, 1,204 open, 2 zombies (1 confirmed), heartbeat margin 22.0 s`. The margin is the smallest
/// of the listeners.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals<'a>(pub(super) &'a StatusRecord);

impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StatusRecord {
            open,
            closing,
            zombies,
            listeners,
            ..
        } = self.0;
        let watching = Counted(listeners.len() as u64, "listener");
        write!(f, "{watching}, {} open", Grouped(*open))?;
        if *closing > 0 {
            write!(f, ", {} closing", Grouped(*closing))?;
        }
        write!(f, ", {}", Counted(zombies.total(), "zombie"))?;
        if zombies.confirmed > 0 {
            write!(f, " ({} confirmed)", Grouped(zombies.confirmed))?;
        }
        let margins = listeners.iter().map(|of| of.heartbeat_margin_seconds);
        match margins.flatten().reduce(f64::min) {
            Some(margin) => write!(f, ", heartbeat margin {}", Margin(Some(margin))),
            None => Ok(()),
        }
    }
}

/// The totals of all listeners, or of one, if stdout is a terminal. A daemon of an older version does not have
/// them.
pub(super) async fn for_terminal(control: &Path, listener: Option<&str>) -> Option<String> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let (status, _) = request(control, listener).await.ok()?;
    Some(Totals(&status).to_string())
}

/// Requests the state of all listeners, or of one. Also returns its JSON.
pub(super) async fn request(
    control: &Path,
    listener: Option<&str>,
) -> Result<(StatusRecord, Bytes), Failure> {
    let query = [("listener", listener.map(str::to_owned))];
    let target = client::target("/v1/status", &query);
    let mut lines = client::get(control, &target).await?;
    let line = lines.only().await?;
    Ok((client::read(&line)?, line))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::records::status::tests::{healthy, listener, status};
    use monitor_core::VerdictKind;

    #[test]
    fn the_totals_are_sums_and_the_smallest_margin() {
        let mut tally = healthy();
        let calm = status(vec![listener("8080", &tally, None)], Vec::new());
        assert_eq!(Totals(&calm).to_string(), "1 listener, 3 open, 0 zombies");
        tally.counts.connections[0].open = 1_200;
        tally.counts.connections[2].closing = 4;
        tally.counts.zombies[VerdictKind::Expired as usize] = 2;
        tally.confirmed_zombies = 1;
        tally.learned.gap_p99 = Some(Duration::from_secs(38));
        let other = listener("chat", &healthy(), None);
        let busy = status(vec![listener("8080", &tally, None), other], Vec::new());
        assert_eq!(
            Totals(&busy).to_string(),
            "2 listeners, 1,204 open, 4 closing, 2 zombies (1 confirmed), heartbeat margin 22.0 s"
        );
    }
}
