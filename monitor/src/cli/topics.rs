//! Help on subjects that are not a command: `wsmon help zombies`, `wsmon help verdicts`.

use std::{
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use clap::{
    CommandFactory, Subcommand,
    error::{ContextKind, ContextValue},
};

use super::{
    Cli,
    exit::{CommandResult, Failure},
    wrap::{NARROW, wrap},
};
use crate::config::profiles::nearest;

/// Subjects of `wsmon help`. As commands they print the same text.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Topic {
    /// Make a zombie of your own and watch it
    #[command(hide = true, help_template = "{about}", long_about = ZOMBIES)]
    Zombies,
    /// What each verdict means, and what to do about it
    #[command(hide = true, help_template = "{about}", long_about = verdicts())]
    Verdicts,
}

const ZOMBIES: &str = "\
A zombie is a connection that looks open and is dead. To see one, stop a
client of your WebSocket server. Its kernel still acknowledges, and its
process is silent:

  sudo wsmon run --port 8080 --lb-timeout 60s    watch the server's port
  pgrep -f NAME                                  find the PID of the client
  kill -STOP PID                                 stop it
  sudo wsmon top                                 watch it, in another terminal
  kill -CONT PID                                 let it go on

If `wsmon run` watches the port already, use that one. Its limit must be
longer than the server's ping interval. Otherwise, healthy connections are
`expired` between two pings.

If the server sends pings, the connection is `unresponsive` after the second
one without a pong. Without pings it is `expired` after the limit, like every
other connection that is silent for so long. The verdict ends when the client
sends something, such as the pongs that it owes. `wsmon run` then prints
`resolved … heard again`.

`wsmon help verdicts` lists what else can be wrong.";

/// The page from which the verdicts are taken.
const ALERTS: &str = include_str!("../../../docs/alerts.md");

pub fn run(topic: Topic) -> CommandResult {
    let text = match topic {
        Topic::Zombies => ZOMBIES.to_owned(),
        Topic::Verdicts => verdicts(),
    };
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot print: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Adds the nearest command or topic to the error of `wsmon help NAME`, where clap suggests none.
pub fn suggested(mut error: clap::Error) -> clap::Error {
    let wrong = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(wrong)) => wrong.clone(),
        _ => return error,
    };
    if error.get(ContextKind::SuggestedSubcommand).is_some() {
        return error;
    }
    let cli = Cli::command();
    let names = cli.get_subcommands().map(clap::Command::get_name);
    if let Some(near) = nearest(&wrong, names) {
        let near = ContextValue::Strings(vec![near.to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, near);
    }
    error
}

/// Every alert of the page, with its meaning and the first thing to do.
fn verdicts() -> String {
    const WIDTH: usize = 17;
    let indent = " ".repeat(WIDTH);
    let mut lines = Vec::new();
    for (name, meaning) in meanings() {
        lines.extend(wrap(meaning, NARROW, &format!("{name:WIDTH$}"), &indent));
        lines.extend(wrap(&remedy(name), NARROW, &indent, &indent));
    }
    lines.push(String::new());
    lines.push("The first six are zombies. `wsmon help zombies` shows how to make one.".to_owned());
    lines.join("\n")
}

/// The names and meanings in the page's first table.
fn meanings() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALERTS.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| [`")?.split_once('`')?;
        Some((name, rest.split('|').nth(1)?.trim()))
    })
}

/// The first sentence after "What to do." in the section of an alert, as one line.
fn remedy(name: &str) -> String {
    let section = ALERTS.split("\n### ").find(|section| {
        let title = section.split('`').nth(1);
        title == Some(name)
    });
    let remedy = section.and_then(|section| section.split_once("*What to do.* "));
    let (_, remedy) = remedy.unwrap_or_default();
    let paragraph = remedy.split("\n\n").next().unwrap_or_default();
    let words = paragraph.replace('\n', " ");
    match words.split_once(". ") {
        Some((sentence, _)) => format!("{sentence}."),
        None => words.trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use monitor_core::VerdictKind;

    #[test]
    fn every_verdict_has_its_meaning_and_a_remedy() {
        let names: Vec<_> = meanings().map(|(name, _)| name).collect();
        for kind in VerdictKind::ALL {
            assert!(names.contains(&kind.as_str()), "{}", kind.as_str());
        }
        assert_eq!(names.len(), VerdictKind::ALL.len() + 4, "{names:?}");
        for (name, meaning) in meanings() {
            assert!(!meaning.is_empty(), "{name}");
            let remedy = remedy(name);
            assert!(
                remedy.ends_with('.') && remedy.len() > 20,
                "{name}: {remedy}"
            );
        }
        let zombies = VerdictKind::zombies().map(VerdictKind::as_str);
        assert_eq!(
            zombies.collect::<Vec<_>>(),
            names[..6],
            "the last line says so"
        );
    }

    #[test]
    fn the_text_is_that_of_the_page_and_fits_a_narrow_terminal() {
        let text = verdicts();
        assert!(
            text.starts_with(
                "expired          silent for longer than the load balancer remembers\n                 \
                 Send heartbeats from the server, at intervals of at most a"
            ),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= NARROW),
            "{text}"
        );
    }
}
