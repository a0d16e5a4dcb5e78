//! The reference pages say what the program does: every metric, flag and alert field, and none that
//! does not exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use clap::CommandFactory;
use jiff::Timestamp;
use monitor::{
    cli::Cli,
    clients::ClientRecord,
    config::Config,
    connections::{ConnectionRecord, State, TransitionRecord},
    core::{
        Alert, Certainty, CloseHow, ConnId, Facts, Group, Hop, Ktime, Learned, ListenerAlert,
        ListenerFinding, ListenerId, ListenerRules, Notice, OnExpiry, Reason, Resolution, Status,
        StormAlert, Tally, VerdictKind,
        background::{Background, Owner, TcpAccount},
        facts::{Activity, Direction, Protocol, Role},
        storm::{Cause, ClientRow, Pattern, Phase, ReconnectStorm, StormFinding, Thrash},
    },
    frames::{FrameRecord, Line},
    kernel::maps::RingFill,
    listeners::{Listener, PortRange},
    profiles,
    replay::Skip,
    sink::{
        line,
        metrics::{self, Losses, ProgramRuns, Scrape},
    },
};
use monitor_common::stats::{ListenerStats, PongKind, ProtocolError, answer};
use serde_json::Value;

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
            name.starts_with("wsmon_")
                .then(|| (name, (kind.clone(), labels)))
        })
        .collect();
    assert_eq!(documented, exported_families());
}

#[test]
fn every_protocol_error_and_kind_of_pong_is_documented() {
    let page = read("docs/metrics.md");
    let errors = ProtocolError::ALL.map(ProtocolError::as_str);
    let pongs = PongKind::ALL.map(PongKind::as_str);
    for kind in errors.into_iter().chain(pongs) {
        assert!(page.contains(&format!("| `{kind}` |")), "{kind}");
    }
}

#[test]
fn only_exported_metrics_are_used_in_rules_and_pages() {
    let exported = exported_families();
    for path in [
        "README.md",
        "deploy/prometheus-rules.yml",
        "docs/alerts.md",
        "docs/frames.md",
        "docs/limitations.md",
        "docs/metrics.md",
        "docs/running.md",
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
fn every_flag_of_run_and_replay_is_documented_with_its_default() {
    for (command, page) in [("run", "docs/running.md"), ("replay", "docs/replay.md")] {
        let documented: BTreeMap<_, _> = table_rows(page)
            .into_iter()
            .filter_map(|row| {
                let flag = code(row.first()?).first()?.split(' ').next()?.to_owned();
                let default = code(row.get(1)?).into_iter().next();
                (flag.starts_with("--") && flag != "--debug-kernel").then_some((flag, default))
            })
            .collect();
        assert_eq!(documented, flags(command), "{page}");
    }
    assert!(read("docs/running.md").contains("`--debug-kernel`"));
}

/// The flags of a command with their defaults, apart from the one for its developers.
fn flags(command: &str) -> BTreeMap<String, Option<String>> {
    let cli = Cli::command();
    let command = cli.find_subcommand(command).expect("the command exists");
    command
        .get_arguments()
        .filter(|argument| {
            argument
                .get_long()
                .is_some_and(|name| name != "debug-kernel")
        })
        .filter_map(|argument| {
            // A flag without a value has an implicit one.
            let default = argument
                .get_default_values()
                .first()
                .filter(|_| argument.get_action().takes_values());
            let default = default.map(|value| value.to_string_lossy().into_owned());
            let default = default.or_else(|| told_default(argument));
            Some((format!("--{}", argument.get_long()?), default))
        })
        .filter(|(flag, _)| flag != "--help")
        .collect()
}

/// A flag that a file may stand in for has no default of its own, only in its help.
fn told_default(argument: &clap::Arg) -> Option<String> {
    let help = argument.get_help()?.to_string();
    let (_, default) = help.split_once("[default: ")?;
    Some(default.strip_suffix(']')?.to_owned())
}

#[test]
fn every_key_of_the_configuration_file_is_documented_and_none_that_does_not_exist() {
    let documented: BTreeSet<_> = table_rows("docs/running.md")
        .into_iter()
        .filter_map(|row| code(row.first()?).first().cloned())
        .filter(|cell| cell.starts_with('['))
        .collect();
    let mut keys = BTreeSet::new();
    for (table, around) in TABLES {
        for key in keys_of(around) {
            keys.insert(format!("{table} {key}"));
        }
    }
    assert_eq!(documented, keys);
}

/// The tables of a configuration file as the page calls them, and a file with a wrong key in each.
const TABLES: [(&str, &str); 7] = [
    ("[daemon]", "[daemon]\nwrong = 1"),
    ("[alerts]", "[alerts]\nwrong = 1"),
    ("[reap]", "[reap]\nwrong = 1"),
    ("[privacy]", "[privacy]\nwrong = 1"),
    ("[[listener]]", "[[listener]]\nwrong = 1"),
    (
        "[[listener.route]]",
        "[[listener]]\n[[listener.route]]\nwrong = 1",
    ),
    ("[[listener]] path", "[[listener]]\npath = [{ wrong = 1 }]"),
];

/// The keys that would have been right, from the refusal of a wrong one.
fn keys_of(text: &str) -> Vec<String> {
    let problems = Config::parse(text).expect_err("a wrong key");
    let problem = problems.iter().next().expect("a problem");
    let mut keys = code(&problem.message).into_iter();
    assert_eq!(keys.next().as_deref(), Some("wrong"), "{problem}");
    keys.collect()
}

#[test]
fn every_configuration_file_on_the_pages_is_valid() {
    let mut found = 0;
    for page in ["README.md", "docs/running.md"] {
        let page = read(page);
        for block in page.split("```toml\n").skip(1) {
            let text = block.split("```").next().expect("a block");
            let config = Config::parse(text);
            assert!(
                config.is_ok_and(|config| config.warnings.is_empty()),
                "{text}"
            );
            found += 1;
        }
    }
    assert!(found > 0, "no page shows a file");
}

#[test]
fn every_word_of_the_profiles_is_explained() {
    let page = read("docs/running.md");
    for profile in profiles::all() {
        for word in [
            profile.on_expiry.as_str(),
            profile.activity.as_str(),
            profile.direction.as_str(),
        ] {
            assert!(
                page.contains(&format!("`{word}`")),
                "{word} of {}",
                profile.name
            );
        }
    }
}

#[test]
fn every_reason_to_pass_over_a_packet_is_documented() {
    let documented: BTreeSet<_> = table_rows("docs/replay.md")
        .into_iter()
        .filter(|row| row.len() == 2)
        .filter_map(|row| code(row.first()?).into_iter().next())
        .collect();
    for reason in Skip::ALL {
        assert!(documented.contains(reason.as_str()), "{}", reason.as_str());
    }
}

#[test]
fn every_flag_of_the_commands_that_look_is_documented() {
    let command = Cli::command();
    let flags: BTreeSet<_> = ["list", "inspect", "frames"]
        .into_iter()
        .flat_map(|name| {
            let looks = command.find_subcommand(name).expect("the command exists");
            let flags = looks.get_arguments().filter_map(|a| a.get_long());
            flags.map(move |flag| (name, format!("--{flag}")))
        })
        .collect();
    let documented: BTreeSet<_> = table_rows("docs/frames.md")
        .into_iter()
        .filter_map(|row| {
            let flag = code(row.get(1)?).first()?.split(' ').next()?.to_owned();
            flag.starts_with("--").then(|| (row[0].clone(), flag))
        })
        .flat_map(|(command, flag)| {
            let every = ["list", "inspect", "frames"];
            let named = move |name: &str| command == "all" || command == format!("`{name}`");
            every
                .into_iter()
                .filter(move |name| named(name))
                .map(move |name| (name, flag.clone()))
        })
        .collect();
    assert_eq!(documented, flags);
}

#[test]
fn examples_of_connections_and_frames_are_what_the_daemon_writes() {
    let page = read("docs/frames.md");
    let examples: Vec<&str> = page.lines().filter(|line| line.starts_with('{')).collect();
    let [frame, lost, connection, client, change] = examples.as_slice() else {
        panic!("a frame, a loss, a connection, a client and a change: {examples:?}");
    };
    let shown: ClientRecord = serde_json::from_str(client).expect("a client");
    assert_eq!(serde_json::to_string(&shown).expect("JSON"), **client);
    let shown: FrameRecord = serde_json::from_str(frame).expect("a frame");
    assert_eq!(serde_json::to_string(&shown).expect("JSON"), **frame);
    let record: ConnectionRecord = serde_json::from_str(connection).expect("a connection");
    assert_eq!(serde_json::to_string(&record).expect("JSON"), **connection);
    let lost: Value = serde_json::from_str(lost).expect("JSON");
    assert_eq!(lost["type"], "lost");

    let shown_change = TransitionRecord {
        ts: shown.ts,
        conn: shown.conn,
        listener: &shown.listener,
        local: Some(shown.local),
        peer: Some(shown.peer),
        from: Some(State::Open),
        to: State::Closing,
        reason: CLOSE_FRAME,
        text: CLOSE_FRAME.to_string(),
    };
    assert_eq!(
        serde_json::to_string(&shown_change).expect("JSON"),
        **change
    );

    let table: Vec<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("TIME "))
        .take_while(|line| *line != "```")
        .collect();
    assert_eq!(table[0], Line::HEAD);
    let line = Line(&shown).to_string();
    assert!(table.contains(&line.as_str()), "{line}");
}

const CLOSE_FRAME: Reason = Reason::CloseFrame {
    by: Direction::Rx,
    code: Some(1001),
};

#[test]
fn every_verdict_and_every_end_of_one_is_documented() {
    let page = read("docs/alerts.md");
    for kind in VerdictKind::ALL {
        let heading = format!("### `{}`\n", kind.as_str());
        assert!(page.contains(&heading), "{heading}");
    }
    let ends = CloseHow::ALL.map(CloseHow::as_str);
    for end in ends.into_iter().chain(["recovered", "superseded"]) {
        assert!(page.contains(&format!("| `{end}` |")), "{end}");
    }
}

#[test]
fn alert_fields_and_examples_are_what_the_log_writes() {
    let page = read("docs/alerts.md");
    let documented: BTreeMap<_, _> = table_rows("docs/alerts.md")
        .into_iter()
        .filter_map(|row| {
            let types: BTreeSet<_> = row.get(1)?.split(" or ").map(str::to_owned).collect();
            let known = types.iter().all(|kind| {
                ["array", "object", "string", "number", "null"].contains(&kind.as_str())
            });
            known.then_some((code(&row[0]).first()?.clone(), types))
        })
        .collect();
    let written = written_alerts();
    let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (field, kinds) in written.iter().flat_map(types_of) {
        fields.entry(field).or_default().extend(kinds);
    }
    assert_eq!(documented, fields);

    let examples: Vec<Value> = page
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("an example is JSON"))
        .collect();
    assert_eq!(
        examples.iter().map(shape).collect::<BTreeSet<_>>(),
        written.iter().map(shape).collect::<BTreeSet<_>>()
    );
}

/// The fields of a line, and those of the first example in it.
fn shape(line: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let names = |line: &Value| types_of(line).into_keys().collect();
    (names(line), names(&line["examples"][0]))
}

#[test]
fn every_place_where_something_is_lost_is_documented() {
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

/// Type and label names of each family in a scrape in which nothing is left out for want of a series.
fn exported_families() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    let mut current = String::new();
    for line in scraped().lines() {
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

/// A scrape in which nothing is left out for want of a series.
fn scraped() -> String {
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
    stats.handshakes[answer::NONE].add(1);
    metrics::render(&Scrape {
        listeners: &[listener()],
        stats: &[stats],
        tallies: &[tally],
        losses: &Losses::default(),
        degraded: false,
        frame_viewers: 0,
        rings: ["vitals", "handshakes", "samples"].map(|ring| (ring, RingFill::default())),
        tracked: 0,
        max_connections: 1,
        programs: &[ProgramRuns {
            name: "ingress".into(),
            runs: 1,
            seconds: 1.0,
        }],
        kernel: "6.1.0",
    })
    .expect("valid families")
}

fn label_names(series: &str) -> impl Iterator<Item = String> + '_ {
    series
        .split_once('{')
        .map_or("", |(_, labels)| labels)
        .split(['{', ','])
        .filter_map(|pair| Some(pair.split_once("=\"")?.0.to_owned()))
}

/// Of each shape one: a firing alert that knows as little as possible, a resolved one that knows
/// everything, a group, and the alerts on a listener.
fn written_alerts() -> Vec<Value> {
    let resolved = Status::Resolved(Resolution::Recovered);
    let group = Group {
        status: Status::Firing,
        kind: VerdictKind::Expired,
        certainty: Certainty::Suspected,
        listener: ListenerId(0),
        hop: None,
        at: Ktime(2),
        count: 2,
        examples: vec![alert(Status::Firing, None), alert(Status::Firing, None)],
    };
    let mismatch = |known| ListenerFinding::LimitMismatch {
        limit: known,
        survived: known,
        killed: known,
    };
    let lifetime = |limit| ListenerFinding::LifetimeMismatch {
        limit,
        age: Duration::from_secs(3600),
        deaths: 12,
    };
    let findings = [
        lifetime(None),
        lifetime(Some(Duration::from_secs(7200))),
        ListenerFinding::AtRisk {
            gap: Duration::from_secs(58),
            limit: Duration::from_secs(60),
        },
        mismatch(None),
        mismatch(Some(Duration::from_secs(60))),
    ];
    let on_listener = |finding| {
        Notice::Listener(Box::new(ListenerAlert {
            firing: true,
            listener: ListenerId(0),
            hop: None,
            at: Ktime(2),
            finding,
            reason: "a sentence".into(),
        }))
    };
    let of_connections = [
        Notice::Connection(Box::new(alert(Status::Firing, None))),
        Notice::Connection(Box::new(alert(resolved, Some(Ktime(1))))),
        Notice::Group(Box::new(group)),
    ];
    of_connections
        .into_iter()
        .chain(findings.map(on_listener))
        .chain(storms())
        .map(|notice| {
            let line = line::Line::new(&notice, "8080", Timestamp::UNIX_EPOCH).to_json();
            serde_json::from_str(&line).expect("a line is JSON")
        })
        .collect()
}

/// Storms of which as little as possible is known, and as much; and a client that thrashes.
fn storms() -> Vec<Notice> {
    let row = ClientRow {
        client: [127, 0, 0, 1].into(),
        attempts: 1,
        at_most_over: 0,
        accepted: 1,
        refused: 0,
        short_lived: 1,
        rate_per_minute: 1.0,
        interval: None,
        last: Ktime(1),
    };
    let storm = |cause: Option<Cause>| ReconnectStorm {
        firing: cause.is_some(),
        at: Ktime(2),
        since: Ktime(1),
        phase: Phase::Storm,
        pattern: Pattern::Unknown,
        period: cause.map(|_| Duration::from_secs(1)),
        rate: 1.0,
        peak_rate: 1.0,
        baseline_rate: 1.0,
        attempts: 1,
        successes: 1,
        attempts_per_success: cause.map(|_| 1.0),
        refused: vec![(Some(503), 1)],
        returning_share: cause.map(|_| 1.0),
        closes: 1,
        cause,
        examples: vec![row.clone()],
        reason: "a sentence".into(),
    };
    let causes = [
        None,
        Some(Cause::Lifetime(Duration::from_secs(60))),
        Some(Cause::ProxyDeploy([127, 0, 0, 1].into())),
    ];
    let thrash = StormFinding::Thrash(Box::new(Thrash {
        firing: true,
        at: Ktime(2),
        since: Ktime(1),
        clients: 1,
        examples: vec![row.clone()],
        reason: "a sentence".into(),
    }));
    let findings = causes.map(|cause| StormFinding::Reconnect(Box::new(storm(cause))));
    let told = |finding| {
        Notice::Storm(Box::new(StormAlert {
            listener: ListenerId(0),
            finding,
        }))
    };
    findings.into_iter().chain([thrash]).map(told).collect()
}

#[test]
fn every_phase_pattern_and_cause_of_a_storm_is_documented() {
    let page = read("docs/alerts.md");
    let causes = [
        Cause::ServerRestart,
        Cause::IdleTimeout(Duration::ZERO),
        Cause::Lifetime(Duration::ZERO),
        Cause::PeerNetwork,
        Cause::ProxyDeploy([127, 0, 0, 1].into()),
    ];
    let words = Phase::ALL
        .map(Phase::as_str)
        .into_iter()
        .chain(Pattern::ALL.map(Pattern::as_str))
        .chain(causes.map(Cause::as_str));
    for word in words {
        assert!(page.contains(&format!("| `{word}` |")), "{word}");
    }
    for alert in ["reconnect_storm", "thrash"] {
        assert!(page.contains(&format!("### `{alert}`\n")), "{alert}");
    }
}

/// The JSON type of each field, by its path.
fn types_of(value: &Value) -> BTreeMap<String, BTreeSet<String>> {
    fn visit(path: &str, value: &Value, types: &mut BTreeMap<String, BTreeSet<String>>) {
        let kind = match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let path = [path, name].join(if path.is_empty() { "" } else { "." });
                    visit(&path, field, types);
                }
                if path.is_empty() {
                    return;
                }
                "object"
            }
            Value::Array(_) => "array",
            Value::Null => "null",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            other => panic!("{path}: {other} has a type the page does not explain"),
        };
        let kinds = types.entry(path.to_owned()).or_default();
        kinds.insert(kind.to_owned());
    }
    let mut types = BTreeMap::new();
    visit("", value, &mut types);
    types
}

fn listener() -> Listener {
    let hop = Hop::new("lb", Duration::from_secs(60), OnExpiry::Silent);
    Listener {
        rules: ListenerRules::new("8080", Some(hop)),
        ports: vec![PortRange(8080..=8080)],
        remote: false,
    }
}

fn everything_known() -> Background {
    let name = || Some("a".to_owned());
    Background {
        owner: Owner {
            cgroup: name(),
            unit: name(),
            container: name(),
            pod: name(),
            pid: Some(1),
            comm: name(),
            netns: Some(1),
        },
        client: None,
        tcp: Some(TcpAccount {
            backoff: 1,
            probes: 1,
            retransmission_timeout: Duration::from_secs(1),
            last_ack: Duration::from_secs(1),
            unread_bytes: 1,
            unsent_bytes: 1,
        }),
    }
}

fn alert(status: Status, clock: Option<Ktime>) -> Alert {
    let activity = Activity {
        last_packet: clock,
        last_payload: clock,
        last_frame: clock,
        last_message: clock,
    };
    Alert {
        status,
        kind: VerdictKind::Expired,
        certainty: Certainty::Suspected,
        listener: ListenerId(0),
        hop: clock.map(|_| "lb".into()),
        at: Ktime(2),
        since: Ktime(1),
        limit: Duration::from_secs(60),
        facts: Box::new(Facts {
            established_at: clock,
            rx: activity,
            tx: activity,
            ack_progress_at: clock,
            ..Facts::new(
                Ktime(2),
                ConnId(1),
                ListenerId(0),
                Role::Server,
                Protocol::WebSocket,
                ([127, 0, 0, 1], 8080).into(),
                ([127, 0, 0, 1], 40_000).into(),
            )
        }),
        // Of a connection that is gone nothing can be asked.
        background: (status == Status::Firing).then(|| Box::new(everything_known())),
        reason: "a sentence".into(),
    }
}

/// The cells of every table row of a page.
fn table_rows(path: &str) -> Vec<Vec<String>> {
    read(path)
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// What stands between backticks.
fn code(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn metric_names(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_')
        .filter(|word| word.starts_with("wsmon_"))
        .map(str::to_owned)
        .collect()
}

fn read(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
