//! tshark's output.

use std::{
    collections::BTreeMap, io::ErrorKind, net::SocketAddr, process::Command, sync::LazyLock,
};

use monitor_common::Direction;
use serde_json::Value;

use crate::{
    files::{Recording, in_parallel},
    frames::{Frame, Line, Streams},
};

/// The ports of servers and proxies in all recordings.
const SERVER_PORTS: [u16; 2] = [8080, 8000];

/// Runs once per recording, for all tests.
static ANSWERS: LazyLock<BTreeMap<String, Result<Streams, String>>> = LazyLock::new(|| {
    let all = Recording::all();
    in_parallel(&all, |recording| (recording.name(), query(recording)))
        .into_iter()
        .collect()
});

pub(crate) fn frames(recording: &Recording) -> Result<&'static Streams, String> {
    ANSWERS[&recording.name()].as_ref().map_err(Clone::clone)
}

fn query(recording: &Recording) -> Result<Streams, String> {
    let dissector = if recording.starts_in_mid_stream() {
        "websocket"
    } else {
        "http"
    };
    // The user's preferences must not change tshark's output.
    let nobodys = tempfile::tempdir().unwrap();
    let mut command = Command::new("tshark");
    command
        .env("HOME", nobodys.path())
        .env("XDG_CONFIG_HOME", nobodys.path())
        .arg("-r")
        .arg(&recording.path)
        .arg("-n");
    for port in SERVER_PORTS {
        command.args(["-d", &format!("tcp.port=={port},{dissector}")]);
    }
    command
        .args(["-o", "tcp.reassemble_out_of_order:TRUE"])
        // The default limit is 500 frames in a segment.
        .args(["-o", "gui.max_tree_depth:100000"])
        .args(["-Y", "websocket", "-T", "json", "--no-duplicate-keys"])
        .args(["-J", "ip ipv6 tcp websocket"]);
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => "tshark is not installed: cargo xtask setup --tests".to_owned(),
        _ => format!("could not start tshark: {error}"),
    })?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    let complete = output.status.success() || recording.is_cut_short();
    if !complete || complaints.contains("Dissector bug") {
        return Err(format!("tshark: {}: {complaints}", output.status));
    }
    let packets: Vec<Value> = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("tshark's JSON: {error}: {complaints}"))?;
    Ok(packets
        .iter()
        .flat_map(|packet| packet_frames(&packet["_source"]["layers"]))
        .collect())
}

fn packet_frames(layers: &Value) -> Vec<Line> {
    let tcp = &layers["tcp"];
    let socket = |side: &str| {
        let ip = match &layers["ip"] {
            Value::Null => string(&layers["ipv6"][format!("ipv6.{side}")]),
            ip => string(&ip[format!("ip.{side}")]),
        };
        let port = number(&tcp[format!("tcp.{side}port")]);
        SocketAddr::new(ip.parse().unwrap(), port as u16)
    };
    let (from, to) = (socket("src"), socket("dst"));
    let (local, peer, direction) = if SERVER_PORTS.contains(&to.port()) {
        (to, from, Direction::Rx)
    } else {
        (from, to, Direction::Tx)
    };
    // One frame is an object, several are an array.
    let frames = match &layers["websocket"] {
        Value::Array(frames) => frames.as_slice(),
        frame => std::slice::from_ref(frame),
    };
    let line = |frame| Line {
        cookie: string(&tcp["tcp.stream"]).to_owned(),
        local,
        peer,
        direction,
        frame: read_frame(frame),
    };
    frames.iter().map(line).collect()
}

fn read_frame(frame: &Value) -> Frame {
    let field = |name: &str| &frame[format!("websocket.{name}")];
    let length = ["payload_length_ext_64", "payload_length_ext_16"]
        .into_iter()
        .map(field)
        .find(|length| length.is_string())
        .unwrap_or_else(|| field("payload_length"));
    let close = &field("payload")["websocket.payload.close"];
    let code = &close["websocket.payload.close.status_code"];
    Frame {
        fin: number(field("fin")) == 1,
        rsv: number(field("rsv")) as u8,
        opcode: opcode_name(number(field("opcode"))),
        masked: number(field("mask")) == 1,
        length: number(length),
        close_code: code.is_string().then(|| number(code) as u16),
    }
}

/// RFC 6455 §11.8.
fn opcode_name(opcode: u64) -> String {
    match opcode {
        0 => "continuation".to_owned(),
        1 => "text".to_owned(),
        2 => "binary".to_owned(),
        8 => "close".to_owned(),
        9 => "ping".to_owned(),
        10 => "pong".to_owned(),
        reserved => format!("reserved-{reserved}"),
    }
}

/// All of tshark's values are strings.
fn string(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("tshark's JSON is not as expected: {value}"))
}

fn number(value: &Value) -> u64 {
    let text = string(value);
    text.strip_prefix("0x")
        .map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16))
        .unwrap_or_else(|error| panic!("tshark's JSON is not as expected: {text}: {error}"))
}
