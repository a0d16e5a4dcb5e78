//! `wsmon profiles`: lists the middleboxes with known limits.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;
use humantime::format_duration;

use super::{
    exit::{CommandResult, Failure},
    format_args::FormatArgs,
    table::{Column, Table},
};
use crate::config::profiles::{self, Idle, Profile, Seconds, TriState};

/// List the limits of load balancers, proxies, NATs and firewalls.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon profiles                       all of them
  wsmon profiles aws-alb               one in full, with its source
  wsmon profiles --json | jq -r '.[] | select(.on_expiry == \"silent\") | .name'
  wsmon run --port 8080 --lb aws-alb   use one

These are defaults. If yours is configured differently, give --lb-timeout (or
idle_timeout in a file). A limit of \"yours\" has no default.

Exit status: 0, 2 if there is no such profile.")]
pub struct ProfilesArgs {
    /// Show all fields of this profile
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    #[command(flatten)]
    pub format: FormatArgs,
}

pub fn run(args: &ProfilesArgs) -> CommandResult {
    let shown: Vec<&Profile> = match &args.name {
        Some(name) => {
            vec![profiles::find(name).map_err(|error| Failure::usage(error.to_string()))?]
        }
        None => profiles::all().iter().collect(),
    };
    let mut out = io::stdout().lock();
    let printed = match shown.as_slice() {
        profiles if args.format.is_json() => serde_json::to_writer_pretty(&mut out, profiles)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out)),
        [profile] => write!(out, "{}", InFull(profile)),
        profiles => table(profiles, args.format.table_width())
            .iter()
            .try_for_each(|line| writeln!(out, "{line}")),
    };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot print: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// One line per profile.
fn table(profiles: &[&Profile], limit: Option<usize>) -> Vec<String> {
    let mut table = Table::new(COLUMNS, limit);
    let mut lines: Vec<_> = profiles.iter().flat_map(|p| table.push(row(p))).collect();
    lines.append(&mut table.finish());
    lines
}

const COLUMNS: [Column; 8] = [
    Column::new("NAME"),
    Column::new("IDLE"),
    Column::new("COUNTS"),
    Column::new("DIRECTION").left_out(3),
    Column::new("ON EXPIRY"),
    Column::new("LIFETIME"),
    Column::new("CONFIDENCE").left_out(2),
    Column::new("SOURCE").shortened_to(20).left_out(1),
];

fn row(profile: &Profile) -> [String; 8] {
    let lifetime = profile
        .max_lifetime
        .map(|limit| format_duration(limit).to_string());
    [
        profile.name.clone(),
        idle(profile),
        profile.activity.as_str().to_owned(),
        profile.direction.as_str().to_owned(),
        profile.on_expiry.as_str().to_owned(),
        lifetime.unwrap_or_else(|| "-".to_owned()),
        profile.confidence.as_str().to_owned(),
        profile.source.clone(),
    ]
}

fn idle(profile: &Profile) -> String {
    match profile.idle_timeout {
        Idle::After(limit) => format_duration(limit).to_string(),
        Idle::Never => "never".to_owned(),
        Idle::Yours => "yours".to_owned(),
    }
}

/// All fields of one profile.
struct InFull<'a>(&'a Profile);

impl fmt::Display for InFull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profile = self.0;
        let known = |what: &str, known: TriState| match known {
            TriState::Yes => format!("{what} count"),
            TriState::No => format!("{what} do not count"),
            TriState::Unknown => format!("whether {what} count is unknown"),
        };
        let mut facts = vec![("idle timeout", idle(profile))];
        if let Some(range) = profile.range {
            let range = match range.least == range.greatest {
                true => "it cannot be changed".to_owned(),
                false => format!("{} to {}", Seconds(range.least), Seconds(range.greatest)),
            };
            facts.push(("range", range));
        }
        facts.extend(profile.knob.clone().map(|knob| ("set with", knob)));
        facts.push((
            "counts",
            format!(
                "{}, in {} direction; {}; {}",
                profile.activity.as_str(),
                profile.direction.as_str(),
                known("TCP keepalives", profile.tcp_keepalive_counts),
                known("WebSocket pings", profile.ws_ping_counts)
            ),
        ));
        facts.push(("on expiry", profile.on_expiry.as_str().to_owned()));
        let lifetime = profile
            .max_lifetime
            .map(|limit| format_duration(limit).to_string());
        facts.push((
            "lifetime",
            lifetime.unwrap_or_else(|| "no limit".to_owned()),
        ));
        facts.extend(profile.note.clone().map(|note| ("note", note)));
        facts.push(("confidence", profile.confidence.as_str().to_owned()));
        facts.push(("source", profile.source.clone()));
        writeln!(f, "{}", profile.name)?;
        for (what, fact) in facts {
            writeln!(f, "  {what:12}  {fact}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_the_terminal_and_is_whole_in_a_pipe() {
        let profiles: Vec<_> = profiles::all().iter().collect();
        for width in [40, 80, 120] {
            let lines = table(&profiles, Some(width));
            assert!(lines.iter().all(|line| line.chars().count() <= width));
        }
        let whole = table(&profiles, None);
        assert_eq!(whole.len(), 1 + profiles.len());
        for (line, profile) in whole[1..].iter().zip(profiles) {
            assert!(line.starts_with(&format!("{} ", profile.name)), "{line}");
            assert!(line.ends_with(&profile.source), "{line}");
        }
    }

    #[test]
    fn one_profile_is_shown_in_full() {
        let text = InFull(profiles::find("nginx").expect("it exists")).to_string();
        for part in [
            "1m",
            "proxy_read_timeout",
            "TCP keepalives do not count",
            "fin",
            "measured",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
