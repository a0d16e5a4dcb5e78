//! `wsmon completions`: completion scripts for shells.

use std::{
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{
    Cli,
    exit::{CommandResult, Failure},
};

/// Print a completion script for a shell.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon completions bash > /etc/bash_completion.d/wsmon
  wsmon completions zsh > /usr/share/zsh/vendor-completions/_wsmon
  wsmon completions fish > /etc/fish/completions/wsmon.fish
  source <(wsmon completions bash)                       for this shell only")]
pub struct CompletionsArgs {
    /// Shell to complete for
    pub shell: Shell,
}

pub fn print(args: &CompletionsArgs) -> CommandResult {
    // In memory first, because clap_complete panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "wsmon", &mut script);
    match io::stdout().write_all(&script) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot print: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
