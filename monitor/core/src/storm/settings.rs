//! Thresholds of storms.

use std::time::Duration;

/// What counts as a storm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StormSettings {
    /// A mass close is more than this in 10 s, and more than [`StormSettings::mass_close_share`] of the
    /// connections.
    pub mass_close_least: u64,
    pub mass_close_share: f64,
    /// A storm is at least this many attempts per second, and at least
    /// [`StormSettings::times_baseline`] times the usual rate.
    pub least_rate: u64,
    pub times_baseline: f64,
    /// A storm is also more than this many attempts for each success, for 30 s.
    pub attempts_per_success: f64,
    /// Thrash: this many connections of one client in a minute (at most 8), each shorter than
    /// [`StormSettings::short_life`].
    pub thrash_connections: usize,
    pub short_life: Duration,
    /// The key of the hash of addresses. An attacker can choose addresses that are slow for a known
    /// key: use a random one, unless runs must be reproducible.
    pub seed: u64,
}

impl Default for StormSettings {
    fn default() -> Self {
        Self {
            mass_close_least: 20,
            mass_close_share: 0.05,
            least_rate: 20,
            times_baseline: 5.0,
            attempts_per_success: 2.0,
            thrash_connections: 5,
            short_life: Duration::from_secs(5),
            seed: 0,
        }
    }
}
