//! Reads the frames of one segment, in pieces that are large enough to be fast.

use super::format::{
    BadSegment, FORMAT_VERSION, FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES,
    SegmentHeader, segment_name,
};
use crate::disk::{
    BLOCK_BYTES, Damage, SegmentId, SegmentPlan, StorageError, StorageErrorKind, Volume,
};

/// How much is read at first: of most segments, only the beginning is wanted.
const CHUNK_BYTES_MIN: usize = 8 << 10;
/// And then, in the end: each time twice as much, up to this.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// A segment being read.
#[derive(Debug)]
pub(super) struct Reader<'v, V> {
    volume: &'v V,
    name: String,
    pub(super) plan: SegmentPlan,
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl<'v, V: Volume> Reader<'v, V> {
    /// Reads and checks the header of a segment.
    pub(super) fn open(volume: &'v V, segment: SegmentId) -> Result<Self, StorageError> {
        let name = segment_name(segment);
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let count = volume.read_at(&name, 0, &mut bytes)?;
        let fail = |kind| StorageError { file: name.clone(), offset: 0, kind };
        let header = SegmentHeader::decode(&bytes[..count]).map_err(|bad| {
            fail(match bad {
                BadSegment::Damaged => StorageErrorKind::Damaged(Damage::SegmentHeader),
                BadSegment::Version(found) => {
                    StorageErrorKind::Version { found, known: FORMAT_VERSION }
                }
                BadSegment::Features(bits) => StorageErrorKind::Features(bits),
            })
        })?;
        if header.segment != segment {
            return Err(fail(StorageErrorKind::Damaged(Damage::SegmentHeader)));
        }
        // A file that was cut short lacks frames, which the scan notices.
        let bytes = header.segment_bytes.min(volume.len(&name)?);
        let plan = SegmentPlan { segment, incarnation: header.incarnation, bytes };
        Ok(Self { volume, name, plan, chunk: Vec::new(), chunk_at: 0 })
    }

    /// Gives its memory back: a log may have thousands of segments.
    pub(super) fn rest(&mut self) {
        self.chunk = Vec::new();
    }

    /// The frame at `offset`, header and all, if there is one and its checksum is right.
    pub(super) fn frame(
        &mut self,
        offset: u64,
    ) -> Result<Option<(FrameHeader, &[u8])>, StorageError> {
        let incarnation = self.plan.incarnation;
        let bytes = self.bytes_at(offset, FRAME_HEADER_BYTES)?;
        let Some(header) = FrameHeader::decode(bytes, incarnation) else { return Ok(None) };
        if header.frame_bytes() as u64 > self.plan.bytes - offset {
            return Ok(None);
        }
        let frame = self.bytes_at(offset, header.frame_bytes())?;
        Ok(header.is_whole(frame).then_some((header, frame)))
    }

    /// Whether at `offset` something of this incarnation begins, whole or not.
    pub(super) fn is_begun(&mut self, offset: u64) -> Result<bool, StorageError> {
        let incarnation = self.plan.incarnation;
        let bytes = self.bytes_at(offset, FRAME_HEADER_BYTES)?;
        Ok(FrameHeader::decode(bytes, incarnation).is_some())
    }

    /// The first whole frame at or behind `offset`, and before `end`, that says that the frame
    /// `sequence` is durable.
    pub(super) fn find_witness(
        &mut self,
        offset: u64,
        end: u64,
        sequence: u64,
    ) -> Result<Option<u64>, StorageError> {
        let mut offset = offset;
        while offset < end.min(self.plan.bytes) {
            if let Some((header, _)) = self.frame(offset)?
                && header.durable_to >= sequence
            {
                return Ok(Some(offset));
            }
            offset += BLOCK_BYTES as u64;
        }
        Ok(None)
    }

    /// Up to `count` bytes from `offset` on: fewer at the end of the segment.
    fn bytes_at(&mut self, offset: u64, count: usize) -> Result<&[u8], StorageError> {
        let left = usize::try_from(self.plan.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = count.min(left);
        let chunk_end = self.chunk_at + self.chunk.len() as u64;
        if offset < self.chunk_at || offset + count as u64 > chunk_end {
            let chunk = (2 * self.chunk.len()).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
            self.chunk.resize(count.max(chunk).min(left), 0);
            let read = self.volume.read_at(&self.name, offset, &mut self.chunk)?;
            self.chunk.truncate(read);
            self.chunk_at = offset;
        }
        let from = usize::try_from(offset - self.chunk_at).expect("it is within the chunk");
        Ok(&self.chunk[from..self.chunk.len().min(from + count)])
    }
}
