//! `wsmon frames`: shows frames as they arrive.

mod no_frames;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    client::{self, DEFAULT_CONTROL},
    connection_name::ConnectionName,
    exit::{CommandResult, Failure},
    filter::FilterArgs,
    format_args::FormatArgs,
    number,
    screen::{self, Shown},
};
use crate::{
    diagnostics::stderr_line,
    records::{
        frames::{FrameLayout, FrameRecord, FrameRow, OneIn},
        loss::LossRecord,
    },
};

/// Show WebSocket frames as they pass, without their payload.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon frames                          every frame on every watched connection
  wsmon frames --control-only           pings, pongs and closes
  wsmon frames 10.0.0.7:53787           one connection
  wsmon frames 315653 -n 20             its next 20 frames, by its cookie
  wsmon frames --peer 10.0.0.0/8 --opcode text --direction rx
  wsmon frames --sample 1/100 --json | jq .length

Needs a running `wsmon run`. Frame headers leave the kernel only while a
viewer is connected. Lost frames are reported where they are missing. Times
are UTC, directions are seen from this host.

Exit status: 0 after --count frames, Ctrl-C, or the end of the pipe's reader;
1 if there is no daemon, it stopped, or no such connection is open; 2 for
invalid input; 3 if this user may not connect.")]
pub struct FramesArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONTROL)]
    pub control: PathBuf,

    #[command(flatten)]
    pub filter: FilterArgs,

    /// Show a share of the frames of each connection
    #[arg(long, value_name = "1/N", default_value_t = OneIn::ALL)]
    pub sample: OneIn,

    #[command(flatten)]
    pub format: FormatArgs,

    /// Stop after this many frames
    #[arg(short = 'n', long, value_name = "N", value_parser = number::count)]
    pub count: Option<u64>,
}

/// Runs until interrupted.
pub fn run(args: &FramesArgs) -> CommandResult {
    screen::block_on(screen::until_interrupted(show(args)))?
}

/// How long a viewer waits before it is told why there may be no frames.
const SILENCE: Duration = Duration::from_secs(5);

async fn show(args: &FramesArgs) -> CommandResult {
    let mut lines = client::get(&args.control, &target(args)).await?;
    if let Some(ports) = &lines.unserved {
        // On stderr, because the frames may go to another program.
        stderr_line!("nobody listens on {ports}, see wsmon ports");
    }
    let mut out = io::stdout();
    let layout = FrameLayout::of_width(args.format.table_width());
    if !args.format.is_json() && write(&mut out, layout.head())? == Shown::NobodyReads {
        return Ok(ExitCode::SUCCESS);
    }
    let mut frames = 0;
    let mut explains = io::stderr().is_terminal();
    while args.count.is_none_or(|count| frames < count) {
        let next = lines.next_of_stream();
        tokio::pin!(next);
        let line = match std::mem::take(&mut explains) {
            true => match timeout(SILENCE, &mut next).await {
                Ok(line) => line,
                Err(_) => {
                    stderr_line!("{}", no_frames::explanation(args).await?);
                    next.await
                }
            },
            false => next.await,
        }?;
        let record: ViewedRecord = client::read(&line)?;
        frames += u64::from(matches!(record, ViewedRecord::Frame(_)));
        let shown = match (args.format.is_json(), &record) {
            (true, _) => screen::write_line(&mut out, &line),
            (false, ViewedRecord::Frame(frame)) => {
                write(&mut out, &FrameRow { frame, layout }.to_string())
            }
            (false, ViewedRecord::Lost(loss)) => write(&mut out, &lost(loss)),
        }?;
        if shown == Shown::NobodyReads {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A line of the stream.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ViewedRecord {
    Frame(FrameRecord),
    Lost(LossRecord),
}

fn lost(loss: &LossRecord) -> String {
    let LossRecord { kernel, viewer } = *loss;
    let mut causes = Vec::new();
    if kernel > 0 {
        causes.push(format!("{kernel} in the kernel, of all connections"));
    }
    if viewer > 0 {
        causes.push(format!(
            "{viewer} because they were not read fast enough here"
        ));
    }
    format!(
        "-- lost: {} (--sample 1/N shows a share)",
        causes.join(", ")
    )
}

fn write(out: &mut impl Write, line: &str) -> Result<Shown, Failure> {
    screen::write_line(out, line.as_bytes())
}

fn target(args: &FramesArgs) -> String {
    let filter = &args.filter;
    let text = |value: Option<&dyn ToString>| value.map(ToString::to_string);
    let (cookie, endpoint) = match filter.connection {
        Some(ConnectionName::Cookie(cookie)) => (Some(cookie), None),
        Some(ConnectionName::Endpoint(endpoint)) => (filter.cookie, Some(endpoint)),
        None => (filter.cookie, None),
    };
    client::target(
        "/v1/frames",
        &[
            ("port", text(filter.port.as_ref().map(|v| v as _))),
            ("peer", text(filter.peer.as_ref().map(|v| v as _))),
            ("opcode", text(filter.opcode.as_ref().map(|v| v as _))),
            (
                "direction",
                filter.direction.map(|direction| direction.as_str().into()),
            ),
            ("endpoint", text(endpoint.as_ref().map(|v| v as _))),
            ("cookie", text(cookie.as_ref().map(|v| v as _))),
            (
                "control_only",
                filter.control_only.then(|| true.to_string()),
            ),
            (
                "sample",
                (args.sample != OneIn::ALL).then(|| args.sample.to_string()),
            ),
        ],
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        frames: FramesArgs,
    }

    fn target_of(args: &[&str]) -> String {
        let cli = Cli::try_parse_from([&["wsmon"], args].concat()).expect("valid flags");
        target(&cli.frames)
    }

    #[test]
    fn flags_become_filters_of_the_stream() {
        assert_eq!(target_of(&[]), "/v1/frames");
        let all = [
            "--port=8080",
            "--peer=10.0.0.0/8",
            "--opcode=ping,text",
            "--direction=rx",
            "--cookie=7",
            "--control-only",
            "--sample=1/10",
        ];
        assert_eq!(
            target_of(&all),
            "/v1/frames?port=8080&peer=10.0.0.0%2F8&opcode=text%2Cping&direction=rx&cookie=7&\
             control_only=true&sample=1%2F10"
        );
        assert_eq!(target_of(&["7"]), "/v1/frames?cookie=7");
        assert_eq!(target_of(&["--conn", "7"]), "/v1/frames?cookie=7");
        assert_eq!(
            target_of(&["[::1]:5000"]),
            "/v1/frames?endpoint=%5B%3A%3A1%5D%3A5000"
        );
    }

    #[test]
    fn losses_name_their_causes() {
        assert_eq!(
            lost(&LossRecord {
                kernel: 3,
                viewer: 0
            }),
            "-- lost: 3 in the kernel, of all connections (--sample 1/N shows a share)"
        );
        let both = lost(&LossRecord {
            kernel: 3,
            viewer: 4,
        });
        assert!(both.contains("3 in the kernel"), "{both}");
        assert!(both.contains("4 because"), "{both}");
    }
}
