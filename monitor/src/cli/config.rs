//! `wsmon config`: checks and explains the configuration file.

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use humantime::format_duration;

use super::{
    describe::{self, gives_up},
    exit::{CommandResult, Failure},
};
#[cfg(feature = "daemon")]
use crate::api::access::Access;
use crate::{
    config::{Config, ConfigError, EXAMPLE, Problem, listeners::ListenerConfig},
    diagnostics::stderr_line,
};
use monitor_core::{Hop, hop};

/// Check a configuration file, or print an example.
#[derive(Args, Clone, Debug)]
#[command(arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  wsmon config example > wsmon.toml      every key, with its default
  wsmon config check wsmon.toml          its errors, or what would be watched
  wsmon config check --web-config web.yml
      the errors of a web configuration, its certificates and its key

The file that the key web_config names is checked, too.

docs/running.md explains every key.

Exit status: 0 if the files are valid, 2 if not.")]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print all errors of a file by line and column, or its meaning
    Check(CheckArgs),
    /// Print an example that shows every key
    Example,
}

#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(value_name = "FILE")]
    #[cfg_attr(feature = "daemon", arg(required_unless_present = "web_config"))]
    #[cfg_attr(not(feature = "daemon"), arg(required = true))]
    pub file: Option<PathBuf>,

    /// Web configuration file to check in place of the one that FILE names, or alone
    #[cfg(feature = "daemon")]
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<PathBuf>,
}

pub fn run(args: &ConfigArgs) -> CommandResult {
    match &args.command {
        ConfigCommand::Example => print(EXAMPLE)?,
        ConfigCommand::Check(args) => check(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints what the files mean. An invalid one does not hide what the other means.
fn check(args: &CheckArgs) -> Result<(), Failure> {
    let config = args.file.as_deref().map(read).transpose();
    let valid = config.as_ref().ok().and_then(Option::as_ref);
    let named = valid.and_then(|it| it.daemon.web_config.as_deref());
    #[cfg(feature = "daemon")]
    let named = args.web_config.as_deref().or(named);
    let web_config = named.map_or(Ok(()), check_web_config);
    if let Some((file, config)) = args.file.as_deref().zip(valid) {
        print(&ConfigText(file, config).to_string())?;
    }
    match (config, web_config) {
        (Err(failure), Err(other)) => {
            stderr_line!("wsmon: {other}");
            Err(failure)
        }
        (config, web_config) => config.and(web_config),
    }
}

/// Checks a web configuration as the start does, with the files that it names.
fn check_web_config(file: &Path) -> Result<(), Failure> {
    #[cfg(feature = "daemon")]
    {
        // Without the line of the file, which may have a password.
        Access::open(Some(file)).map_err(|error| Failure::usage(error.to_string()))?;
        print(&format!("{} is valid\n", file.display()))
    }
    #[cfg(not(feature = "daemon"))]
    {
        stderr_line!(
            "warning: this build of wsmon cannot check {}",
            file.display()
        );
        Ok(())
    }
}

/// Reads a configuration file, and prints its problems.
fn read(file: &Path) -> Result<Config, Failure> {
    match Config::read(file) {
        Ok(config) => {
            for warning in &config.warnings {
                drop(write!(
                    io::stderr(),
                    "{}",
                    Pointed(file, "warning: ", warning)
                ));
            }
            if config.listeners.is_empty() {
                stderr_line!(
                    "{}: warning: no listener; `wsmon run` needs --port or --remote-port with it",
                    file.display()
                );
            }
            Ok(config)
        }
        Err(ConfigError::Wrong { problems, .. }) => {
            for problem in problems.iter() {
                drop(write!(io::stderr(), "{}", Pointed(file, "", problem)));
            }
            let message = match problems.iter().count() {
                1 => "1 error".to_owned(),
                count => format!("{count} errors"),
            };
            Err(Failure::usage(format!("{}: {message}", file.display())))
        }
        Err(error) => Err(Failure::usage(error.to_string())),
    }
}

/// A problem with its line of the file and a marker below it.
struct Pointed<'a>(&'a Path, &'static str, &'a Problem);

impl fmt::Display for Pointed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(file, grade, problem) = self;
        let Problem {
            line,
            column,
            message,
            text,
            width,
        } = problem;
        writeln!(f, "{}:{line}:{column}: {grade}{message}", file.display())?;
        // Tabs stay tabs, so that the marker aligns with the text.
        let indent: String = text
            .chars()
            .take(column - 1)
            .map(|c| if c == '\t' { c } else { ' ' })
            .collect();
        let margin = line.to_string().len();
        writeln!(f, "{line} | {text}")?;
        writeln!(f, "{:margin$} | {indent}{}", "", "^".repeat(*width))
    }
}

/// What would be watched.
struct ConfigText<'a>(&'a Path, &'a Config);

impl fmt::Display for ConfigText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(file, config) = self;
        writeln!(f, "{} is valid", file.display())?;
        for listener in &config.listeners {
            writeln!(f, "\n{}", ListenerMeaning(listener))?;
        }
        Ok(())
    }
}

struct ListenerMeaning<'a>(&'a ListenerConfig);

impl fmt::Display for ListenerMeaning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &self.0.rules;
        writeln!(f, "listener {}", describe::title(self.0))?;
        write!(f, "  {}", describe::timeouts(rules))?;
        write!(f, "\n  path{}", PathMeaning(&rules.path))?;
        for route in &rules.routes {
            write!(
                f,
                "\n  path of peers in {}{}",
                route.network,
                PathMeaning(&route.path)
            )?;
        }
        Ok(())
    }
}

/// Every hop, which of them is effective, and the heartbeat it requires.
struct PathMeaning<'a>(&'a hop::Path);

impl fmt::Display for PathMeaning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hops = &self.0.hops;
        if hops.is_empty() {
            return f.write_str(": unknown, so nothing is called expired");
        }
        let tightest = self.0.tightest();
        let name_width = hops.iter().map(|hop| hop.name.chars().count()).max();
        let width = name_width.unwrap_or_default();
        for hop in hops {
            let mark = match tightest.filter(|tightest| hops.len() > 1 && tightest.name == hop.name)
            {
                Some(_) => "  <- the tightest",
                None => "",
            };
            write!(f, "\n    {:width$}  {}{mark}", hop.name, HopMeaning(hop))?;
        }
        match tightest.and_then(|hop| Some((hop, hop.idle_timeout?))) {
            Some((hop, limit)) => {
                let interval = format_duration(describe::heartbeat(limit));
                write!(
                    f,
                    "\n    heartbeat: every {interval} or more often{}",
                    what_counts(hop)
                )
            }
            None => write!(
                f,
                "\n    no idle limit, so no heartbeat is needed for this path"
            ),
        }
    }
}

/// The heartbeat this hop requires.
fn what_counts(hop: &Hop) -> &'static str {
    match (hop.activity, hop.direction) {
        (hop::Activity::Packet, hop::Directions::Either) => "",
        (hop::Activity::Payload, hop::Directions::Either) => "; TCP keepalives do not count",
        (hop::Activity::Packet, hop::Directions::Each) => ", in both directions",
        (hop::Activity::Payload, hop::Directions::Each) => {
            ", in both directions; TCP keepalives do not count"
        }
    }
}

struct HopMeaning<'a>(&'a Hop);

impl fmt::Display for HopMeaning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hop {
            idle_timeout,
            max_lifetime,
            activity,
            direction,
            on_expiry,
            ..
        } = self.0;
        match idle_timeout {
            Some(limit) => write!(
                f,
                "idle limit {} of no {} in {} direction, {}",
                format_duration(*limit),
                activity.as_str(),
                direction.as_str(),
                gives_up(*on_expiry)
            )?,
            None => f.write_str("no idle limit")?,
        }
        match max_lifetime {
            Some(limit) => write!(f, ", closes at the age of {}", format_duration(*limit)),
            None => Ok(()),
        }
    }
}
