//! The transaction log, as a machine: transactions in, durable zxids out.
//!
//! ```text
//!   append(first..last) ──> batch ──> frame ──DiskOp::Append──> disk
//!                             │ waits while enough frames are out      │
//!   durable() <── in order of sequence <──DiskDone::Appended───────────┘
//!
//!   segments:  retired ... written  written  current | ready (reserve)  being prepared
//! ```
//!
//! The ladder: `submitted >= durable`. Frames may complete in any order; one counts as durable when
//! it and all before it have completed, since a flush covers only what was written before it.
//!
//! Segments are prepared ahead, so that an append writes to blocks that exist and were written
//! before. The last of those that are ready are the *reserve*: they are begun only when the disk is
//! full, so that deletions still find room. See `docs/format.md` for the bytes and the argument.
//!
//! Invariants:
//!
//!   * frames have consecutive sequences, and zxids in them are contiguous
//!   * a block is submitted at most once per incarnation of its segment while this machine lives
//!   * when nothing is waiting or out, the last frame is a mark or one is due

mod batch;
pub mod format;
pub mod history;
mod reader;
pub mod scan;
pub mod segments;

use std::collections::VecDeque;
use std::time::Duration;

use crate::disk::{DiskDone, DiskOp, SegmentId, SegmentPlan};
use crate::time::Instant;
use crate::zxid::Zxid;

use batch::{Batch, Batches, Place};
use format::{FRAME_HEADER_BYTES, FRAMES_START, FrameKind};

/// The length of a segment, unless a group needs more. A restart reads on average half of one for
/// nothing at either end of the log, so they are short.
const SEGMENT_BYTES: u64 = 16 << 20;
/// What deletions have on a full disk, at least.
const RESERVE_BYTES: u64 = 64 << 20;

/// What does not change while a log is open.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// The length of a segment; a group of transactions must fit in one.
    pub segment_bytes: u64,
    /// How many segments are ready ahead of the log, beside the reserve.
    pub ahead: usize,
    /// How many segments are ready and not begun unless the disk is full.
    pub reserve: usize,
    /// Transactions are gathered into frames of up to about this.
    pub frame_bytes_max: usize,
    /// How many frames may be on their way to the disk.
    pub writes_in_flight_max: usize,
    /// More than this waiting, and the caller should stop preparing transactions.
    pub backlog_bytes_max: usize,
    /// How long after the last write a mark follows.
    pub mark_delay: Duration,
    /// How long after the disk was full another try is made.
    pub retry_delay: Duration,
    /// From where the incarnations of segments are derived: random, another one at each opening.
    pub seed: u64,
}

/// Where a log goes on: what `scan` found, or the beginning.
#[derive(Clone, Debug, Default)]
pub struct LogEnd {
    /// The sequence of the last frame; 0 before the first.
    pub sequence: u64,
    /// The checksum of the last frame.
    pub checksum: u32,
    /// The last zxid.
    pub zxid: Zxid,
    /// The segment of the last frame and the offset behind it.
    pub current: Option<(SegmentPlan, u64)>,
    /// Prepared segments with higher numbers that hold no frames.
    pub ready: Vec<SegmentPlan>,
    /// Segments that hold frames, each with the last zxid before it, in ascending order.
    pub segments: Vec<(SegmentId, Zxid)>,
    /// No segment has this number or a higher one.
    pub next_segment: SegmentId,
}

/// How much room there is for what makes the state grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Enough.
    Ample,
    /// The disk is full, and the reserve is all that is left: only what shrinks may go on.
    Low,
    /// Not even that: appends wait until there is room.
    None,
}

/// The log's writer.
#[derive(Debug)]
pub struct TxnLog {
    config: LogConfig,
    current: Option<Current>,
    ready: VecDeque<SegmentPlan>,
    preparing: Option<SegmentPlan>,
    /// The last preparation found the disk full.
    full: bool,
    /// Those that hold frames or are about to, oldest first, with the last zxid before each.
    segments: VecDeque<(SegmentId, Zxid)>,
    next_segment: SegmentId,
    /// Sequence and checksum of the last frame composed.
    sequence: u64,
    checksum: u32,
    batches: Batches,
    in_flight: VecDeque<InFlight>,
    submitted: Zxid,
    durable: Zxid,
    /// The last frame that is durable with all before it.
    durable_to: u64,
    /// Whether the last frame composed is a mark.
    marked: bool,
    mark_at: Option<Instant>,
    retry_at: Option<Instant>,
    /// Segments that are being given up.
    retiring: usize,
    /// Nothing is begun: somebody else is about to change the files.
    resting: bool,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    plan: SegmentPlan,
    offset: u64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    segment: SegmentId,
    sequence: u64,
    bytes: u64,
    last: Zxid,
    done: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            ahead: 2,
            reserve: reserve_of(SEGMENT_BYTES),
            frame_bytes_max: 1 << 20,
            writes_in_flight_max: 2,
            backlog_bytes_max: 64 << 20,
            mark_delay: Duration::from_millis(5),
            retry_delay: Duration::from_secs(1),
            seed: 0,
        }
    }
}

impl LogConfig {
    /// The usual one, with segments long enough for groups of this many bytes.
    pub fn for_groups(bytes: usize) -> Self {
        let usual = Self::default();
        let needed = FRAMES_START + (FRAME_HEADER_BYTES + bytes) as u64;
        let segment_bytes = usual.segment_bytes.max(needed.next_multiple_of(FRAMES_START));
        Self { segment_bytes, reserve: reserve_of(segment_bytes), ..usual }
    }

    /// With segments of this length, one ahead and one in reserve: for tests, which fill them.
    pub fn with_segments(segment_bytes: u64) -> Self {
        Self { segment_bytes, ahead: 1, reserve: 1, ..Self::default() }
    }

    /// Bytes of a segment that frames can have.
    fn capacity(&self) -> usize {
        usize::try_from(self.segment_bytes - FRAMES_START).unwrap_or(usize::MAX)
    }
}

fn reserve_of(segment_bytes: u64) -> usize {
    RESERVE_BYTES.div_ceil(segment_bytes) as usize
}

impl TxnLog {
    /// Goes on where `end` is, all of which is durable.
    pub fn open(config: LogConfig, end: LogEnd, now: Instant, out: &mut Vec<DiskOp>) -> Self {
        assert!(config.writes_in_flight_max > 0);
        assert!(
            config.segment_bytes > FRAMES_START
                && config.segment_bytes.is_multiple_of(FRAMES_START)
        );
        // After a change of configuration, prepared segments may have become too short.
        let (ready, short): (Vec<SegmentPlan>, Vec<SegmentPlan>) =
            end.ready.iter().partition(|plan| plan.bytes >= config.segment_bytes);
        out.extend(short.iter().map(|plan| DiskOp::Retire(plan.segment)));
        let mut log = Self {
            current: end.current.map(|(plan, offset)| Current { plan, offset }),
            ready: ready.into(),
            preparing: None,
            full: false,
            segments: end.segments.into(),
            next_segment: end.next_segment,
            sequence: end.sequence,
            checksum: end.checksum,
            batches: Batches::new(
                config.frame_bytes_max.min(config.capacity()),
                config.writes_in_flight_max + 1,
            ),
            in_flight: VecDeque::with_capacity(config.writes_in_flight_max),
            submitted: end.zxid,
            durable: end.zxid,
            durable_to: end.sequence,
            // Whatever the last frame is, a mark behind it says that it was recovered.
            marked: end.sequence == 0,
            mark_at: None,
            retry_at: None,
            retiring: short.len(),
            resting: false,
            config,
        };
        log.settle(now, out);
        log
    }

    /// Adds the transactions `first..=last`, each in `txns` as [`format::push_txn`] writes it.
    ///
    /// They go on from the last ones, or begin a later epoch.
    pub fn append(
        &mut self,
        now: Instant,
        (first, last): (Zxid, Zxid),
        txns: &[u8],
        out: &mut Vec<DiskOp>,
    ) {
        let goes_on = self.submitted.next() == Some(first);
        let begins = first.epoch() > self.submitted.epoch() && first.counter() <= 1;
        assert!(goes_on || begins, "{first} does not follow {}", self.submitted);
        assert!(first <= last && first.epoch() == last.epoch());
        assert!(txns.len() <= self.group_bytes_max(), "{} bytes in one group", txns.len());
        self.batches.push(self.submitted, first, last, txns);
        self.submitted = last;
        self.settle(now, out);
    }

    /// The disk did something.
    pub fn on_done(&mut self, now: Instant, done: DiskDone, out: &mut Vec<DiskOp>) {
        match done {
            DiskDone::Appended { sequence, frame } => {
                self.batches.give_back(frame);
                self.on_appended(sequence);
            }
            DiskDone::Prepared(segment) => {
                let plan = self.preparing.take().expect("one segment is being prepared");
                assert_eq!(plan.segment, segment);
                self.ready.push_back(plan);
                self.full = false;
            }
            DiskDone::NoSpace(segment) => {
                let plan = self.preparing.take().expect("one segment is being prepared");
                assert_eq!(plan.segment, segment);
                self.full = true;
                self.retry_at = Some(now.after(self.config.retry_delay));
            }
            DiskDone::Retired(_) => {
                self.retiring -= 1;
                self.retry_at = None;
            }
        }
        self.settle(now, out);
    }

    /// Time has passed; see [`TxnLog::next_timeout`].
    pub fn on_timeout(&mut self, now: Instant, out: &mut Vec<DiskOp>) {
        if self.resting {
            return;
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        if self.mark_at.is_some_and(|at| at <= now) {
            self.mark_at = None;
            let mark = self.batches.empty(self.submitted);
            if self.make_segment(mark.padded_bytes()) {
                self.submit(mark, FrameKind::Mark, out);
            } else {
                self.mark_at = Some(now.after(self.config.mark_delay));
            }
        }
        self.settle(now, out);
    }

    /// When to call [`TxnLog::on_timeout`] if nothing else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.resting {
            return None;
        }
        [self.mark_at, self.retry_at].into_iter().flatten().min()
    }

    /// Begins nothing of its own from now on; whether the disk has answered everything.
    pub fn rest(&mut self) -> bool {
        self.resting = true;
        let waits = self.batches.front().is_some() || !self.in_flight.is_empty();
        !waits && self.preparing.is_none() && self.retiring == 0
    }

    /// Ends the rest: the files are as they were.
    pub fn wake(&mut self, now: Instant, out: &mut Vec<DiskOp>) {
        self.resting = false;
        self.settle(now, out);
    }

    /// Everything up to here has been appended.
    pub fn submitted(&self) -> Zxid {
        self.submitted
    }

    /// Everything up to here survives a loss of power.
    pub fn durable(&self) -> Zxid {
        self.durable
    }

    /// The bytes of the largest frame that is under way, if another one may begin beside it.
    pub fn largest_beside(&self) -> Option<u64> {
        let is_full = self.in_flight.len() >= self.config.writes_in_flight_max;
        let largest = self.in_flight.iter().map(|frame| frame.bytes).max();
        largest.filter(|_| !is_full && self.batches.front().is_none())
    }

    /// Whether more may be appended, behind so many bytes that are yet to be, without the backlog
    /// growing too long.
    pub fn has_room(&self, coming: usize) -> bool {
        self.batches.waiting_bytes() + coming < self.config.backlog_bytes_max
    }

    /// How much room the disk leaves.
    pub fn space(&self) -> Space {
        match self.ready.len() {
            _ if !self.full => Space::Ample,
            0 if self.batches.front().is_some() => Space::None,
            ready if ready <= self.config.reserve => Space::Low,
            _ => Space::Ample,
        }
    }

    /// Whether all that is left waits for room on the disk.
    pub fn is_stuck(&self) -> bool {
        self.space() == Space::None && self.in_flight.is_empty()
    }

    /// Whether a segment is being made ready, which takes room until it has failed.
    pub fn is_preparing(&self) -> bool {
        self.preparing.is_some()
    }

    /// The most that one append may bring, so that it fits in a segment.
    pub fn group_bytes_max(&self) -> usize {
        self.config.capacity() - FRAME_HEADER_BYTES
    }

    /// Gives up the segments that hold only transactions up to `needed_after`, which snapshots
    /// that are kept have. Whether all of them went: one that is being written to stays,
    /// and the one with the last transaction that is durable.
    pub fn purge(&mut self, needed_after: Zxid, out: &mut Vec<DiskOp>) -> bool {
        if self.resting {
            return false;
        }
        assert!(needed_after <= self.durable);
        while self.segments.len() > 1 {
            // After a cut, a segment may begin lower than the one before it did.
            let begins = self.segments.iter().skip(1).map(|(_, base)| *base).min();
            if begins.is_none_or(|begins| begins > needed_after) {
                break;
            }
            let (segment, _) = self.segments[0];
            let is_written_to = self.in_flight.iter().any(|frame| frame.segment == segment);
            if is_written_to || begins >= Some(self.durable) {
                // By a mark, behind which nothing of this segment is waited for: it must not end
                // up in the file's next use. Or it has the last transaction that is durable, and
                // without that, a log would seem to have lost what its snapshot has.
                return false;
            }
            self.segments.pop_front();
            self.retiring += 1;
            out.push(DiskOp::Retire(segment));
        }
        true
    }

    fn on_appended(&mut self, sequence: u64) {
        let first = self.in_flight.front().expect("a frame is out").sequence;
        let index = usize::try_from(sequence - first).expect("few frames are out");
        assert!(!self.in_flight[index].done, "frame {sequence} completed twice");
        self.in_flight[index].done = true;
        while let Some(frame) = self.in_flight.pop_front_if(|frame| frame.done) {
            assert!(self.durable_to < frame.sequence && self.durable <= frame.last);
            self.durable_to = frame.sequence;
            self.durable = frame.last;
        }
    }

    /// Does what the new state allows: writes, prepares, arms timers.
    fn settle(&mut self, now: Instant, out: &mut Vec<DiskOp>) {
        while self.in_flight.len() < self.config.writes_in_flight_max {
            let Some(batch) = self.batches.front() else { break };
            let bytes = batch.padded_bytes();
            if !self.make_segment(bytes) {
                break;
            }
            let batch = self.batches.pop().expect("it was in front");
            self.submit(batch, FrameKind::Txns, out);
        }
        if self.resting {
            return;
        }
        self.prepare(out);
        let idle = self.in_flight.is_empty() && self.batches.front().is_none();
        if !idle || self.marked {
            self.mark_at = None;
        } else if self.mark_at.is_none() {
            self.mark_at = Some(now.after(self.config.mark_delay));
        }
    }

    /// Whether the current segment has room for this many bytes; begins the next one if need be.
    fn make_segment(&mut self, bytes: u64) -> bool {
        let fits = |current: &Current| current.offset + bytes <= current.plan.bytes;
        if self.current.as_ref().is_some_and(fits) {
            return true;
        }
        if self.ready.len() <= self.config.reserve && !self.full && self.current.is_some() {
            return false;
        }
        let Some(plan) = self.ready.pop_front() else { return false };
        self.current = Some(Current { plan, offset: FRAMES_START });
        true
    }

    fn submit(&mut self, batch: Batch, kind: FrameKind, out: &mut Vec<DiskOp>) {
        let current = self.current.as_mut().expect("made before");
        let segment = current.plan.segment;
        if current.offset == FRAMES_START {
            self.segments.push_back((segment, batch.base()));
        }
        let (bytes, last) = (batch.padded_bytes(), batch.last);
        let sequence = self.sequence + 1;
        let place = Place {
            incarnation: current.plan.incarnation,
            sequence,
            durable_to: self.durable_to,
            previous: self.checksum,
            opening: opening(self.config.seed),
        };
        let offset = current.offset;
        current.offset += bytes;
        assert!(current.offset <= current.plan.bytes);
        let (frame, checksum) = batch.seal(kind, place);
        (self.sequence, self.checksum) = (sequence, checksum);
        self.marked = kind == FrameKind::Mark;
        self.in_flight.push_back(InFlight { segment, sequence, bytes, last, done: false });
        out.push(DiskOp::Append { segment, offset, sequence, frame });
    }

    fn prepare(&mut self, out: &mut Vec<DiskOp>) {
        let enough = self.ready.len() >= self.config.ahead + self.config.reserve;
        if enough || self.preparing.is_some() || self.retry_at.is_some() {
            return;
        }
        let segment = self.next_segment;
        self.next_segment = SegmentId(segment.0 + 1);
        let plan = plan_segment(self.config.seed, segment, self.config.segment_bytes);
        self.preparing = Some(plan);
        out.push(DiskOp::Prepare(plan));
    }
}

/// The plan of a segment; incarnations don't repeat as long as seeds don't.
pub fn plan_segment(seed: u64, segment: SegmentId, bytes: u64) -> SegmentPlan {
    SegmentPlan { segment, incarnation: mix(seed ^ mix(segment.0)), bytes }
}

/// The number that frames of one opening share.
fn opening(seed: u64) -> u32 {
    mix(!seed) as u32
}

/// A permutation of 64 bits in which neighbours have nothing in common (splitmix64).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
