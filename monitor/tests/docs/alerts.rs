//! Alerts: kinds and terms.

use std::time::Duration;

use monitor_core::{
    CloseHow, VerdictKind,
    storm::{Cause, Pattern, StormPhase},
};

use crate::pages::read;

#[test]
fn every_verdict_and_every_resolution_is_documented() {
    let page = read("docs/alerts.md");
    for &kind in VerdictKind::ALL {
        let heading = format!("### `{}`\n", kind.as_str());
        assert!(page.contains(&heading), "{heading}");
    }
    let page = read("docs/alert-log.md");
    let ends = CloseHow::ALL.iter().map(|how| how.as_str());
    for end in ends.chain(["recovered", "superseded"]) {
        assert!(page.contains(&format!("| `{end}` |")), "{end}");
    }
}

#[test]
fn every_phase_pattern_and_cause_of_a_storm_is_documented() {
    let page = read("docs/storms.md");
    let causes = [
        Cause::ServerRestart,
        Cause::IdleTimeout(Duration::ZERO),
        Cause::Lifetime(Duration::ZERO),
        Cause::PeerNetwork,
        Cause::ProxyDeploy([127, 0, 0, 1].into()),
    ];
    let phases = StormPhase::ALL.iter().map(|phase| phase.as_str());
    let words = phases
        .chain(Pattern::ALL.iter().map(|pattern| pattern.as_str()))
        .chain(causes.map(Cause::as_str));
    for word in words {
        assert!(page.contains(&format!("| `{word}` |")), "{word}");
    }
    let page = read("docs/alerts.md");
    for alert in ["reconnect_storm", "thrash"] {
        assert!(page.contains(&format!("### `{alert}`\n")), "{alert}");
    }
}
