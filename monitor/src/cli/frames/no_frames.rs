//! Why no frames are shown.

use super::FramesArgs;
use crate::{
    cli::{client, exit::Failure, screen::Grouped},
    records::connections::ConnectionRecord,
};

/// The connections whose protocol is examined.
const EXAMINED: usize = 256;

/// A line for a viewer that has seen no frame yet.
pub(super) async fn explanation(args: &FramesArgs) -> Result<String, Failure> {
    let target = format!("/v1/connections?limit={EXAMINED}");
    let mut lines = client::get(&args.control, &target).await?;
    let (mut examined, mut opaque) = (0, 0);
    while let Some(line) = lines.next().await? {
        let record: ConnectionRecord = client::read(&line)?;
        examined += 1;
        opaque += usize::from(record.protocol == "opaque");
    }
    let watched = lines.connections.unwrap_or(examined);
    Ok(text(
        watched,
        examined,
        opaque,
        super::target(args) != "/v1/frames",
    ))
}

fn text(watched: usize, examined: usize, opaque: usize, is_filtered: bool) -> String {
    let connections = Grouped(watched as u64);
    let why = if watched == 0 {
        "no connection is watched".to_owned()
    } else if opaque == examined {
        let which = match watched == examined {
            true => format!("all {connections}"),
            false => format!("the oldest {examined} of {connections}"),
        };
        format!(
            "{which} watched connections use TLS, which hides frames; wsmon list has the heartbeats \
             inferred from its records"
        )
    } else if is_filtered {
        format!("{connections} connections are watched, but none sent what the filter shows")
    } else {
        format!("{connections} connections are watched, but none sent a frame")
    };
    format!("no frame yet: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_named() {
        for ((watched, examined, opaque, is_filtered), cause) in [
            ((0, 0, 0, true), "no frame yet: no connection is watched"),
            (
                (2, 2, 2, true),
                "no frame yet: all 2 watched connections use TLS, which hides frames; wsmon list has the \
                 heartbeats inferred from its records",
            ),
            (
                (5_000, 256, 256, false),
                "no frame yet: the oldest 256 of 5,000 watched connections use TLS, which hides frames; \
                 wsmon list has the heartbeats inferred from its records",
            ),
            (
                (2, 2, 1, true),
                "no frame yet: 2 connections are watched, but none sent what the filter shows",
            ),
            (
                (2, 2, 0, false),
                "no frame yet: 2 connections are watched, but none sent a frame",
            ),
        ] {
            assert_eq!(text(watched, examined, opaque, is_filtered), cause);
        }
    }
}
