//! Commands that are packages of their own in `tests`. xtask installs what they use and starts them,
//! so that the other commands don't have to compile them.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    root::{self, Prerequisite},
    setup, workspace,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Options of the command, shown by its `--help`
    #[arg(
        value_name = "OPTION",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    options: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Demo,
    Record,
    Page,
    Bench,
    Scale,
}

impl Program {
    /// Replaces this process.
    ///
    /// # Errors
    /// If something is missing, or cargo cannot be started.
    pub(crate) fn exec(self, args: &Args) -> Result<ExitCode> {
        let has = |option| args.options.iter().any(|given| given == option);
        let needs_nothing =
            has("--help") || has("-h") || (self == Self::Record && has("--hand-made"));
        if !needs_nothing {
            self.prepare()?;
        }
        Err(self.command(&args.options).exec()).context("could not start cargo")
    }

    /// The shortest run of a measurement: shows that it works and counts correctly, not how fast.
    ///
    /// # Errors
    /// If something is missing, or a check fails.
    pub(crate) fn run_briefly(self) -> Result<()> {
        self.prepare()?;
        let mut command = self.command(&["--brief".to_owned()]);
        workspace::skip_lto(&mut command);
        workspace::run(&mut command)
    }

    /// Installs the programs that it uses.
    fn prepare(self) -> Result<()> {
        let name = self.name();
        if self != Self::Page && !root::is_root() {
            let mut remedy = vec![root::as_root(name)];
            if self == Self::Record {
                remedy.push("without root: cargo xtask record --hand-made".to_owned());
            }
            return Err(Prerequisite {
                missing: format!("{name} makes network namespaces: it needs root"),
                remedy,
            }
            .into());
        }
        match self {
            Self::Page => setup::page_quietly(),
            Self::Bench => {
                setup::lab_quietly()?;
                // Without them it measures less.
                if let Err(error) = setup::bench_quietly() {
                    eprintln!("going on without: {error:#}");
                }
                Ok(())
            }
            Self::Record => setup::recording_quietly(),
            Self::Demo | Self::Scale => setup::lab_quietly(),
        }
    }

    fn command(self, options: &[String]) -> Command {
        let arguments: &[&str] = match self {
            Self::Demo | Self::Page | Self::Record => &[self.name(), "--"],
            Self::Bench | Self::Scale => &["measure", "--", self.name()],
        };
        let mut command = Command::new(workspace::cargo_path());
        command
            .args(["run", "--quiet", "--package"])
            .args(arguments)
            .args(options);
        command
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Record => "record",
            Self::Page => "page",
            Self::Bench => "bench",
            Self::Scale => "scale",
        }
    }
}
