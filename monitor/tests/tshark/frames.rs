//! The frames of a recording, sorted so that two readers can be compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
};

use monitor_common::Direction;
use serde::{Deserialize, Deserializer, de::Error};

/// One frame in the format of `wsmon replay --json` and of the lists next to hand-made recordings.
#[derive(Debug, Deserialize)]
pub(crate) struct Line {
    pub(crate) cookie: String,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    #[serde(deserialize_with = "direction")]
    pub(crate) direction: Direction,
    #[serde(flatten)]
    pub(crate) frame: Frame,
}

fn direction<'de, D: Deserializer<'de>>(from: D) -> Result<Direction, D::Error> {
    let name = String::deserialize(from)?;
    name.parse().map_err(D::Error::custom)
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) rsv: u8,
    pub(crate) opcode: String,
    pub(crate) masked: bool,
    pub(crate) length: u64,
    pub(crate) close_code: Option<u16>,
}

/// One direction of one connection. Readers number connections differently, so this number counts
/// the connections between the same two sockets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stream {
    local: SocketAddr,
    peer: SocketAddr,
    number: usize,
    direction: Direction,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Streams(BTreeMap<Stream, Vec<Frame>>);

impl FromIterator<Line> for Streams {
    fn from_iter<T: IntoIterator<Item = Line>>(lines: T) -> Self {
        let mut connections: BTreeMap<_, Vec<String>> = BTreeMap::new();
        let mut streams: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in lines {
            let Line {
                cookie,
                local,
                peer,
                direction,
                mut frame,
            } = line;
            // The kernel programs write "no code" as 0, and ignore the code of an illegally long
            // close frame (RFC 6455 §5.5).
            let legal = frame.length <= 125;
            frame.close_code = frame.close_code.filter(|code| *code != 0 && legal);
            let known = connections.entry((local, peer)).or_default();
            let number = known
                .iter()
                .position(|id| *id == cookie)
                .unwrap_or_else(|| {
                    known.push(cookie);
                    known.len() - 1
                });
            let stream = Stream {
                local,
                peer,
                number,
                direction,
            };
            streams.entry(stream).or_default().push(frame);
        }
        Self(streams)
    }
}

/// Whether two readers found the same frames.
///
/// # Errors
/// The first difference in each direction of each connection.
pub(crate) fn compare(
    left_name: &str,
    left: &Streams,
    right_name: &str,
    right: &Streams,
) -> Result<(), String> {
    const ENOUGH: usize = 4;
    let streams: BTreeSet<_> = left.0.keys().chain(right.0.keys()).collect();
    let differences: Vec<_> = streams
        .into_iter()
        .filter_map(|stream| {
            let (left, right) = (left.of(stream), right.of(stream));
            let first = (0..left.len().max(right.len())).find(|i| left.get(*i) != right.get(*i))?;
            Some(format!(
                "\n  {stream}: {left_name} {} frames, {right_name} {}; \
                 number {first}: {left_name} {}, {right_name} {}",
                left.len(),
                right.len(),
                shown(left.get(first)),
                shown(right.get(first)),
            ))
        })
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    let (some, more) = differences.split_at(differences.len().min(ENOUGH));
    Err(format!("{}\n  and {} more", some.concat(), more.len()))
}

impl Streams {
    fn of(&self, stream: &Stream) -> &[Frame] {
        self.0.get(stream).map_or(&[], Vec::as_slice)
    }
}

fn shown(frame: Option<&Frame>) -> String {
    frame.map_or_else(|| "nothing".to_owned(), ToString::to_string)
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            local,
            peer,
            number,
            direction,
        } = self;
        write!(f, "{local} {direction:?} {peer} (connection {number})")
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fin,
            rsv,
            opcode,
            masked,
            length,
            close_code,
        } = self;
        write!(
            f,
            "[{opcode} fin={fin} rsv={rsv} masked={masked} {length} bytes"
        )?;
        if let Some(code) = close_code {
            write!(f, " code={code}")?;
        }
        write!(f, "]")
    }
}
