//! Bytes that come in pieces, taken out record by record.

use std::fmt;

use simd_adler32::Adler32;

use crate::jute::{DecodeError, Reader};
use crate::limits::RECORD_BYTES_MAX;

/// How much of a file is read or written at a time.
pub(super) const PIECE_BYTES: usize = 1 << 16;

/// A buffer between a source of bytes and a decoder of records.
pub struct Stream {
    buffer: Vec<u8>,
    /// What was taken lies in front of this.
    start: usize,
    /// No use in trying with less: what the last try asked for.
    wanted: usize,
    /// No record is longer.
    record_bytes_max: usize,
    /// Of everything that was taken.
    adler: Adler32,
    taken: u64,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (taken, rest) = (self.taken, self.rest().len());
        f.debug_struct("Stream").field("taken", &taken).field("rest", &rest).finish_non_exhaustive()
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl Stream {
    /// An empty one.
    pub fn new() -> Self {
        Self::of_records(RECORD_BYTES_MAX)
    }

    /// An empty one for records up to this length.
    pub fn of_records(record_bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            wanted: 0,
            record_bytes_max,
            adler: Adler32::new(),
            taken: 0,
        }
    }

    /// From now on, records may be as long as any.
    pub fn take_long_records(&mut self) {
        self.record_bytes_max = RECORD_BYTES_MAX;
    }

    /// How many bytes are there.
    pub fn untaken(&self) -> usize {
        self.rest().len()
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes a record, if all of it is there. `parse` is tried again with more bytes when it
    /// meets their end, so it may change things only behind the last field.
    pub fn take<T, E>(
        &mut self,
        parse: impl FnOnce(&mut Reader<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        E: From<DecodeError> + AsDecodeError,
    {
        let rest = &self.buffer[self.start..];
        if rest.len() < self.wanted {
            return Ok(None);
        }
        let mut reader = Reader::new(rest);
        match parse(&mut reader) {
            Ok(value) => {
                let bytes = rest.len() - reader.rest().len();
                self.adler.write(&rest[..bytes]);
                self.start += bytes;
                self.taken += bytes as u64;
                self.wanted = 0;
                Ok(Some(value))
            }
            Err(error) => match error.as_decode_error() {
                Some(DecodeError::UnexpectedEnd { needed, left }) => {
                    self.wanted = rest.len() - left + needed;
                    if self.wanted > self.record_bytes_max {
                        let value = i64::try_from(self.wanted).unwrap_or(i64::MAX);
                        return Err(DecodeError::BadValue { what: "record length", value }.into());
                    }
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }

    /// What is there and was not taken.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// How many bytes were taken: where in the file the rest begins.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Adler32 of everything that was taken.
    pub(super) fn adler(&self) -> u32 {
        self.adler.finish()
    }
}

/// An error that may be nothing but the end of the bytes so far.
pub trait AsDecodeError {
    /// The decoder's error in it, if that is what it is.
    fn as_decode_error(&self) -> Option<DecodeError>;
}

impl AsDecodeError for DecodeError {
    fn as_decode_error(&self) -> Option<DecodeError> {
        Some(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_however_the_bytes_come_in() {
        let mut bytes = Vec::new();
        for text in ["", "a", "some text", &"long".repeat(100)] {
            crate::jute::Writer::new(&mut bytes).string(text);
        }
        for piece in [1, 2, 3, 7, 1000] {
            let mut stream = Stream::new();
            let mut lengths = Vec::new();
            for bytes in bytes.chunks(piece) {
                stream.push(bytes);
                let read = |reader: &mut Reader<'_>| Ok(reader.string("text")?.len());
                while let Some(len) = stream.take::<_, DecodeError>(read).unwrap() {
                    lengths.push(len);
                }
            }
            assert_eq!(lengths, [0, 1, 9, 400], "in pieces of {piece}");
            assert!(stream.rest().is_empty());
            assert_eq!(stream.taken(), bytes.len() as u64);
            assert_eq!(stream.adler(), simd_adler32::adler32(&&bytes[..]));
        }
    }

    #[test]
    fn a_long_record_is_not_tried_again_for_each_byte() {
        let mut stream = Stream::new();
        let mut tries = 0;
        let mut bytes = Vec::new();
        crate::jute::Writer::new(&mut bytes).buf(&[7; 10_000]);
        for byte in bytes {
            stream.push(&[byte]);
            let taken = stream.take::<_, DecodeError>(|reader| {
                tries += 1;
                reader.buf().map(|_| ())
            });
            assert!(taken.is_ok());
        }
        assert!(tries <= 3, "{tries}");
    }

    #[test]
    fn a_record_that_claims_to_be_huge_is_an_error_not_a_wait() {
        let mut stream = Stream::new();
        stream.push(&[0x7f, 0xff, 0xff, 0xff, 1, 2, 3]);
        let taken = stream.take::<(), DecodeError>(|reader| reader.buf().map(|_| ()));
        let value = 0x7fff_ffff + 4;
        assert_eq!(taken, Err(DecodeError::BadValue { what: "record length", value }));
    }

    #[test]
    fn long_records_are_waited_for_where_they_are_expected() {
        let mut bytes = Vec::new();
        crate::jute::Writer::new(&mut bytes).buf(&[7; 100]);
        let read = |reader: &mut Reader<'_>| reader.buf().map(|_| ());
        let mut stream = Stream::of_records(50);
        stream.push(&bytes[..10]);
        let error = DecodeError::BadValue { what: "record length", value: 104 };
        assert_eq!(stream.take(read), Err(error));
        let mut stream = Stream::of_records(50);
        stream.take_long_records();
        stream.push(&bytes[..10]);
        assert_eq!(stream.take(read), Ok(None));
    }
}
