//! The last transactions of the log, in memory: what a learner that is a little behind is sent.
//!
//! Invariants: zxids ascend without a gap in the log's order; whatever leaves, leaves in front.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::txnlog::format;
use crate::zxid::Zxid;

/// A run of transactions that were logged together, encoded as in the log's frame.
#[derive(Clone, Debug)]
pub struct Run {
    /// The first.
    pub first: Zxid,
    /// The last.
    pub last: Zxid,
    /// Length and bytes of each.
    pub txns: Arc<Vec<u8>>,
}

/// Where a learner stands in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Everything behind this zxid is there, and the learner has what comes before.
    Behind(Zxid),
    /// The learner has transactions of this epoch that the history lacks: it must cut its log
    /// behind this zxid, and gets the rest.
    Cut(Zxid),
    /// The history does not go back that far, or went another way: the whole tree is needed.
    Unknown,
}

impl Place {
    /// A cut of a log that ends with `last`, unless Java's learners would not survive it: it must
    /// stay within an epoch, and end with a transaction. Their logs are cut behind the first one
    /// that is not before the zxid, so at the state that an epoch began with they keep one.
    ///
    // Compat: FileTxnLog.truncate
    pub(crate) fn cut(last: Zxid, to: Zxid) -> Self {
        let is_safe = to.epoch() == last.epoch() && to.counter() > 0;
        if is_safe { Self::Cut(to) } else { Self::Unknown }
    }
}

/// The runs of transactions.
#[derive(Debug)]
pub struct History {
    /// The last transaction before the first run.
    base: Zxid,
    runs: VecDeque<Run>,
    bytes: usize,
    bytes_max: usize,
}

impl History {
    /// Begins behind `base`, and keeps about `bytes_max`.
    pub fn new(base: Zxid, bytes_max: usize) -> Self {
        Self { base, runs: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// The last transaction before the first that is there.
    pub fn base(&self) -> Zxid {
        self.base
    }

    /// The last transaction.
    pub fn last(&self) -> Zxid {
        self.runs.back().map_or(self.base, |run| run.last)
    }

    /// Adds what was logged. What is not committed stays, however much it is.
    pub fn push(&mut self, run: Run, committed: Zxid) {
        assert!(run.first > self.last(), "{} after {}", run.first, self.last());
        self.bytes += run.txns.len();
        self.runs.push_back(run);
        while self.bytes > self.bytes_max
            && let Some(run) = self.runs.pop_front_if(|run| run.last <= committed)
        {
            self.bytes -= run.txns.len();
            self.base = run.last;
        }
    }

    /// Starts again behind `base`.
    pub fn clear(&mut self, base: Zxid) {
        *self = Self::new(base, self.bytes_max);
    }

    /// Where a learner stands whose log ends with `last`.
    // Compat: LearnerHandler.syncFollower, queueCommittedProposals
    pub fn place(&self, last: Zxid) -> Place {
        if last > self.last() {
            // A state that no transaction has led to yet: nothing to cut.
            let begins = last.counter() == 0;
            return if begins { Place::Behind(self.last()) } else { self.cut(last, self.last()) };
        }
        if last < self.base {
            return Place::Unknown;
        }
        if last == self.base {
            return Place::Behind(last);
        }
        let index = self.runs.partition_point(|run| run.last < last);
        let run = &self.runs[index];
        if run.first <= last {
            // Zxids within a run have no gaps.
            return Place::Behind(last);
        }
        let before = index.checked_sub(1).map_or(self.base, |index| self.runs[index].last);
        if last.counter() == 0 { Place::Behind(before) } else { self.cut(last, before) }
    }

    fn cut(&self, last: Zxid, to: Zxid) -> Place {
        if to >= self.base { Place::cut(last, to) } else { Place::Unknown }
    }

    /// Transactions behind `zxid`, in order.
    pub fn behind(&self, zxid: Zxid) -> impl Iterator<Item = (Zxid, &[u8])> {
        let index = self.runs.partition_point(|run| run.last <= zxid);
        let runs = self.runs.range(index..);
        runs.flat_map(Run::iter).filter(move |(found, _)| *found > zxid)
    }
}

impl Run {
    /// Its transactions.
    pub fn iter(&self) -> impl Iterator<Item = (Zxid, &[u8])> {
        let txns = format::txns(&self.txns).flatten();
        txns.enumerate().map(|(index, txn)| (Zxid(self.first.0 + index as u64), txn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zxid::Epoch;

    fn zxid(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn run(first: Zxid, last: Zxid) -> Run {
        let mut txns = Vec::new();
        for _ in first.0..=last.0 {
            format::push_txn(&mut txns, b"txn");
        }
        Run { first, last, txns: Arc::new(txns) }
    }

    fn history() -> History {
        let mut history = History::new(zxid(1, 4), 1 << 20);
        history.push(run(zxid(1, 5), zxid(1, 7)), Zxid::ZERO);
        history.push(run(zxid(1, 8), zxid(1, 8)), Zxid::ZERO);
        history.push(run(zxid(3, 1), zxid(3, 2)), Zxid::ZERO);
        history
    }

    #[test]
    fn a_learner_has_a_place_in_the_history() {
        let check = |last, expected| assert_eq!(history().place(last), expected, "{last}");
        check(zxid(1, 3), Place::Unknown);
        check(zxid(1, 4), Place::Behind(zxid(1, 4)));
        check(zxid(1, 6), Place::Behind(zxid(1, 6)));
        check(zxid(1, 8), Place::Behind(zxid(1, 8)));
        check(zxid(1, 9), Place::Cut(zxid(1, 8)));
        check(zxid(2, 0), Place::Behind(zxid(1, 8)));
        check(zxid(2, 1), Place::Unknown);
        check(zxid(3, 0), Place::Behind(zxid(1, 8)));
        check(zxid(3, 2), Place::Behind(zxid(3, 2)));
        check(zxid(3, 3), Place::Cut(zxid(3, 2)));
        check(zxid(4, 0), Place::Behind(zxid(3, 2)));
        check(zxid(4, 1), Place::Unknown);
    }

    #[test]
    fn nobody_is_cut_to_a_state_that_no_transaction_led_to() {
        let mut history = History::new(zxid(3, 0), 1 << 20);
        assert_eq!(history.place(zxid(3, 1)), Place::Unknown);
        history.push(run(zxid(4, 1), zxid(4, 1)), Zxid::ZERO);
        assert_eq!(history.place(zxid(3, 1)), Place::Unknown);
        assert_eq!(history.place(zxid(3, 0)), Place::Behind(zxid(3, 0)));
    }

    #[test]
    fn what_lies_behind_a_place_comes_in_order() {
        let history = history();
        let behind = |last| history.behind(last).map(|(zxid, _)| zxid).collect::<Vec<_>>();
        assert_eq!(behind(zxid(1, 6)), [zxid(1, 7), zxid(1, 8), zxid(3, 1), zxid(3, 2)]);
        assert_eq!(behind(zxid(3, 1)), [zxid(3, 2)]);
        assert!(behind(zxid(3, 2)).is_empty());
        assert!(history.behind(zxid(1, 4)).all(|(_, txn)| txn == b"txn"));
    }

    #[test]
    fn the_oldest_leave_when_there_are_too_many_bytes() {
        let mut history = History::new(Zxid::ZERO, 20);
        for counter in 1..=9 {
            history.push(run(Zxid(counter), Zxid(counter)), Zxid(4));
        }
        assert_eq!((history.base, history.last()), (Zxid(4), Zxid(9)), "9 - 4 are not committed");
        assert_eq!(history.place(Zxid(3)), Place::Unknown);
    }
}
