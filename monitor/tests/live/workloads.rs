//! Labels of workloads, compared with a daemon that has none.

use std::collections::BTreeMap;

use lab::{Manner, Message, Metrics, wait_until};

use crate::stage::{SOON, Stage, Watch};

const LABELLED: [&str; 5] = [
    "wsmon_connections",
    "wsmon_connections_opened_total",
    "wsmon_connections_closed_total",
    "wsmon_zombie_connections",
    "wsmon_connection_duration_seconds_count",
];

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn the_workloads_add_up_to_the_counts_without_labels() {
    const ROUNDS: u64 = 25;
    let stage = Stage::new();
    let older = stage.client(3, "/echo", Manner::Responsive);
    let flags = ["--lb-timeout", "3s"];
    let plain = stage.watch(&flags);
    let labelled = stage.watch(&[&flags[..], &["--workload-labels"]].concat());
    let idle = stage.client(4, "/quiet", Manner::Responsive);
    for round in 1..=ROUNDS {
        let polite = stage.client(0, "/echo", Manner::Responsive);
        let resetting = stage.client(1, "/quiet", Manner::Responsive);
        polite.send(Message::Close(None)).unwrap();
        resetting.reset().unwrap();
        wait_until("the server to see both leave", SOON, || {
            stage.server.counts().closed == 2 * round
        })
        .unwrap();
    }
    older.send(Message::Close(None)).unwrap();
    for watch in [&plain, &labelled] {
        let ended = (2 * ROUNDS + 1) as f64;
        watch.wait_for_metric("wsmon_connections_closed_total", &[], ended);
        watch.wait_for_metric("wsmon_zombie_connections", &[("kind", "expired")], 1.0);
    }
    wait_until("the same values", SOON, || {
        let [plain, labelled] = [&plain, &labelled].map(|watch| sums(&watch.metrics()));
        plain == labelled
    })
    .unwrap_or_else(|error| {
        let [plain, labelled] = [&plain, &labelled].map(|watch| sums(&watch.metrics()));
        panic!("{error}: {plain:#?}\n{labelled:#?}")
    });
    let opened = |watch: &Watch| watch.metric("wsmon_connections_opened_total", &[]);
    assert_eq!(opened(&labelled), (2 * ROUNDS + 1) as f64);
    assert_eq!(
        labelled.metric("wsmon_workloads_over_limit_total", &[]),
        0.0
    );
    drop(idle);
}

/// The sum of all series that differ only in the labels of the workload.
fn sums(metrics: &Metrics) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (series, value) in metrics.iter() {
        let mut series = series.clone();
        if LABELLED.contains(&series.name.as_str()) {
            series.labels.remove("namespace");
            series.labels.remove("workload");
            *sums.entry(series.to_string()).or_default() += value;
        }
    }
    sums
}
