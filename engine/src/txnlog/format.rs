//! The bytes of a log segment: its header, and the frames behind it.
//!
//! `docs/format.md` explains the fields and has the same tables; a test compares them with the
//! constants of this file.

use crate::disk::{BLOCK_BYTES, SegmentId};
use crate::zxid::Zxid;

/// The first bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"RKtxnlog";
/// The first bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"RKfr";
/// The newest version of the format that is read; the one that is written.
pub const FORMAT_VERSION: u32 = 1;
/// Features that this reader understands.
pub const FEATURES_KNOWN: u64 = 0;
/// Where the first frame of a segment is.
pub const FRAMES_START: u64 = BLOCK_BYTES as u64;
/// The length in front of a transaction.
pub const TXN_LENGTH_BYTES: usize = 4;

/// One field of a table: name, offset, bytes.
type Field = (&'static str, usize, usize);

/// The header of a segment.
const SEGMENT_FIELDS: &[Field] = &[
    ("magic", 0, 8),
    ("checksum", 8, 4),
    ("version", 12, 4),
    ("features", 16, 8),
    ("incarnation", 24, 8),
    ("segment", 32, 8),
    ("segment_bytes", 40, 8),
];
/// Bytes of the header that are used; zeros fill the block.
pub const SEGMENT_HEADER_BYTES: usize = 48;

/// The header of a frame.
const FRAME_FIELDS: &[Field] = &[
    ("magic", 0, 4),
    ("checksum", 4, 4),
    ("kind", 8, 4),
    ("body_bytes", 12, 4),
    ("incarnation", 16, 8),
    ("sequence", 24, 8),
    ("base_zxid", 32, 8),
    ("first_zxid", 40, 8),
    ("last_zxid", 48, 8),
    ("durable_to", 56, 8),
    ("previous", 64, 4),
    ("opening", 68, 4),
];
/// Bytes before a frame's body.
pub const FRAME_HEADER_BYTES: usize = 72;

/// What a checksum covers starts behind the checksum itself.
const SEGMENT_CHECKED_FROM: usize = 12;
const FRAME_CHECKED_FROM: usize = 8;

const _: () = {
    assert!(SEGMENT_HEADER_BYTES <= BLOCK_BYTES);
    assert!(contiguous(SEGMENT_FIELDS, SEGMENT_HEADER_BYTES));
    assert!(contiguous(FRAME_FIELDS, FRAME_HEADER_BYTES));
};

const fn contiguous(fields: &[Field], total: usize) -> bool {
    let (mut index, mut offset) = (0, 0);
    while index < fields.len() {
        if fields[index].1 != offset {
            return false;
        }
        offset += fields[index].2;
        index += 1;
    }
    offset == total
}

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// A random number, the same in every frame of this use of the file.
    pub incarnation: u64,
    /// The number in its name.
    pub segment: SegmentId,
    /// The length that the file was made with.
    pub segment_bytes: u64,
}

/// Why a segment's header can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSegment {
    /// It is damaged.
    Damaged,
    /// It has a version that is not known.
    Version(u32),
    /// It needs features that are not known.
    Features(u64),
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FrameKind {
    /// It carries transactions.
    Txns = 1,
    /// It says what is durable; no transactions.
    Mark = 2,
    /// First in its segment: the log goes on from `base_zxid`, behind the frame whose sequence the
    /// body holds; what other frames follow that one in earlier segments does not count.
    Cut = 3,
}

/// Bytes of the body of a [`FrameKind::Cut`]: the sequence of the frame that it goes on from.
pub const CUT_BODY_BYTES: usize = 8;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Its own checksum, over the rest of the header and the body.
    pub checksum: u32,
    /// What it is for.
    pub kind: FrameKind,
    /// How many bytes follow the header.
    pub body_bytes: u32,
    /// That of the segment.
    pub incarnation: u64,
    /// One more than that of the frame before it.
    pub sequence: u64,
    /// The last zxid before this frame.
    pub base_zxid: Zxid,
    /// The first zxid in it; without transactions the base.
    pub first_zxid: Zxid,
    /// The last zxid in it; without transactions the base.
    pub last_zxid: Zxid,
    /// The highest sequence that was known to be durable when this frame was composed.
    pub durable_to: u64,
    /// The checksum of the frame before it; of a cut, of the frame that it goes on from.
    pub previous: u32,
    /// A random number of whoever opened the log. Without it a frame that is composed again after
    /// a crash could equal the one that was lost, and then what had been written behind that one
    /// would seem to follow.
    pub opening: u32,
}

impl SegmentHeader {
    /// The whole first block of a segment.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        block[..8].copy_from_slice(&SEGMENT_MAGIC);
        put_u32(&mut block, 12, FORMAT_VERSION);
        put_u64(&mut block, 16, FEATURES_KNOWN);
        put_u64(&mut block, 24, self.incarnation);
        put_u64(&mut block, 32, self.segment.0);
        put_u64(&mut block, 40, self.segment_bytes);
        let checksum = crc32c::crc32c(&block[SEGMENT_CHECKED_FROM..SEGMENT_HEADER_BYTES]);
        put_u32(&mut block, 8, checksum);
        block
    }

    /// Reads the first bytes of a segment.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadSegment> {
        let header = bytes.first_chunk::<SEGMENT_HEADER_BYTES>().ok_or(BadSegment::Damaged)?;
        let checksum = crc32c::crc32c(&header[SEGMENT_CHECKED_FROM..]);
        if header[..8] != SEGMENT_MAGIC || get_u32(header, 8) != checksum {
            return Err(BadSegment::Damaged);
        }
        let (version, features) = (get_u32(header, 12), get_u64(header, 16));
        if version != FORMAT_VERSION {
            return Err(BadSegment::Version(version));
        }
        if features & !FEATURES_KNOWN != 0 {
            return Err(BadSegment::Features(features));
        }
        Ok(Self {
            incarnation: get_u64(header, 24),
            segment: SegmentId(get_u64(header, 32)),
            segment_bytes: get_u64(header, 40),
        })
    }
}

impl FrameHeader {
    /// Fills in the first bytes of `frame`, behind which its body is already; computes the
    /// checksum of both, notes it and returns it.
    pub fn seal(&mut self, frame: &mut [u8]) -> u32 {
        assert_eq!(frame.len(), FRAME_HEADER_BYTES + self.body_bytes as usize);
        frame[..4].copy_from_slice(&FRAME_MAGIC);
        put_u32(frame, 8, self.kind as u32);
        put_u32(frame, 12, self.body_bytes);
        put_u64(frame, 16, self.incarnation);
        put_u64(frame, 24, self.sequence);
        put_u64(frame, 32, self.base_zxid.0);
        put_u64(frame, 40, self.first_zxid.0);
        put_u64(frame, 48, self.last_zxid.0);
        put_u64(frame, 56, self.durable_to);
        put_u32(frame, 64, self.previous);
        put_u32(frame, 68, self.opening);
        self.checksum = crc32c::crc32c(&frame[FRAME_CHECKED_FROM..]);
        put_u32(frame, 4, self.checksum);
        self.checksum
    }

    /// Reads a header if `bytes` begin with one of this incarnation. Its checksum is still to be
    /// compared, by [`FrameHeader::is_whole`].
    pub fn decode(bytes: &[u8], incarnation: u64) -> Option<Self> {
        let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        if header[..4] != FRAME_MAGIC || get_u64(header, 16) != incarnation {
            return None;
        }
        let kinds = [FrameKind::Txns, FrameKind::Mark, FrameKind::Cut];
        let kind = kinds.into_iter().find(|kind| *kind as u32 == get_u32(header, 8))?;
        // Frames are counted from 1, and nobody writes so many.
        let sequence = get_u64(header, 24);
        if sequence == 0 || sequence == u64::MAX {
            return None;
        }
        Some(Self {
            checksum: get_u32(header, 4),
            kind,
            body_bytes: get_u32(header, 12),
            incarnation,
            sequence,
            base_zxid: Zxid(get_u64(header, 32)),
            first_zxid: Zxid(get_u64(header, 40)),
            last_zxid: Zxid(get_u64(header, 48)),
            durable_to: get_u64(header, 56),
            previous: get_u32(header, 64),
            opening: get_u32(header, 68),
        })
    }

    /// Whether `frame`, header and body, has the checksum that it claims.
    pub fn is_whole(&self, frame: &[u8]) -> bool {
        frame.len() == self.frame_bytes()
            && crc32c::crc32c(&frame[FRAME_CHECKED_FROM..]) == self.checksum
    }

    /// Bytes of header and body.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.body_bytes as usize
    }

    /// How far behind this frame the next one is.
    pub fn stride(&self) -> u64 {
        stride(self.frame_bytes())
    }
}

/// How much of a segment a frame of this length takes, bytes.
pub fn stride(frame_bytes: usize) -> u64 {
    frame_bytes.next_multiple_of(BLOCK_BYTES) as u64
}

/// The name of a segment's file.
pub fn segment_name(segment: SegmentId) -> String {
    format!("log.{segment}")
}

/// The segment whose file has this name.
pub fn parse_segment_name(name: &str) -> Option<SegmentId> {
    parse_numbered(name, "log.")
}

/// The name of a file that is kept to become a segment.
pub fn spare_name(segment: SegmentId) -> String {
    format!("spare.{segment}")
}

/// The number of a file that is kept to become a segment.
pub fn parse_spare_name(name: &str) -> Option<SegmentId> {
    parse_numbered(name, "spare.")
}

fn parse_numbered(name: &str, prefix: &str) -> Option<SegmentId> {
    let digits = name.strip_prefix(prefix)?;
    let plain = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if digits.len() != 16 || !plain {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(SegmentId)
}

/// Appends a transaction to the body of a frame: its length, then its bytes.
pub fn push_txn(body: &mut Vec<u8>, txn: &[u8]) {
    let begin = begin_txn(body);
    body.extend_from_slice(txn);
    end_txn(body, begin);
}

/// Begins a transaction whose bytes are appended next, up to [`end_txn`].
pub fn begin_txn(body: &mut Vec<u8>) -> usize {
    let begin = body.len();
    body.extend_from_slice(&[0; TXN_LENGTH_BYTES]);
    begin
}

/// Ends the transaction that began there: its length is what was appended since.
pub fn end_txn(body: &mut [u8], begin: usize) {
    let len = body.len() - begin - TXN_LENGTH_BYTES;
    let len = u32::try_from(len).expect("a transaction is far below 4 GiB");
    body[begin..begin + TXN_LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
}

/// The transactions in the body of a frame; stops with an error where lengths do not add up.
pub fn txns(body: &[u8]) -> impl Iterator<Item = Result<&[u8], BadLength>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (txn, after) = split_txn(rest).unzip();
        rest = after.unwrap_or_default();
        Some(txn.ok_or(BadLength))
    })
}

/// A length in the body of a frame goes beyond its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength;

fn split_txn(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = body.split_first_chunk::<TXN_LENGTH_BYTES>()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get_u32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the tables stay within the header"))
}

fn get_u64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the tables stay within the header"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format_document::assert_table;

    const HEADER: FrameHeader = FrameHeader {
        checksum: 0,
        kind: FrameKind::Txns,
        body_bytes: 9,
        incarnation: 7,
        sequence: 3,
        base_zxid: Zxid(4),
        first_zxid: Zxid(5),
        last_zxid: Zxid(5),
        durable_to: 2,
        previous: 11,
        opening: 13,
    };

    fn frame() -> Vec<u8> {
        let mut body = Vec::new();
        push_txn(&mut body, b"hello");
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend_from_slice(&body);
        HEADER.clone().seal(&mut frame);
        frame
    }

    #[test]
    fn the_document_has_the_same_fields() {
        assert_table("segment header", SEGMENT_FIELDS);
        assert_table("frame header", FRAME_FIELDS);
    }

    #[test]
    fn a_frame_survives_its_encoding() {
        let frame = frame();
        let header = FrameHeader::decode(&frame, 7).unwrap();
        assert_eq!(FrameHeader { checksum: 0, ..header }, HEADER);
        assert!(header.is_whole(&frame));
        let found: Vec<_> = txns(&frame[FRAME_HEADER_BYTES..]).collect();
        assert_eq!(found, [Ok(b"hello".as_slice())]);
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let whole = frame();
        for bit in 0..whole.len() * 8 {
            let mut frame = whole.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            let header = FrameHeader::decode(&frame, 7);
            let accepted = header.is_some_and(|header| {
                frame.get(..header.frame_bytes()).is_some_and(|bytes| header.is_whole(bytes))
            });
            assert!(!accepted, "bit {bit}");
        }
    }

    #[test]
    fn a_sequence_that_none_has_is_no_frame() {
        for sequence in [0, u64::MAX] {
            let mut frame = frame();
            FrameHeader { sequence, ..HEADER }.seal(&mut frame);
            assert_eq!(FrameHeader::decode(&frame, 7), None);
        }
    }

    const SEGMENT: SegmentHeader =
        SegmentHeader { incarnation: 1, segment: SegmentId(2), segment_bytes: 1 << 20 };

    #[test]
    fn what_this_reader_does_not_know_is_named() {
        let decoded = |at: usize, to: u8| {
            let mut block = SEGMENT.encode();
            block[at] = to;
            let checksum = crc32c::crc32c(&block[SEGMENT_CHECKED_FROM..SEGMENT_HEADER_BYTES]);
            put_u32(&mut block, 8, checksum);
            SegmentHeader::decode(&block)
        };
        assert_eq!(decoded(12, 2), Err(BadSegment::Version(2)));
        assert_eq!(decoded(16, 5), Err(BadSegment::Features(5)));
        assert_eq!(decoded(23, 0x80), Err(BadSegment::Features(1 << 63)));
        assert_eq!(decoded(24, 7), Ok(SegmentHeader { incarnation: 7, ..SEGMENT }));
    }

    #[test]
    fn every_flipped_bit_of_a_segment_header_is_noticed() {
        let whole = SEGMENT.encode();
        assert_eq!(SegmentHeader::decode(&whole), Ok(SEGMENT));
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut block = whole.clone();
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&block), Err(BadSegment::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn lengths_that_do_not_add_up_are_an_error() {
        for body in [&[5, 0, 0, 0, 1][..], &[0, 0], &[0xff; 8]] {
            assert_eq!(txns(body).collect::<Vec<_>>(), [Err(BadLength)]);
        }
    }

    #[test]
    fn only_whole_names_are_segments() {
        let id = SegmentId(0x1f);
        assert_eq!(segment_name(id), "log.000000000000001f");
        assert_eq!(parse_segment_name(&segment_name(id)), Some(id));
        for name in ["log.1", "log.000000000000001F", "log.000000000000001f.tmp", "spare.1"] {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }
}
