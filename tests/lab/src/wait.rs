use std::{
    thread,
    time::{Duration, Instant},
};

use crate::LabError;

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `probe` yields a value and returns it.
///
/// # Errors
/// [`LabError::Timeout`] with `what` once `limit` has passed.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T, LabError> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if start.elapsed() >= limit {
            return Err(LabError::Timeout {
                what: what.to_owned(),
                waited: limit,
            });
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Waits until `condition` holds; see [`wait_for`].
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), LabError> {
    wait_for(what, limit, || condition().then_some(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_never_holds_is_named_in_the_error() {
        let error = wait_until("pigs to fly", Duration::from_millis(20), || false).unwrap_err();
        assert_eq!(error.to_string(), "waited 20ms for pigs to fly, in vain");
    }

    #[test]
    fn waiting_ends_as_soon_as_the_probe_answers() {
        let mut calls = 0;
        let answer = wait_for("the third call", Duration::from_secs(5), || {
            calls += 1;
            (calls == 3).then_some(calls)
        });
        assert_eq!(answer.unwrap(), 3);
    }
}
