//! Checks that the suite can fail.

use crate::{
    check::check,
    story::{Act::*, Step::*, *},
};

/// A client that dies behind a proxy: confirmed at 81 s.
fn dies() -> Story {
    story("dies", "self-test")
        .every(20.0, 20.0..120.0, Host(Ping))
        .at(50.0, PeerFreezes)
        .until(120.0)
}

#[track_caller]
fn fails(story: &Story, expected: &[&str]) {
    let wrong = check(story);
    assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
    for (wrong, expected) in wrong.iter().zip(expected) {
        assert!(
            wrong.starts_with(&format!("{} (self-test): ", story.name)),
            "{wrong}"
        );
        assert!(wrong.contains(expected), "{wrong}, expected {expected}");
    }
}

#[test]
fn a_right_row_passes() {
    fails(&dies().reports("unresponsive confirmed", 81.0..81.1), &[]);
}

#[test]
fn an_unexpected_report_fails_its_row() {
    fails(
        &dies(),
        &["must not be reported: 81.003 s: unresponsive confirmed"],
    );
}

#[test]
fn a_missing_report_fails_its_row() {
    let row = dies()
        .reports("unresponsive confirmed", 81.0..81.1)
        .reports("unresponsive recovered", 82.0..90.0);
    fails(
        &row,
        &["unresponsive recovered is missing, nothing follows"],
    );
}

#[test]
fn a_report_of_another_kind_or_certainty_fails_its_row() {
    for what in ["black_holed confirmed", "unresponsive suspected"] {
        let row = dies().reports(what, 81.0..81.1);
        fails(
            &row,
            &["is missing, next is 81.003 s", "must not be reported"],
        );
    }
}

#[test]
fn a_report_at_another_time_fails_its_row() {
    let row = dies().reports("unresponsive confirmed", 70.0..80.0);
    fails(
        &row,
        &["81.003 s: unresponsive confirmed, expected from 70 to 80 s"],
    );
}

#[test]
fn a_missing_state_fails_its_row() {
    let row = dies()
        .reports("unresponsive confirmed", 81.0..81.1)
        .shows("refused 503");
    fails(&row, &["no state shows \"refused 503\""]);
}

/// In this row a library without pongs is a living client, and wsmon cannot detect that.
#[test]
fn a_living_peer_that_is_confirmed_dead_fails_its_row_even_if_that_is_expected() {
    let row = story("lives", "self-test")
        .at(0.5, PeerIgnoresPings)
        .every(20.0, 20.0..100.0, Host(Ping))
        .until(100.0)
        .reports("unresponsive confirmed", 41.0..41.1);
    fails(
        &row,
        &["wrongly confirmed, the peer is alive", "reaped alive at 51"],
    );
}

#[test]
fn an_unreported_death_fails_its_row_unless_the_row_explains_it() {
    let row = story("unseen", "self-test")
        .at(10.0, PathBreaks)
        .until(100.0);
    fails(
        &row,
        &["1 of 1 deaths not found, the first of 10.0.0.2:40000, dead since 10 s"],
    );
    fails(&row.unseen("nobody writes"), &[]);
    let row = dies()
        .reports("unresponsive confirmed", 81.0..81.1)
        .unseen("nobody looks");
    fails(&row, &["there is no unseen death: nobody looks"]);
}
