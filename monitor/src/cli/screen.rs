//! Output helpers shared by the commands.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use super::{
    exit::{CommandResult, Failure},
    wrap::wrap,
};
pub use crate::records::counted::{Counted, Grouped};

/// The result of writing a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Written,
    /// The reader of the pipe has exited (`| head`).
    NobodyReads,
}

pub fn write_line(out: &mut impl Write, line: &[u8]) -> Result<Shown, Failure> {
    written(
        out.write_all(line)
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush()),
    )
}

/// What became of output.
pub fn written(result: io::Result<()>) -> Result<Shown, Failure> {
    match result {
        Ok(()) => Ok(Shown::Written),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Shown::NobodyReads),
        Err(error) => Err(Failure::failed(format!("cannot print: {error}"))),
    }
}

pub fn write_lines(out: &mut impl Write, lines: &[String]) -> Result<Shown, Failure> {
    for line in lines {
        if write_line(out, line.as_bytes())? == Shown::NobodyReads {
            return Ok(Shown::NobodyReads);
        }
    }
    Ok(Shown::Written)
}

/// Runs a command that waits for the daemon.
pub fn block_on<T>(command: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(command))
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
}

/// Exits successfully on Ctrl-C.
pub async fn until_interrupted(command: impl Future<Output = CommandResult>) -> CommandResult {
    tokio::select! {
        outcome = command => outcome,
        interrupted = tokio::signal::ctrl_c() => match interrupted {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(Failure::failed(format!("cannot handle signals: {error}"))),
        },
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A duration in seconds for people: `0.250 s`, `12.3 s`, `5 m 12 s`, `3 h 5 m`, `2 d 4 h`; `-` for
/// never.
#[derive(Clone, Copy, Debug)]
pub struct Age(pub Option<f64>);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(seconds) = self.0 else {
            return f.pad("-");
        };
        let whole = seconds as u64;
        let text = match whole {
            0..1 => format!("{seconds:.3} s"),
            1..MINUTE => format!("{seconds:.1} s"),
            MINUTE..HOUR => format!("{} m {} s", whole / MINUTE, whole % MINUTE),
            HOUR..DAY => format!("{} h {} m", whole / HOUR, whole % HOUR / MINUTE),
            _ => format!("{} d {} h", whole / DAY, whole % DAY / HOUR),
        };
        f.pad(&text)
    }
}

/// A duration in seconds for a narrow column, at most six characters wide, after the sign of a negative one:
/// `6.8s`, `48s`, `5m12s`, `3h05m`, `2d04h`; `-` for never. A second unit of zero is left out.
#[derive(Clone, Copy, Debug)]
pub struct ShortAge(pub Option<f64>);

impl fmt::Display for ShortAge {
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
pub struct ShortRoundTrip(pub Option<f64>);

impl fmt::Display for ShortRoundTrip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(seconds) if seconds < 0.000_999_5 => f.pad(&format!("{:.0}us", seconds * 1e6)),
            Some(seconds) if seconds < 0.999_5 => f.pad(&format!("{:.0}ms", seconds * 1e3)),
            seconds => ShortAge(seconds).fmt(f),
        }
    }
}

/// The time that is left, which is negative if a limit was passed: `22.0 s`, `-1.5 s`; `-` if unknown.
#[derive(Clone, Copy, Debug)]
pub struct Margin(pub Option<f64>);

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(seconds) if seconds < 0.0 => write!(f, "-{}", Age(Some(-seconds))),
            seconds => write!(f, "{}", Age(seconds)),
        }
    }
}

/// Breaks text into lines of at most `width` columns, each after an indent. A longer word has its own
/// line.
pub fn wrapped(text: &str, indent: &str, width: usize) -> Vec<String> {
    wrap(text, width, indent, indent)
}

/// An amount for people, in at most five characters: `0`, `999`, `1.2k`, `12.3M`, `456G`.
#[derive(Clone, Copy, Debug)]
pub struct Amount(pub f64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["", "k", "M", "G", "T"];
        let (mut number, mut unit) = (self.0, 0);
        while number >= 999.5 && unit + 1 < units.len() {
            (number, unit) = (number / 1000.0, unit + 1);
        }
        let digits = usize::from(unit > 0 && number < 99.95);
        f.pad(&format!("{number:.digits$}{}", units[unit]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_shown_with_two_units_at_most() {
        for (seconds, shown) in [
            (0.25, "0.250 s"),
            (12.34, "12.3 s"),
            (59.96, "60.0 s"),
            (312.0, "5 m 12 s"),
            (11_100.0, "3 h 5 m"),
            (187_200.0, "2 d 4 h"),
        ] {
            assert_eq!(Age(Some(seconds)).to_string(), shown);
        }
        assert_eq!(format!("{:<5}|", Age(None)), "-    |");
    }

    #[test]
    fn short_ages_have_two_units_at_most() {
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
            assert_eq!(ShortAge(Some(seconds)).to_string(), shown);
        }
        assert_eq!(format!("{:>3}", ShortAge(None)), "  -");
    }

    #[test]
    fn short_round_trips_have_one_unit() {
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

    #[test]
    fn margins_are_for_people() {
        assert_eq!(Margin(Some(-1.5)).to_string(), "-1.5 s");
        assert_eq!(Margin(Some(90.0)).to_string(), "1 m 30 s");
        assert_eq!(Margin(None).to_string(), "-");
    }

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(
            wrapped("idle 10.2 s on a path", "  ", 10),
            ["  idle", "  10.2 s", "  on a", "  path"]
        );
        let long = wrapped("a 0123456789ab b", "", 5);
        assert_eq!(long, ["a", "0123456789ab", "b"]);
    }

    #[test]
    fn amounts_are_short() {
        for (amount, shown) in [
            (0.0, "0"),
            (0.4, "0"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12.3k"),
            (99_960.0, "100k"),
            (999_600.0, "1.0M"),
            (456e9, "456G"),
        ] {
            assert_eq!(Amount(amount).to_string(), shown);
        }
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        assert_eq!(write_line(&mut writer, b"one").ok(), Some(Shown::Written));
        drop(reader);
        assert_eq!(
            write_line(&mut writer, b"two").ok(),
            Some(Shown::NobodyReads)
        );
    }
}
