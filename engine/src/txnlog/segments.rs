//! What happens to whole segments: made ready, given up, begun, cut.
//!
//! Every change is one rename or one durable write, with everything it rests on durable before it:
//! a crash leaves the state before it or the one after it.
//!
//! ```text
//!   prepare   spare.N zero-filled or of old, synced -> header, synced -> renamed log.N, synced
//!   retire    log.N renamed spare.N (or removed), synced
//!   cut       a new segment whose first frame says where the log goes on
//! ```

use super::LogEnd;
use super::format::{
    CUT_BODY_BYTES, FRAME_HEADER_BYTES, FRAMES_START, FrameHeader, FrameKind, SegmentHeader,
    parse_spare_name, segment_name, spare_name,
};
use super::scan::{ScanReport, Sink, scan};
use crate::disk::{BLOCK_BYTES, Damage, SegmentId, SegmentPlan, StorageError, Volume};
use crate::zxid::Zxid;

/// Given up files that are kept for later segments.
const SPARES_MAX: usize = 2;

/// Makes a segment ready for appends, from a spare file if there is one.
///
/// When this returns, the segment is there after a loss of power too. When there is no room for
/// it, what was begun is removed again.
pub fn prepare<V: Volume>(volume: &mut V, plan: SegmentPlan) -> Result<(), StorageError> {
    assert!(plan.bytes > FRAMES_START && plan.bytes.is_multiple_of(FRAMES_START));
    let taken = take_spare(volume, plan.bytes)?;
    let source = taken.clone().unwrap_or_else(|| spare_name(plan.segment));
    let made = match taken {
        Some(_) => Ok(()),
        None => volume.create_zeroed(&source, plan.bytes),
    };
    let made = made.and_then(|()| write_header(volume, plan, &source));
    if made.as_ref().is_err_and(StorageError::is_no_space) {
        // A file system may find out at the sync only; what is in the file then, nobody knows. It
        // is the lack of room that the caller must hear of, whether or not this succeeds.
        volume.remove(&source).and_then(|()| volume.sync_dir()).or(made.clone())?;
    }
    made?;
    volume.rename(&source, &segment_name(plan.segment))?;
    volume.sync_dir()
}

fn write_header<V: Volume>(
    volume: &mut V,
    plan: SegmentPlan,
    name: &str,
) -> Result<(), StorageError> {
    let header = SegmentHeader {
        incarnation: plan.incarnation,
        segment: plan.segment,
        segment_bytes: plan.bytes,
    };
    volume.write_at(name, 0, &header.encode())?;
    volume.sync_file(name)
}

/// A file that was given up and has this length. Others are of no use, and go.
fn take_spare<V: Volume>(volume: &mut V, bytes: u64) -> Result<Option<String>, StorageError> {
    let mut found = None;
    for name in volume.list()? {
        if parse_spare_name(&name).is_none() {
            continue;
        }
        if found.is_none() && volume.len(&name)? == bytes {
            found = Some(name);
        } else if volume.len(&name)? != bytes {
            volume.remove(&name)?;
        }
    }
    // Before the header changes, the file must have lost the name of the segment that it was.
    volume.sync_dir()?;
    Ok(found)
}

/// Gives up a segment: its file becomes a spare, or goes if there are enough of them.
pub fn retire<V: Volume>(volume: &mut V, segment: SegmentId) -> Result<(), StorageError> {
    let spares = volume.list()?.iter().filter(|name| parse_spare_name(name).is_some()).count();
    if spares < SPARES_MAX {
        volume.rename(&segment_name(segment), &spare_name(segment))?;
    } else {
        volume.remove(&segment_name(segment))?;
    }
    volume.sync_dir()
}

/// Makes the result of a scan safe to rely on: what was read is durable, and what nobody was told
/// of is gone.
///
/// A frame may have been read from a cache alone, and a segment's name, too; so nothing recovered
/// is served, voted with or acknowledged before this.
pub fn settle<V: Volume>(volume: &mut V, report: &ScanReport) -> Result<(), StorageError> {
    for segment in &report.read {
        volume.sync_file(&segment_name(*segment))?;
    }
    volume.sync_dir()?;
    for segment in report.stray.iter().rev() {
        retire(volume, *segment)?;
    }
    Ok(())
}

/// Begins a log whose first transaction follows `base`, in a volume that holds none.
pub fn begin<V: Volume>(volume: &mut V, plan: SegmentPlan, base: Zxid) -> Result<(), StorageError> {
    prepare(volume, plan)?;
    write_cut(volume, plan, &Cut { kept: 0, checksum: 0, sequence: 1, base })
}

/// Cuts the log behind `zxid`: what follows it is void from now on, also for every later scan.
///
/// Snapshots beyond `zxid` must be gone, durably, before. Afterwards whoever goes on with the log
/// scans it anew.
pub fn truncate<V: Volume>(
    volume: &mut V,
    zxid: Zxid,
    new_segment: impl FnOnce(SegmentId) -> SegmentPlan,
) -> Result<(), StorageError> {
    let plan = plan_cut(volume, zxid, zxid)?;
    cut(volume, &plan, new_segment)
}

/// Where a log is to be cut.
#[derive(Debug)]
pub struct CutPlan {
    /// The last zxid that stays.
    base: Zxid,
    report: ScanReport,
    /// Sequence and checksum of the last frame that stays.
    kept: (u64, u32),
}

/// Finds out how the log is cut behind `zxid`, and changes nothing.
///
/// An error of kind [`Damage::Gap`] says that it cannot be: the log does not reach back to `from`,
/// which is not beyond `zxid`, or it has no transaction `zxid`. The beginning of an epoch counts
/// as one that every log has.
pub fn plan_cut<V: Volume>(volume: &V, from: Zxid, zxid: Zxid) -> Result<CutPlan, StorageError> {
    let mut place = CutPlace { zxid, first: None, kept: None, reached: Zxid::ZERO };
    let report = scan(volume, from, &mut place)?;
    let is_there = place.reached == zxid || zxid.counter() == 0;
    if report.end.zxid < zxid || !is_there {
        return Err(no_such_place(&report.end, zxid));
    }
    // Frames without transactions may be behind it; an empty log has none to keep.
    let before = place.first.map_or((0, 0), |first| (first.sequence - 1, first.previous));
    Ok(CutPlan { base: place.reached, report, kept: place.kept.unwrap_or(before) })
}

/// Cuts the log by a plan that was made from what it holds now.
pub fn cut<V: Volume>(
    volume: &mut V,
    plan: &CutPlan,
    new_segment: impl FnOnce(SegmentId) -> SegmentPlan,
) -> Result<(), StorageError> {
    let CutPlan { base, report, kept: (kept, checksum) } = plan;
    settle(volume, report)?;
    if report.end.zxid == *base {
        return Ok(());
    }
    let segment = new_segment(report.end.next_segment);
    assert!(segment.segment >= report.end.next_segment);
    // One that is ready and empty stands in where there is no room for another.
    let segment = match (prepare(volume, segment), report.end.ready.first()) {
        (Err(error), Some(ready)) if error.is_no_space() => *ready,
        (prepared, _) => prepared.map(|()| segment)?,
    };
    let cut =
        Cut { kept: *kept, checksum: *checksum, sequence: report.end.sequence + 1, base: *base };
    write_cut(volume, segment, &cut)
}

/// Finds the last frame that begins at or before a zxid.
struct CutPlace {
    zxid: Zxid,
    first: Option<FrameHeader>,
    kept: Option<(u64, u32)>,
    /// The last zxid of the log that is not beyond.
    reached: Zxid,
}

impl Sink for CutPlace {
    fn frame(&mut self, header: &FrameHeader) {
        if self.first.is_none() {
            self.first = Some(*header);
            self.reached = header.base_zxid;
        }
        // A frame without transactions repeats the zxid before it; a cut, that which it went to.
        if header.first_zxid <= self.zxid {
            self.kept = Some((header.sequence, header.checksum));
            self.reached = header.last_zxid.min(self.zxid);
        }
    }

    fn txn(&mut self, _zxid: Zxid, _txn: &[u8]) -> Result<(), Damage> {
        Ok(())
    }
}

struct Cut {
    kept: u64,
    checksum: u32,
    sequence: u64,
    base: Zxid,
}

/// The cut holds once its frame is durable. The mark behind it is a witness: if the cut rots, the
/// log is refused, in place of what was cut coming back.
fn write_cut<V: Volume>(volume: &mut V, plan: SegmentPlan, cut: &Cut) -> Result<(), StorageError> {
    let name = segment_name(plan.segment);
    let mut header = FrameHeader {
        checksum: 0,
        kind: FrameKind::Cut,
        body_bytes: CUT_BODY_BYTES as u32,
        incarnation: plan.incarnation,
        sequence: cut.sequence,
        base_zxid: cut.base,
        first_zxid: cut.base,
        last_zxid: cut.base,
        durable_to: cut.sequence - 1,
        previous: cut.checksum,
        opening: plan.incarnation as u32,
    };
    let mut block = vec![0; BLOCK_BYTES];
    block[FRAME_HEADER_BYTES..][..CUT_BODY_BYTES].copy_from_slice(&cut.kept.to_le_bytes());
    let checksum = header.seal(&mut block[..FRAME_HEADER_BYTES + CUT_BODY_BYTES]);
    volume.write_at(&name, FRAMES_START, &block)?;
    volume.sync_file(&name)?;

    let mut mark = FrameHeader {
        kind: FrameKind::Mark,
        body_bytes: 0,
        sequence: cut.sequence + 1,
        durable_to: cut.sequence,
        previous: checksum,
        ..header
    };
    block.fill(0);
    mark.seal(&mut block[..FRAME_HEADER_BYTES]);
    volume.write_at(&name, FRAMES_START + BLOCK_BYTES as u64, &block)?;
    volume.sync_file(&name)
}

fn no_such_place(end: &LogEnd, zxid: Zxid) -> StorageError {
    let segment = end.current.map_or(end.next_segment, |(plan, _)| plan.segment);
    let offset = end.current.map_or(FRAMES_START, |(_, offset)| offset);
    let damage = Damage::Gap { found: end.zxid, needed: zxid };
    StorageError::damaged(segment_name(segment), offset, damage)
}
