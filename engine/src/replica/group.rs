//! Proposal groups: open, sealed, published.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::{GroupTimes, Mode, Now, Output, Replica};
use crate::ids::{ConnectionId, Xid};
use crate::order::{Batch, Item, Reply, ReplyKind, Segment};
use crate::time::Instant;
use crate::tree::Effects;
use crate::txnlog::format::{self, FRAME_HEADER_BYTES};
use crate::txnlog::history::Run;
use crate::zxid::Zxid;

/// Room for a transaction or reply of the usual size, so that a group of one takes memory once.
pub(super) const USUAL_BYTES: usize = 256;

/// With so much, a group is worth a write of its own beside the one that is under way, bytes of
/// transactions: smaller ones cost more than they gain. It also has to be as large as that one:
/// where a disk takes its time, most of what clients have under way is in one frame then, and the
/// rest gathers in the next, as if they went one by one.
pub(super) const WORTHWHILE_BYTES: usize = 32 << 10;

/// The group that requests are added to.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Transactions as the log frame has them: length and bytes, one behind the other.
    pub(super) txns: Vec<u8>,
    pub(super) effects: Effects,
    pub(super) replies: Vec<u8>,
    first: Option<Zxid>,
    last: Zxid,
    opened: Instant,
    segments: Vec<Segment>,
    items: Vec<Item>,
    /// The last of the transactions that are in the log already.
    applied_to: Option<Zxid>,
    /// The number of the last answer in it that needs a proof of leadership.
    pub(super) proof: u64,
    /// Where the transaction or answer that is being made begins.
    mark: Mark,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    txns: usize,
    triggers: usize,
    replies: usize,
    zxid: Zxid,
}

/// A group on its way to the disk, or behind one that is.
#[derive(Debug)]
pub(super) struct SealedGroup {
    /// Its last transaction; none if it has only answers.
    pub(super) last: Option<Zxid>,
    /// How many transactions it has that were made here.
    pub(super) made: u64,
    /// The number of the last answer in it that needs a proof of leadership.
    pub(super) proof: u64,
    pub(super) batch: Batch,
    pub(super) opened: Instant,
    pub(super) sealed: Instant,
    /// When it was first seen to be durable and committed.
    pub(super) committed: Option<Instant>,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.segments.is_empty()
    }

    pub(super) fn has_txns(&self) -> bool {
        self.first.is_some()
    }

    pub(super) fn bytes(&self) -> usize {
        self.txns.len()
    }

    /// Starts a transaction: what is appended until [`Group::end_txn`] belongs to it.
    pub(super) fn begin_txn(&mut self, zxid: Zxid, now: Instant) {
        assert!(self.first.is_none() || self.last.next() == Some(zxid), "zxids have no gaps");
        if self.first.is_none() {
            self.opened = now;
            self.txns.reserve(USUAL_BYTES);
            self.replies.reserve(USUAL_BYTES);
        }
        self.first.get_or_insert(zxid);
        self.last = zxid;
        self.begin_plain(zxid);
        format::begin_txn(&mut self.txns);
    }

    /// Ends a transaction; its reply, if any, is what was appended to the replies.
    pub(super) fn end_txn(&mut self, reply: Option<(ConnectionId, Xid, bool)>) {
        format::end_txn(&mut self.txns, self.mark.txns);
        let reply = match reply {
            Some((connection, xid, close)) => {
                let frame = self.mark.replies..self.replies.len();
                Some(Reply { connection, kind: ReplyKind::Frame { frame, xid, close } })
            }
            None => {
                self.replies.truncate(self.mark.replies);
                None
            }
        };
        self.push(reply);
    }

    /// Starts a reply that needs no transaction.
    pub(super) fn begin_plain(&mut self, zxid: Zxid) {
        self.mark = Mark {
            txns: self.txns.len(),
            triggers: self.effects.triggers.len(),
            replies: self.replies.len(),
            zxid,
        };
    }

    /// Starts a transaction that is in the log already.
    pub(super) fn begin_logged(&mut self, zxid: Zxid, now: Instant) {
        if self.applied_to.is_none() {
            self.opened = now;
        }
        self.applied_to = Some(zxid);
        self.begin_plain(zxid);
    }

    /// Ends a transaction that is in the log already.
    pub(super) fn end_logged(&mut self, reply: Option<Reply>) {
        self.push(reply);
    }

    /// Where the reply lies that was appended since the last beginning.
    pub(super) fn reply_frame(&self) -> Range<usize> {
        self.mark.replies..self.replies.len()
    }

    /// Whoever waits for replies in this group.
    pub(super) fn connections(&self) -> BTreeSet<ConnectionId> {
        let segments = self.segments.iter().flat_map(|segment| &segment.items);
        let items = segments.chain(&self.items);
        items.filter_map(|item| Some(item.reply.as_ref()?.connection)).collect()
    }

    /// Ends a reply that needs no transaction.
    pub(super) fn end_plain(&mut self, connection: ConnectionId, xid: Xid) {
        let frame = self.mark.replies..self.replies.len();
        let kind = ReplyKind::Frame { frame, xid, close: false };
        self.push(Some(Reply { connection, kind }));
    }

    /// Adds an answer that is no reply frame.
    pub(super) fn push_answer(&mut self, zxid: Zxid, connection: ConnectionId, kind: ReplyKind) {
        self.begin_plain(zxid);
        self.push(Some(Reply { connection, kind }));
    }

    /// Turns the transaction just ended into one whose session gets another kind of answer.
    pub(super) fn answer_last(&mut self, connection: ConnectionId, kind: ReplyKind) {
        let item = self.items.last_mut().expect("a transaction was just ended");
        item.reply = Some(Reply { connection, kind });
    }

    fn push(&mut self, reply: Option<Reply>) {
        let triggers = self.mark.triggers..self.effects.triggers.len();
        self.items.push(Item { zxid: self.mark.zxid, triggers, reply });
    }
}

impl SealedGroup {
    /// Its stages, if it has transactions and is committed.
    fn times(&self) -> Option<GroupTimes> {
        self.last?;
        let Self { opened, sealed, .. } = *self;
        Some(GroupTimes { opened, sealed, committed: self.committed? })
    }
}

impl Replica {
    /// Freezes a version between what was ordered and what comes next.
    pub(super) fn cut(&mut self) {
        if self.group.items.is_empty() {
            // What came before is in the segment or batch before this, which has its version.
            return;
        }
        let items = std::mem::take(&mut self.group.items);
        self.group.segments.push(Segment { items, version: self.tree.freeze() });
    }

    /// Whether the open group is to be closed at the end of a turn. While the log is busy, it gets
    /// what comes: that is group commit.
    pub(super) fn is_group_due(&self) -> bool {
        if self.group.is_empty() {
            return false;
        }
        let is_log_idle = self.log.submitted() == self.log.durable();
        let bytes = self.group.bytes();
        let is_worthwhile = |largest| bytes >= WORTHWHILE_BYTES && bytes as u64 >= largest;
        !self.group.has_txns()
            || is_log_idle
            || self.log.largest_beside().is_some_and(is_worthwhile)
            || bytes >= self.config.group_bytes
    }

    /// Closes the open group if it has as much as a group may have. To be called between any two
    /// transactions, so that each group fits the log.
    pub(super) fn seal_if_full(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.group.bytes() >= self.config.group_bytes {
            self.seal(now, out);
        }
    }

    /// Closes the open group and hands its transactions to the log.
    pub(super) fn seal(&mut self, now: Now, out: &mut Vec<Output>) {
        self.cut();
        let group = std::mem::take(&mut self.group);
        self.batches += 1;
        let made = group.first.map_or(0, |first| group.last.0 - first.0 + 1);
        let last = group.first.map(|first| {
            self.log_run(now, Run { first, last: group.last, txns: Arc::new(group.txns) }, out);
            group.last
        });
        let last = last.or(group.applied_to);
        let proof = group.proof;
        let batch = Batch {
            number: self.batches,
            segments: group.segments,
            effects: group.effects,
            replies: group.replies,
        };
        let opened = if last.is_some() { group.opened } else { now.instant };
        self.sealed_version = batch.version().clone();
        let (sealed, committed) = (now.instant, None);
        let group = SealedGroup { last, made, proof, batch, opened, sealed, committed };
        self.sealed.push_back(group);
    }

    /// Hands transactions to the log, and keeps them for learners.
    pub(super) fn log_run(&mut self, now: Now, run: Run, out: &mut Vec<Output>) {
        let mut ops = Vec::new();
        self.log.append(now.instant, (run.first, run.last), &run.txns, &mut ops);
        out.extend(ops.into_iter().map(Output::Disk));
        let txns = run.last.0 - run.first.0 + 1;
        let bytes = format::stride(FRAME_HEADER_BYTES + run.txns.len());
        self.housekeeping.logged(&self.config, now.instant, txns, bytes);
        self.stats.frame_txns.record(txns);
        if self.mode == Mode::Leading {
            self.stats.proposals += txns;
            for txn in format::txns(&run.txns).flatten() {
                self.stats.proposal_sizes.record(txn.len() as u64);
            }
            self.proposals.push(run.clone());
        }
        if self.mode != Mode::Alone {
            // A learner may be sent what is published, and what is kept must go on from there.
            self.history.push(run, self.committed.min(self.published.zxid()));
        }
    }

    /// Publishes what is committed and durable here, in order.
    pub(super) fn publish_durable(&mut self, now: Now, out: &mut Vec<Output>) {
        let visible = self.visible();
        let is_visible = |group: &SealedGroup| group.last.is_none_or(|last| last <= visible);
        for group in self.sealed.iter_mut().take_while(|group| is_visible(group)) {
            group.committed.get_or_insert(now.instant);
        }
        while let Some(group) = self.sealed.front() {
            let unproven = group.proof > self.proofs_given;
            if unproven || group.committed.is_none() {
                break;
            }
            let group = self.sealed.pop_front().expect("it was just there");
            let version = group.batch.version().clone();
            // The state with which a leader begins has a zxid of its own.
            let shown = version.zxid();
            assert!(shown <= visible || shown.counter() == 0, "published {shown} of {visible}");
            assert!(version.number() >= self.published.number());
            self.published = version;
            let times = group.times();
            if let Some(times) = times {
                self.stats.count_group(now, self.mode, times, group.made);
            }
            out.push(Output::Publish(Arc::new(group.batch), times));
        }
        self.request_snapshot(now, out);
    }
}
