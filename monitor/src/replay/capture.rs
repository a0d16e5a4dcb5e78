//! Reads packets from a pcap or a pcapng recording, one at a time.
//!
//! pcap: draft-ietf-opsawg-pcap, with microseconds, nanoseconds, or Kuznetzov's longer records, in
//! either byte order. pcapng: draft-ietf-opsawg-pcapng, every block that holds a packet. Memory use is
//! one block, whatever the file's size.

use std::io::{self, Read};

mod pcapng;

use pcapng::Interfaces;

/// A block of this size or more is damage: no link has packets as large, and blocks without packets
/// (name resolutions, secrets) are far smaller.
const BLOCK_MAX: usize = 64 << 20;

/// Bytes requested from the source at a time.
const CHUNK: usize = 256 << 10;

/// One captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Nanoseconds since the epoch; `None` for a pcapng Simple Packet Block.
    pub at: Option<u64>,
    /// The LINKTYPE_ value; `None` if the interface was never described.
    pub link: Option<u32>,
    /// The captured bytes.
    pub bytes: &'a [u8],
    /// The length of the packet on the wire.
    pub len: u32,
}

/// Why a recording cannot be read, or read further.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("not a pcap or pcapng recording{0}")]
    Unrecognised(&'static str),
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error("cut off in the middle of a packet, at byte {at}")]
    Truncated { at: u64 },
    /// See [`unpacked`](super::unpacked).
    #[error("compressed, and {0}")]
    Packed(&'static str),
    #[error("damaged at byte {at}: {what}")]
    Damaged { at: u64, what: &'static str },
}

impl From<io::Error> for CaptureError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Packed("cut off"),
            io::ErrorKind::InvalidData => Self::Packed("damaged"),
            _ => Self::Io(error),
        }
    }
}

/// A recording being read.
#[derive(Debug)]
pub struct Capture<R> {
    bytes: Buffered<R>,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Pcap(Pcap),
    PcapNg(Interfaces),
}

#[derive(Clone, Copy, Debug)]
struct Pcap {
    order: ByteOrder,
    /// Nanoseconds per unit of the time stamps' fraction.
    unit: u64,
    record_header: usize,
    link: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

impl<R: Read> Capture<R> {
    /// Reads the file header.
    pub fn open(source: R) -> Result<Self, CaptureError> {
        let mut bytes = Buffered::new(source);
        bytes.want(PCAP_HEADER)?;
        let head = bytes.peek(PCAP_HEADER);
        let foreign = match head {
            [] => Some(": it is empty"),
            [b'B', b'Z', b'h', ..] => Some(": it is compressed by bzip2; unpack it first"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(": it is compressed by lz4; unpack it first"),
            [b'P', b'K', 3, 4, ..] => Some(": it is a zip archive; unpack it first"),
            [b'7', b'z', 0xbc, 0xaf, ..] => Some(": it is a 7z archive; unpack it first"),
            [b's', b'n', b'o', b'o', b'p', 0, ..] => {
                Some(": it is of snoop; editcap turns it into pcapng")
            }
            _ => None,
        };
        if let Some(kind) = foreign {
            return Err(CaptureError::Unrecognised(kind));
        }
        let format = match Pcap::parse(head) {
            Some(pcap) => {
                bytes.consume(PCAP_HEADER);
                Format::Pcap(pcap)
            }
            None => Format::PcapNg(Interfaces::open(head)?),
        };
        Ok(Self { bytes, format })
    }

    /// The next packet; `None` at the end. Nothing follows an error.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.bytes),
            Format::PcapNg(interfaces) => interfaces.next(&mut self.bytes),
        }
    }
}

impl Pcap {
    fn parse(head: &[u8]) -> Option<Self> {
        let magic: [u8; 4] = head.get(..4)?.try_into().ok()?;
        let order = match magic[0] {
            0xa1 => ByteOrder::Big,
            _ => ByteOrder::Little,
        };
        let (unit, record_header) = match order.u32(magic) {
            0xa1b2_c3d4 => (1000, 16),
            0xa1b2_3c4d => (1, 16),
            0xa1b2_cd34 => (1000, 24),
            _ => return None,
        };
        // The upper bits describe the frame check sequence.
        let link = order.read(head, 20)? & 0x03ff_ffff;
        Some(Self {
            order,
            unit,
            record_header,
            link,
        })
    }

    fn next<'a, R: Read>(
        &self,
        bytes: &'a mut Buffered<R>,
    ) -> Result<Option<Packet<'a>>, CaptureError> {
        if !bytes.begin(self.record_header)? {
            return Ok(None);
        }
        let field = |at: usize| {
            self.order
                .read(bytes.peek(self.record_header), at)
                .unwrap_or(0)
        };
        let (seconds, fraction, captured, len) = (field(0), field(4), field(8), field(12));
        let captured = captured as usize;
        if captured >= BLOCK_MAX {
            return Err(bytes.damaged("a packet of impossible length"));
        }
        let whole = self.record_header + captured;
        bytes.whole(whole)?;
        Ok(Some(Packet {
            at: Some(u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.unit),
            link: Some(self.link),
            bytes: &bytes.take(whole)[self.record_header..],
            len,
        }))
    }
}

impl ByteOrder {
    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    /// The 32-bit field at `at`.
    fn read(self, bytes: &[u8], at: usize) -> Option<u32> {
        let field = bytes.get(at..)?.first_chunk()?;
        Some(self.u32(*field))
    }
}

/// The buffered bytes of the source.
#[derive(Debug)]
struct Buffered<R> {
    source: R,
    buffer: Vec<u8>,
    /// The part of `buffer` that was read and not yet consumed.
    start: usize,
    end: usize,
    /// Position in the file of `start`.
    position: u64,
}

impl<R: Read> Buffered<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            buffer: vec![0; CHUNK],
            start: 0,
            end: 0,
            position: 0,
        }
    }

    /// Reads until `n` bytes are buffered or the source ends. Reads in chunks, so that a false length
    /// costs no memory.
    fn want(&mut self, n: usize) -> io::Result<()> {
        while self.end - self.start < n {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.buffer.len() == self.end {
                self.buffer.resize(self.end + CHUNK, 0);
            }
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Up to `n` buffered bytes.
    fn peek(&self, n: usize) -> &[u8] {
        &self.buffer[self.start..self.end.min(self.start + n)]
    }

    /// Buffers a header of `n` bytes; `false` at the end of the file.
    fn begin(&mut self, n: usize) -> Result<bool, CaptureError> {
        self.want(n)?;
        if self.start == self.end {
            return Ok(false);
        }
        self.whole(n).map(|()| true)
    }

    /// Buffers all `n` bytes.
    fn whole(&mut self, n: usize) -> Result<(), CaptureError> {
        self.want(n)?;
        if self.end - self.start < n {
            let at = self.position + (self.end - self.start) as u64;
            return Err(CaptureError::Truncated { at });
        }
        Ok(())
    }

    /// Consumes and returns `n` buffered bytes.
    fn take(&mut self, n: usize) -> &[u8] {
        let start = self.start;
        self.consume(n);
        &self.buffer[start..self.start]
    }

    fn consume(&mut self, n: usize) {
        let n = n.min(self.end - self.start);
        self.start += n;
        self.position += n as u64;
    }

    fn damaged(&self, what: &'static str) -> CaptureError {
        CaptureError::Damaged {
            at: self.position,
            what,
        }
    }
}

const PCAP_HEADER: usize = 24;
