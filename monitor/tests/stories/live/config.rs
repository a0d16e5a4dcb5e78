//! The rules of the rows as a configuration file of the daemon.

use std::{fmt::Write, time::Duration};

use monitor_core::Hop;

use super::Row;

/// The name of a row's listener.
pub(super) fn name(row: &Row) -> String {
    format!("row-{}", row.network)
}

/// The file.
pub(super) fn of(rows: &[Row]) -> String {
    let mut file = String::new();
    for row in rows {
        let rules = &row.story.rules;
        let hops = rules.path.hops.iter().enumerate();
        let path: Vec<_> = hops.map(|(n, hop)| path_entry(n, hop, row.speed)).collect();
        let gap = rules.message_gap.map_or(String::new(), |gap| {
            format!("message_gap = {}\n", scaled(gap, row.speed))
        });
        write!(
            file,
            "[[listener]]\nname = \"{}\"\nports = [\"{}\"]\nremote = {}\nping_timeout = {}\n\
             unresponsive_floor = {}\n{gap}path = [{}]\n\n",
            name(row),
            row.server.port(),
            row.story.is_outgoing,
            scaled(rules.ping_timeout, row.speed),
            scaled(rules.unresponsive_floor, row.speed),
            path.join(", "),
        )
        .expect("a string has room");
    }
    file
}

fn path_entry(n: usize, hop: &Hop, speed: f64) -> String {
    let limit = |key: &str, limit: Option<Duration>| {
        limit.map_or(String::new(), |limit| {
            format!(", {key} = {}", scaled(limit, speed))
        })
    };
    format!(
        "{{ name = \"hop-{n}\", activity = \"{}\", direction = \"{}\", on_expiry = \"{}\"{}{} }}",
        hop.activity.as_str(),
        hop.direction.as_str(),
        hop.on_expiry.as_str(),
        limit("idle_timeout", hop.idle_timeout),
        limit("max_lifetime", hop.max_lifetime),
    )
}

fn scaled(limit: Duration, speed: f64) -> String {
    format!("\"{}ms\"", limit.div_f64(speed).as_millis())
}
