//! Configuration changes while connections are open.

use std::{fs, path::PathBuf, time::Duration};

use lab::{Manner, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::stage::{SOON, Stage, Watch};

/// A daemon and its configuration file.
struct Configured {
    file: PathBuf,
    watch: Watch,
    /// Contains the file.
    _folder: tempfile::TempDir,
}

impl Configured {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wsmon.toml");
        fs::write(&file, text).unwrap();
        let watch = Watch::start(&["--config", file.to_str().unwrap()]);
        Self {
            file,
            watch,
            _folder: folder,
        }
    }

    /// Rewrites the file, and waits for the log line with the result.
    fn reload(&self, text: &str, expected: &str) {
        fs::write(&self.file, text).unwrap();
        hang_up(&self.watch, expected);
    }
}

/// Sends SIGHUP and waits until the daemon has logged `expected`.
fn hang_up(watch: &Watch, expected: &str) {
    let id = i32::try_from(watch.daemon.id()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::HUP).unwrap();
    wait_until(expected, SOON, || watch.daemon.log().contains(expected))
        .unwrap_or_else(|error| panic!("{error}:\n{}", watch.daemon.log()));
}

fn file(stage: &Stage, limit: &str) -> String {
    format!(
        "[[listener]]\nname = \"edge\"\nports = [\"{}\"]\n\
         path = [{{ name = \"lb\", idle_timeout = \"{limit}\" }}]\n",
        stage.port()
    )
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn open_connections_are_judged_by_new_rules_and_a_broken_file_changes_nothing() {
    let stage = Stage::new();
    let mut running = Configured::new(&file(&stage, "60s"));
    let idle = stage.client(0, "/quiet", Manner::Responsive);
    let healthy = stage.client(1, "/heartbeat?every=500ms", Manner::Responsive);
    let edge = [("listener", "edge")];
    running
        .watch
        .wait_for_metric("wsmon_connections", &edge, 2.0);

    let name = running.file.display().to_string();
    running.reload(
        &file(&stage, "2s"),
        &format!("wsmon: reloaded {name}: edge: path lb 1m -> lb 2s"),
    );
    let alert = running.watch.verdict(idle.local_addr(), "expired", SOON);
    assert_eq!(alert.number("/evidence/limit_seconds"), Some(2.0));
    let limit = running.watch.metric("wsmon_lb_idle_timeout_seconds", &edge);
    assert_eq!(limit, 2.0);

    running.reload(
        &file(&stage, "soon"),
        &format!("the old configuration stays in force: {name}:4:39: "),
    );
    let moved = file(&stage, "2s").replace("edge", "moved");
    running.reload(&moved, "restart needed for listeners (");
    let later = stage.client(2, "/quiet", Manner::Responsive);
    let alert = running
        .watch
        .verdict(later.local_addr(), "expired", Duration::from_secs(2) + SOON);
    assert_eq!(alert.number("/evidence/limit_seconds"), Some(2.0));
    assert_eq!(alert.text("/listener"), "edge");
    running.watch.assert_never_accused(healthy.local_addr());
    assert_eq!(
        running
            .watch
            .metric("wsmon_connections_opened_total", &edge),
        3.0
    );
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn without_a_file_sighup_changes_nothing_and_ends_nothing() {
    let stage = Stage::new();
    let mut watch = stage.watch(&["--lb-timeout", "2s"]);
    hang_up(&watch, "wsmon: SIGHUP: no --config, nothing to reload");
    let idle = stage.client(0, "/quiet", Manner::Responsive);
    watch.verdict(idle.local_addr(), "expired", SOON);
}
