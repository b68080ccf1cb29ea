//! Segments of our log, files of two slots, and files with a number.

use std::io::Write;

use engine::disk::BLOCK_BYTES;
use engine::epochs::EPOCHS_KIND;
use engine::limits::{PACKET_BYTES_MOST, RECORD_BYTES_MAX};
use engine::manifest::MANIFEST_KIND;
use engine::replica::GROUP_BYTES;
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
/// No frame has a longer body: lengths that are only claimed must not cost memory.
const BODY_BYTES_MAX: usize = RECORD_BYTES_MAX;

// A frame fits in a segment, and that is made for a group of transactions and one more, which may
// be twice as long as its packet: see `LogConfig::for_groups`.
const _: () = assert!(GROUP_BYTES + 2 * PACKET_BYTES_MOST + (1 << 20) <= BODY_BYTES_MAX);

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
    Walk::new(source, options, header.incarnation).run(lines)
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
    /// The sequence of the frame that begins there, whole or not.
    begun: Option<u64>,
    /// The sequence that is missing, when it is known.
    missing: Option<u64>,
    is_damage: bool,
}

impl Gap {
    fn new(offset: u64, begun: Option<u64>) -> Self {
        Self { offset, begun, missing: None, is_damage: false }
    }

    /// Which frame is missing where the chain goes up to `end`, and `stray` is the first one that
    /// is whole again.
    ///
    /// Without a chain in this segment it is what begins there, if that may be. If not even that
    /// can be read, the one in front of the stray is missing; there may have been others.
    fn missing(&mut self, end: Option<FrameHeader>, stray: u64) -> u64 {
        let begun = self.begun.filter(|begun| *begun < stray);
        let in_front = || begun.unwrap_or(stray.saturating_sub(1).max(1));
        *self.missing.get_or_insert_with(|| end.map_or_else(in_front, |end| end.sequence + 1))
    }
}

impl<'s> Walk<'s> {
    fn new(source: &'s Source, options: Options, incarnation: u64) -> Self {
        Self { source, options, incarnation, chunk: Vec::new(), chunk_at: 0, end: None }
    }

    fn run(&mut self, lines: &mut Lines<impl Write>) -> Result<(), InspectError> {
        let mut offset = FRAMES_START;
        let mut gap: Option<Gap> = None;
        let (mut frames, mut count) = (0_u64, 0_u64);
        while offset < self.source.length {
            let Some(header) = self.whole_frame(offset)? else {
                if gap.is_none() {
                    let begun = self.header(offset)?.map(|header| header.sequence);
                    gap = Some(Gap::new(offset, begun));
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
                let gap = gap.get_or_insert(Gap::new(offset, Some(header.sequence)));
                self.show_stray(offset, &header, gap, lines)?;
            }
            offset += header.stride();
        }
        if let Some(gap) = gap.filter(|gap| gap.begun.is_some() && !gap.is_damage) {
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
        let missing = gap.missing(self.end, header.sequence);
        if header.durable_to >= missing && !gap.is_damage {
            gap.is_damage = true;
            let reason = format!(
                "frame {missing} is damaged or missing: it was durable, says the frame at offset \
                 {offset}"
            );
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
        let is_possible = header.body_bytes as usize <= BODY_BYTES_MAX;
        if !is_possible || header.frame_bytes() as u64 > self.source.length - offset {
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use engine::disk::SegmentId;

    use super::super::Form;
    use super::*;

    const OPTIONS: Options = Options { form: Form::Text, data: false, summary: true };
    const HEADER: SegmentHeader = SegmentHeader {
        incarnation: 7,
        segment: SegmentId::FIRST,
        segment_bytes: FRAMES_START + 3 * BLOCK_BYTES as u64,
    };

    /// The block of a mark.
    fn mark(sequence: u64, durable_to: u64) -> Vec<u8> {
        let mut header = FrameHeader {
            checksum: 0,
            kind: FrameKind::Mark,
            body_bytes: 0,
            incarnation: HEADER.incarnation,
            sequence,
            base_zxid: Zxid(9),
            first_zxid: Zxid(9),
            last_zxid: Zxid(9),
            durable_to,
            previous: 0,
            opening: 0,
        };
        let mut block = vec![0; BLOCK_BYTES];
        header.seal(&mut block[..FRAME_HEADER_BYTES]);
        block
    }

    /// What is said of a segment with these blocks, and in how many places it is damaged.
    fn shown(path: &Path, blocks: [&[u8]; 3]) -> (String, u64) {
        fs::write(path, [&HEADER.encode()[..], &blocks.concat()].concat()).unwrap();
        let mut out = Vec::new();
        let mut lines = Lines::new(OPTIONS.form, &mut out);
        show_segment(&Source::open(path).unwrap(), OPTIONS, &mut lines).unwrap();
        let damages = lines.damages();
        (String::from_utf8(out).unwrap(), damages)
    }

    #[test]
    fn a_segment_whose_first_frame_is_bad_is_damaged_only_if_that_was_durable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let empty = [0; BLOCK_BYTES];
        // Where the first frame has a flipped byte: in `previous`, or in its magic.
        for (at, name) in [(64, "torn"), (0, "end")] {
            for (durable_to, damages) in [(3, 0), (4, 0), (5, 1), (6, 1)] {
                let mut first = mark(5, 4);
                first[at] ^= 1;
                let second = mark(6, durable_to);
                let (text, found) = shown(&path, [&first, &second, &empty]);
                assert_eq!(found, damages, "{at} {durable_to}\n{text}");
                let expect = if damages > 0 { "damage       offset=4096" } else { name };
                assert!(text.contains(expect), "{at} {durable_to}\n{text}");
                assert!(text.contains("stray        offset=8192"), "{text}");
            }
        }
        // The second is bad as well: that the first was durable is what counts.
        let (mut first, mut second, third) = (mark(5, 4), mark(6, 4), mark(7, 5));
        first[64] ^= 1;
        second[64] ^= 1;
        assert_eq!(shown(&path, [&first, &second, &third]).1, 1);
    }

    #[test]
    fn a_frame_that_claims_to_be_huge_costs_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = File::create(&path).unwrap();
        let claimed = u32::try_from(BODY_BYTES_MAX).unwrap() + 1;
        let mut block = mark(1, 0);
        block[12..16].copy_from_slice(&claimed.to_le_bytes());
        let offset = FRAMES_START;
        std::os::unix::fs::FileExt::write_all_at(&file, &block, offset).unwrap();
        file.set_len(offset + u64::from(claimed) + BLOCK_BYTES as u64).unwrap();
        let source = Source::open(&path).unwrap();
        let mut walk = Walk::new(&source, OPTIONS, HEADER.incarnation);
        assert!(walk.header(offset).unwrap().is_some());
        assert_eq!(walk.whole_frame(offset).unwrap(), None);
        assert!(walk.chunk.capacity() <= CHUNK_BYTES, "{}", walk.chunk.capacity());
    }
}
