//! A learner that lacks more than memory holds gets it from the log's files, one piece as the
//! socket has taken the one before; then memory goes on, without a gap.
//!
//! Nothing waits for it in memory meanwhile: it gets no proposals before it has come so far that
//! memory reaches back to it. What goes wrong before it was told anything leads to the tree; later,
//! its link closes, and it asks again.

use super::handler::Step;
use super::{Fault, Leader};
use crate::ids::LinkId;
use crate::replica::{Now, Replica};
use crate::txnlog::history::{Place, Run};
use crate::zab::log_reading::{LogDone, LogOp, Stretch};
use crate::zab::outbox::Outbox;
use crate::zab::packet::{self, PacketKind};
use crate::zxid::Zxid;

/// So many learners are served from files at a time; others get the tree.
const READING_MAX: usize = 8;

/// How far it is.
#[derive(Debug)]
pub(super) struct Reading {
    /// The learner was sent everything up to here.
    reached: Zxid,
    /// The stretch that is being read ends here.
    until: Zxid,
    /// How much it may still be sent in this way, bytes.
    bytes_left: u64,
    next: Next,
    /// The learner knows how it is brought up to date.
    pub(super) is_announced: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The answer of whoever reads.
    Answer,
    /// Room in the socket.
    Room,
}

impl Leader {
    /// Begins to read if that is of use; whether it does.
    pub(super) fn begin_reading(
        &mut self,
        link: LinkId,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> bool {
        let readers = self.handlers.values().filter(|handler| handler.reading.is_some()).count();
        let Some(until) = self.readable(replica) else { return false };
        let Some(bytes_max) = replica.log_bytes_worth_reading() else { return false };
        let handler = self.handlers.get_mut(&link).expect("it is being synchronized");
        let Some(last) = handler.last else { return false };
        if self.read_in_vain.contains(&handler.introduced()) {
            return false;
        }
        // What memory has, and could not be used, files would not help with.
        if last >= replica.history().base() || last >= until || readers >= READING_MAX {
            return false;
        }
        handler.step = Step::Reading;
        // While it is being read, as much again may be logged.
        let bytes_left = bytes_max.saturating_mul(2);
        let (next, is_announced) = (Next::Answer, false);
        handler.reading = Some(Reading { reached: last, until, bytes_left, next, is_announced });
        out.logs.push(LogOp::Open(Stretch { link, last, until, bytes_max }));
        self.hold_log(replica);
        true
    }

    /// Where the files may be read to, if memory goes on from there at the latest.
    fn readable(&self, replica: &Replica) -> Option<Zxid> {
        let (_, committed) = self.history_of(replica)?;
        let until = committed.min(replica.last_durable());
        (until >= replica.history().base()).then_some(until)
    }

    /// Keeps the files that are being read.
    pub(super) fn hold_log(&self, replica: &mut Replica) {
        let readings = self.handlers.values().filter_map(|handler| handler.reading.as_ref());
        replica.hold_log(readings.map(|reading| reading.reached).min());
    }

    /// Something was read.
    pub fn on_log(&mut self, now: Now, done: LogDone, replica: &mut Replica, out: &mut Outbox) {
        let (LogDone::Opened(link, _) | LogDone::Piece(link, _) | LogDone::Failed(link)) = done;
        let Some(handler) = self.handlers.get_mut(&link) else { return };
        let Some(reading) = &mut handler.reading else { return };
        match done {
            LogDone::Opened(_, place) if !reading.is_announced => {
                reading.is_announced = place != Place::Unknown;
                if !reading.is_announced {
                    return self.give_up_reading(now, link, replica, out);
                }
                let from = self.announce(link, place, replica, out);
                self.request_piece(link, from, out);
            }
            LogDone::Opened(_, place) if place == Place::Behind(reading.reached) => {
                let from = reading.reached;
                self.request_piece(link, from, out);
            }
            LogDone::Piece(_, run) if reading.next == Next::Answer && reading.is_announced => {
                self.send_piece(link, &run, out);
            }
            LogDone::Failed(_) if !reading.is_announced => {
                self.give_up_reading(now, link, replica, out);
            }
            _ => self.drop_learner(link, &Fault::LogLost, out),
        }
    }

    /// Files are of no use: the tree.
    fn give_up_reading(&mut self, now: Now, link: LinkId, replica: &mut Replica, out: &mut Outbox) {
        self.end_reading(link, out);
        let handler = self.handlers.get_mut(&link).expect("it is being synchronized");
        handler.step = Step::Waiting;
        self.read_in_vain.insert(handler.introduced());
        self.synchronize(now, link, replica, out);
    }

    fn end_reading(&mut self, link: LinkId, out: &mut Outbox) {
        let handler = self.handlers.get_mut(&link).expect("it is being synchronized");
        handler.reading = None;
        out.logs.push(LogOp::Close(link));
    }

    fn request_piece(&mut self, link: LinkId, from: Zxid, out: &mut Outbox) {
        let handler = self.handlers.get_mut(&link).expect("it is being synchronized");
        let reading = handler.reading.as_mut().expect("it is being read for");
        (reading.reached, reading.next) = (from, Next::Answer);
        out.logs.push(LogOp::Next(link));
    }

    fn send_piece(&mut self, link: LinkId, run: &Run, out: &mut Outbox) {
        let handler = self.handlers.get_mut(&link).expect("it is being synchronized");
        let reading = handler.reading.as_mut().expect("it is being read for");
        assert!(reading.reached < run.first && run.last <= reading.until, "{run:?}: {reading:?}");
        let Some(bytes_left) = reading.bytes_left.checked_sub(run.txns.len() as u64) else {
            return self.drop_learner(link, &Fault::Outrun, out);
        };
        (reading.reached, reading.bytes_left, reading.next) = (run.last, bytes_left, Next::Room);
        let mut bytes = Vec::with_capacity(run.txns.len() * 3 / 2);
        for (zxid, txn) in run.iter() {
            packet::write(PacketKind::Proposal, zxid.to_wire(), Some(txn), &mut bytes);
            packet::write_bare(PacketKind::Commit, zxid, &mut bytes);
        }
        handler.send(link, bytes, out);
    }

    /// A piece has left: on to the next one, or to what memory has.
    pub(super) fn go_on_reading(
        &mut self,
        now: Now,
        link: LinkId,
        replica: &mut Replica,
        out: &mut Outbox,
    ) {
        let readable = self.readable(replica);
        let Some(handler) = self.handlers.get_mut(&link) else { return };
        let Some(reading) = handler.reading.as_mut() else { return };
        if reading.next != Next::Room {
            return;
        }
        let (reached, bytes_max) = (reading.reached, reading.bytes_left);
        if reached >= replica.history().base() {
            self.end_reading(link, out);
            self.complete(now, link, reached, replica, out);
        } else if reached < reading.until {
            self.request_piece(link, reached, out);
        } else if let Some(until) = readable.filter(|until| *until > reached) {
            // Memory has moved on meanwhile.
            (reading.until, reading.next) = (until, Next::Answer);
            out.logs.push(LogOp::Open(Stretch { link, last: reached, until, bytes_max }));
        } else {
            self.drop_learner(link, &Fault::LogLost, out);
        }
    }
}
