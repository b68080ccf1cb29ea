//! Reads the files of the log again, for a learner that lacks more than the memory holds.
//!
//! ```text
//!   leader  -- Open: a learner's last transaction --> a thread beside the cores: locate
//!   leader  <-- Opened: where the learner stands ---
//!   leader  -- Next -------------------------------->  feed, one piece at a time
//!   leader  <-- Piece ------------------------------
//! ```
//!
//! The first reading finds the place and makes sure that all that is promised can be read; only
//! then the learner hears of it. The second one delivers.
//!
//! Invariants:
//!
//!   * what is asked for is durable, so nothing that is being written is ever looked at
//!   * nobody gives up segments of a stretch that is being read; if one is gone or damaged all the
//!     same, reading fails, and never skips

use std::sync::Arc;

use crate::disk::{Damage, StorageError, Volume};
use crate::ids::LinkId;
use crate::txnlog::format::{FRAMES_START, FrameHeader, push_txn, segment_name};
use crate::txnlog::history::{Place, Run};
use crate::txnlog::scan::{Sink, scan};
use crate::zxid::Zxid;

/// How much is delivered at once, bytes: this, and one transaction.
pub const PIECE_BYTES: usize = 256 << 10;

/// What a leader wants of the log's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOp {
    /// Find a learner's place; answered by [`LogDone::Opened`].
    Open(Stretch),
    /// Deliver the next piece; answered by [`LogDone::Piece`] or [`LogDone::Failed`].
    Next(LinkId),
    /// No more is wanted for this learner.
    Close(LinkId),
}

/// What a learner lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Whose it is.
    pub link: LinkId,
    /// The last transaction that the learner has.
    pub last: Zxid,
    /// The last one to be delivered: later than `last`, and durable.
    pub until: Zxid,
    /// More than this is not worth reading, bytes of transactions.
    pub bytes_max: u64,
}

/// What was read.
#[derive(Clone, Debug)]
pub enum LogDone {
    /// Where the learner stands. Unknown: what it lacks is not there, or is too much.
    Opened(LinkId, Place),
    /// The next transactions.
    Piece(LinkId, Run),
    /// Nothing more can be delivered.
    Failed(LinkId),
}

/// Finds the place of a learner, and makes sure that everything from there on can be read; unless
/// nobody wants to know any more.
///
// Compat: LearnerHandler.queueCommittedProposals
pub fn locate<V: Volume>(
    volume: &V,
    stretch: &Stretch,
    is_wanted: impl Fn() -> bool,
) -> Result<Place, StorageError> {
    let &Stretch { last, until, bytes_max, .. } = stretch;
    assert!(last < until, "there is something between {last} and {until}");
    let (at, bytes, reached) = (None, 0, last);
    let mut place = Locate { last, until, bytes_max, at, bytes, reached, is_wanted };
    scan(volume, last, &mut place)?;
    let Some(at) = place.at.filter(|_| place.reached == until && place.bytes <= bytes_max) else {
        return Ok(Place::Unknown);
    };
    // The beginning of an epoch is a state that no transaction has led to: nothing to cut.
    Ok(match at {
        at if at == last || last.counter() == 0 => Place::Behind(at),
        at => Place::cut(last, at),
    })
}

/// Passes on the transactions behind `behind` up to `until`, until `take` has enough.
pub fn feed<V: Volume>(
    volume: &V,
    behind: Zxid,
    until: Zxid,
    take: impl FnMut(Run) -> bool,
) -> Result<(), StorageError> {
    let (txns, ends) = (Vec::new(), None);
    let mut feed = Feed { until, txns, ends, reached: behind, take, is_over: false };
    let report = scan(volume, behind, &mut feed)?;
    feed.deliver();
    if feed.is_over || feed.reached >= until {
        return Ok(());
    }
    let end = report.end;
    let segment = end.current.map_or(end.next_segment, |(plan, _)| plan.segment);
    let damage = Damage::Gap { found: feed.reached, needed: until };
    Err(StorageError::damaged(segment_name(segment), FRAMES_START, damage))
}

struct Locate<W> {
    last: Zxid,
    until: Zxid,
    bytes_max: u64,
    /// The last transaction of the log that the learner may have.
    at: Option<Zxid>,
    /// Of the transactions behind it.
    bytes: u64,
    reached: Zxid,
    is_wanted: W,
}

impl<W: Fn() -> bool> Sink for Locate<W> {
    fn frame(&mut self, header: &FrameHeader) {
        self.at.get_or_insert(header.base_zxid);
        // A cut repeats the zxid that it went back to.
        if header.first_zxid <= self.last {
            self.at = Some(header.last_zxid.min(self.last));
        }
    }

    fn txn(&mut self, zxid: Zxid, txn: &[u8]) -> Result<(), Damage> {
        if zxid <= self.until {
            self.bytes += txn.len() as u64;
            self.reached = zxid;
        }
        Ok(())
    }

    fn has_enough(&self) -> bool {
        self.reached >= self.until || self.bytes > self.bytes_max || !(self.is_wanted)()
    }
}

struct Feed<F> {
    until: Zxid,
    /// The next piece, and its first and last transaction.
    txns: Vec<u8>,
    ends: Option<(Zxid, Zxid)>,
    reached: Zxid,
    take: F,
    is_over: bool,
}

impl<F: FnMut(Run) -> bool> Feed<F> {
    fn deliver(&mut self) {
        let Some((first, last)) = self.ends.take() else { return };
        let txns = Arc::new(std::mem::take(&mut self.txns));
        self.is_over = self.is_over || !(self.take)(Run { first, last, txns });
    }
}

impl<F: FnMut(Run) -> bool> Sink for Feed<F> {
    fn txn(&mut self, zxid: Zxid, txn: &[u8]) -> Result<(), Damage> {
        if zxid > self.until || self.is_over {
            return Ok(());
        }
        let goes_on = self.ends.is_some_and(|(_, last)| last.next() == Some(zxid));
        if !goes_on || self.txns.len() + txn.len() > PIECE_BYTES {
            self.deliver();
        }
        push_txn(&mut self.txns, txn);
        let first = self.ends.map_or(zxid, |(first, _)| first);
        self.ends = Some((first, zxid));
        self.reached = zxid;
        Ok(())
    }

    fn has_enough(&self) -> bool {
        self.is_over || self.reached >= self.until
    }
}
