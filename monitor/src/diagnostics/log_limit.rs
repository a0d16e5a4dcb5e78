//! The log on stderr: its form, and a limit on repeated lines.
//!
//! A fault of the kernel side may occur once for each of a million connections. The first lines show
//! the fault; the rest would only hide other messages and fill the disk.

use std::{
    collections::HashMap,
    env, fmt,
    io::{self, IsTerminal, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use env_logger::{Builder, DEFAULT_FILTER_ENV, Logger};
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Warnings and errors that one place in the code may log within [`WINDOW`].
const LINES_PER_WINDOW: u64 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// The target of the lines that report aborted connections.
pub(crate) const NEVER_LIMITED: &str = "monitor::daemon::reaper";

/// Lines suppressed since the start.
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// Whether only errors are to be printed.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Installs this as the log of the process. It writes what `RUST_LOG` selects, or else warnings and errors
/// up to `level` of all code, and the rest up to `level` of wsmon.
///
/// Lines have their time and module, except for the default levels on a terminal.
pub fn install(level: LevelFilter) {
    QUIET.store(level < LevelFilter::Warn, Ordering::Relaxed);
    let is_selected = env::var_os(DEFAULT_FILTER_ENV).is_some_and(|text| !text.is_empty());
    let mut builder = Builder::from_default_env();
    if !is_selected {
        builder.filter_level(level.min(LevelFilter::Warn));
        // Also the crates whose names begin like this.
        builder.filter_module("monitor", level);
        builder.filter_module("wsmon_bpf", level);
    }
    if !is_selected && level <= LevelFilter::Warn && io::stderr().is_terminal() {
        builder.format(|out, record| writeln!(out, "{}", Short(record)));
    }
    let logger = builder.build();
    log::set_max_level(logger.filter());
    let limited = LimitedLog {
        logger,
        repeats: Mutex::default(),
    };
    // Fails only if a logger is already installed, which then stays.
    let _ = log::set_boxed_logger(Box::new(limited));
}

/// A record as the commands write their messages: `wsmon: warning: the text`.
struct Short<'a>(&'a Record<'a>);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(record) = self;
        let grade = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        write!(f, "wsmon: {grade}{}", record.args())
    }
}

/// Whether only errors are to be printed, whatever `RUST_LOG` selects for the log.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Lines suppressed since the start.
pub fn suppressed() -> u64 {
    SUPPRESSED.load(Ordering::Relaxed)
}

struct LimitedLog {
    logger: Logger,
    repeats: Mutex<Repeats>,
}

impl Log for LimitedLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let limited = is_limited(record.level(), record.target()) && self.logger.matches(record);
        if limited && let (Some(file), Some(line)) = (record.file_static(), record.line()) {
            let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
            let (admitted, before) = repeats.admit((file, line), Instant::now());
            drop(repeats);
            if before > 0 {
                self.report((file, line), before);
            }
            if !admitted {
                SUPPRESSED.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        self.logger.log(record);
    }

    /// Reports the suppressed lines that are not reported yet.
    fn flush(&self) {
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        let unreported = repeats.take_unreported();
        drop(repeats);
        for (place, lines) in unreported {
            self.report(place, lines);
        }
        self.logger.flush();
    }
}

impl LimitedLog {
    fn report(&self, (file, line): Place, lines: u64) {
        let text = format_args!("{lines} more lines from {file}:{line} were suppressed");
        let record = Record::builder()
            .level(Level::Warn)
            .target(module_path!())
            .args(text)
            .build();
        self.logger.log(&record);
    }
}

fn is_limited(level: Level, target: &str) -> bool {
    // A user who selects more than warnings wants all of it. Aborted connections must be on record, and
    // their rate is limited elsewhere.
    level <= Level::Warn && target != NEVER_LIMITED
}

/// A file and a line in it.
type Place = (&'static str, u32);

/// Recently logged lines, by the place that logged them.
#[derive(Debug, Default)]
struct Repeats(HashMap<Place, RepeatWindow>);

#[derive(Debug)]
struct RepeatWindow {
    begun: Instant,
    lines: u64,
    unreported: u64,
}

impl Repeats {
    /// Whether a line may be written, and how many suppressed lines are to be reported before it.
    fn admit(&mut self, place: Place, now: Instant) -> (bool, u64) {
        let window = self.0.entry(place).or_insert(RepeatWindow {
            begun: now,
            lines: 0,
            unreported: 0,
        });
        let mut before = 0;
        if now.duration_since(window.begun) >= WINDOW {
            before = window.unreported;
            *window = RepeatWindow {
                begun: now,
                lines: 0,
                unreported: 0,
            };
        }
        window.lines += 1;
        let admitted = window.lines <= LINES_PER_WINDOW;
        window.unreported += u64::from(!admitted);
        (admitted, before)
    }

    fn take_unreported(&mut self) -> Vec<(Place, u64)> {
        let all = self.0.iter_mut();
        all.map(|(place, window)| (*place, std::mem::take(&mut window.unreported)))
            .filter(|(_, lines)| *lines > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = ("a.rs", 1);
    const THERE: Place = ("a.rs", 2);

    /// How many of `lines` simultaneous lines are written.
    fn written(repeats: &mut Repeats, place: Place, lines: u64, now: Instant) -> usize {
        (0..lines).filter(|_| repeats.admit(place, now).0).count()
    }

    #[test]
    fn each_place_may_log_ten_lines_a_minute_and_the_rest_is_counted() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        assert_eq!(written(&mut repeats, HERE, 1_000, start), 10);
        assert_eq!(written(&mut repeats, THERE, 10, start), 10, "its own limit");
        let late = start + WINDOW - Duration::from_millis(1);
        assert_eq!(repeats.admit(HERE, late), (false, 0));
        let next = start + WINDOW;
        assert_eq!(repeats.admit(HERE, next), (true, 991));
        assert_eq!(repeats.admit(HERE, next), (true, 0), "reported once");
        assert_eq!(repeats.admit(THERE, next), (true, 0));
    }

    #[test]
    fn a_short_line_has_the_grade_and_the_text() {
        let short = |level| {
            let args = format_args!("no room");
            Short(&Record::builder().level(level).args(args).build()).to_string()
        };
        assert_eq!(short(Level::Error), "wsmon: error: no room");
        assert_eq!(short(Level::Warn), "wsmon: warning: no room");
        assert_eq!(short(Level::Info), "wsmon: no room");
    }

    #[test]
    fn aborted_connections_and_selected_levels_have_no_limit() {
        assert!(is_limited(Level::Error, "monitor::daemon"));
        assert!(is_limited(Level::Warn, "monitor::daemon::drain"));
        assert!(!is_limited(Level::Warn, "monitor::daemon::reaper"));
        assert!(!is_limited(Level::Info, "monitor::daemon"));
    }

    #[test]
    fn suppressed_lines_can_be_reported_before_the_place_logs_again() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        written(&mut repeats, HERE, 17, start);
        written(&mut repeats, THERE, 3, start);
        assert_eq!(repeats.take_unreported(), [(HERE, 7)]);
        assert_eq!(repeats.take_unreported(), []);
        assert_eq!(repeats.admit(HERE, start), (false, 0), "the limit stays");
        assert_eq!(repeats.admit(HERE, start + WINDOW), (true, 1));
    }
}
