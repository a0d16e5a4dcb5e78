//! What the daemon is like as a whole: the first section of the page.

use std::fmt::{self, Display};

use super::{
    RELOADING,
    text::{Count, Counted, Escaped, EscapedSentence, Seconds},
};
use crate::records::status::StatusRecord;

/// The problems that are listed. The rest is a number.
const LISTED: usize = 20;

pub(super) struct StateSection<'a> {
    pub(super) status: &'a StatusRecord,
    pub(super) reloads: bool,
}

/// `2 problems`.
pub(super) fn problems(status: &StatusRecord) -> Counted {
    Counted(status.problems.len() as u64, "problem")
}

impl Display for StateSection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        f.write_str("<section aria-labelledby=\"state\">\n")?;
        match status.healthy {
            true => f.write_str("<h2 id=\"state\" class=\"good\">Healthy</h2>\n")?,
            false => {
                let problems = problems(status);
                writeln!(f, "<h2 id=\"state\" class=\"bad\">Trouble: {problems}</h2>")?;
            }
        }
        if !status.problems.is_empty() {
            f.write_str("<ul>\n")?;
            for problem in status.problems.iter().take(LISTED) {
                writeln!(f, "<li>{}</li>", EscapedSentence(problem))?;
            }
            if let Some(more) = status.problems.len().checked_sub(LISTED + 1) {
                writeln!(f, "<li>and {} more</li>", Count(more as u64 + 1))?;
            }
            f.write_str("</ul>\n")?;
        }
        writeln!(
            f,
            "<p>{}, {}, {}, {} at risk.</p>",
            Counted(status.listeners.len() as u64, "listener"),
            Counted(status.open, "open connection"),
            Counted(status.zombies.total(), "zombie"),
            Count(status.at_risk)
        )?;
        self.write_losses(f)?;
        self.write_moment(f)?;
        f.write_str("</section>\n")
    }
}

impl StateSection<'_> {
    fn write_losses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status.losses.is_empty() {
            return Ok(());
        }
        f.write_str(
            "<div class=\"scroll\" role=\"group\" aria-labelledby=\"losses\" tabindex=\"0\">\n<table>\n\
             <caption id=\"losses\">Lost before it was counted or delivered</caption>\n\
             <thead><tr><th scope=\"col\">Place</th><th scope=\"col\">Reason</th>\
             <th scope=\"col\">Last 5 minutes</th><th scope=\"col\">Since the start</th></tr></thead>\n<tbody>\n",
        )?;
        for loss in &self.status.losses {
            writeln!(
                f,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
                Escaped(&loss.ring),
                Escaped(&loss.reason),
                Count(loss.last_five_minutes),
                Count(loss.total)
            )?;
        }
        f.write_str("</tbody>\n</table>\n</div>\n")
    }

    /// When this was so, and how to see what is so now.
    fn write_moment(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        writeln!(
            f,
            "<p class=\"quiet\">At {} UTC, up for {}, on Linux {}.",
            status.ts.strftime("%Y-%m-%d %H:%M:%S"),
            Seconds(status.uptime_seconds),
            Escaped(&status.kernel)
        )?;
        match self.reloads {
            true => f.write_str(
                "The page loads again every 30 seconds. <a href=\"/\">Stop loading again</a></p>\n",
            ),
            false => writeln!(
                f,
                "<a href=\"/?{RELOADING}\">Load again every 30 seconds</a></p>"
            ),
        }
    }
}
