//! One file per command.

use clap::{Parser, Subcommand};

pub mod alerts;
#[cfg(feature = "daemon")]
pub mod check;
pub mod client;
pub mod color;
pub mod completions;
pub mod config;
pub mod connection_name;
pub mod describe;
pub mod environment;
pub mod exit;
pub mod filter;
pub mod format_args;
pub mod frames;
pub mod inspect;
pub mod list;
pub mod man;
mod number;
mod owner;
#[cfg(feature = "daemon")]
pub mod ports;
pub mod profiles;
pub mod replay;
#[cfg(feature = "daemon")]
pub mod run;
pub mod screen;
pub mod status;
mod stop_signals;
pub mod table;
pub mod top;
pub mod topics;
mod totals;
pub mod watch;
pub mod wrap;

use log::LevelFilter;

use exit::CommandResult;

#[cfg(feature = "daemon")]
const EXAMPLES: &str = "\
Start with:
  wsmon check                                   check the prerequisites
  wsmon ports                                   listening sockets and owners
  wsmon run --port 8080 --lb-timeout 60s        a port behind a load balancer
  wsmon run --port 8080 --lb aws-alb            with the limit of an ALB
  wsmon profiles                                load balancers and their limits
  wsmon config example                          an example configuration file
  wsmon status                                  whether all is well
  wsmon alerts                                  what is wrong now
  wsmon list                                    watched connections
  wsmon top                                     connections live, verdicts first
  wsmon frames                                  WebSocket frames as they pass
  wsmon replay --lb-timeout 60s capture.pcap    the same rules for a recording

Topics:
  wsmon help zombies                            make a zombie and watch it
  wsmon help verdicts                           each verdict, and what to do";

#[cfg(not(feature = "daemon"))]
const EXAMPLES: &str = "\
This build has no daemon. Start with:
  wsmon replay --lb-timeout 60s capture.pcap    zombies in a recording
  wsmon profiles                                load balancers and their limits
  wsmon config example                          an example configuration file

Topics:
  wsmon help zombies                            make a zombie and watch it
  wsmon help verdicts                           each verdict, and what to do";

/// Find dead WebSocket connections from inside the kernel, before applications do.
#[derive(Debug, Parser)]
#[command(name = "wsmon", version, arg_required_else_help = true)]
#[command(after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[cfg(feature = "daemon")]
    #[command(mut_args(environment::settable))]
    Run(Box<run::RunArgs>),
    #[cfg(feature = "daemon")]
    Check(check::CheckArgs),
    #[cfg(feature = "daemon")]
    Ports(ports::PortsArgs),
    #[command(mut_arg("control", environment::settable))]
    Status(status::StatusArgs),
    #[command(mut_arg("control", environment::settable))]
    List(list::ListArgs),
    #[command(mut_arg("control", environment::settable))]
    Top(top::TopArgs),
    #[command(mut_arg("control", environment::settable))]
    Alerts(alerts::AlertsArgs),
    #[command(mut_arg("control", environment::settable))]
    Inspect(inspect::InspectArgs),
    #[command(mut_arg("control", environment::settable))]
    Frames(frames::FramesArgs),
    Replay(replay::ReplayArgs),
    Profiles(profiles::ProfilesArgs),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    Man(man::ManArgs),
    #[command(flatten)]
    Topic(topics::Topic),
}

impl Command {
    pub fn run(&self) -> CommandResult {
        match self {
            #[cfg(feature = "daemon")]
            Self::Run(args) => run::run(args),
            #[cfg(feature = "daemon")]
            Self::Check(args) => check::run(args),
            #[cfg(feature = "daemon")]
            Self::Ports(args) => ports::run(args),
            Self::Status(args) => status::run(args),
            Self::List(args) => list::run(args),
            Self::Top(args) => top::run(args),
            Self::Alerts(args) => alerts::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Frames(args) => frames::run(args),
            Self::Replay(args) => replay::run(args),
            Self::Profiles(args) => profiles::run(args),
            Self::Config(args) => config::run(args),
            Self::Completions(args) => completions::print(args),
            Self::Man(args) => man::run(args),
            Self::Topic(topic) => topics::run(*topic),
        }
    }

    /// The lines of the log that the command writes, unless `RUST_LOG` selects others.
    pub fn log_level(&self) -> LevelFilter {
        match self {
            #[cfg(feature = "daemon")]
            Self::Run(args) => args.verbosity.level(),
            _ => LevelFilter::Warn,
        }
    }
}
