//! Metrics: each one, its type, its labels and their values.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use monitor::{
    config::listeners::{ListenerConfig, PortRange},
    kernel::host::own_process::ProcessFigures,
    metrics::{
        Exposition, Format, Losses, MissedRuns, ProgramRuns, RingUsage, Scrape, ServerFigures,
    },
    records::Now,
};
use monitor_common::stats::{ListenerStats, PongKind, ProtocolError, response};
use monitor_core::{
    Correlator, Hop, Ktime, Learned, ListenerRules, OnExpiry, Tally, Workloads, facts::Direction,
};

use crate::pages::{code, read, table_rows};

#[test]
fn every_exported_metric_is_documented_with_its_type_and_labels() {
    let documented: BTreeMap<_, _> = table_rows("docs/metrics.md")
        .into_iter()
        .filter_map(|row| {
            let [name, kind, labels, ..] = row.as_slice() else {
                return None;
            };
            let name = code(name).first()?.clone();
            let labels = code(labels).into_iter().collect();
            ["wsmon_", "process_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
                .then(|| (name, (kind.clone(), labels)))
        })
        .collect();
    let mut exported = exported_families(&scraped());
    // Only with the labels of workloads.
    let core = labelling_core();
    let labelled = exported_families(&scraped_with(core.workloads()));
    let over_limit = "wsmon_workloads_over_limit_total";
    exported.insert(over_limit.to_owned(), labelled[over_limit].clone());
    assert_eq!(documented, exported);
}

#[test]
fn the_metrics_with_labels_of_workloads_are_listed() {
    let core = labelling_core();
    let labelled = exported_families(&scraped_with(core.workloads()));
    let exported: BTreeSet<_> = labelled
        .into_iter()
        .filter(|(_, (_, labels))| labels.contains("namespace") && labels.contains("workload"))
        .map(|(name, _)| name)
        .collect();
    let page = read("docs/workloads.md");
    let list = page.lines().filter(|line| line.starts_with("* `wsmon_"));
    let listed: BTreeSet<_> = list.flat_map(code).collect();
    assert_eq!(listed, exported);
}

/// The labels of each exported family, those of workloads too.
pub(crate) fn all_families() -> BTreeMap<String, BTreeSet<String>> {
    let core = labelling_core();
    let families = exported_families(&scraped_with(core.workloads()));
    families
        .into_iter()
        .map(|(name, (_, labels))| (name, labels))
        .collect()
}

/// A core that counts by workload.
fn labelling_core() -> Correlator {
    Correlator::new(vec![listener().rules], Duration::ZERO).with_workloads(1)
}

#[test]
fn every_protocol_error_and_kind_of_pong_is_documented() {
    let page = read("docs/metrics.md");
    let errors = ProtocolError::ALL.iter().map(|error| error.as_str());
    let pongs = PongKind::ALL.iter().map(|kind| kind.as_str());
    for kind in errors.chain(pongs) {
        assert!(page.contains(&format!("| `{kind}` |")), "{kind}");
    }
}

#[test]
fn only_exported_metrics_are_used_in_pages() {
    let core = labelling_core();
    let exported = exported_families(&scraped_with(core.workloads()));
    for path in [
        "README.md",
        "docs/alert-log.md",
        "docs/alerts.md",
        "docs/fleet.md",
        "docs/frames.md",
        "docs/limitations.md",
        "docs/metrics.md",
        "docs/running.md",
        "docs/scraping.md",
        "docs/workloads.md",
    ] {
        for name in metric_names(&read(path)) {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(&name);
            assert!(
                exported.contains_key(family),
                "{path} names {name}, which is not exported"
            );
        }
    }
}

#[test]
fn every_place_of_a_loss_is_documented() {
    let text = scraped();
    let lost = text
        .lines()
        .filter(|line| line.starts_with("wsmon_events_lost_total{"));
    let exported: BTreeSet<(String, String)> = lost
        .map(|line| {
            let mut values = line.split('"').skip(1).step_by(2).map(str::to_owned);
            let ring = values.next().expect("a ring");
            (ring, values.next().expect("a reason"))
        })
        .collect();
    let documented: BTreeSet<_> = table_rows("docs/metrics.md")
        .into_iter()
        .filter(|row| row.len() == 3 && row[0] != "`ring`")
        .filter_map(|row| {
            let [ring, reason] = [&row[0], &row[1]].map(|cell| code(cell).into_iter().next());
            Some((ring?, reason?))
        })
        .collect();
    assert_eq!(documented, exported);
}

/// The type and label names of each family in a scrape.
fn exported_families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').expect("a name and a type");
            current = name.to_owned();
            families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let (_, labels) = families.get_mut(&current).expect("a type comes first");
            labels.extend(label_names(line).filter(|label| label != "le"));
        }
    }
    families
}

/// A scrape with a series for every family.
fn scraped() -> String {
    scraped_with(Vec::new())
}

fn scraped_with(workloads: Vec<&Workloads>) -> String {
    let silence = Some(Duration::from_secs(55));
    let mut tally = Tally {
        learned: Learned {
            gap_p99: silence,
            survived: silence,
            killed: silence,
        },
        ..Tally::default()
    };
    tally
        .close_codes
        .counts
        .insert((Direction::Rx, Some(1000)), 1);
    let mut stats = ListenerStats::EMPTY;
    stats.handshakes[response::NONE].add(1);
    let process = ProcessFigures {
        started: Timestamp::UNIX_EPOCH,
        cpu: Duration::ZERO,
        resident_bytes: 0,
        virtual_bytes: 0,
        open_fds: 0,
        max_fds: None,
        threads: 0,
    };
    let exposition = Exposition::of(&Scrape {
        listeners: &[listener()],
        stats: &[stats],
        tallies: vec![&tally],
        workloads,
        now: Ktime::ZERO,
        clocks: Now {
            at: Ktime::ZERO,
            ts: Timestamp::UNIX_EPOCH,
        },
        started: process.started,
        process: Some(&process),
        losses: &Losses::default(),
        degraded: false,
        owner_gaps: &[("walk_cut", 0)],
        suppressed_log_lines: 0,
        frame_viewers: 0,
        rings: &[RingUsage {
            name: "vitals",
            size: 0,
            peak: 0,
        }],
        tracked: 0,
        max_connections: 1,
        programs: &[ProgramRuns {
            name: "ingress".into(),
            runs: 1,
            seconds: 1.0,
        }],
        missed_runs: &[MissedRuns {
            program: "ingress".into(),
            missed: 1,
        }],
        kernel: "6.1.0",
    });
    let server = ServerFigures {
        last_scrape: Some(Duration::ZERO),
        web_config_failures: Some(0),
    };
    let text = exposition.with_server(&server).encode(Format::Text);
    text.expect("valid families")
}

fn label_names(series: &str) -> impl Iterator<Item = String> + '_ {
    series
        .split_once('{')
        .map_or("", |(_, labels)| labels)
        .split(['{', ','])
        .filter_map(|pair| Some(pair.split_once("=\"")?.0.to_owned()))
}

fn metric_names(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_')
        // A package is called `wsmon_*.deb`.
        .filter(|word| word.starts_with("wsmon_") && *word != "wsmon_")
        .map(str::to_owned)
        .collect()
}

fn listener() -> ListenerConfig {
    let hop = Hop::new("lb", Duration::from_secs(60), OnExpiry::Silent);
    ListenerConfig {
        rules: ListenerRules::new("8080", Some(hop)),
        ports: vec![PortRange(8080..=8080)],
        remote: false,
    }
}
