//! What the command line refuses, and with which message.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    process::{Command, Output},
};

mod start;
mod web_config;

const WSMON: &str = env!("CARGO_BIN_EXE_wsmon");
const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const PREREQUISITE: i32 = 3;

#[test]
fn an_invalid_port_is_refused_by_name() {
    for wrong in ["0", "70000", "http", ""] {
        for flag in ["--port", "--remote-port"] {
            let line = refusal(&["run", flag, wrong], USAGE);
            assert!(line.contains(&format!("invalid port {wrong:?}")), "{line}");
            assert!(line.contains("expected 1 to 65535"), "{line}");
            assert!(line.contains(flag), "{line}");
            let line = refusal(&["run", flag, &format!("80,{wrong}")], USAGE);
            assert!(line.contains(&format!("invalid port {wrong:?}")), "{line}");
        }
    }
}

#[test]
fn a_reversed_range_is_refused_with_the_correct_order() {
    let line = refusal(&["run", "--port", "9010-9000"], USAGE);
    assert!(line.contains("9010-9000 is empty"), "{line}");
    assert!(line.contains("write the lower port first"), "{line}");
}

#[test]
fn overlapping_ports_are_refused_with_both_in_the_message() {
    let flags = ["run", "--port", "9000-9010", "--port", "9005"];
    let line = refusal(&flags, USAGE);
    assert!(line.contains("9005 and 9000-9010 overlap"), "{line}");
}

#[test]
fn without_a_port_there_is_nothing_to_watch() {
    let line = refusal(&["run"], USAGE);
    assert!(line.contains("nothing to watch"), "{line}");
    assert!(line.contains("--port 8080"), "{line}");
}

#[test]
fn limits_of_zero_and_nonsense_are_refused() {
    for flag in [
        "--lb-timeout",
        "--ping-timeout",
        "--unresponsive-floor",
        "--message-gap",
    ] {
        let line = refusal(&["run", "--port", "80", flag, "0s"], USAGE);
        assert!(line.contains(flag), "{line}");
        assert!(line.contains("longer than zero"), "{line}");
        let line = refusal(&["run", "--port", "80", flag, "soon"], USAGE);
        assert!(line.contains("'soon'"), "{line}");
        assert!(line.contains("expected one like 60s"), "{line}");
    }
}

#[test]
fn an_unknown_load_balancer_is_refused_with_a_suggestion() {
    let line = refusal(&["run", "--port", "80", "--lb", "aws-abl"], USAGE);
    assert!(line.contains("did you mean \"aws-alb\"?"), "{line}");
    assert!(line.contains("`wsmon profiles` lists them"), "{line}");
    let line = refusal(&["profiles", "apache"], USAGE);
    assert!(line.contains("no profile \"apache\""), "{line}");
    let line = refusal(&["run", "--port", "80", "--lb", "haproxy"], USAGE);
    assert!(
        line.contains("--lb-timeout with the value of timeout tunnel"),
        "{line}"
    );
}

#[test]
fn an_invalid_file_is_refused_by_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wsmon.toml");
    let path = file.to_str().unwrap();
    fs::write(
        &file,
        "[[listener]]\nports = [\"80\"]\nping_timeout = \"soon\"\n",
    )
    .unwrap();
    let expected = format!("wsmon: {path}:3:16: ");
    for command in [&["run"][..], &["replay", "capture.pcap"]] {
        let line = refusal(&[command, &["--config", path]].concat(), USAGE);
        assert!(line.starts_with(&expected), "{line}");
        assert!(line.contains("expected one like 60s"), "{line}");
    }
    let line = refusal(&["run", "--config", "/nowhere.toml"], USAGE);
    assert!(
        line.contains("cannot read /nowhere.toml: No such file"),
        "{line}"
    );
}

#[test]
fn the_check_of_a_file_reports_every_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wsmon.toml");
    let path = file.to_str().unwrap();
    let text = "[[listener]]\nports = [\"80\", \"80\"]\npath = [{ profile = \"nginz\" }]\n\
                [daemon]\nmax_workloads = 0\n";
    fs::write(&file, text).unwrap();
    let output = wsmon(&["config", "check", path]);
    assert_eq!(output.status.code(), Some(USAGE));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(
        lines[0].starts_with(&format!("{path}:2:16: ports 80 and 80")),
        "{stderr}"
    );
    assert_eq!(lines[1], "2 | ports = [\"80\", \"80\"]");
    assert_eq!(lines[2], "  |                ^^^^");
    assert!(
        lines[3].starts_with(&format!("{path}:3:21: no profile")),
        "{stderr}"
    );
    let expected = format!("{path}:5:17: invalid max_workloads 0, expected 1 to 10000");
    assert_eq!(lines[6], expected);
    assert_eq!(lines[9], format!("wsmon: {path}: 3 errors"));
}

#[test]
fn the_check_of_a_file_without_listeners_warns() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wsmon.toml");
    fs::write(&file, "").unwrap();
    let path = file.to_str().unwrap();
    let output = wsmon(&["config", "check", path]);
    assert_eq!(output.status.code(), Some(0));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let expected = format!("{path}: warning: no listener; `wsmon run` needs --port");
    assert!(stderr.starts_with(&expected), "{stderr}");
}

#[test]
fn the_example_file_passes_the_check_which_explains_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wsmon.toml");
    let example = wsmon(&["config", "example"]);
    assert_eq!(example.status.code(), Some(0));
    fs::write(&file, &example.stdout).unwrap();
    let output = wsmon(&["config", "check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let meaning = String::from_utf8(output.stdout).unwrap();
    assert!(
        meaning.contains("listener edge, local ports 8080, 9000-9010"),
        "{meaning}"
    );
    let tightest = meaning
        .lines()
        .find(|line| line.ends_with("<- the tightest"));
    assert!(
        tightest.is_some_and(|line| line.contains("aws-alb")),
        "{meaning}"
    );
    assert!(
        meaning.contains("heartbeat: every 20s or more often"),
        "{meaning}"
    );
    assert!(meaning.contains("path of peers in 10.0.0.0/8"), "{meaning}");
}

#[test]
fn profiles_are_listed_as_a_table_and_as_json() {
    let table = wsmon(&["profiles"]);
    assert_eq!(table.status.code(), Some(0));
    let table = String::from_utf8(table.stdout).unwrap();
    let json = wsmon(&["profiles", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let rows = json.as_array().unwrap();
    assert_eq!(table.lines().count(), rows.len() + 1);
    let nginx = rows.iter().find(|row| row["name"] == "nginx").unwrap();
    assert_eq!(nginx["idle_timeout_seconds"], 60);
    assert_eq!(nginx["max_lifetime_seconds"], serde_json::Value::Null);
}

#[test]
fn a_mistyped_command_is_refused_with_the_nearest_one() {
    let output = wsmon(&["lst"]);
    assert_eq!(output.status.code(), Some(USAGE));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("'list'"), "{stderr}");
}

#[test]
fn a_mistyped_topic_is_refused_with_the_nearest_one() {
    for args in [&["help", "zombis"][..], &["zombis"]] {
        let output = wsmon(args);
        assert_eq!(output.status.code(), Some(USAGE));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("'zombies'"), "{args:?}: {stderr}");
    }
}

#[test]
fn a_topic_of_help_is_also_printed_by_its_name() {
    let text = |args: &[&str]| {
        let output = wsmon(args);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    for (topic, part) in [
        ("zombies", "kill -STOP PID"),
        (
            "verdicts",
            "silent for longer than the load balancer remembers",
        ),
    ] {
        let help = text(&["help", topic]);
        assert!(help.contains(part), "{help}");
        assert!(!help.contains("Usage"), "{help}");
        assert_eq!(text(&[topic]).trim_end(), help.trim_end());
    }
}

#[test]
fn client_commands_without_a_daemon_fail_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wsmon.sock");
    let path = socket.to_str().unwrap();
    // Also with a socket left behind by an ended daemon.
    for left_behind in [false, true] {
        if left_behind {
            drop(UnixListener::bind(&socket).unwrap());
        }
        let commands = [
            &["frames"][..],
            &["list"],
            &["inspect", "7"],
            &["status"],
            &["alerts"],
            &["top", "--once"],
        ];
        for command in commands {
            let line = refusal(&[command, &["--control", path]].concat(), FAILURE);
            let expected = format!("wsmon: no wsmon listens on {path}; start `wsmon run`");
            assert!(line.starts_with(&expected), "{line}");
        }
    }
}

#[test]
fn invalid_filters_are_refused_with_the_remedy() {
    for (args, why) in [
        (
            &["frames", "--peer", "host"][..],
            "expected one like 10.0.0.7, 10.0.0.0/8",
        ),
        (
            &["frames", "--opcode", "shout"],
            "expected continuation, text",
        ),
        (&["frames", "--direction", "up"], "expected rx or tx"),
        (&["frames", "--sample", "0"], "expected 1/100"),
        (&["frames", "--port", "0"], "expected a port like 8080"),
        (&["frames", "--port", "abc"], "expected a port like 8080"),
        (&["frames", "-n", "x"], "expected a number like 100"),
        (
            &["list", "-n", "x"],
            "expected a number like 40, or 0 for all",
        ),
        (
            &["alerts", "-n", "x"],
            "expected a number like 40, or 0 for all",
        ),
        (&["frames", "--cookie", "x"], "expected a number"),
        (&["list", "--state", "dead"], "expected open or closing"),
        (&["alerts", "--kind", "dead"], "expected zombie, at_risk"),
        (&["inspect", "x"], "expected a cookie like 315653"),
        (&["list", "--search", ""], "the text to search for is empty"),
        (&["list", "--watch", "--json"], "--watch prints tables"),
    ] {
        let line = refusal(args, USAGE);
        assert!(line.contains(why), "{line}");
    }
}

#[test]
#[ignore = "needs root: becomes nobody"]
fn without_access_the_error_names_the_users_with_access() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path().join("wsmon.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
    for command in [&["list"][..], &["status"], &["alerts"], &["top", "--once"]] {
        let control = ["--control", socket.to_str().unwrap()];
        let output = as_nobody(&[command, &control].concat());
        assert_eq!(output.status.code(), Some(PREREQUISITE));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("this user may not connect"), "{stderr}");
        assert!(stderr.contains("the socket's group"), "{stderr}");
    }
}

#[test]
fn a_full_stderr_changes_no_exit_status() {
    let statuses = [
        &["run", "--port", "0"][..],
        &["list", "--control", "/nowhere"],
    ]
    .map(|args| {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let status = Command::new(WSMON).args(args).stderr(full).status();
        status.unwrap().code()
    });
    assert_eq!(statuses, [Some(USAGE), Some(FAILURE)]);
}

#[test]
fn help_shows_examples() {
    let help = |args: &[&str]| {
        let output = wsmon(args);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let short = help(&["--help"]);
    assert!(
        short.contains("wsmon run --port 8080 --lb-timeout 60s"),
        "{short}"
    );
    let run = help(&["run", "--help"]);
    assert!(run.contains("Examples:"), "{run}");
    assert!(run.contains("wsmon run --remote-port 443"), "{run}");
    assert!(run.contains("Exit status:"), "{run}");
    for command in [
        "check", "ports", "status", "list", "top", "alerts", "inspect", "frames", "profiles",
        "config",
    ] {
        let text = help(&[command, "--help"]);
        assert!(text.contains("Examples:"), "{text}");
    }
}

#[test]
fn examples_that_need_no_daemon_run() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("wsmon.toml"),
        "[[listener]]\nports = [\"80\"]\n",
    )
    .unwrap();
    fs::write(folder.path().join("web.yml"), "{}\n").unwrap();
    let mut run = 0;
    for command in ["profiles", "config", "completions"] {
        let help = wsmon(&[command, "--help"]).stdout;
        let help = String::from_utf8(help).unwrap();
        let beginning = format!("  wsmon {command}");
        for line in help.lines().filter(|line| line.starts_with(&beginning)) {
            // Before the comment, the pipe or the redirection.
            let words = line.trim_start().split("  ").next().unwrap();
            let words = words.split_whitespace().skip(1);
            let words = words.take_while(|word| !["|", ">"].contains(word));
            let output = Command::new(WSMON)
                .args(words)
                .current_dir(&folder)
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{line}: {stderr}");
            assert!(!output.stdout.is_empty(), "{line}");
            run += 1;
        }
    }
    assert!(run >= 8, "{run}");
}

#[test]
#[ignore = "needs root: becomes nobody"]
fn without_capabilities_the_daemon_names_each_missing_one() {
    let output = as_nobody(&["run", "--port", "80", "--metrics-addr", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(PREREQUISITE));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().collect();
    let missing = ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"];
    assert_eq!(lines.len(), missing.len(), "{stderr}");
    for (line, capability) in lines.iter().zip(missing) {
        assert!(line.contains(&format!("{capability}: cannot")), "{line}");
        assert!(line.contains("run as root"), "{line}");
        assert!(
            line.contains("setcap cap_bpf,cap_perfmon,cap_net_admin+ep /"),
            "{line}"
        );
    }
}

#[test]
#[ignore = "needs root: becomes nobody"]
fn without_capabilities_the_check_fails_with_a_remedy_for_each() {
    let output = as_nobody(&["check"]);
    assert_eq!(output.status.code(), Some(PREREQUISITE));
    let table = String::from_utf8(output.stdout).unwrap();
    for capability in ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"] {
        let row = format!("no   {capability}");
        let mut rows = table.lines().skip_while(|line| !line.starts_with(&row));
        assert!(rows.next().is_some(), "no row for {capability}:\n{table}");
        let remedy = rows.next().unwrap_or_default();
        assert!(remedy.contains("remedy: run as root"), "{table}");
        assert!(remedy.contains(capability), "{table}");
    }

    let output = as_nobody(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(PREREQUISITE));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let wrong = rows
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["ok"] == false);
    assert!(
        wrong.filter(|row| row["required"] == true).count() == 3,
        "{rows}"
    );
}

#[test]
#[ignore = "needs root: becomes nobody"]
fn without_capabilities_the_ports_are_listed_and_what_is_missing_is_reported_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = as_nobody(&["ports", "--json"]);
    assert_eq!(output.status.code(), Some(PREREQUISITE));
    let local = listener.local_addr().unwrap().to_string();
    let lines = String::from_utf8(output.stdout).unwrap();
    let sockets = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let ours: Vec<serde_json::Value> = sockets
        .filter(|socket: &serde_json::Value| socket["local"] == *local)
        .collect();
    let [ours] = &ours[..] else {
        panic!("{ours:?}");
    };
    assert_eq!(
        (&ours["pid"], &ours["comm"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    for missing in [
        "whose network namespace is hidden",
        "without a known process",
    ] {
        assert_eq!(stderr.matches(missing).count(), 1, "{stderr}");
    }
    assert!(stderr.contains("CAP_SYS_PTRACE"), "{stderr}");
    let watch = as_nobody(&["ports", "--watch", "1s"]);
    let said = String::from_utf8_lossy(&watch.stderr);
    assert_eq!(watch.status.code(), Some(3), "{said}");
    assert!(said.contains("CAP_BPF"), "{said}");
    assert!(watch.stdout.is_empty(), "refused before anything is listed");
}

#[test]
#[ignore = "needs root: requires every privilege"]
fn with_all_privileges_the_check_succeeds() {
    let output = wsmon(&["check"]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{table}");
    assert!(
        !table.lines().any(|line| line.starts_with("no ")),
        "{table}"
    );
}

/// The single line with the reason why `args` are refused.
fn refusal(args: &[&str], code: i32) -> String {
    let output = wsmon(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
    let mut lines = stderr.lines().filter(|line| !line.is_empty());
    let line = lines.next().unwrap_or_default().to_owned();
    // clap adds a pointer to the help below that line; nothing else may follow.
    let rest: Vec<&str> = lines
        .filter(|line| !line.contains("try '--help'"))
        .collect();
    assert!(rest.is_empty(), "more than one line:\n{stderr}");
    line
}

fn wsmon(args: &[&str]) -> Output {
    Command::new(WSMON).args(args).output().unwrap()
}

/// Runs a copy, because other users may not have access to the build folder.
fn as_nobody(args: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("wsmon");
    fs::copy(WSMON, &copy).unwrap();
    Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(copy)
        .args(args)
        .output()
        .unwrap()
}
