//! Decompresses recordings that are compressed as a whole.

use std::{
    cell::RefCell,
    io::{self, BufRead, BufReader, Cursor, ErrorKind, Read},
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

const GZIP: &[u8] = &[0x1f, 0x8b];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Memory limit of an xz dictionary, KiB: that of `xz -9`, plus half. A file that needs more counts as
/// damaged. zstd uses its decoder's own limit of about 100 MB.
const XZ_MEMORY_MAX: u32 = 96 << 10;

/// Reads `source`, decompressing gzip, xz or zstd. An error of kind
/// [`UnexpectedEof`](ErrorKind::UnexpectedEof) means that it is cut off, and one of kind
/// [`InvalidData`](ErrorKind::InvalidData) that it is damaged.
///
/// # Errors
///
/// If the first bytes of `source` cannot be read.
pub fn unpacked<'a>(mut source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    let beginning = source.by_ref().take(XZ.len() as u64);
    BufReader::with_capacity(XZ.len(), beginning).read_to_end(&mut head)?;
    let is = |magic| head.starts_with(magic);
    let (gzip, xz, zstd) = (is(GZIP), is(XZ), is(ZSTD));
    let whole = Cursor::new(head).chain(source);
    if !(gzip || xz || zstd) {
        return Ok(Box::new(whole));
    }
    let state = Rc::new(RefCell::new(UnpackState::default()));
    let packed = BufReader::new(Packed {
        source: whole,
        state: Rc::clone(&state),
    });
    let unpacked: Box<dyn Read + 'a> = if gzip {
        Box::new(MultiGzDecoder::new(packed))
    } else if xz {
        Box::new(XzReader::new_mem_limit(packed, true, XZ_MEMORY_MAX))
    } else {
        Box::new(Zstd {
            source: packed,
            decoder: FrameDecoder::new(),
            in_frame: false,
        })
    };
    Ok(Box::new(Unpacked { unpacked, state }))
}

/// The state of the source, because each decompressor hides its errors in a different way.
#[derive(Debug, Default)]
struct UnpackState {
    is_over: bool,
    failure: Option<io::Error>,
}

struct Packed<R> {
    source: R,
    state: Rc<RefCell<UnpackState>>,
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.source.read(buffer) {
            Ok(read) => {
                self.state.borrow_mut().is_over |= read == 0 && !buffer.is_empty();
                Ok(read)
            }
            Err(error) => {
                let kind = error.kind();
                if kind != ErrorKind::Interrupted {
                    self.state.borrow_mut().failure = Some(error);
                }
                Err(kind.into())
            }
        }
    }
}

struct Unpacked<'a> {
    unpacked: Box<dyn Read + 'a>,
    state: Rc<RefCell<UnpackState>>,
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.unpacked.read(buffer).map_err(|error| {
            if error.kind() == ErrorKind::Interrupted {
                return error;
            }
            let mut state = self.state.borrow_mut();
            let kind = match state.is_over {
                true => ErrorKind::UnexpectedEof,
                false => ErrorKind::InvalidData,
            };
            let failure = state.failure.take();
            failure.unwrap_or_else(|| io::Error::new(kind, error))
        })
    }
}

/// zstd frames, one after the other (RFC 8878 §3).
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() && (self.in_frame || self.begin_frame()?) {
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                let decoded = self.decoder.decode_blocks(&mut self.source, one);
                decoded.map_err(io::Error::other)?;
            }
            match self.decoder.read(buffer)? {
                0 => self.end_frame()?,
                read => return Ok(read),
            }
        }
        Ok(0)
    }
}

impl<R: BufRead> Zstd<R> {
    fn end_frame(&mut self) -> io::Result<()> {
        self.in_frame = false;
        let sums = [
            self.decoder.get_checksum_from_data(),
            self.decoder.get_calculated_checksum(),
        ];
        match sums {
            [Some(stored), Some(calculated)] if stored != calculated => {
                Err(io::Error::other("the checksum is another"))
            }
            _ => Ok(()),
        }
    }

    /// False after the last frame.
    fn begin_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.source) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = self.source.by_ref().take(length.into());
                    io::copy(&mut skipped, &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}
