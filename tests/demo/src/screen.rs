//! The demo's output while it runs.

use std::{
    env,
    io::{self, IsTerminal, Write},
    time::Instant,
};

use lab::Alert;

use super::{report::Summary, story::Story};

const BOLD: &str = "1";
const RED: &str = "1;31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// Prints on stdout, or on stderr if stdout is reserved for JSON. Failed writes are ignored, so
/// that the network is removed even if the pipe is closed.
pub(super) struct Screen {
    out: Box<dyn Write>,
    coloured: bool,
    start: Option<Instant>,
}

impl Screen {
    pub(super) fn new(on_stderr: bool) -> Self {
        let (out, terminal): (Box<dyn Write>, bool) = if on_stderr {
            (Box::new(io::stderr()), io::stderr().is_terminal())
        } else {
            (Box::new(io::stdout()), io::stdout().is_terminal())
        };
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            out,
            coloured: terminal && !no_color,
            start: None,
        }
    }

    /// From now on, lines show the time since `start`.
    pub(super) fn start_clock(&mut self, start: Instant) {
        self.start = Some(start);
    }

    /// A line about the demo itself.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    /// An event of a connection at `at`.
    pub(super) fn fact(&mut self, at: Instant, story: Story, text: &str) {
        let name = self.paint(BOLD, &format!("{:<11}", story.name()));
        let time = self.time(at);
        let _ = writeln!(self.out, "{time}  {name}  {text}");
    }

    /// An alert about `story`, and the application's state when it fires.
    pub(super) fn alert(&mut self, story: Story, alert: &Alert, application: &str) {
        let time = self.time(alert.at);
        let name = self.paint(BOLD, &format!("{:<11}", story.name()));
        let text = &alert.text("/alert").to_owned();
        let verdict = match (alert.text("/status"), alert.text("/kind")) {
            ("resolved", kind) => {
                let how = printable(alert.text("/resolution"));
                self.paint(GREEN, &format!("resolved {text}/{kind}: {how}"))
            }
            (_, kind) => {
                let certainty = alert.text("/certainty");
                self.paint(RED, &format!("ALERT {text}/{kind}, {certainty}"))
            }
        };
        let reason = printable(alert.text("/reason"));
        let application = self.paint(YELLOW, &format!("application: {application}"));
        let _ = writeln!(self.out, "{time}  {name}  {verdict}");
        for detail in [reason, application].iter().filter(|line| !line.is_empty()) {
            let _ = writeln!(self.out, "{:23}{detail}", "");
        }
    }

    /// The table, the metrics and the result.
    pub(super) fn summary(&mut self, summary: &Summary) {
        let _ = writeln!(self.out, "\n{}", summary.table());
        let changes = summary.metrics_listing();
        let _ = writeln!(
            self.out,
            "wsmon's metrics that changed (without buckets):\n{changes}"
        );
        if summary.failures.is_empty() {
            let line = self.paint(GREEN, "all three zombies found, none invented");
            let _ = writeln!(self.out, "{line}");
        }
        for failure in &summary.failures {
            let line = self.paint(RED, &format!("FAILED  {failure}"));
            let _ = writeln!(self.out, "{line}");
        }
    }

    fn time(&self, at: Instant) -> String {
        let start = self.start.unwrap_or(at);
        format!(
            "t+{:4.1} s",
            at.saturating_duration_since(start).as_secs_f64()
        )
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.coloured {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Text from the network may contain escape sequences: they are escaped.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let control = character.is_control();
            let escaped = control.then(|| character.escape_default());
            let plain = (!control).then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_shown_and_not_executed() {
        assert_eq!(printable("idle 6.3 s \x1b[31mµ"), "idle 6.3 s \\u{1b}[31mµ");
    }
}
