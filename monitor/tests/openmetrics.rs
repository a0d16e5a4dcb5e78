//! The exposition in OpenMetrics, read by the parser of Prometheus' Python client, has what the older text
//! format has.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{LazyLock, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use lab::{Metrics, Series};
use monitor::{
    config::listeners::{ListenerConfig, PortRange},
    kernel::host::own_process::ProcessFigures,
    metrics::{
        Exposition, Format, Losses, MissedRuns, ProgramRuns, RingUsage, Scrape, ServerFigures,
    },
    records::Now,
};
use monitor_common::stats::{ListenerStats, RTT_BOUNDS, response};
use monitor_core::{
    ConnId, Correlator, Event, Facts, Ktime, ListenerId, ListenerRules, WorkloadName,
    facts::{Origin, Protocol, Role},
};
use proptest::{collection::vec, prelude::*};
use serde::Deserialize;

/// A process with the parser.
struct Parser {
    _child: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
}

static PARSER: LazyLock<Mutex<Parser>> = LazyLock::new(|| Mutex::new(Parser::start()));

#[derive(Debug, Deserialize)]
struct ParsedFamily {
    name: String,
    r#type: String,
    unit: String,
    samples: Vec<(String, BTreeMap<String, String>, String)>,
}

impl Parser {
    fn start() -> Self {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let python = project.join("target/peers/venv/bin/python");
        let mut child = Command::new(&python)
            .arg(project.join("testdata/peers/openmetrics_samples.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; run `cargo xtask setup`", python.display())
            });
        Self {
            requests: child.stdin.take().expect("piped"),
            replies: BufReader::new(child.stdout.take().expect("piped")),
            _child: child,
        }
    }

    fn parse(&mut self, text: &str) -> Vec<ParsedFamily> {
        let request = serde_json::to_string(text).expect("text");
        writeln!(self.requests, "{request}").expect("it reads");
        let mut reply = String::new();
        self.replies.read_line(&mut reply).expect("it writes");
        assert!(
            !reply.is_empty(),
            "the parser ended; run `cargo xtask setup`"
        );
        serde_json::from_str(&reply).unwrap_or_else(|_| panic!("{reply}\n{text}"))
    }
}

/// When the process started, in seconds since 1970.
const STARTED: i64 = 1_700_000_000;
/// The kernel's clock at that time.
const START: Ktime = Ktime(5_000_000_000);

/// What a scrape shows, from which everything in it follows.
#[derive(Debug)]
struct Scene {
    /// Names of listeners and, if there are any, workloads.
    names: Vec<String>,
    workloads: Vec<String>,
    counts: Vec<u32>,
    kernel: String,
}

fn scene() -> impl Strategy<Value = Scene> {
    // Names have no control characters; the configuration and the core see to that.
    let name = "[ -~ä☃]{1,12}|[\"\\\\,={}# ]{1,6}";
    let names = proptest::collection::btree_set(name, 1..4);
    let workloads = vec(name, 0..4);
    let counts = vec(any::<u32>(), 8);
    (names, workloads, counts, name).prop_map(|(names, workloads, counts, kernel)| Scene {
        names: names.into_iter().collect(),
        workloads,
        counts,
        kernel,
    })
}

impl Scene {
    fn exposition(&self) -> Exposition {
        let listeners: Vec<_> = self.names.iter().map(|name| listener(name)).collect();
        let rules = listeners.iter().map(|it| it.rules.clone()).collect();
        let mut core = Correlator::new(rules, Duration::ZERO);
        if !self.workloads.is_empty() {
            core = core.with_workloads(2);
        }
        core.handle_timeout(START + Duration::from_millis(1_500));
        for (index, name) in self.workloads.iter().enumerate() {
            let cgroup = index as u64 + 1;
            core.handle_event(Event::Opened(Box::new(opened(cgroup))));
            core.handle_workload(cgroup, Some(&WorkloadName::new("ns", name)));
        }
        let stats: Vec<_> = self.names.iter().map(|_| self.stats()).collect();
        let exposition = Exposition::of(&Scrape {
            listeners: &listeners,
            stats: &stats,
            tallies: core.tallies(),
            workloads: core.workloads(),
            now: START + Duration::from_secs(3),
            clocks: Now {
                at: START,
                ts: started(),
            },
            started: started(),
            process: Some(&ProcessFigures {
                started: started(),
                cpu: Duration::from_millis(u64::from(self.counts[0])),
                resident_bytes: u64::from(self.counts[1]) << 20,
                virtual_bytes: u64::MAX,
                open_fds: 7,
                max_fds: self.counts[2].is_multiple_of(2).then_some(1024),
                threads: 4,
            }),
            losses: &Losses::default(),
            degraded: true,
            owner_gaps: &[("walk_cut", 1)],
            suppressed_log_lines: 2,
            frame_viewers: 3,
            rings: &[RingUsage {
                name: "vitals",
                size: 8 << 20,
                peak: u64::from(self.counts[3]),
            }],
            tracked: 4,
            max_connections: 5,
            programs: &[ProgramRuns {
                name: self.kernel.clone(),
                runs: 6,
                seconds: 1e-7,
            }],
            missed_runs: &[MissedRuns {
                program: "ingress".into(),
                missed: 7,
            }],
            kernel: &self.kernel,
        });
        exposition.with_server(&ServerFigures {
            last_scrape: Some(Duration::from_micros(self.counts[4].into())),
            web_config_failures: Some(self.counts[5].into()),
        })
    }

    fn stats(&self) -> ListenerStats {
        let mut stats = ListenerStats::EMPTY;
        stats.opened.add(self.counts[6].into());
        stats.handshakes[response::NONE].add(self.counts[7].into());
        for count in &self.counts {
            stats.ping_rtt[0].observe(u64::from(*count) << 4, &RTT_BOUNDS);
        }
        stats
    }
}

fn started() -> Timestamp {
    Timestamp::from_second(STARTED).expect("a time")
}

fn listener(name: &str) -> ListenerConfig {
    ListenerConfig {
        rules: ListenerRules::new(name, None),
        ports: vec![PortRange(8080..=8080)],
        remote: false,
    }
}

fn opened(conn: u64) -> Facts {
    Facts {
        origin: Origin::Establishment,
        cgroup_id: Some(conn),
        established_at: Some(START),
        ..Facts::new(
            START + Duration::from_secs(1),
            ConnId(conn),
            ListenerId(0),
            Role::Server,
            Protocol::WebSocket,
            ([10, 0, 0, 1], 8080).into(),
            ([10, 0, 0, 2], 40_000).into(),
        )
    }
}

/// `le` is a number, which the formats write differently.
fn normal(mut series: Series) -> Series {
    if let Some(bound) = series.labels.get_mut("le") {
        *bound = bound.parse::<f64>().expect("a number").to_string();
    }
    series
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn both_formats_have_the_same_series_and_openmetrics_also_their_beginning(scene in scene()) {
        let exposition = scene.exposition();
        let text = exposition.clone().encode(Format::Text).expect("valid families");
        let openmetrics = exposition.encode(Format::OpenMetrics).expect("valid families");
        let mut parser = PARSER.lock().expect("no test failed while it parsed");
        let parsed = parser.parse(&openmetrics);
        drop(parser);

        let mut values = BTreeMap::new();
        for family in &parsed {
            let is_cumulative = match family.r#type.as_str() {
                "counter" => true,
                "histogram" => family.name != "wsmon_connection_age_seconds",
                "gauge" | "info" => false,
                other => panic!("{other} of {}", family.name),
            };
            let unit = ["seconds", "bytes", "ratio"]
                .into_iter()
                .find(|unit| family.name.ends_with(&format!("_{unit}")));
            prop_assert_eq!(&family.unit, unit.unwrap_or_default(), "{}", family.name);
            let created = format!("{}_created", family.name);
            let mut series: BTreeMap<_, (usize, usize)> = BTreeMap::new();
            for (name, labels, value) in &family.samples {
                let value: f64 = value.parse().expect("a number");
                let mut of = labels.clone();
                of.remove("le");
                let counts = series.entry(of).or_default();
                if *name != created {
                    counts.0 += 1;
                    let (name, labels) = (name.clone(), labels.clone());
                    values.insert(normal(Series { name, labels }), value);
                    continue;
                }
                counts.1 += 1;
                let is_named = labels.get("namespace").is_some_and(|it| it == "ns");
                let began = STARTED as f64 + if is_named { 1.5 } else { 0.0 };
                prop_assert_eq!(value, began, "{:?}", labels);
            }
            for (labels, (others, beginnings)) in series {
                prop_assert!(others > 0, "{}{:?}", family.name, labels);
                let expected = usize::from(is_cumulative);
                prop_assert_eq!(beginnings, expected, "{}{:?}", family.name, labels);
            }
        }
        let text: Metrics = text.parse().expect("the text format");
        let text: BTreeMap<_, _> = text
            .iter()
            .map(|(series, value)| (normal(series.clone()), value))
            .collect();
        prop_assert!(text.len() > 100);
        prop_assert_eq!(values, text);
    }
}
