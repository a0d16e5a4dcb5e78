//! Packet-by-packet recordings of what no real endpoint or network does on demand, each with the
//! list of frames really in it. The same call writes the same bytes.

mod cuts;
mod forms;
mod links;
mod losses;
mod violations;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::json;
use wire::End;

use super::{
    conversation::Conversation,
    format::{Format, Packet},
    link::Link,
};

/// One file to be written.
pub(crate) struct Recording {
    name: &'static str,
    conversations: Vec<Conversation>,
    /// One per interface; conversations take turns.
    links: Vec<Link>,
    format: Format,
    snap: u32,
    /// Bytes missing at the file's end.
    missing_tail: usize,
}

/// The usual snap length of captures: no limit.
const WHOLE: u32 = 262_144;

impl Recording {
    fn new(name: &'static str, conversations: impl Into<Vec<Conversation>>) -> Self {
        Self {
            name,
            conversations: conversations.into(),
            links: vec![Link::Ethernet],
            format: Format::Pcap,
            snap: WHOLE,
            missing_tail: 0,
        }
    }

    fn links(mut self, links: &[Link]) -> Self {
        self.links = links.to_vec();
        self
    }

    fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// The recording and the list of its frames.
    fn files(&self) -> [(String, Vec<u8>); 2] {
        let mut packets = Vec::new();
        let mut frames = Vec::new();
        for (number, conversation) in self.conversations.iter().enumerate() {
            let interface = number % self.links.len();
            for (at, segment) in &conversation.packets {
                let from_client = segment.from == conversation.tcp.client;
                packets.push(Packet {
                    at: *at,
                    interface: interface as u32,
                    bytes: self.links[interface].wrap(&segment.packet(), from_client),
                });
            }
            for (side, frame) in &conversation.frames {
                let from_client = *side == End::Client;
                let mut line = json!({
                    "cookie": (number + 1).to_string(),
                    "local": conversation.tcp.server.to_string(),
                    "peer": conversation.tcp.client.to_string(),
                    "direction": if from_client { "rx" } else { "tx" },
                    "fin": frame.fin,
                    "rsv": frame.rsv,
                    "opcode": frame.opcode_name(),
                    "masked": frame.masked(from_client),
                    "length": frame.len(),
                });
                if let Some(code) = frame.close_code() {
                    line["close_code"] = code.into();
                }
                frames.push(line.to_string());
            }
        }
        packets.sort_by_key(|packet| packet.at);
        let link_types: Vec<_> = self.links.iter().map(|link| link.link_type()).collect();
        let mut file = self.format.file(&link_types, self.snap, &packets);
        file.truncate(file.len() - self.missing_tail);
        let truth = format!("[\n{}\n]\n", frames.join(",\n"));
        let recording = format!("{}.{}", self.name, self.format.extension());
        [
            (recording, file),
            (format!("{}.json", self.name), truth.into_bytes()),
        ]
    }
}

/// Writes all of them into `folder`.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn write(folder: &Path) -> Result<()> {
    for recording in all() {
        for (name, content) in recording.files() {
            let path = folder.join(name);
            fs::write(&path, content)
                .with_context(|| format!("could not write {}", path.display()))?;
        }
    }
    Ok(())
}

fn all() -> Vec<Recording> {
    [
        cuts::all(),
        forms::all(),
        links::all(),
        losses::all(),
        violations::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_recordings_match_the_generator() {
        let folder = lab::workspace().join("testdata/recordings");
        for (name, content) in all().iter().flat_map(Recording::files) {
            let committed = fs::read(folder.join(&name)).unwrap_or_default();
            assert!(
                committed == content,
                "{name} is not what the generator makes: cargo xtask record --hand-made"
            );
        }
    }
}
