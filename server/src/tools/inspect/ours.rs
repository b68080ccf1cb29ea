//! Segments of our log, files of two slots, and files with a number.

use std::io::Write;

use engine::disk::BLOCK_BYTES;
use engine::epochs::EPOCHS_KIND;
use engine::manifest::MANIFEST_KIND;
use engine::slots::Slot;
use engine::txnlog::format::{
    BadSegment, FRAME_HEADER_BYTES, FRAMES_START, FrameHeader, FrameKind, SEGMENT_HEADER_BYTES,
    SegmentHeader, txns,
};
use engine::zxid::Zxid;

use super::line::{Line, Lines};
use super::{InspectError, Options, Source, txn};

/// How much is read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Shows the frames of a segment, with their transactions.
pub(super) fn show_segment(
    source: &Source,
    options: Options,
    lines: &mut Lines<impl Write>,
) -> Result<(), InspectError> {
    let header = match SegmentHeader::decode(&source.bytes_at(0, SEGMENT_HEADER_BYTES)?) {
        Ok(header) => header,
        Err(bad) => {
            let reason = match bad {
                BadSegment::Damaged => "the segment header is damaged".to_owned(),
                BadSegment::Version(version) => format!("format version {version} is not known"),
                BadSegment::Features(bits) => format!("features {bits:#x} are not known"),
            };
            return Ok(lines.damage(0, &reason)?);
        }
    };
    let mut line = Line::new("segment");
    line.hex("segment", header.segment.0);
    line.hex("incarnation", header.incarnation);
    line.number("segment_bytes", header.segment_bytes);
    lines.write(&line)?;
    if source.length < header.segment_bytes {
        let reason = format!("the file ends here, and not after {} bytes", header.segment_bytes);
        lines.damage(source.length, &reason)?;
    }
    let incarnation = header.incarnation;
    let mut walk = Walk { source, options, incarnation, chunk: Vec::new(), chunk_at: 0, end: None };
    walk.run(lines)
}

/// Goes through the frames of one use of a segment.
struct Walk<'s> {
    source: &'s Source,
    options: Options,
    incarnation: u64,
    chunk: Vec<u8>,
    chunk_at: u64,
    /// The last frame of the chain so far.
    end: Option<FrameHeader>,
}

/// Where the chain has ended.
struct Gap {
    offset: u64,
    /// A frame begins there.
    is_begun: bool,
    is_damage: bool,
}

impl Walk<'_> {
    fn run(&mut self, lines: &mut Lines<impl Write>) -> Result<(), InspectError> {
        let mut offset = FRAMES_START;
        let mut gap: Option<Gap> = None;
        let (mut frames, mut count) = (0_u64, 0_u64);
        while offset < self.source.length {
            let Some(header) = self.whole_frame(offset)? else {
                if gap.is_none() {
                    let is_begun = self.header(offset)?.is_some();
                    gap = Some(Gap { offset, is_begun, is_damage: false });
                }
                offset += BLOCK_BYTES as u64;
                continue;
            };
            let follows = self.end.is_none_or(|end| {
                header.sequence == end.sequence + 1 && header.previous == end.checksum
            });
            if gap.is_none() && follows {
                frames += 1;
                lines.write(&frame_line("frame", offset, &header))?;
                count += self.show_txns(offset, &header, lines)?;
                self.end = Some(header);
            } else {
                let gap = gap.get_or_insert(Gap { offset, is_begun: true, is_damage: false });
                self.show_stray(offset, &header, gap, lines)?;
            }
            offset += header.stride();
        }
        if let Some(gap) = gap.filter(|gap| gap.is_begun && !gap.is_damage) {
            let mut line = Line::new("torn");
            line.number("offset", gap.offset);
            lines.write(&line)?;
        }
        let mut line = Line::new("end");
        line.number("frames", frames);
        line.number("txns", count);
        if let Some(end) = self.end {
            line.number("sequence", end.sequence);
            line.hex("zxid", end.last_zxid.0);
        }
        Ok(lines.write(&line)?)
    }

    /// A frame behind the end of the chain: it was never acknowledged, or one before it is missing.
    fn show_stray(
        &self,
        offset: u64,
        header: &FrameHeader,
        gap: &mut Gap,
        lines: &mut Lines<impl Write>,
    ) -> Result<(), InspectError> {
        let missing = self.end.map_or(header.sequence, |end| end.sequence + 1);
        let was_durable = header.durable_to >= missing || self.end.is_none();
        if was_durable && !gap.is_damage {
            gap.is_damage = true;
            let reason = match self.end {
                Some(_) => format!(
                    "frame {missing} is damaged or missing: it was durable, says the frame at \
                     offset {offset}"
                ),
                None => format!("no frame is here, but one is at offset {offset}"),
            };
            lines.damage(gap.offset, &reason)?;
        }
        Ok(lines.write(&frame_line("stray", offset, header))?)
    }

    fn show_txns(
        &mut self,
        offset: u64,
        header: &FrameHeader,
        lines: &mut Lines<impl Write>,
    ) -> Result<u64, InspectError> {
        if header.kind != FrameKind::Txns {
            return Ok(0);
        }
        let options = self.options;
        let frame = self.bytes_at(offset, header.frame_bytes())?;
        let mut zxid = Some(header.first_zxid);
        let mut count = 0;
        for txn in txns(&frame[FRAME_HEADER_BYTES..]) {
            let Ok(txn) = txn else {
                lines.damage(offset, "lengths of transactions do not add up")?;
                break;
            };
            count += 1;
            txn::show(offset, txn, zxid, options, lines)?;
            zxid = zxid.and_then(Zxid::next);
        }
        Ok(count)
    }

    /// The header of the frame at `offset`, if one of this incarnation begins there.
    fn header(&mut self, offset: u64) -> Result<Option<FrameHeader>, InspectError> {
        let incarnation = self.incarnation;
        Ok(FrameHeader::decode(self.bytes_at(offset, FRAME_HEADER_BYTES)?, incarnation))
    }

    fn whole_frame(&mut self, offset: u64) -> Result<Option<FrameHeader>, InspectError> {
        let Some(header) = self.header(offset)? else { return Ok(None) };
        if header.frame_bytes() as u64 > self.source.length - offset {
            return Ok(None);
        }
        let frame = self.bytes_at(offset, header.frame_bytes())?;
        Ok(header.is_whole(frame).then_some(header))
    }

    /// Up to `count` bytes: fewer at the end of the file.
    fn bytes_at(&mut self, offset: u64, count: usize) -> Result<&[u8], InspectError> {
        let left = usize::try_from(self.source.length.saturating_sub(offset));
        let left = left.unwrap_or(usize::MAX);
        let count = count.min(left);
        let chunk_end = self.chunk_at + self.chunk.len() as u64;
        if offset < self.chunk_at || offset + count as u64 > chunk_end {
            self.chunk.resize(count.max(CHUNK_BYTES).min(left), 0);
            let read = self.source.read_at(offset, &mut self.chunk)?;
            self.chunk.truncate(read);
            self.chunk_at = offset;
        }
        let from = usize::try_from(offset - self.chunk_at).expect("it is within the chunk");
        Ok(&self.chunk[from..self.chunk.len().min(from + count)])
    }
}

fn frame_line(kind: &'static str, offset: u64, header: &FrameHeader) -> Line {
    let mut line = Line::new(kind);
    line.number("offset", offset);
    let name = match header.kind {
        FrameKind::Txns => "txns",
        FrameKind::Mark => "mark",
        FrameKind::Cut => "cut",
    };
    line.text("type", name);
    line.number("sequence", header.sequence);
    line.hex("base_zxid", header.base_zxid.0);
    line.hex("first_zxid", header.first_zxid.0);
    line.hex("last_zxid", header.last_zxid.0);
    line.number("durable_to", header.durable_to);
    line.number("body_bytes", header.body_bytes);
    line.hex("incarnation", header.incarnation);
    line.hex("opening", u64::from(header.opening));
    line.hex("checksum", u64::from(header.checksum));
    line.hex("previous", u64::from(header.previous));
    line
}

/// Shows a file of two slots.
pub(super) fn show_slots(
    source: &Source,
    lines: &mut Lines<impl Write>,
) -> Result<(), InspectError> {
    let blocks =
        [source.bytes_at(0, BLOCK_BYTES)?, source.bytes_at(BLOCK_BYTES as u64, BLOCK_BYTES)?];
    let slots = blocks.each_ref().map(|block| Slot::decode(block));
    let counts = slots.iter().flatten().map(|slot| slot.counter).max();
    for (slot, index) in slots.iter().zip(0_u64..) {
        let mut line = Line::new("slot");
        line.number("offset", index * BLOCK_BYTES as u64);
        line.number("whole", slot.is_some());
        if let Some(slot) = slot {
            line.number("counter", slot.counter);
            line.number("counts", Some(slot.counter) == counts);
            slot_payload(slot, &mut line);
        }
        lines.write(&line)?;
    }
    if counts.is_none() {
        lines.damage(0, "neither of the two slots is whole")?;
    }
    Ok(())
}

fn slot_payload(slot: &Slot<'_>, line: &mut Line) {
    let (words, _) = slot.payload.as_chunks::<4>();
    let word = |index: usize| words.get(index).map(|word| u32::from_le_bytes(*word));
    match slot.kind {
        MANIFEST_KIND => {
            line.text("type", "manifest");
            let generation = slot.payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            line.number("generation", generation);
        }
        EPOCHS_KIND => {
            line.text("type", "epochs");
            line.number("accepted", word(0));
            line.number("current", word(1));
            line.number("begins_empty", word(2) == Some(1));
        }
        kind => {
            line.number("type", kind);
            line.data(Some(slot.payload), true);
        }
    }
}

/// Shows a file that holds a number: an epoch, an id, a pid.
pub(super) fn show_number(
    source: &Source,
    lines: &mut Lines<impl Write>,
) -> Result<(), InspectError> {
    let bytes = source.bytes_at(0, super::NUMBER_BYTES_MAX)?;
    let mut line = Line::new("number");
    line.text("value", String::from_utf8_lossy(&bytes).trim());
    Ok(lines.write(&line)?)
}
