//! One file per command.

use clap::{Parser, Subcommand};

pub mod check;
pub mod client;
pub mod config;
pub mod describe;
pub mod exit;
pub mod filter;
pub mod frames;
pub mod inspect;
pub mod list;
pub mod profiles;
pub mod replay;
pub mod run;
pub mod screen;
pub mod watch;

/// See dead WebSocket connections from inside the kernel, before the application does.
#[derive(Debug, Parser)]
#[command(name = "wsmon", version, arg_required_else_help = true)]
#[command(after_help = "\
Start with:
  wsmon check                                   check the prerequisites
  wsmon run --port 8080 --lb-timeout 60s        watch port 8080 behind a 60 s load balancer
  wsmon run --port 8080 --lb aws-alb            the same, with the limit of that load balancer
  wsmon profiles                                known load balancers, proxies and NATs
  wsmon config example                          an example configuration file
  wsmon list                                    watched connections
  wsmon frames                                  WebSocket frames as they pass
  wsmon replay --lb-timeout 60s capture.pcap    the same rules for a recording")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    List(list::ListArgs),
    Inspect(inspect::InspectArgs),
    Frames(frames::FramesArgs),
    Replay(replay::ReplayArgs),
    Profiles(profiles::ProfilesArgs),
    Config(config::ConfigArgs),
}
