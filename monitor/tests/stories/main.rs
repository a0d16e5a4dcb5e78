//! Situations from public reports, each a row of a table: who does what when, and what must be reported. They
//! run in virtual time through the packet logic and the core, without a kernel.
//!
//! A row is added to the file of its theme; [`story`] has the words it is written in.

#[expect(dead_code, reason = "the tests of recordings use more of it")]
#[path = "../replay/packets.rs"]
mod packets;
#[path = "../../../monitor-common/tests/ws/mod.rs"]
mod ws;

mod check;
mod story;
mod world;

mod closes;
mod crowds;
mod handshakes;
mod heartbeats;
mod idle;
mod paths;
mod readers;
mod self_test;
mod sockets;

use story::Story;

/// Checks every row, and fails with all that is wrong.
fn assert_all(stories: Vec<Story>) {
    let wrong: Vec<_> = stories.iter().flat_map(check::check).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn there_are_sixty_and_no_name_is_used_twice() {
    let packets = [
        idle::stories(),
        heartbeats::stories(),
        paths::stories(),
        closes::stories(),
        readers::stories(),
        handshakes::stories(),
        crowds::stories(),
    ];
    let of_packets = packets.iter().flatten().map(|story| story.name);
    let of_sockets = sockets::stories().into_iter().map(|story| story.name);
    let mut names: Vec<_> = of_packets.chain(of_sockets).collect();
    let rows = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rows, "a name is used twice");
    assert!(rows >= 60, "{rows}");
}
