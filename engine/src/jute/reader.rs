//! Decoding: borrows from the packet, checks every length before it is used, allocates nothing.
//!
//! Invariants:
//!
//!   * a read either consumes the whole field or fails; after a failure the reader is not used
//!   * no count or length leads to work or memory beyond the bytes that are really there

use std::borrow::Cow;

use super::DecodeError;

/// A cursor over the bytes of one packet.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `count` bytes as they are.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let left = self.bytes.len();
        let Some((head, rest)) = self.bytes.split_at_checked(count) else {
            return Err(DecodeError::UnexpectedEnd { needed: count, left });
        };
        self.bytes = rest;
        Ok(head)
    }

    /// A single byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    /// A boolean; as in Java, every byte but 0 is true.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.u8()? != 0)
    }

    /// A 32-bit integer.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        let (bytes, rest) = self.bytes.split_first_chunk::<4>().ok_or(self.end(4))?;
        self.bytes = rest;
        Ok(i32::from_be_bytes(*bytes))
    }

    /// A 64-bit integer.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        let (bytes, rest) = self.bytes.split_first_chunk::<8>().ok_or(self.end(8))?;
        self.bytes = rest;
        Ok(i64::from_be_bytes(*bytes))
    }

    /// A buffer; a null one is none.
    pub fn buf(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.i32()? {
            -1 => Ok(None),
            len => {
                let len = usize::try_from(len).map_err(|_| DecodeError::NegativeLength(len))?;
                self.take(len).map(Some)
            }
        }
    }

    /// A string; a null one is none. Bytes that are not UTF-8 become U+FFFD, as in Java.
    pub fn ustr(&mut self) -> Result<Option<Cow<'a, str>>, DecodeError> {
        Ok(self.buf()?.map(text))
    }

    /// A string that must not be null.
    pub fn string(&mut self, what: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        self.ustr()?.ok_or(DecodeError::Null(what))
    }

    /// The count of a vector whose items take at least `item_bytes` each; a null vector is none.
    ///
    /// A count that the remaining bytes cannot hold is refused, so that a caller may reserve.
    ///
    // Compat: BinaryInputArchive.startVector - a count below -1 is that of an empty vector.
    pub fn count(&mut self, item_bytes: usize) -> Result<Option<usize>, DecodeError> {
        let count = self.i32()?;
        if count == -1 {
            return Ok(None);
        }
        let count = usize::try_from(count).unwrap_or(0);
        let needed = count.saturating_mul(item_bytes.max(1));
        if needed > self.bytes.len() {
            return Err(self.end(needed));
        }
        Ok(Some(count))
    }

    fn end(&self, needed: usize) -> DecodeError {
        DecodeError::UnexpectedEnd { needed, left: self.bytes.len() }
    }
}

/// The text of bytes that should be UTF-8.
///
// Compat: String.decodeUTF8 - as from_utf8_lossy does it, but a surrogate, or what there is of it,
// becomes one U+FFFD, not one for each of its bytes.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    let mut text = String::new();
    let mut rest = bytes;
    loop {
        let error = match str::from_utf8(rest) {
            Ok(valid) if text.is_empty() => return Cow::Borrowed(valid),
            Ok(valid) => return Cow::Owned(text + valid),
            Err(error) => error,
        };
        let (valid, broken) = rest.split_at(error.valid_up_to());
        text.push_str(str::from_utf8(valid).expect("valid up to there"));
        text.push(char::REPLACEMENT_CHARACTER);
        let broken_len = match broken {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => 3,
            [0xed, 0xa0..=0xbf, ..] => 2,
            _ => error.error_len().unwrap_or(broken.len()),
        };
        rest = &broken[broken_len..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_text_is_what_java_makes_of_it() {
        let check = |bytes: &[u8], expect: &str| assert_eq!(text(bytes), expect, "{bytes:x?}");
        check("a\u{e9}\u{1f600}".as_bytes(), "a\u{e9}\u{1f600}");
        check(b"a\xffb\xc3", "a\u{fffd}b\u{fffd}");
        check(b"\xc0\x80", "\u{fffd}\u{fffd}");
        check(b"\xe2\x82c", "\u{fffd}c");
        check(b"\xf5\x80\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
        check(b"x\xed\xa0\x80y", "x\u{fffd}y");
        check(b"\xed\xa0\xbd\xed\xb8\x80", "\u{fffd}\u{fffd}");
        check(b"\xed\xa0", "\u{fffd}");
        check(b"\xed\xa0A", "\u{fffd}A");
    }

    #[test]
    fn reads_what_java_writes() {
        let mut reader = Reader::new(&[0, 0, 0, 2, b'/', b'p', 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(reader.string("path"), Ok(Cow::Borrowed("/p")));
        assert_eq!(reader.buf(), Ok(None));
        assert_eq!(reader.bool(), Ok(true));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_length_beyond_the_packet_is_an_error_not_an_allocation() {
        let mut reader = Reader::new(&[0x7f, 0xff, 0xff, 0xff, 0]);
        let end = DecodeError::UnexpectedEnd { needed: 0x7fff_ffff, left: 1 };
        assert_eq!(reader.clone().buf(), Err(end));
        assert_eq!(reader.count(1), Err(end));
        let minus_two = &[0xff, 0xff, 0xff, 0xfe];
        assert_eq!(Reader::new(minus_two).buf(), Err(DecodeError::NegativeLength(-2)));
        assert_eq!(Reader::new(minus_two).count(1), Ok(Some(0)));
    }
}
