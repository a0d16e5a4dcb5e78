//! A recording of an interface's traffic, and tshark's analysis of it.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process::{Command, Stdio},
};

use lab::{Namespace, Process, wait_until};
use tempfile::TempDir;

use crate::{stage::SOON, talk::Tally};

/// A running dumpcap at one end of the network.
pub(crate) struct Capture<'a> {
    process: Process,
    folder: TempDir,
    sender: &'a Namespace,
    server: SocketAddr,
}

/// A capture without missing packets.
pub(crate) struct Recording {
    folder: TempDir,
    server: SocketAddr,
}

/// In both directions, as seen by the server.
pub(crate) struct Counted {
    pub(crate) rx: Tally,
    pub(crate) tx: Tally,
}

impl<'a> Capture<'a> {
    /// Captures the traffic of `namespace`'s uplink with `server`, and returns once the capture
    /// runs. `sender` is the namespace behind that link.
    pub(crate) fn start(namespace: &Namespace, server: SocketAddr, sender: &'a Namespace) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = namespace.command("dumpcap");
        command
            // A buffer for all of it: a recording with gaps proves nothing.
            .args(["-q", "-P", "-i", "uplink", "-B", "256"])
            .args(["-f", &format!("port {}", server.port()), "-w"])
            .arg(folder.path().join(FILE))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let process = Process::spawn(&mut command).unwrap();
        let mut capture = Self {
            process,
            folder,
            sender,
            server,
        };
        capture.wait_for_mark(b"the capture begins");
        capture
    }

    /// Ends it; `None` if packets are missing.
    pub(crate) fn finish(mut self) -> Option<Recording> {
        // Packets are captured in order, so all earlier ones are captured when this one is.
        self.wait_for_mark(b"the capture ends");
        self.process.terminate(SOON).unwrap();
        let mut said = String::new();
        let mut stderr = self.process.child_mut().stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        let (_, counts) = said
            .rsplit_once("received/dropped on interface")
            .unwrap_or_else(|| panic!("dumpcap did not say what it dropped: {said}"));
        let dropped = counts.split_once('/').and_then(|(_, rest)| {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            rest[..end].parse::<u64>().ok()
        });
        let dropped = dropped.unwrap_or_else(|| panic!("dumpcap's counts: {counts}"));
        println!("dumpcap dropped {dropped} packets: {}", counts.trim());
        (dropped == 0).then_some(Recording {
            folder: self.folder,
            server: self.server,
        })
    }

    /// Sends a datagram to the server's port until it is in the file.
    fn wait_for_mark(&mut self, mark: &[u8]) {
        let from = if self.server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = self.sender.run(|| UdpSocket::bind(from)).unwrap().unwrap();
        let file = self.folder.path().join(FILE);
        let process = &mut self.process;
        wait_until("dumpcap to capture", SOON, || {
            let ended = process.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "dumpcap ended: {:?}",
                process.child_mut().stderr.take().map(|mut stderr| {
                    let mut said = String::new();
                    stderr.read_to_string(&mut said).unwrap();
                    said
                })
            );
            // The server's kernel refuses it, and the next datagram reports that error.
            let _ = socket.send_to(mark, self.server);
            end_of(&file).is_some_and(|end| end.windows(mark.len()).any(|bytes| bytes == mark))
        })
        .unwrap();
    }
}

const FILE: &str = "capture.pcap";

fn end_of(file: &std::path::Path) -> Option<Vec<u8>> {
    const TAIL: u64 = 64 << 10;
    let mut file = File::open(file).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .ok()?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).ok()?;
    Some(end)
}

impl Recording {
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    /// The server's port.
    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    /// The frames that tshark finds in it.
    pub(crate) fn frames(&self) -> Counted {
        // The user's preferences must not change tshark's output.
        let nobodys = self.folder.path();
        let output = Command::new("tshark")
            .env("HOME", nobodys)
            .env("XDG_CONFIG_HOME", nobodys)
            .arg("-r")
            .arg(self.path())
            .arg("-n")
            .args(["-d", &format!("tcp.port=={},http", self.server.port())])
            .args(["-o", "tcp.reassemble_out_of_order:TRUE"])
            // The default limit is 500 frames in a segment.
            .args(["-o", "gui.max_tree_depth:100000"])
            .args(["-Y", "websocket", "-T", "fields", "-E", "separator=|"])
            .args(FIELDS.map(|field| ["-e", field]).concat())
            .output()
            .expect("tshark is not installed: cargo xtask setup --tests");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !complaints.contains("Dissector bug"),
            "tshark: {}: {complaints}",
            output.status
        );
        let mut counted = Counted {
            rx: Tally::default(),
            tx: Tally::default(),
        };
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            counted.add(line, self.server.port());
        }
        counted
    }
}

/// Each may occur several times in a packet: a payload above 125 bytes has 126 or 127 as its
/// length, and an extended length.
const FIELDS: [&str; 6] = [
    "tcp.srcport",
    "websocket.opcode",
    "websocket.mask",
    "websocket.payload_length",
    "websocket.payload_length_ext_16",
    "websocket.payload_length_ext_64",
];

impl Counted {
    fn add(&mut self, line: &str, port: u16) {
        let fields: Vec<Vec<u64>> = line
            .split('|')
            .map(|values| values.split(',').filter_map(number).collect())
            .collect();
        let [from, opcodes, masks, short, middle, long] = fields.as_slice() else {
            panic!("tshark's fields are not as expected: {line}");
        };
        assert_eq!(opcodes.len(), short.len(), "{line}");
        assert_eq!(opcodes.len(), masks.len(), "{line}");
        let tally = if from[0] == u64::from(port) {
            &mut self.tx
        } else {
            &mut self.rx
        };
        for opcode in opcodes {
            *tally.frames.entry(name(*opcode)).or_default() += 1;
        }
        let payload: u64 = short
            .iter()
            .filter(|length| **length < 126)
            .chain(middle)
            .chain(long)
            .sum();
        let masked = masks.iter().sum::<u64>();
        let headers = 2 * opcodes.len() + 2 * middle.len() + 8 * long.len();
        tally.payload_bytes += payload;
        tally.bytes += payload + headers as u64 + 4 * masked;
    }
}

fn number(text: &str) -> Option<u64> {
    match text {
        "" => None,
        "True" => Some(1),
        "False" => Some(0),
        _ => Some(text.parse().unwrap_or_else(|error| {
            panic!("tshark's fields are not as expected: {text}: {error}")
        })),
    }
}

/// RFC 6455 §11.8.
fn name(opcode: u64) -> String {
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
