//! The output of `wsmon replay --json`.

use std::process::Command;

use serde_json::Value;

use crate::{
    files::Recording,
    frames::{Line, Streams},
};

const WSMON: &str = env!("CARGO_BIN_EXE_wsmon");

pub(crate) fn frames(recording: &Recording) -> Result<Streams, String> {
    let mut command = Command::new(WSMON);
    command.args(["replay", "--json"]).arg(&recording.path);
    if recording.starts_in_mid_stream() {
        command.args(["--port", "8080"]);
    }
    let output = command.output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    let expected = if recording.is_cut_short() {
        complaints.contains(&recording.name())
    } else {
        output.status.success()
    };
    if !expected {
        return Err(format!("{}: {complaints:?}", output.status));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let wrong = |error| format!("{line}: {error}");
            match serde_json::from_str::<Value>(line) {
                Ok(value) if value["type"] != "frame" => None,
                Ok(value) => Some(serde_json::from_value::<Line>(value).map_err(wrong)),
                Err(error) => Some(Err(wrong(error))),
            }
        })
        .collect()
}
