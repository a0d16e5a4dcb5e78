//! WebSocket frames inside TLS, decrypted by tshark with a key log.

use std::{
    collections::BTreeMap, error::Error, net::SocketAddr, path::Path, process::Command,
    str::FromStr,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::PORT;

/// RFC 6455 §11.8.
const PING: u8 = 9;
const PONG: u8 = 10;

const FIELDS: [&str; 7] = [
    "frame.time_epoch",
    "ip.src",
    "tcp.srcport",
    "ip.dst",
    "tcp.dstport",
    "tls.record.length",
    "websocket.opcode",
];

/// A packet in which WebSocket frames end.
#[derive(Debug)]
struct Packet {
    /// Microseconds since 1970.
    at: u64,
    is_from_server: bool,
    /// The lengths of its records, without their headers.
    records: Vec<u16>,
    /// The opcodes of its frames.
    opcodes: Vec<u8>,
}

/// A ping of the server, and its pong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heartbeat {
    /// Microseconds since 1970.
    pub(super) sent: u64,
    pub(super) answered: Option<u64>,
    /// The lengths of their records; `None` unless each has a packet of its own.
    pub(super) records: (Option<u16>, Option<u16>),
}

/// The packets with frames, by the client's address, oldest first.
#[derive(Debug)]
pub(super) struct Decrypted(BTreeMap<SocketAddr, Vec<Packet>>);

impl Decrypted {
    /// Reads a recording, which may be compressed.
    ///
    /// # Errors
    /// If tshark is missing or fails.
    pub(super) fn read(recording: &Path, key_log: &Path) -> Result<Self> {
        // The user's preferences must not change tshark's output.
        let nobodys = tempfile::tempdir()?;
        let mut command = Command::new("tshark");
        command
            .env("HOME", nobodys.path())
            .env("XDG_CONFIG_HOME", nobodys.path())
            .arg("-r")
            .arg(recording)
            .args([
                "-n",
                "-o",
                &format!("tls.keylog_file:{}", key_log.display()),
            ])
            .args(["-d", &format!("tcp.port=={PORT},tls")])
            .args(["-d", &format!("tls.port=={PORT},http")])
            .args(["-o", "tcp.reassemble_out_of_order:TRUE"])
            .args(["-Y", "websocket", "-T", "fields"]);
        for field in FIELDS {
            command.args(["-e", field]);
        }
        let output = command
            .output()
            .context("could not start tshark: cargo xtask setup --tests")?;
        let complaints = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tshark: {complaints}");
        let mut packets: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            let (client, packet) = packet(line).with_context(|| format!("tshark's line {line}"))?;
            packets.entry(client).or_default().push(packet);
        }
        Ok(Self(packets))
    }

    /// The server's pings on a connection. Pongs come in the order of the pings (RFC 6455 §5.5.3).
    pub(super) fn heartbeats(&self, client: SocketAddr) -> Vec<Heartbeat> {
        let mut heartbeats: Vec<Heartbeat> = Vec::new();
        for packet in self.0.get(&client).into_iter().flatten() {
            let alone = match (&packet.records[..], &packet.opcodes[..]) {
                ([length], [_]) => Some(*length),
                _ => None,
            };
            for opcode in &packet.opcodes {
                if packet.is_from_server && *opcode == PING {
                    heartbeats.push(Heartbeat {
                        sent: packet.at,
                        answered: None,
                        records: (alone, None),
                    });
                } else if !packet.is_from_server && *opcode == PONG {
                    let mut open = heartbeats.iter_mut().filter(|ping| ping.answered.is_none());
                    if let Some(ping) = open.next() {
                        ping.answered = Some(packet.at);
                        ping.records.1 = alone;
                    }
                }
            }
        }
        heartbeats
    }
}

/// The client's address and the packet in a line with [`FIELDS`].
fn packet(line: &str) -> Result<(SocketAddr, Packet)> {
    let fields: Vec<_> = line.split('\t').collect();
    let [at, from, from_port, to, to_port, records, opcodes] = fields[..] else {
        bail!("{} fields", fields.len());
    };
    let is_from_server = from_port.parse() == Ok(PORT);
    let (ip, port) = match is_from_server {
        true => (to, to_port),
        false => (from, from_port),
    };
    let packet = Packet {
        at: microseconds(at)?,
        is_from_server,
        records: list(records)?,
        opcodes: list(opcodes)?,
    };
    Ok((SocketAddr::new(ip.parse()?, port.parse()?), packet))
}

/// From seconds with a fraction of six or nine digits.
fn microseconds(seconds: &str) -> Result<u64> {
    let (whole, fraction) = seconds
        .split_once('.')
        .context("a time without a fraction")?;
    let six = fraction.get(..6).context("a time with a short fraction")?;
    Ok(format!("{whole}{six}").parse()?)
}

fn list<T>(values: &str) -> Result<Vec<T>>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let values = values.split(',').filter(|value| !value.is_empty());
    values.map(|value| Ok(value.parse()?)).collect()
}
