//! What each flag adds to the programs passes the verifier, within its instruction budget.

use std::time::Duration;

use monitor::{
    config::listeners::{ListenerConfig, PortRange},
    kernel::bpf::{
        features::LoopKind,
        loader::{LoadSettings, Loaded},
    },
};
use monitor_core::{Hop, ListenerRules, OnExpiry};

/// Instructions that the verifier may process, per program. Its limit is a million. Kernels differ
/// by half, and a newer one may process several times as many, so the budget keeps a distance from
/// the limit.
const BUDGET: [(&str, u32); 7] = [
    ("ingress", 300_000),
    ("egress", 300_000),
    ("inet_sock_set_state", 30_000),
    ("nested_set_state", 30_000),
    ("tcp_retransmit_skb", 5_000),
    ("tcp_receive_reset", 5_000),
    ("tcp_send_reset", 5_000),
];

#[test]
#[ignore = "needs root: loads programs"]
fn every_flag_loads_within_the_budget() {
    // Each flag with and without the others' code. Verification takes most of a guest's time.
    let shapes = [
        (false, false, false),
        (true, true, false),
        (false, false, true),
        (true, true, true),
    ];
    let as_the_kernel_allows = shapes.map(|shape| (None, shape));
    // Every supported kernel has this one. Loading one shape, the largest, proves that.
    let for_each = (Some(LoopKind::ForEachMapElem), (true, true, true));
    for (loop_kind, (remote, debug_log, keep_totals)) in
        as_the_kernel_allows.into_iter().chain([for_each])
    {
        let listeners = [ListenerConfig {
            rules: ListenerRules::new(
                "8080",
                Some(Hop::new("lb", Duration::from_secs(60), OnExpiry::Silent)),
            ),
            ports: vec![PortRange(8080..=8081)],
            remote,
        }];
        let settings = LoadSettings {
            debug_log,
            keep_totals,
            loop_kind,
            ..LoadSettings::default()
        };
        let loaded = Loaded::new(&listeners, &settings).unwrap_or_else(|error| {
            panic!(
                "remote {remote}, debug_log {debug_log}, keep_totals {keep_totals}, {loop_kind:?}: \
                 {error:?}"
            )
        });
        let helper = loaded.loop_kind().helper();
        for (name, info) in loaded.programs() {
            // Linux reports the count since 5.16 (commit aba64c7da983).
            let Some(verified) = info.verified_instruction_count() else {
                continue;
            };
            println!(
                "remote {remote} debug_log {debug_log} keep_totals {keep_totals} {helper}: {name:<20} {verified:>6} verified instructions"
            );
            let (_, budget) = BUDGET
                .iter()
                .find(|(n, _)| *n == name)
                .expect("a known program");
            assert!(verified <= *budget, "{name}: {verified} > {budget}");
        }
        let mut readable: Vec<_> = loaded
            .missed_runs()
            .map(|(name, missed)| {
                assert_eq!(missed.expect("fdinfo"), 0, "{name} is not attached");
                name
            })
            .collect();
        readable.sort_unstable();
        let mut all = BUDGET.map(|(name, _)| name);
        all.sort_unstable();
        assert_eq!(readable, all);
    }
}
