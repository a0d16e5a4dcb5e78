//! Durations in the few characters of a narrow column.

use std::fmt;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Seconds in at most six characters, with the sign of a negative one in front: `6.8s`, `48s`, `5m12s`,
/// `3h05m`, `2d04h`; `-` for never. A second unit of zero is left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compact(pub(super) Option<f64>);

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(seconds) = self.0 else {
            return f.pad("-");
        };
        let sign = if seconds <= -0.05 { "-" } else { "" };
        let length = seconds.abs();
        let whole = length.round() as u64;
        let two_units = |unit: u64, name: char, lesser: u64, lesser_name: char| {
            let (count, rest) = (whole / unit, whole % unit / lesser);
            match rest {
                0 => format!("{count}{name}"),
                _ => format!("{count}{name}{rest:02}{lesser_name}"),
            }
        };
        let text = match whole {
            _ if length < 9.95 => format!("{length:.1}s"),
            0..MINUTE => format!("{whole}s"),
            MINUTE..HOUR => two_units(MINUTE, 'm', 1, 's'),
            HOUR..DAY => two_units(HOUR, 'h', MINUTE, 'm'),
            _ if whole < 100 * DAY => two_units(DAY, 'd', HOUR, 'h'),
            _ => format!("{}d", whole / DAY),
        };
        f.pad(&format!("{sign}{text}"))
    }
}

/// A round trip in seconds, in at most five characters: `250us`, `12ms`, `1.2s`, `48s`; `-` if unknown.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShortRoundTrip(pub(super) Option<f64>);

impl fmt::Display for ShortRoundTrip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(seconds) if seconds < 0.000_999_5 => f.pad(&format!("{:.0}us", seconds * 1e6)),
            Some(seconds) if seconds < 0.999_5 => f.pad(&format!("{:.0}ms", seconds * 1e3)),
            seconds => Compact(seconds).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, shown) in [
            (0.0, "0.0s"),
            (-0.04, "0.0s"),
            (6.84, "6.8s"),
            (-6.84, "-6.8s"),
            (9.96, "10s"),
            (59.4, "59s"),
            (59.6, "1m"),
            (312.0, "5m12s"),
            (305.0, "5m05s"),
            (3_600.0, "1h"),
            (-11_100.0, "-3h05m"),
            (86_400.0, "1d"),
            (187_200.0, "2d04h"),
            (86_400_000.0, "1000d"),
        ] {
            assert_eq!(Compact(Some(seconds)).to_string(), shown);
        }
        assert_eq!(format!("{:>3}", Compact(None)), "  -");
    }

    #[test]
    fn round_trips_have_one_unit() {
        for (seconds, shown) in [
            (0.000_25, "250us"),
            (0.000_999_6, "1ms"),
            (0.012_4, "12ms"),
            (0.999_6, "1.0s"),
            (1.25, "1.2s"),
        ] {
            assert_eq!(ShortRoundTrip(Some(seconds)).to_string(), shown);
        }
        assert_eq!(ShortRoundTrip(None).to_string(), "-");
    }
}
