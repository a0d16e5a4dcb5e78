//! What `wsmon run` refuses before it attaches anything.

use std::{
    fs,
    net::TcpListener,
    os::unix::net::{UnixDatagram, UnixListener},
    process::Command,
};

use crate::{USAGE, WSMON, refusal, wsmon};

#[test]
fn a_table_of_size_zero_is_refused() {
    let flags = ["run", "--port", "80", "--max-connections", "0"];
    let line = refusal(&flags, USAGE);
    assert!(line.contains("expected 1 to 16777216"), "{line}");
}

#[test]
fn a_missing_cgroup_and_a_path_outside_cgroup_v2_are_refused() {
    let cgroup = |path| refusal(&["run", "--port", "80", "--cgroup", path], USAGE);
    let line = cgroup("/nowhere");
    assert!(line.contains("--cgroup"), "{line}");
    assert!(
        line.contains("/nowhere: No such file or directory"),
        "{line}"
    );
    let line = cgroup("/proc");
    assert!(line.contains("/proc is not on a cgroup v2"), "{line}");
}

#[test]
fn the_service_manager_gets_the_line_of_a_wrong_file() {
    let folder = tempfile::tempdir().unwrap();
    let [socket, file] = ["notify", "wsmon.toml"].map(|name| folder.path().join(name));
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_nonblocking(true).unwrap();
    let last_status = |text: &str| {
        fs::write(&file, text).unwrap();
        let output = Command::new(WSMON)
            .args(["run", "--control", "none", "--config"])
            .arg(&file)
            .env("NOTIFY_SOCKET", &socket)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(USAGE));
        let mut message = [0; 8192];
        let received = std::iter::from_fn(|| {
            manager
                .recv(&mut message)
                .ok()
                .map(|length| String::from_utf8_lossy(&message[..length]).into_owned())
        });
        let received: Vec<_> = received.collect();
        assert!(!received.concat().contains("READY=1"), "{received:?}");
        received.last().cloned().unwrap_or_default()
    };
    let wrong = last_status("[[listener]]\nports = [\"http\"]\n");
    let place = format!("STATUS={}:2:10: invalid port", file.display());
    assert!(wrong.starts_with(&place), "{wrong}");
    let example = last_status(include_str!("../../../deploy/package/wsmon.toml"));
    let expected = format!(
        "STATUS=nothing to watch; {} has no [[listener]] yet:",
        file.display()
    );
    assert!(example.starts_with(&expected), "{example}");
}

#[test]
fn a_taken_metrics_port_is_refused_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let flags = ["run", "--port", "80", "--metrics-addr", &addr];
    let line = refusal(&flags, USAGE);
    assert!(line.contains(&addr), "{line}");
    assert!(line.contains("Address already in use"), "{line}");
    assert!(line.contains("--metrics-addr"), "{line}");
}

#[test]
fn a_misplaced_file_is_refused_before_anything_else_and_nothing_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let missing = format!("{directory}/missing/file");
    for flag in ["--alert-log", "--access-log", "--state", "--control"] {
        let refused = |path| refusal(&["run", "--port", "80", flag, path], USAGE);
        assert_eq!(
            refused(&missing),
            format!(
                "wsmon: {flag} {missing}: there is no directory {directory}/missing; create it, or \
                 choose another path"
            )
        );
        assert_eq!(
            refused(directory),
            format!("wsmon: {flag} {directory}: it is a directory, name a file in it")
        );
    }
    let line = refusal(&["run", "--port", "80", "--pod-logs", &missing], USAGE);
    assert!(line.contains("there is no such directory"), "{line}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_misplaced_file_is_refused_with_the_variable_or_the_key_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wsmon.toml");
    fs::write(
        &file,
        "[daemon]\nstate = \"/nowhere/a\"\ncgroup = \"/nowhere\"\n",
    )
    .unwrap();
    let refused = |variables: &[(&str, &str)]| {
        let output = Command::new(WSMON)
            .args(["run", "--port", "80", "--control", "none", "--config"])
            .arg(&file)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(USAGE));
        String::from_utf8(output.stderr).unwrap()
    };
    let of_file = refused(&[]);
    assert!(
        of_file.contains("wsmon: daemon.state /nowhere/a:"),
        "{of_file}"
    );
    let of_variable = refused(&[("WSMON_STATE", "/nowhere/b")]);
    assert!(
        of_variable.contains("wsmon: WSMON_STATE /nowhere/b:"),
        "{of_variable}"
    );
    let state = folder.path().join("state");
    let cgroup = refused(&[("WSMON_STATE", state.to_str().unwrap())]);
    assert!(cgroup.contains("wsmon: daemon.cgroup:"), "{cgroup}");
}

#[test]
fn a_flag_can_be_set_by_its_variable_and_overrides_it() {
    let run = |variables: &[(&str, &str)], args: &[&str]| {
        let output = Command::new(WSMON)
            .arg("run")
            .args(args)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(USAGE));
        String::from_utf8(output.stderr).unwrap()
    };
    // Without one of them there would be nothing to watch, or no reason to refuse.
    let variables = [
        ("WSMON_PORT", "8080,9000-9010"),
        ("WSMON_WORKLOAD_LABELS", "yes"),
        ("WSMON_VERBOSE", "2"),
        ("WSMON_STATE", "/nowhere/state"),
    ];
    let refused = run(&variables, &["--max-workloads", "9"]);
    assert_eq!(
        refused,
        "wsmon: WSMON_STATE /nowhere/state: there is no directory /nowhere; create it, or choose another \
         path\n"
    );
    let overridden = run(&variables, &["--state", "/elsewhere/state"]);
    assert!(
        overridden.contains("--state /elsewhere/state"),
        "{overridden}"
    );
    let wrong = run(&[("WSMON_LB_TIMEOUT", "soon")], &["--port", "80"]);
    assert!(
        wrong.starts_with("error: invalid value 'soon' for 'WSMON_LB_TIMEOUT'"),
        "{wrong}"
    );
}

#[test]
fn a_limit_without_its_labels_is_a_warning() {
    let args = [
        "run",
        "--port",
        "80",
        "--max-workloads",
        "9",
        "--state",
        "/nowhere/a",
    ];
    let output = wsmon(&args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let warning = "wsmon: warning: --max-workloads has no effect without --workload-labels\n";
    assert!(stderr.starts_with(warning), "{stderr}");
    let quiet = wsmon(&[&args[..], &["-q"]].concat());
    let stderr = String::from_utf8(quiet.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("wsmon: --state /nowhere/a: "),
        "{stderr}"
    );
}

#[test]
fn a_status_page_without_a_server_is_a_warning() {
    let args = ["run", "--port", "80", "--state", "/nowhere/a"];
    let stderr = |flags: &[&str]| {
        let output = wsmon(&[&args[..], flags].concat());
        String::from_utf8(output.stderr).unwrap()
    };
    let both = stderr(&["--status-page", "--metrics-addr", "none"]);
    let warning = "wsmon: warning: --status-page has no effect with --metrics-addr none; ";
    assert!(both.starts_with(warning), "{both}");
    for flags in [
        &["--status-page", "--metrics-addr", "127.0.0.1:0"][..],
        &["--metrics-addr", "none"],
    ] {
        let one = stderr(flags);
        assert_eq!(one.lines().count(), 1, "{one}");
        assert!(!one.contains("--status-page"), "{one}");
    }
}

#[test]
fn an_instance_without_an_alertmanager_is_a_warning_unless_a_variable_has_it() {
    let stderr = |flags: &[&str]| {
        let args = ["run", "--port", "80", "--state", "/nowhere/a"];
        let output = Command::new(WSMON)
            .args(args)
            .args(flags)
            .env("WSMON_INSTANCE", "a")
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let warned = stderr(&["--instance", "b"]);
    let warning = "wsmon: warning: --instance has no effect without --alertmanager\n";
    assert!(warned.starts_with(warning), "{warned}");
    let quiet = stderr(&[]);
    assert_eq!(quiet.lines().count(), 1, "{quiet}");
}

#[test]
fn a_mistyped_metrics_address_is_refused_with_the_possible_ones() {
    let flags = ["run", "--port", "80", "--metrics-addr", "localhost:http"];
    let line = refusal(&flags, USAGE);
    assert!(
        line.contains("expected ADDR:PORT, NAME:PORT, :PORT"),
        "{line}"
    );
    let flags = ["run", "--port", "80", "--metrics-addr", "none,6455"];
    let line = refusal(&flags, USAGE);
    assert!(line.contains("give it alone"), "{line}");
}

#[test]
fn a_control_socket_on_which_a_program_listens_is_refused_with_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken.sock");
    let _listener = UnixListener::bind(&taken).unwrap();
    let path = taken.to_str().unwrap();
    let line = refusal(&["run", "--port", "80", "--control", path], USAGE);
    let expected = format!("(pid {}) listens on {path}; stop it", std::process::id());
    assert!(line.contains(&expected), "{line}");
    assert!(line.contains("--control"), "{line}");
}

#[test]
#[ignore = "needs root: comes as far as the control socket"]
fn a_control_socket_that_is_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let precious = folder.path().join("precious");
    fs::write(&precious, "data").unwrap();
    let path = precious.to_str().unwrap();
    let flags = ["run", "--port", "80", "--metrics-addr", "127.0.0.1:0"];
    let line = refusal(&[&flags[..], &["--control", path]].concat(), USAGE);
    assert!(line.contains("is not a socket"), "{line}");
    assert!(line.contains("--control"), "{line}");
}
