use std::time::Duration;

use super::*;
use monitor_core::{
    OnExpiry,
    hop::{Activity, Directions},
};

/// All problems, each as `line:column: message`.
fn refused(text: &str) -> Vec<String> {
    let problems = Config::parse(text).expect_err("an invalid file");
    problems.iter().map(Problem::to_string).collect()
}

/// The only problem of a file.
fn refusal(text: &str) -> String {
    let problems = refused(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

fn listener(rest: &str) -> String {
    format!("[[listener]]\nports = [\"8080\"]\n{rest}")
}

#[test]
fn the_example_is_valid_and_uses_every_feature() {
    let config = Config::parse(EXAMPLE).expect("valid");
    assert_eq!(config.warnings, []);
    let [edge, feeds] = config.listeners.as_slice() else {
        panic!("two listeners: {:?}", config.listeners);
    };
    assert!(!edge.remote && feeds.remote);
    assert_eq!(edge.ports.len(), 2);
    assert_eq!(edge.rules.path.hops.len(), 2);
    assert_eq!(
        edge.rules.routes[0].path.hops[0].max_lifetime,
        Some(Duration::from_secs(28_800))
    );
}

#[test]
fn the_example_stays_valid_with_every_default_uncommented() {
    let all = uncommented(EXAMPLE);
    let config = Config::parse(&all).expect("valid");
    assert_eq!(config.reap, ReapSettings::default());
    assert_eq!(config.privacy, Privacy::default());
    assert_eq!(config.daemon.max_connections, Some(262_144));
    assert_eq!(
        config.listeners[0].rules.message_gap,
        Some(Duration::from_secs(35))
    );
}

/// Uncomments every key, as a reader would.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(char::is_alphabetic) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_hop_has_the_values_of_its_profile_unless_the_file_overrides_them() {
    let text = listener(
        r#"path = [
            { profile = "aws-alb" },
            { profile = "aws-nlb", name = "mine", idle_timeout = "100s", on_expiry = "silent" },
            { name = "fw", max_lifetime = "8h", direction = "each" },
        ]"#,
    );
    let config = Config::parse(&text).expect("valid");
    let [alb, mine, fw] = config.listeners[0].rules.path.hops.as_slice() else {
        panic!("three hops");
    };
    assert_eq!(
        (alb.name.as_str(), alb.activity),
        ("aws-alb", Activity::Payload)
    );
    assert_eq!(
        (mine.name.as_str(), mine.on_expiry),
        ("mine", OnExpiry::Silent)
    );
    assert_eq!(mine.idle_timeout, Some(Duration::from_secs(100)));
    assert_eq!((fw.idle_timeout, fw.direction), (None, Directions::Each));
    assert_eq!(
        (fw.activity, fw.on_expiry),
        (Activity::Packet, OnExpiry::Silent)
    );
}

#[test]
fn unreadable_values_are_refused_with_their_position() {
    for (text, expected) in [
        ("[[listener]", "1:12: "),
        (
            &listener("prots = []"),
            "3:1: unknown key `prots` (did you mean \"ports\"?)",
        ),
        (
            "[deamon]",
            "1:2: unknown key `deamon` (did you mean \"daemon\"?)",
        ),
        ("[[listener]]\nname = \"a\"", "1:1: missing key `ports`"),
        (
            &listener("ping_timeout = 30"),
            "3:16: invalid type: integer `30`, expected a duration",
        ),
        (
            &listener("ping_timeout = \"0s\""),
            "3:16: it must be longer than zero",
        ),
        (
            &listener("ping_timeout = \"30\""),
            "3:16: invalid duration \"30\" (time unit needed",
        ),
        (
            "[[listener]]\nports = [8080]",
            "2:10: invalid type: integer `8080`, expected ports in quotes",
        ),
        (
            "[[listener]]\nports = [\"80-70\"]",
            "2:10: the range 80-70 is empty",
        ),
        (
            &listener("route = [{ network = \"10.0.0.0/40\", path = [] }]"),
            "3:22: invalid network \"10.0.0.0/40\", expected one like 10.0.0.0/8",
        ),
        (
            &listener("path = [{ name = \"a\", activity = \"packets\" }]"),
            "3:34: unknown value `packets` (did you mean \"packet\"?)",
        ),
        (
            "[daemon]\nmetrics_addr = \"64 55\"",
            "2:16: invalid address \"64 55\"",
        ),
        (
            "[daemon]\nmax_connections = 0",
            "2:19: invalid max_connections 0, expected 1 to 16777216",
        ),
        (
            "[daemon]\nmax_workloads = 10001",
            "2:17: invalid max_workloads 10001, expected 1 to 10000",
        ),
        (
            "[daemon]\nmax_workloads = \"9\"",
            "2:17: invalid type: string \"9\", expected a number",
        ),
        (
            "[alerts]\nwebhook = [\"ftp://x\"]",
            "2:12: it must begin with http:// or https://",
        ),
        ("[reap]\nmode = \"on\"", "2:8: unknown value `on`"),
    ] {
        let refusal = refusal(text);
        assert!(
            refusal.starts_with(expected),
            "{text}\n{refusal}\n{expected}"
        );
        assert!(!refusal.contains('\n'), "{refusal}");
    }
}

#[test]
fn invalid_combinations_are_refused_with_their_position_and_a_remedy() {
    let hop = |hop: &str| listener(&format!("path = [{{ {hop} }}]"));
    for (text, expected) in [
        ("[[listener]]\nports = []", "2:9: no ports; name one"),
        (
            "[[listener]]\nports = [\"80\", \"79-81\"]",
            "2:16: ports 79-81 and 80 above in this list overlap; name each port once",
        ),
        (
            &listener("[[listener]]\nports = [\"8000-9000\"]"),
            "4:10: ports 8000-9000 and 8080 of listener \"8080\" overlap",
        ),
        (
            &listener("[[listener]]\nname = \"8080\"\nports = [\"81\"]"),
            "4:8: two listeners are called \"8080\"",
        ),
        (&listener("name = \"\""), "3:8: invalid name \"\""),
        (
            &listener("name = \"a\u{202e}b\""),
            "3:8: invalid name \"a\\u{202e}b\"",
        ),
        (
            &listener(r#"name = "a\u2028b""#),
            "3:8: invalid name \"a\\u{2028}b\"",
        ),
        (
            &hop("name = \"\", idle_timeout = \"60s\""),
            "3:18: invalid name \"\"",
        ),
        (
            &hop(r#"name = "a\u001bb", idle_timeout = "60s""#),
            "3:18: invalid name \"a\\u{1b}b\"",
        ),
        (
            &hop("name = \"a\u{2066}b\", idle_timeout = \"60s\""),
            "3:18: invalid name \"a\\u{2066}b\"",
        ),
        (
            &hop("profile = \"aws-abl\""),
            "3:21: no profile \"aws-abl\" (did you mean \"aws-alb\"?); `wsmon profiles` lists them",
        ),
        (
            &hop("profile = \"haproxy\""),
            "3:21: profile \"haproxy\" has no default idle timeout",
        ),
        (
            &hop("idle_timeout = \"60s\""),
            "3:9: a hop without a name; give it a profile",
        ),
        (
            &hop("name = \"fw\""),
            "3:9: hop \"fw\" never gives a connection up",
        ),
        (
            &listener("path = [{ profile = \"nginx\" }, { profile = \"nginx\" }]"),
            "3:32: two hops of this path are called \"nginx\"",
        ),
        (
            &listener(
                "route = [{ network = \"10.0.0.0/8\", path = [] },\n\
                 { network = \"10.0.0.0/8\", path = [] }]",
            ),
            "4:13: 10.0.0.0/8 has a route already",
        ),
    ] {
        let refusal = refusal(text);
        assert!(
            refusal.starts_with(expected),
            "{text}\n{refusal}\n{expected}"
        );
    }
}

#[test]
fn all_invalid_combinations_are_reported_at_once_in_the_order_of_the_file() {
    let text =
        listener("path = [{ profile = \"nginz\" }, { name = \"fw\" }]\n[[listener]]\nports = []");
    let problems = refused(&text);
    let lines: Vec<_> = problems.iter().map(|problem| &problem[..4]).collect();
    assert_eq!(lines, ["3:21", "3:32", "5:9:"], "{problems:?}");
    let error = Config::parse(&text).expect_err("wrong").to_string();
    assert!(
        error.ends_with("(and 2 more: `wsmon config check` shows all)"),
        "{error}"
    );
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn unreadable_values_and_invalid_combinations_are_reported_together() {
    let text = "\
[daemon]
max_connections = 0
max_workloads = \"many\"
[reap]
mode = \"on\"
moda = 1
[[listener]]
prots = [\"80\"]
[[listener]]
ports = [\"80\", \"x\", \"81-80\"]
ping_timeout = 3
path = [{ name = \"a\", idle_timeout = \"soon\" }, { profile = \"nginz\" }]
[[listener]]
name = \"no ports\"
[[listener]]
ports = [\"80\"]
";
    let problems = refused(text);
    let places: Vec<_> = problems
        .iter()
        .map(|problem| problem.splitn(3, ':').take(2).collect::<Vec<_>>().join(":"))
        .collect();
    // The listener without a readable port, the hop without a readable limit and the listener with a mistyped
    // key have no second problem.
    let expected = [
        "2:19", "3:17", "5:8", "6:1", "8:1", "10:16", "10:21", "11:16", "12:38", "12:60", "13:1",
        "16:10",
    ];
    assert_eq!(places, expected, "{problems:#?}");
}

#[test]
fn after_an_error_of_the_syntax_nothing_else_is_reported() {
    let problems = refused("[daemon]\nmax_connections = 0\n[alerts\n");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("3:"), "{problems:?}");
}

#[test]
fn metrics_addresses_are_one_string_or_a_list() {
    let addresses = |value: &str| {
        let config = Config::parse(&format!("[daemon]\nmetrics_addr = {value}")).expect("valid");
        let shown = config.daemon.metrics_addr.iter().map(ToString::to_string);
        shown.collect::<Vec<_>>()
    };
    assert_eq!(addresses("\":9436\""), [":9436"]);
    assert_eq!(
        addresses("[\"9436\", \"::1\"]"),
        ["127.0.0.1:9436", "[::1]:6455"]
    );
}

#[test]
fn probable_mistakes_are_warnings() {
    let warnings = |text: &str| -> Vec<String> {
        let config = Config::parse(text).expect("valid");
        config.warnings.iter().map(Problem::to_string).collect()
    };
    let text = listener("path = [{ profile = \"aws-alb\", idle_timeout = \"2h\" }]");
    assert_eq!(
        warnings(&text),
        ["3:47: the idle timeout of aws-alb can be 1s to 4000s; use the value that is set there"]
    );
    let text = listener("route = [{ network = \"10.1.2.3/8\", path = [] }]");
    assert_eq!(
        warnings(&text),
        ["3:22: 10.1.2.3/8 means all of 10.0.0.0/8"]
    );
}

#[test]
fn a_listener_is_named_after_its_ports() {
    let text = "[[listener]]\nports = [\"443\", \"80-81\"]\n\
                [[listener]]\nports = [\"8443\"]\n\
                [[listener]]\nports = [\"8443\"]\nremote = true";
    let config = Config::parse(text).expect("valid");
    let names: Vec<_> = config
        .listeners
        .iter()
        .map(|listener| &listener.rules.name)
        .collect();
    assert_eq!(names, ["443,80-81", "8443", "8443-remote"]);
}

#[test]
fn more_listeners_than_one_wsmon_can_watch_are_refused() {
    let listeners: String = (1..=257)
        .map(|port| format!("[[listener]]\nports = [\"{port}\"]\n"))
        .collect();
    assert!(refusal(&listeners).starts_with("514:9: 257 listeners; one wsmon can watch 256"));
}
