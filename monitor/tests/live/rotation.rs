//! The alert log as a file that is moved away while the daemon runs.

use std::fs;

use lab::{Manner, wait_until};

use crate::stage::{SOON, Stage};

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_rotated_alert_log_is_continued_in_a_new_file() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let (log, old) = (folder.path().join("alerts"), folder.path().join("alerts.1"));
    let lines = |path| fs::read_to_string(path).unwrap_or_default().lines().count();
    let mut watch = stage.watch_to(&log, &["--lb-timeout", "1s"]);
    let first = stage.client(0, "/quiet", Manner::Responsive);
    wait_until("the first alert", SOON, || lines(&log) == 1).unwrap();

    fs::rename(&log, &old).unwrap();
    watch.daemon.rotate().unwrap();
    wait_until("the new file", SOON, || log.exists()).unwrap();
    let second = stage.client(1, "/quiet", Manner::Responsive);
    wait_until("the second alert", SOON, || lines(&log) == 1).unwrap();
    assert_eq!(lines(&old), 1);
    for (path, client) in [(&old, first), (&log, second)] {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(&client.local_addr().to_string()), "{text}");
    }
}
