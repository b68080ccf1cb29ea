//! From batches to events, replies and released reads.

use std::sync::Arc;

use super::ClientCore;
use super::connection::{Read, Waiting};
use super::receive::{SPENT_BYTES_MAX, SPENT_ON_WATCH};
use crate::acl::{Id, READ};
use crate::btree::Version;
use crate::collections::FastMap;
use crate::error_code::ErrorCode;
use crate::ids::{ConnectionId, Xid};
use crate::order::{Batch, Item, Order, Reply, ReplyKind};
use crate::permission::Verdicts;
use crate::read::{self, ReadContext, Watches};
use crate::records::{self, Modes, OpClass, WatchEvent, op_class};
use crate::time::Instant;
use crate::tree::AclId;
use crate::watch::WatchTable;

impl ClientCore {
    /// Delivers a committed group: per segment its events and replies, then the reads that these
    /// have released, on the segment's version.
    pub(super) fn on_batch(&mut self, now: Instant, batch: &Arc<Batch>) {
        assert!(batch.number > self.batch, "batch {} after {}", batch.number, self.batch);
        self.batch = batch.number;
        for segment in &batch.segments {
            let mut verdicts = FastMap::default();
            for item in &segment.items {
                if self.watches.count() > 0 {
                    self.fire_triggers(batch, item, &segment.version, &mut verdicts);
                }
                if let Some(reply) = &item.reply
                    && reply.connection.core == self.core
                {
                    self.deliver(now, batch, item, reply);
                }
            }
            self.version = segment.version.clone();
            while let Some(slot) = self.released.pop() {
                self.run_reads(now, slot);
            }
        }
    }

    /// `verdicts` are those of each watcher in this version.
    fn fire_triggers(
        &mut self,
        batch: &Batch,
        item: &Item,
        version: &Version,
        verdicts: &mut FastMap<u32, Verdicts>,
    ) {
        let Self { watches, connections, dirty, stats, config, spent, .. } = self;
        for trigger in &batch.effects.triggers[item.triggers.clone()] {
            let path = batch.effects.path(trigger);
            let mut told = 0;
            watches.fire(trigger.event, path, |slot| {
                told += 1;
                let connection =
                    connections[slot as usize].as_deref_mut().expect("watchers are connected");
                // Compat: NIOServerCnxn.process - the node's ACL decides at delivery.
                if trigger.acl != AclId::OPEN {
                    // One batch may have very many triggers of znodes with a long list.
                    let verdicts = verdicts.entry(slot).or_default();
                    let before = verdicts.spent();
                    let ids = &connection.ids;
                    let may_read = verdicts.may(version, &config.rules, trigger.acl, READ, ids);
                    *spent += verdicts.spent() - before;
                    if !may_read {
                        return;
                    }
                }
                let event = WatchEvent { kind: trigger.event.to_wire(), path: path.into() };
                let start = connection.output.len();
                event.write_notification(item.zxid.to_wire(), &mut connection.output);
                connection.stats.sent += 1;
                stats.packets_sent += 1;
                stats.event_bytes += (connection.output.len() - start) as u64;
                if !connection.dirty {
                    connection.dirty = true;
                    dirty.push(slot);
                }
            });
            if told > 0 {
                stats.watchers_told[trigger.event.index()].record(told);
            }
        }
    }

    fn deliver(&mut self, now: Instant, batch: &Batch, item: &Item, reply: &Reply) {
        let id = reply.connection;
        if self.connection(id).is_none() {
            if let ReplyKind::Attached { session, .. } = reply.kind {
                // It went while it was being attached: nobody is connected there.
                let gone = Order::Disconnected { connection: id, session };
                self.submission.orders.push(gone);
            }
            return;
        }
        match &reply.kind {
            ReplyKind::Frame { frame, xid, close } => {
                self.deliver_frame(now, id, &batch.replies[frame.clone()], *xid, item, *close);
            }
            ReplyKind::Attached { session, timeout_ms } => {
                self.on_attached(now, id.slot, *session, *timeout_ms);
            }
            ReplyKind::Refused => self.on_refused(id.slot),
            ReplyKind::Close => {
                let connection = self.connection_at(id.slot);
                connection.closing = true;
                connection.session = None;
                self.held.remove(&id.slot);
                self.mark_dirty(id.slot);
            }
        }
    }

    fn deliver_frame(
        &mut self,
        now: Instant,
        id: ConnectionId,
        frame: &[u8],
        xid: Xid,
        item: &Item,
        close: bool,
    ) {
        let connection = self.connection_at(id.slot);
        if connection.closing {
            // It was given up with requests on their way; reads among them have no answer, either.
            return;
        }
        let Some(Waiting::Write { xid: asked, op, received }) = connection.queue.pop_front() else {
            panic!("connection {id:?}: a reply to {xid:?}, and no write is in front");
        };
        assert_eq!(asked, xid, "connection {id:?}: replies come in the order of requests");
        connection.output.extend_from_slice(frame);
        connection.record(op.to_wire(), xid, item.zxid.0, received, now);
        if close {
            connection.closing = true;
            connection.session = None;
        }
        let released = connection.can_read();
        let latency = connection.stats.last_latency;
        self.outstanding -= 1;
        self.stats.count_response(frame.len());
        self.stats.latency.record(latency);
        self.stats.write_latency.record(latency);
        self.mark_dirty(id.slot);
        if released {
            self.released.push(id.slot);
        }
    }

    /// Answers reads at the front of a connection's queue, as far as nothing holds them up.
    pub(super) fn run_reads(&mut self, now: Instant, slot: u32) {
        let output_bytes_max = self.config.rules.output_bytes_max();
        loop {
            let connection = self.connection_at(slot);
            if !connection.can_read() {
                return;
            }
            if connection.backlog() > output_bytes_max {
                // The end of the turn will close it: no more is made for it.
                return self.close(slot);
            }
            let Read { xid, op, ref body, ref ids, received } = connection.pop_read();
            self.outstanding -= 1;
            self.answer_read(now, slot, &ReadRequest { xid, op, body, ids, received });
        }
    }

    /// Answers one read on the core's version.
    pub(super) fn answer_read(&mut self, now: Instant, slot: u32, request: &ReadRequest<'_>) {
        self.mark_dirty(slot);
        let Self { watches, connections, version, config, stats, spare, .. } = self;
        let connection = connections[slot as usize].as_deref_mut().expect("it asked");
        if connection.output.capacity() == 0
            && let Some(buffer) = spare.pop()
        {
            connection.output = buffer;
        }
        let ReadRequest { xid, op, body, ids, received } = *request;
        let start = connection.output.len();
        if let OpClass::Read(op) = op_class(op) {
            let verdicts = Verdicts::default();
            let context = ReadContext {
                session: connection.session.expect("an attached connection has a session"),
                xid,
                ids,
                last_zxid: version.zxid(),
                rules: &config.rules,
                verdicts: &verdicts,
            };
            let mut watches = SlotWatches { table: watches, slot, added: 0 };
            read::answer(version, &context, op, body, &mut watches, &mut connection.output);
            let before = self.spent;
            let answer_bytes = connection.output.len() - start;
            self.spent += answer_bytes + verdicts.spent() + watches.added * SPENT_ON_WATCH;
            if before <= SPENT_BYTES_MAX && self.spent > SPENT_BYTES_MAX {
                // The turn is over for reads, and the next one begins with others.
                self.walker = slot;
            }
        } else {
            let code = ErrorCode::Unimplemented.to_wire();
            records::write_bare_reply(&mut connection.output, xid, -1, code);
        }
        connection.record(op, xid, version.zxid().0, received, now);
        stats.count_response(connection.output.len() - start);
        stats.latency.record(connection.stats.last_latency);
        stats.read_latency.record(connection.stats.last_latency);
    }
}

/// A read that is to be answered now.
pub(super) struct ReadRequest<'a> {
    pub(super) xid: Xid,
    pub(super) op: i32,
    pub(super) body: &'a [u8],
    /// The identities when it was decoded.
    pub(super) ids: &'a [Id],
    pub(super) received: Instant,
}

/// The watches of one connection, as reads register and remove them.
struct SlotWatches<'a> {
    table: &'a mut WatchTable,
    slot: u32,
    added: usize,
}

impl Watches for SlotWatches<'_> {
    fn add(&mut self, modes: Modes, path: &str) {
        self.added += 1;
        self.table.add(self.slot, path, modes);
    }

    fn remove(&mut self, modes: Modes, path: &str) -> bool {
        self.table.remove(self.slot, path, modes)
    }

    fn contains(&self, modes: Modes, path: &str) -> bool {
        self.table.modes(self.slot, path).has_any(modes)
    }
}
