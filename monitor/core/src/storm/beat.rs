//! The common delay of clients.

/// The delay between one attempt and the next that nearly all clients have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Beat {
    pub(super) seconds: f64,
    /// The spread of the delays, as the logarithm of a ratio.
    pub(super) width: f64,
    /// The number of delays that it is based on.
    pub(super) count: f64,
}

impl Beat {
    /// True if the clients add no significant random part. With few delays, closer agreement is
    /// required, because it may be chance.
    pub(super) fn is_tight(&self) -> bool {
        self.width <= TIGHT * (1.0 - 2.0 / self.count.max(4.0).sqrt())
    }
}

/// Agreement: 40 % of the delays within this (logarithm of a ratio). The value is 0.14 with up to
/// half of the delay at random, and 0.5 with full jitter.
pub(super) const TIGHT: f64 = 0.12;
