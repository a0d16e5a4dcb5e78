//! Learned baselines survive a restart.

use std::{fs, path::Path};

use lab::{Daemon, Manner};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn learned_baselines_survive_a_restart() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let usual = json!({ "fast": 2.5, "slow": 2.5, "variance": 3.0 });
    let learned = json!({ "arrivals": usual, "closes": usual, "seconds": 1000 });
    let baselines = json!({ stage.port(): learned, "another": learned });
    let before = json!({ "wsmon_state": 1, "baselines": baselines });
    fs::write(&path, before.to_string()).unwrap();

    let daemon = connect_for_a_while(&stage, &path);
    assert!(!daemon.contains("state"), "{daemon}");
    let after: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let baselines = &after["baselines"];
    assert_eq!(baselines["another"], learned, "kept while not watched");
    let ours = &baselines[stage.port()];
    assert!(ours["seconds"].as_u64() > Some(1000), "{after}");
    assert!(ours["arrivals"]["slow"].as_f64() > Some(2.0), "{after}");
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "no other file is left");
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_foreign_file_causes_a_warning_and_stays_unchanged() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    fs::write(&path, "precious").unwrap();
    let log = connect_for_a_while(&stage, &path);
    assert!(log.contains("not a state file of wsmon"), "{log}");
    assert!(log.contains("--state"), "without the remedy: {log}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

/// The log of a daemon that sees clients connect for three seconds and is then terminated.
fn connect_for_a_while(stage: &Stage, state: &Path) -> String {
    let state = ["--state", state.to_str().unwrap()];
    let mut watch = stage.watch(&state);
    watch.allow("not a state file of wsmon");
    let opened = |watch: &crate::stage::Watch| watch.metric("wsmon_connections_opened_total", &[]);
    let begun = std::time::Instant::now();
    let mut count = 0.0;
    while begun.elapsed().as_secs() < 4 {
        drop(stage.client(1, "/quiet", Manner::Responsive));
        count += 1.0;
        lab::wait_until("all to be counted", SOON, || opened(&watch) == count).unwrap();
    }
    let daemon: &mut Daemon = &mut watch.daemon;
    daemon.terminate(SOON).unwrap();
    daemon.log()
}
