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
pub mod exit;
pub mod filter;
pub mod format_args;
pub mod frames;
pub mod inspect;
pub mod list;
pub mod man;
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
mod totals;
pub mod watch;

use exit::CommandResult;

#[cfg(feature = "daemon")]
const EXAMPLES: &str = "\
Start with:
  wsmon check                                   check the prerequisites
  wsmon ports                                   listening sockets with their owners
  wsmon run --port 8080 --lb-timeout 60s        watch port 8080 behind a 60 s load balancer
  wsmon run --port 8080 --lb aws-alb            the same, with the limit of that load balancer
  wsmon profiles                                known load balancers, proxies and NATs
  wsmon config example                          an example configuration file
  wsmon status                                  whether all is well
  wsmon alerts                                  what is wrong now
  wsmon list                                    watched connections
  wsmon top                                     connections with verdicts first, live
  wsmon frames                                  WebSocket frames as they pass
  wsmon replay --lb-timeout 60s capture.pcap    the same rules for a recording";

#[cfg(not(feature = "daemon"))]
const EXAMPLES: &str = "\
This build has no daemon. Start with:
  wsmon replay --lb-timeout 60s capture.pcap    find dead connections in a recording
  wsmon profiles                                known load balancers, proxies and NATs
  wsmon config example                          an example configuration file";

/// See dead WebSocket connections from inside the kernel, before the application does.
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
    Run(Box<run::RunArgs>),
    #[cfg(feature = "daemon")]
    Check(check::CheckArgs),
    #[cfg(feature = "daemon")]
    Ports(ports::PortsArgs),
    Status(status::StatusArgs),
    List(list::ListArgs),
    Top(top::TopArgs),
    Alerts(alerts::AlertsArgs),
    Inspect(inspect::InspectArgs),
    Frames(frames::FramesArgs),
    Replay(replay::ReplayArgs),
    Profiles(profiles::ProfilesArgs),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    Man(man::ManArgs),
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
        }
    }
}
