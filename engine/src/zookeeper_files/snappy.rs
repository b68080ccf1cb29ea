//! The stream format of snappy-java: a header, then blocks with a length in front of each.

use std::io::{self, Read, Write};

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

/// The first bytes of the stream; two version numbers follow.
pub(super) const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";

/// What the header looks like in the place of a block's length: another stream begins.
const MAGIC_HEAD: u32 = u32::from_be_bytes([MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3]]);
const HEADER_BYTES: usize = MAGIC.len() + 8;
/// The oldest reader that a stream may ask for.
const VERSION: u32 = 1;
/// How much of the stream goes in a block, as snappy-java does it.
const BLOCK_BYTES: usize = 32 << 10;
/// No block is unpacked to more. The format allows any length, but ZooKeeper writes with the block
/// size that snappy-java has by default, and lengths that are only claimed must not cost memory.
const BLOCK_BYTES_MAX: usize = 32 * BLOCK_BYTES;

/// Unpacks while reading.
#[derive(Debug)]
pub struct SnappyReader<R> {
    source: R,
    packed: Vec<u8>,
    block: Vec<u8>,
    /// How much of the block was given out.
    given: usize,
    has_begun: bool,
}

impl<R: Read> SnappyReader<R> {
    /// Unpacks what comes from `source`.
    pub fn new(source: R) -> Self {
        let (packed, block) = (Vec::new(), Vec::new());
        Self { source, packed, block, given: 0, has_begun: false }
    }

    /// Whether there is another block; it is unpacked then.
    fn next_block(&mut self) -> io::Result<bool> {
        let Some(mut word) = self.read_word()? else {
            let missing = "the header is missing";
            return if self.has_begun { Ok(false) } else { Err(bad(missing)) };
        };
        while word == MAGIC_HEAD {
            self.read_header()?;
            match self.read_word()? {
                Some(next) => word = next,
                None => return Ok(false),
            }
        }
        if !self.has_begun {
            return Err(bad("it does not begin with the header"));
        }
        self.read_packed(word)?;
        let bytes = decompress_len(&self.packed).map_err(bad)?;
        if bytes > BLOCK_BYTES_MAX {
            return Err(too_long("unpacked", bytes, BLOCK_BYTES_MAX));
        }
        self.block.resize(bytes, 0);
        let written = Decoder::new().decompress(&self.packed, &mut self.block).map_err(bad)?;
        self.block.truncate(written);
        self.given = 0;
        Ok(true)
    }

    /// The rest of the header, whose first word was read.
    fn read_header(&mut self) -> io::Result<()> {
        let mut rest = [0; HEADER_BYTES - 4];
        self.source.read_exact(&mut rest)?;
        let (magic, versions) = rest.split_at(MAGIC.len() - 4);
        let (versions, _) = versions.as_chunks::<4>();
        if magic != &MAGIC[4..] || u32::from_be_bytes(versions[1]) > VERSION {
            return Err(bad("the header is of another format"));
        }
        self.has_begun = true;
        Ok(())
    }

    /// Reads a block as it is; memory grows with what there is, not with what is claimed.
    fn read_packed(&mut self, bytes: u32) -> io::Result<()> {
        let most = max_compress_len(BLOCK_BYTES_MAX);
        if bytes as usize > most {
            return Err(too_long("packed", bytes as usize, most));
        }
        self.packed.clear();
        let read = self.source.by_ref().take(u64::from(bytes)).read_to_end(&mut self.packed)?;
        if read < bytes as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// A length, or none at the end.
    fn read_word(&mut self) -> io::Result<Option<u32>> {
        let mut word = Vec::with_capacity(4);
        self.source.by_ref().take(4).read_to_end(&mut word)?;
        match <[u8; 4]>::try_from(&word[..]) {
            Ok(word) => Ok(Some(u32::from_be_bytes(word))),
            Err(_) if word.is_empty() => Ok(None),
            Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<R: Read> Read for SnappyReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.given == self.block.len() {
            if out.is_empty() || !self.next_block()? {
                return Ok(0);
            }
        }
        let bytes = out.len().min(self.block.len() - self.given);
        out[..bytes].copy_from_slice(&self.block[self.given..self.given + bytes]);
        self.given += bytes;
        Ok(bytes)
    }
}

/// Packs what is written to it.
#[derive(Debug)]
pub(super) struct SnappyWriter<W> {
    target: W,
    /// Less than a block.
    block: Vec<u8>,
    packed: Vec<u8>,
}

impl<W: Write> SnappyWriter<W> {
    /// Writes the header of a stream to `target`.
    pub(super) fn new(mut target: W) -> io::Result<Self> {
        target.write_all(&MAGIC)?;
        target.write_all(&VERSION.to_be_bytes())?;
        target.write_all(&VERSION.to_be_bytes())?;
        Ok(Self { target, block: Vec::with_capacity(BLOCK_BYTES), packed: Vec::new() })
    }

    /// Writes what is left of the stream.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.write_block()?;
        }
        self.target.flush()
    }

    fn write_block(&mut self) -> io::Result<()> {
        self.packed.resize(max_compress_len(self.block.len()), 0);
        let bytes = Encoder::new().compress(&self.block, &mut self.packed).map_err(bad)?;
        let length = u32::try_from(bytes).expect("a block is small");
        self.target.write_all(&length.to_be_bytes())?;
        self.target.write_all(&self.packed[..bytes])?;
        self.block.clear();
        Ok(())
    }
}

impl<W: Write> Write for SnappyWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK_BYTES {
            self.write_block()?;
        }
        Ok(taken)
    }

    /// Does nothing but with whole blocks: the last one is written by [`SnappyWriter::finish`].
    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

fn too_long(form: &str, bytes: usize, most: usize) -> io::Error {
    bad(format!("a block claims {bytes} bytes {form}, and no ZooKeeper writes more than {most}"))
}

fn bad(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As snappy-java writes it, in blocks of `block_bytes`.
    fn packed(bytes: &[u8], block_bytes: usize) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        for block in bytes.chunks(block_bytes) {
            let block = Encoder::new().compress_vec(block).unwrap();
            out.extend((block.len() as u32).to_be_bytes());
            out.extend(block);
        }
        out
    }

    fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        SnappyReader::new(bytes).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn blocks_and_joined_streams_are_unpacked() {
        let text = b"abcabcabc".repeat(1000);
        let once = packed(&text, 1000);
        assert_eq!(unpack(&once).unwrap(), text);
        assert_eq!(unpack(&[&once[..], &once[..]].concat()).unwrap(), text.repeat(2));
        assert_eq!(unpack(&packed(b"", 1)).unwrap(), b"");
    }

    #[test]
    fn what_was_packed_comes_back() {
        for bytes in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 5] {
            let text: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            let mut packed = Vec::new();
            let mut writer = SnappyWriter::new(&mut packed).unwrap();
            writer.write_all(&text).unwrap();
            writer.finish().unwrap();
            assert_eq!(unpack(&packed).unwrap(), text, "{bytes} bytes");
        }
    }

    /// Blocks whose bytes are there, and that claim to be unpacked, or to be packed, to far more.
    #[test]
    fn what_a_block_claims_costs_no_memory() {
        let begin = packed(b"", 1);
        let there = 1 << 20;
        // A length of 64 MiB as snappy has it, and then nothing that could be unpacked.
        let mut block = vec![0x80, 0x80, 0x80, 0x20];
        block.resize(there, 0xff);
        let unpacked = [&begin[..], &(there as u32).to_be_bytes(), &block].concat();
        let packed = [&begin[..], &(1_u32 << 30).to_be_bytes(), &block].concat();
        for bytes in [unpacked, packed] {
            let mut reader = SnappyReader::new(&bytes[..]);
            let error = reader.read(&mut [0]).unwrap_err().to_string();
            assert!(error.contains("no ZooKeeper writes more"), "{error}");
            assert!(reader.packed.capacity() + reader.block.capacity() < 8 * there);
        }
    }

    #[test]
    fn what_is_not_the_format_is_an_error() {
        let once = packed(&b"abcabcabc".repeat(100), 1000);
        for len in (1..once.len()).step_by(7).filter(|&len| len != HEADER_BYTES) {
            assert!(unpack(&once[..len]).is_err(), "{len} bytes");
        }
        assert!(unpack(b"").is_err());
        assert!(unpack(b"\0\0\0\x01x").is_err());
        let mut huge = packed(b"", 1);
        huge.extend([0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert!(unpack(&huge).is_err());
        let mut long = packed(b"", 1);
        long.extend([0x7f, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert!(unpack(&long).is_err());
        assert!(unpack(&packed(&vec![7; BLOCK_BYTES_MAX], BLOCK_BYTES_MAX)).is_ok());
        assert!(unpack(&packed(&vec![7; BLOCK_BYTES_MAX + 1], BLOCK_BYTES_MAX + 1)).is_err());
        let mut newer = packed(b"x", 1);
        newer[HEADER_BYTES - 1] = 2;
        assert!(unpack(&newer).is_err());
    }
}
