//! Reads the log: what is in it, where it ends, and whether it ends there rightly.
//!
//! ```text
//!   segments   [hdr|f1|f2|f3|..]  [hdr|f4|f5|..torn..]  [hdr|.......]   one chain by sequence and
//!                   chain: each frame names the checksum of the one before            checksum
//! ```
//!
//! The chain ends at the first frame that is not there or not whole. If a frame behind that place
//! says that this frame was durable, something acknowledged is lost: damage. Otherwise it is the
//! torn tail of what was being written, which nobody was told of.
//!
//! A cut (see [`FrameKind::Cut`]) begins a segment and says where in an earlier one the log goes
//! on; from the cut on, what follows that place there is void.
//!
//! Invariants:
//!
//!   * transactions are delivered in order, without gaps, each once
//!   * nothing is delivered that a cut has made void
//!   * a frame that was ever acknowledged is delivered, or the scan fails

use super::LogEnd;
use super::format::{
    CUT_BODY_BYTES, FRAME_HEADER_BYTES, FRAMES_START, FrameHeader, FrameKind, parse_segment_name,
    segment_name, txns,
};
use super::reader::Reader;
use crate::disk::{Damage, SegmentId, StorageError, Volume};
use crate::zxid::Zxid;

/// How far into a segment that seems unused witnesses are looked for: a witness there would mean
/// that both its first frame and the end of the segment before it were lost.
const WINDOW_BYTES: u64 = 1 << 20;

/// Who is told what is in the log.
pub trait Sink {
    /// A frame that counts; its transactions follow.
    fn frame(&mut self, _header: &FrameHeader) {}

    /// A transaction; a refusal is damage at this frame.
    fn txn(&mut self, zxid: Zxid, txn: &[u8]) -> Result<(), Damage>;

    /// Whether the rest of the log is of no interest: then it is not looked at, and the report
    /// says nothing of its end.
    fn has_enough(&self) -> bool {
        false
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct ScanReport {
    /// Where the log goes on.
    pub end: LogEnd,
    /// The last zxid before the frame that the scan began with; none if the log is empty.
    pub begins: Option<Zxid>,
    /// Frames that count, from there on.
    pub frames: u64,
    /// Transactions delivered.
    pub txns: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// A frame that was being written and is not whole: its file and offset.
    pub torn: Option<(String, u64)>,
    /// Segments that were read: whoever relies on the result syncs them.
    pub read: Vec<SegmentId>,
    /// Segments that hold nothing which counts, but frames that were cut off or that nobody was
    /// told of: to be retired before the log goes on.
    pub stray: Vec<SegmentId>,
}

/// A segment and what its first frame says.
struct Segment<'v, V> {
    name: String,
    reader: Reader<'v, V>,
    first: Option<FrameHeader>,
    /// The frame that a cut goes on from.
    kept: Option<u64>,
}

/// What later cuts leave of a segment: frames and transactions up to here.
#[derive(Clone, Copy)]
struct Limit {
    sequence: u64,
    zxid: Zxid,
}

impl Limit {
    const NONE: Self = Self { sequence: u64::MAX, zxid: Zxid(u64::MAX) };
}

struct Walk<'v, 's, V, S> {
    segments: Vec<Segment<'v, V>>,
    sink: &'s mut S,
    /// Transactions up to here are not wanted.
    from: Zxid,
    report: ScanReport,
    index: usize,
    offset: u64,
    /// What later segments leave of the current one.
    limit: Limit,
}

/// Delivers the transactions after `from`, and reports where the log ends.
///
/// Nothing is changed. The log must reach back to `from`.
pub fn scan<V: Volume, S: Sink>(
    volume: &V,
    from: Zxid,
    sink: &mut S,
) -> Result<ScanReport, StorageError> {
    let mut segments = Vec::new();
    for segment in volume.list()?.iter().filter_map(|name| parse_segment_name(name)) {
        segments.push(open(volume, segment)?);
    }
    let next = segments.last().map_or(1, |last| last.reader.plan.segment.0 + 1);
    let mut report = ScanReport::default();
    report.end.next_segment = SegmentId(next);
    let start = start_of(&segments, from)?;
    let (index, offset, limit) = (0, FRAMES_START, Limit::NONE);
    let mut walk = Walk { segments, sink, from, report, index, offset, limit };
    if let Some(start) = start {
        walk.begin(start);
        while !walk.sink.has_enough() && walk.step()? {}
    }
    if walk.sink.has_enough() {
        return Ok(walk.report);
    }
    walk.finish()
}

fn open<V: Volume>(volume: &V, segment: SegmentId) -> Result<Segment<'_, V>, StorageError> {
    let mut reader = Reader::open(volume, segment)?;
    let (first, kept) = match reader.frame(FRAMES_START)? {
        Some((header, frame)) => (Some(header), kept(&header, frame)),
        None => (None, None),
    };
    reader.rest();
    Ok(Segment { name: segment_name(segment), reader, first, kept })
}

fn kept(header: &FrameHeader, frame: &[u8]) -> Option<u64> {
    let body = frame[FRAME_HEADER_BYTES..].first_chunk::<CUT_BODY_BYTES>()?;
    (header.kind == FrameKind::Cut).then(|| u64::from_le_bytes(*body))
}

/// Where to begin: the last segment that begins before `from`.
///
/// Of those that begin right at it, the first: a later one might go on from a frame without
/// transactions that was never whole.
fn start_of<V>(segments: &[Segment<'_, V>], from: Zxid) -> Result<Option<usize>, StorageError> {
    let base = |segment: &Segment<'_, V>| segment.first.map(|first| first.base_zxid);
    let before = segments.iter().rposition(|segment| base(segment).is_some_and(|at| at < from));
    let at = || segments.iter().position(|segment| base(segment) == Some(from));
    if let Some(start) = before.or_else(at) {
        return Ok(Some(start));
    }
    let Some(found) = segments.iter().find_map(base) else { return Ok(None) };
    let damage = Damage::Gap { found, needed: from };
    Err(StorageError::damaged(segments[0].name.clone(), FRAMES_START, damage))
}

/// What the cuts in these segments leave.
fn limit<V>(later: &[Segment<'_, V>]) -> Limit {
    let cuts = later.iter().filter_map(|segment| segment.kept.zip(segment.first));
    cuts.fold(Limit::NONE, |limit, (kept, first)| Limit {
        sequence: limit.sequence.min(kept),
        zxid: limit.zxid.min(first.base_zxid),
    })
}

impl<V: Volume, S: Sink> Walk<'_, '_, V, S> {
    fn begin(&mut self, start: usize) {
        let first = self.segments[start].first.expect("a start has a first frame");
        self.index = start;
        self.limit = limit(&self.segments[start + 1..]);
        self.report.begins = Some(first.base_zxid);
        // There is nothing to compare the first frame with: it is taken as it is.
        let end = &mut self.report.end;
        (end.sequence, end.checksum) = (first.sequence - 1, first.previous);
        end.zxid = first.base_zxid;
        self.report.read.push(self.segments[start].reader.plan.segment);
    }

    /// Takes one frame; whether there was one.
    fn step(&mut self) -> Result<bool, StorageError> {
        let limit = self.limit;
        let (next, previous) = (self.report.end.sequence + 1, self.report.end.checksum);
        if next > limit.sequence {
            return self.enter_cut(limit.sequence);
        }
        let segment = &mut self.segments[self.index];
        if let Some((header, frame)) = segment.reader.frame(self.offset)?
            && header.sequence == next
            && header.previous == previous
        {
            let damaged = |damage| StorageError::damaged(segment.name.clone(), self.offset, damage);
            let base_known = header.kind != FrameKind::Cut;
            if base_known && header.base_zxid != self.report.end.zxid || !is_sound(&header) {
                return Err(damaged(Damage::FrameContent(next)));
            }
            self.sink.frame(&header);
            let wanted = (self.from, limit.zxid);
            self.report.txns += deliver(&header, frame, wanted, self.sink).map_err(damaged)?;
            self.take(&header);
            return Ok(true);
        }
        Ok(self.enter_next(next, previous))
    }

    fn take(&mut self, header: &FrameHeader) {
        let end = &mut self.report.end;
        (end.sequence, end.checksum) = (header.sequence, header.checksum);
        end.zxid = header.last_zxid;
        self.report.frames += 1;
        self.report.bytes += header.stride();
        self.offset += header.stride();
    }

    /// Goes to the last segment with a cut behind the frame `kept`.
    fn enter_cut(&mut self, kept: u64) -> Result<bool, StorageError> {
        let index = self.segments.iter().rposition(|segment| segment.kept == Some(kept));
        let index = index.filter(|index| *index > self.index).expect("the limit came from there");
        let segment = &self.segments[index];
        let cut = segment.first.expect("a cut is a first frame");
        let end = &mut self.report.end;
        let fits = cut.sequence > end.sequence && cut.base_zxid <= end.zxid;
        if cut.previous != end.checksum || !fits || !is_sound(&cut) {
            let damage = Damage::FrameContent(cut.sequence);
            return Err(StorageError::damaged(segment.name.clone(), FRAMES_START, damage));
        }
        (end.sequence, end.checksum) = (cut.sequence - 1, cut.previous);
        self.enter(index);
        Ok(true)
    }

    /// Goes to the segment that goes on where the current one ends, if there is one.
    fn enter_next(&mut self, next: u64, previous: u32) -> bool {
        let later = self.index + 1..self.segments.len();
        let found = later.into_iter().find(|index| {
            self.segments[*index]
                .first
                .is_some_and(|first| first.sequence == next && first.previous == previous)
        });
        if let Some(index) = found {
            self.enter(index);
        }
        found.is_some()
    }

    fn enter(&mut self, index: usize) {
        self.note_segment();
        self.segments[self.index].reader.rest();
        self.index = index;
        self.limit = limit(&self.segments[index + 1..]);
        self.offset = FRAMES_START;
        self.report.read.push(self.segments[index].reader.plan.segment);
    }

    /// Notes the current segment as one that holds frames.
    fn note_segment(&mut self) {
        let segment = &self.segments[self.index];
        if let Some(first) = segment.first {
            self.report.end.segments.push((segment.reader.plan.segment, first.base_zxid));
        }
    }

    /// The chain has ended: damage or not, and what is beside it.
    fn finish(mut self) -> Result<ScanReport, StorageError> {
        self.check_end()?;
        if self.report.begins.is_some() {
            self.note_segment();
            self.note_torn()?;
            let plan = self.segments[self.index].reader.plan;
            self.report.end.current = Some((plan, self.offset));
        } else {
            self.report.end.ready =
                self.segments.iter().map(|segment| segment.reader.plan).collect();
            return Ok(self.report);
        }
        let chain = std::mem::take(&mut self.report.end.segments);
        let start = chain[0].0;
        for (index, segment) in self.segments.iter().enumerate() {
            let plan = segment.reader.plan;
            match segment.first {
                _ if chain.iter().any(|(walked, _)| *walked == plan.segment) => {}
                Some(first) if plan.segment < start => {
                    self.report.end.segments.push((plan.segment, first.base_zxid));
                }
                None if plan.segment < start => {}
                None if index > self.index => self.report.end.ready.push(plan),
                // Cut off, passed over, or begun and not part of what was acknowledged.
                _ => self.report.stray.push(plan.segment),
            }
        }
        self.report.end.segments.extend(chain);
        Ok(self.report)
    }

    /// Whether a frame behind the end says that the missing one was durable.
    fn check_end(&mut self) -> Result<(), StorageError> {
        let missing = self.report.end.sequence + 1;
        let Some(current) = self.segments.get(self.index) else { return Ok(()) };
        let mut place = (current.name.clone(), self.offset);
        for index in self.index..self.segments.len() {
            let segment = &mut self.segments[index];
            let from = if index == self.index { self.offset } else { FRAMES_START };
            let used = index == self.index || segment.first.is_some();
            let end = if used { u64::MAX } else { WINDOW_BYTES };
            if let Some(at) = segment.reader.find_witness(from, end, missing)? {
                let witness = segment.name.clone();
                let damage = Damage::Frame { sequence: missing, witness, at };
                let next = &self.segments[index.min(self.index + 1)];
                if next.first.is_none() {
                    // It was the first of the next segment, or that would begin with another one.
                    place = (next.name.clone(), FRAMES_START);
                }
                return Err(StorageError::damaged(place.0, place.1, damage));
            }
        }
        Ok(())
    }

    fn note_torn(&mut self) -> Result<(), StorageError> {
        let segment = &mut self.segments[self.index];
        if segment.reader.is_begun(self.offset)? {
            self.report.torn = Some((segment.name.clone(), self.offset));
        }
        Ok(())
    }
}

/// Whether the fields agree with each other; who computed the checksum made sure of it.
fn is_sound(header: &FrameHeader) -> bool {
    let (base, first, last) = (header.base_zxid, header.first_zxid, header.last_zxid);
    match header.kind {
        FrameKind::Txns => {
            let goes_on = base.next() == Some(first);
            let begins = first.epoch() > base.epoch() && first.counter() <= 1;
            (goes_on || begins) && first <= last && first.epoch() == last.epoch()
        }
        FrameKind::Mark => header.body_bytes == 0 && first == base && last == base,
        FrameKind::Cut => {
            header.body_bytes as usize == CUT_BODY_BYTES && first == base && last == base
        }
    }
}

/// Passes on the transactions of a frame that are after the first and up to the second of
/// `wanted`; how many there were.
fn deliver<S: Sink>(
    header: &FrameHeader,
    frame: &[u8],
    wanted: (Zxid, Zxid),
    sink: &mut S,
) -> Result<u64, Damage> {
    if header.kind != FrameKind::Txns {
        return Ok(0);
    }
    let bad = Damage::FrameContent(header.sequence);
    let mut expected = Some(header.first_zxid);
    let mut count = 0;
    for txn in txns(&frame[FRAME_HEADER_BYTES..]) {
        let txn = txn.map_err(|_| bad.clone())?;
        let zxid = expected.filter(|zxid| *zxid <= header.last_zxid).ok_or(bad.clone())?;
        if wanted.0 < zxid && zxid <= wanted.1 {
            sink.txn(zxid, txn)?;
            count += 1;
        }
        expected = zxid.next();
    }
    let complete = expected.is_none_or(|expected| expected > header.last_zxid);
    if complete { Ok(count) } else { Err(bad) }
}
