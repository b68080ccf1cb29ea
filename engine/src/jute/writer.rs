//! Encoding: appends to a buffer that the caller owns and reuses.

/// Appends jute fields to a byte vector.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// How many bytes the vector has by now, with those before.
    pub fn position(&self) -> usize {
        self.out.len()
    }

    /// The bytes as they are, without a length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A single byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) {
        self.out.push(u8::from(value));
    }

    /// A 32-bit integer.
    pub fn i32(&mut self, value: i32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A 64-bit integer.
    pub fn i64(&mut self, value: i64) {
        self.bytes(&value.to_be_bytes());
    }

    /// A buffer.
    pub fn buf(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes(bytes);
    }

    /// A buffer that may be null.
    pub fn buf_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.buf(bytes),
            None => self.i32(-1),
        }
    }

    /// A string.
    pub fn string(&mut self, text: &str) {
        self.buf(text.as_bytes());
    }

    /// A string that a client chose and that goes back to it, as Java writes it.
    ///
    // Compat: BinaryOutputArchive.stringToByteBuffer - writes UTF-16 units one by one, so that
    // a character beyond the basic plane comes out as two surrogates of three bytes each.
    pub fn echo(&mut self, text: &str) {
        if text.bytes().all(|byte| byte < FOUR_BYTES_LEAD) {
            return self.string(text);
        }
        let part = self.begin_part();
        for unit in text.encode_utf16() {
            match unit {
                0..0x80 => self.u8(unit as u8),
                0x80..0x800 => self.bytes(&[0xc0 | (unit >> 6) as u8, continuation(unit)]),
                _ => {
                    let lead = 0xe0 | (unit >> 12) as u8;
                    self.bytes(&[lead, continuation(unit >> 6), continuation(unit)]);
                }
            }
        }
        self.end_part(part);
    }

    /// The count of a vector, or the length of a buffer.
    pub fn count(&mut self, count: usize) {
        self.i32(i32::try_from(count).expect("nothing encoded has 2^31 items or bytes"));
    }

    /// Starts a length-prefixed part whose length is known at its end: see [`Writer::end_part`].
    pub fn begin_part(&mut self) -> Part {
        let at = self.out.len();
        self.i32(0);
        Part { at }
    }

    /// Ends a part: writes its length, the prefix itself not counted, where the part began.
    pub fn end_part(&mut self, part: Part) {
        let len = self.out.len() - part.at - 4;
        let len = i32::try_from(len).expect("nothing encoded has 2^31 bytes");
        self.out[part.at..part.at + 4].copy_from_slice(&len.to_be_bytes());
    }
}

/// Begins the encoding of a character that takes four bytes.
const FOUR_BYTES_LEAD: u8 = 0xf0;

/// The low six bits as a continuation byte.
fn continuation(unit: u16) -> u8 {
    0x80 | (unit & 0x3f) as u8
}

impl Writer<'_> {
    /// Starts a vector whose count is known at its end: see [`Writer::end_vector`].
    pub fn begin_vector(&mut self) -> Vector {
        let at = self.out.len();
        self.i32(0);
        Vector { at }
    }

    /// Ends a vector: writes its count where it began.
    pub fn end_vector(&mut self, vector: Vector, count: usize) {
        let count = i32::try_from(count).expect("nothing encoded has 2^31 items");
        self.out[vector.at..vector.at + 4].copy_from_slice(&count.to_be_bytes());
    }
}

/// A vector that has been begun and not ended.
#[derive(Debug)]
#[must_use = "a vector that is not ended has no items"]
pub struct Vector {
    at: usize,
}

/// A length-prefixed part that has been begun and not ended.
#[derive(Debug)]
#[must_use = "a part that is not ended has length 0"]
pub struct Part {
    at: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_what_java_writes() {
        let check = |text: &str, expect: &[u8]| {
            let mut out = Vec::new();
            Writer::new(&mut out).echo(text);
            assert_eq!(out[4..], *expect, "{text}");
            assert_eq!(out[..4], (expect.len() as u32).to_be_bytes());
        };
        check("/a\u{e9}\u{4e2d}", "/a\u{e9}\u{4e2d}".as_bytes());
        check("/\u{1f600}", b"/\xed\xa0\xbd\xed\xb8\x80");
        check("\u{e9}\u{4e2d}\u{10000}", b"\xc3\xa9\xe4\xb8\xad\xed\xa0\x80\xed\xb0\x80");
    }
}
