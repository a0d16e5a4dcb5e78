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
            1..60 => format!("{seconds:.1} s"),
            60..3_600 => format!("{} m {} s", whole / 60, whole % 60),
            3_600..86_400 => format!("{} h {} m", whole / 3_600, whole % 3_600 / 60),
            _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
        };
        f.pad(&text)
    }
}

/// A whole number for people: `1,204`.
#[derive(Clone, Copy, Debug)]
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000 => write!(f, "{}", self.0),
            more => write!(f, "{},{:03}", Self(more / 1_000), more % 1_000),
        }
    }
}

/// `1 zombie`, `1,204 zombies`, `2 processes`.
#[derive(Clone, Copy, Debug)]
pub struct Counted(pub u64, pub &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        let plural = match (count, noun.ends_with('s')) {
            (1, _) => "",
            (_, true) => "es",
            (_, false) => "s",
        };
        write!(f, "{} {noun}{plural}", Grouped(*count))
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
    fn counts_and_margins_are_for_people() {
        assert_eq!(Counted(1, "zombie").to_string(), "1 zombie");
        let many = Counted(1_204_005, "zombie").to_string();
        assert_eq!(many, "1,204,005 zombies");
        assert_eq!(Counted(0, "process").to_string(), "0 processes");
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
