//! The output and the exit status of `wsmon replay`.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use wire::{CLOSE, Conversation, End, PING, Recording, SECOND, START, TEXT};

use crate::{frame, opened};

const WSMON: &str = env!("CARGO_BIN_EXE_wsmon");

/// An upgrade, a text frame, 70 s without a packet, a close frame, the end.
fn story() -> Vec<u8> {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let at = START + SECOND;
    conversation.says(
        &mut recording,
        at,
        End::Client,
        &frame(TEXT, b"hello", true),
    );
    let at = at + 70 * SECOND;
    conversation.says(
        &mut recording,
        at,
        End::Client,
        &frame(CLOSE, &[3, 232], true),
    );
    conversation.close(&mut recording, at, End::Client);
    recording.pcap()
}

struct File {
    path: PathBuf,
    _folder: TempDir,
}

fn file(bytes: &[u8]) -> File {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("recording");
    fs::write(&path, bytes).expect("a writable file");
    File {
        path,
        _folder: folder,
    }
}

fn wsmon(flags: &[&str], path: &Path) -> Output {
    Command::new(WSMON)
        .arg("replay")
        .args(flags)
        .arg(path)
        .output()
        .expect("wsmon runs")
}

fn stdout(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect()
}

fn types(objects: &[Value]) -> Vec<&str> {
    objects
        .iter()
        .map(|object| object["type"].as_str().expect("a type"))
        .collect()
}

#[test]
fn json_has_one_object_per_line_in_the_order_of_events() {
    let file = file(&story());
    let flags = ["--json", "--lb-timeout", "60s"];
    let output = wsmon(&flags, &file.path);
    let objects = objects(&stdout(&output));
    assert_eq!(
        types(&objects),
        [
            "transition",
            "transition",
            "frame",
            "alert",
            "frame",
            "transition",
            "alert",
            "transition",
            "connection_summary",
            "recording_summary"
        ]
    );
    let [
        requested,
        opened,
        text,
        fired,
        close,
        closing,
        resolved,
        closed,
        connection,
        summary,
    ] = &objects[..]
    else {
        panic!("ten lines");
    };
    assert_eq!(requested["to"], "connecting");
    assert_eq!(opened["to"], "open");
    assert_eq!(opened["ts"], "2026-01-01T00:00:00.006000Z");
    assert_eq!(opened["listener"], "8080");
    assert_eq!(opened["trigger"]["kind"], "upgraded");
    assert_eq!(closing["trigger"]["code"], 1000);
    assert_eq!(closing["trigger"]["initiator"], "peer");
    assert_eq!(closed["from"], "closing");
    assert_eq!(text["opcode"], "text");
    assert_eq!(text["cookie"], "1");
    assert_eq!(text["ts"], "2026-01-01T00:00:01.000000Z");
    assert_eq!(close["close_code"], 1000);
    assert_eq!(fired["kind"], "expired");
    assert_eq!(fired["ts"], "2026-01-01T00:01:01.000000Z");
    assert_eq!(fired["conn"]["cookie"], "1");
    assert_eq!(fired["evidence"]["limit_seconds"], 60.0);
    assert_eq!(resolved["resolution"], "recovered");
    assert_eq!(connection["how"], "close_frame");
    assert_eq!(connection["close"]["initiator"], "peer");
    assert_eq!(connection["rx"]["frames_by_opcode"]["text"], 1);
    assert_eq!(summary["connections"], 1);
    assert_eq!(summary["rx"]["frames"], 2);
    assert_eq!(summary["alerts"], 1);
    assert!(output.stderr.is_empty());
}

#[test]
fn without_frames_and_states_the_other_lines_are_the_same() {
    let file = file(&story());
    let flags = ["--json", "--lb-timeout", "60s"];
    let all = objects(&stdout(&wsmon(&flags, &file.path)));
    let few = objects(&stdout(&wsmon(
        &[&flags[..], &["--no-frames"]].concat(),
        &file.path,
    )));
    let rest: Vec<_> = all
        .into_iter()
        .filter(|object| object["type"] != "frame" && object["type"] != "transition")
        .collect();
    assert_eq!(few, rest);
}

#[test]
fn text_has_a_line_per_frame_then_connections_and_a_summary() {
    let file = file(&story());
    let output = wsmon(&["--lb-timeout", "60s"], &file.path);
    let text = stdout(&output);
    let lines: Vec<_> = text.lines().collect();
    for (line, parts) in [
        (0, ["1 ", "connecting: upgrade requested"]),
        (1, ["1 ", "open: 101 after 4 ms"]),
        (2, ["text", "10.0.0.2:40000"]),
        (3, ["zombie/expired suspected", "idle 60.0 s"]),
        (4, ["close", "1000"]),
        (5, ["1 ", "closing: close frame 1000 from peer"]),
        (6, ["zombie/expired recovered", "heard again"]),
        (7, ["1 ", "closed: close_frame"]),
    ] {
        assert!(
            parts.iter().all(|part| lines[line].contains(part)),
            "{text}"
        );
    }
    let row = lines
        .iter()
        .find(|line| line.starts_with("1 "))
        .expect("a table");
    for cell in [
        "8080",
        "server",
        "websocket",
        "close_frame",
        "1000 (peer)",
        "2/0",
    ] {
        assert!(row.contains(cell), "{cell}: {row}");
    }
    let summary = "connections     1, open at the end 0; others on these ports 0";
    assert!(lines.contains(&summary), "{text}");
}

#[test]
fn text_shows_tls_behind_the_other_columns() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../testdata/recordings/tls/websockets-tls13.pcap.gz");
    let output = wsmon(&["--no-frames", "--port", "8443"], &path);
    let text = stdout(&output);
    let table: Vec<_> = text
        .lines()
        .skip_while(|line| !line.starts_with("cookie"))
        .take_while(|line| !line.is_empty())
        .collect();
    let [head, rows @ ..] = &table[..] else {
        panic!("{text}");
    };
    assert!(head.ends_with("  tls"), "{head}");
    assert_eq!(rows.len(), 13);
    for row in rows {
        assert_eq!(row.split_whitespace().nth(4), Some("opaque"), "{row}");
        assert!(row.contains("  1.3, heartbeat "), "{row}");
        assert!(row.ends_with(" s inferred"), "{row}");
    }
}

#[test]
fn a_recording_from_stdin_is_the_same_as_from_a_file() {
    let file = file(&story());
    let expected = stdout(&wsmon(&["--json", "--port", "8080"], &file.path));
    let mut wsmon = Command::new(WSMON)
        .args(["replay", "--json", "--port", "8080", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("wsmon runs");
    let mut stdin = wsmon.stdin.take().expect("a pipe");
    stdin.write_all(&story()).expect("wsmon reads");
    drop(stdin);
    let output = wsmon.wait_with_output().expect("it ends");
    assert_eq!(stdout(&output), expected);
}

#[test]
fn stdin_without_a_port_is_refused_because_it_cannot_be_read_twice() {
    let output = wsmon(&["--json"], Path::new("-"));
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("can be read only once"), "{stderr}");
    assert!(stderr.contains("--port"), "{stderr}");
}

#[test]
fn a_missing_file_and_one_that_is_not_a_recording_are_refused_by_name() {
    let text = file(b"dear diary, today I captured nothing");
    let output = wsmon(&[], &text.path);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains(text.path.to_str().expect("UTF-8")),
        "{stderr}"
    );
    assert!(
        stderr.contains("not a pcap or pcapng recording"),
        "{stderr}"
    );
    assert!(output.stdout.is_empty());

    let output = wsmon(&[], Path::new("/nowhere/capture.pcap"));
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("/nowhere/capture.pcap: No such file"),
        "{stderr}"
    );
}

#[test]
fn directories_and_compressed_files_are_identified_in_the_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bzip2 = file(b"BZh91AY&SY\x12\x34\x56\x78");
    for (path, flags, what) in [
        (folder.path(), &[][..], "it is a directory"),
        (folder.path(), &["--port", "8080"], "it is a directory"),
        (&bzip2.path, &[], "compressed by bzip2"),
    ] {
        let output = wsmon(flags, path);
        assert_eq!(output.status.code(), Some(2));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(what), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_packed_recording_gives_the_same_output_and_truncation_is_a_warning() {
    let whole = story();
    let expected = stdout(&wsmon(&["--json"], &file(&whole).path));
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(&whole).expect("memory");
    let packed = packer.finish().expect("memory");
    assert_eq!(stdout(&wsmon(&["--json"], &file(&packed).path)), expected);

    let cut = file(&packed[..packed.len() - 12]);
    let objects = objects(&stdout(&wsmon(&["--json"], &cut.path)));
    let kinds = types(&objects);
    assert!(
        kinds.ends_with(&["connection_summary", "warning", "recording_summary"]),
        "{kinds:?}"
    );
    let message = objects[objects.len() - 2]["message"].to_string();
    assert!(message.contains("compressed, and cut off"), "{message}");
}

#[test]
fn an_unsupported_link_layer_is_named() {
    let mut bytes = story();
    bytes[20] = 147;
    let unread = file(&bytes);
    let output = wsmon(&["--json"], &unread.path);
    let objects = objects(&stdout(&output));
    assert_eq!(types(&objects), ["warning", "recording_summary"]);
    let message = objects[0]["message"].as_str().expect("a message");
    assert!(message.contains("of link type 147"), "{message}");
    assert!(!message.contains("--port"), "{message}");
    assert_eq!(objects[1]["unread_links"]["147"], objects[1]["packets"]);
    let text = stdout(&wsmon(&[], &unread.path));
    assert!(text.contains("  link type     147, "), "{text}");
}

#[test]
fn a_truncated_recording_is_judged_with_a_warning() {
    let whole = story();
    let cut = file(&whole[..whole.len() - 5]);
    let output = wsmon(&["--json"], &cut.path);
    let objects = objects(&stdout(&output));
    assert_eq!(
        types(&objects),
        [
            "transition",
            "transition",
            "frame",
            "frame",
            "transition",
            "connection_summary",
            "warning",
            "recording_summary"
        ]
    );
    let message = objects[6]["message"].as_str().expect("a message");
    assert!(
        message.contains("cut off in the middle of a packet"),
        "{message}"
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(message), "{stderr}");
}

#[test]
fn without_an_upgrade_the_error_has_a_remedy() {
    let mut conversation = Conversation::v4();
    conversation.acked = [conversation.next[1], conversation.next[0]];
    let mut recording = Recording::default();
    for i in 0..8 {
        let ping = frame(PING, b"1234", true);
        conversation.says(&mut recording, START + i * SECOND, End::Client, &ping);
    }
    let file = file(&recording.pcap());
    let output = wsmon(&["--json"], &file.path);
    let none = objects(&stdout(&output));
    assert_eq!(types(&none), ["warning", "recording_summary"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("name the server's port with --port"),
        "{stderr}"
    );
    let output = wsmon(&["--json", "--port", "8080"], &file.path);
    let some = objects(&stdout(&output));
    assert!(types(&some).contains(&"frame"), "{some:?}");
    assert!(
        types(&some).ends_with(&["connection_summary", "recording_summary"]),
        "{some:?}"
    );
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    for i in 0..20_000 {
        let at = START + SECOND + i;
        conversation.says(
            &mut recording,
            at,
            End::Client,
            &frame(TEXT, b"hello", true),
        );
    }
    let file = file(&recording.pcap());
    let mut wsmon = Command::new(WSMON)
        .arg("replay")
        .arg(&file.path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wsmon runs");
    let mut first = [0; 100];
    let mut stdout = wsmon.stdout.take().expect("a pipe");
    stdout.read_exact(&mut first).expect("some lines");
    drop(stdout);
    let output = wsmon.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn from_a_pipe_lines_appear_with_their_packets_and_an_interrupt_prints_the_summary() {
    let mut wsmon = Command::new(WSMON)
        .args(["replay", "--json", "--port", "8080", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wsmon runs");
    let mut stdin = wsmon.stdin.take().expect("a pipe");
    let story = story();
    stdin
        .write_all(&story[..story.len() - 5])
        .expect("wsmon reads");
    let mut lines = BufReader::new(wsmon.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next()?.ok();
    let mut wait_for = |what: &str| {
        // Blocks until the line arrives: nothing else will.
        while !line()
            .expect("a line while the pipe is open")
            .contains(what)
        {}
    };
    wait_for("\"closing\"");

    kill_process(Pid::from_child(&wsmon), Signal::INT).expect("it runs");
    // The recorder ends with its pipeline.
    drop(stdin);
    let rest: Vec<_> = lines.map(|line| line.expect("a readable line")).collect();
    let rest = objects(&rest.join("\n"));
    assert_eq!(
        types(&rest),
        ["connection_summary", "warning", "recording_summary"]
    );
    let output = wsmon.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn help_shows_examples_and_mentions_that_the_file_is_read_twice() {
    let output = Command::new(WSMON)
        .args(["replay", "--help"])
        .output()
        .expect("it runs");
    let help = stdout(&output);
    assert!(help.contains("Examples:"), "{help}");
    assert!(help.contains("wsmon replay capture.pcap"), "{help}");
    assert!(help.contains("read twice"), "{help}");
    assert!(help.contains("Exit status:"), "{help}");
}
