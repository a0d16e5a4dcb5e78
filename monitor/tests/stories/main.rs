//! Situations from public reports, each a row of a table: the steps of both ends, their times, and the
//! expected reports. They run in virtual time through the packet logic and the core, without a kernel.
//! A third of them also runs with real sockets and the real daemon ([`live`]).
//!
//! Add a row to the file of its theme; [`story`] defines the language of the rows.

mod check;
mod frames;
mod live;
mod story;
mod world;

mod closes;
mod crowds;
mod handshakes;
mod heartbeats;
mod idle;
mod multipath;
mod paths;
mod readers;
mod self_test;
mod sockets;

use story::Story;

/// Checks every row, and fails with all mismatches.
fn assert_all(stories: Vec<Story>) {
    let wrong: Vec<_> = stories.iter().flat_map(check::check).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Every row of packets.
fn all() -> Vec<Story> {
    let themes = [
        idle::stories(),
        heartbeats::stories(),
        paths::stories(),
        closes::stories(),
        readers::stories(),
        multipath::stories(),
        handshakes::stories(),
        crowds::stories(),
    ];
    themes.into_iter().flatten().collect()
}

#[test]
fn a_third_runs_live_and_every_name_is_unique() {
    let stories = all();
    let of_packets = stories.iter().map(|story| story.name);
    let of_sockets = sockets::stories().into_iter().map(|story| story.name);
    let mut names: Vec<_> = of_packets.chain(of_sockets).collect();
    let rows = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rows, "a name is used twice");
    let live = stories.iter().filter(|story| story.live.is_some()).count();
    assert!(3 * live >= rows, "{live} of {rows}");
}
