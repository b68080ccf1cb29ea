//! From bytes to requests: framing, the inline operations, and who waits for whom.

use std::sync::Arc;

use super::connection::{Phase, Read, Waiting};
use super::deliver::ReadRequest;
use super::{ClientCore, HELD_BYTES_MAX, OUTPUT_BYTES_HIGH, Output};
use crate::auth::{AuthOutcome, identities};
use crate::error_code::ErrorCode;
use crate::ids::{ConnectionId, Xid};
use crate::jute::{Reader, Writer};
use crate::op::OpCode;
use crate::order::{Order, Request, Service};
use crate::records::{self, AuthPacket, OpClass, op_class};
use crate::time::Instant;

/// What telnet sends when its user interrupts it: interrupt, then "do timing mark".
///
// Compat: FourLetterCommands.telnetCloseCmd
pub const TELNET_CLOSE: [u8; 4] = [0xff, 0xf4, 0xff, 0xfd];

/// What the reads of a turn may take: their answers, those that became too long and were thrown
/// away, and long ACL lists. Some tens of milliseconds.
pub(super) const SPENT_BYTES_MAX: usize = 32 << 20;

/// What a watch counts for.
pub(super) const SPENT_ON_WATCH: usize = 512;

/// What became of a frame.
enum Taken {
    /// It is dealt with.
    Done,
    /// Nothing more may be taken from this connection.
    Stop,
}

/// Whether a connection that begins so asks for a four-letter word.
fn is_word(bytes: [u8; 4]) -> bool {
    bytes.iter().all(u8::is_ascii_lowercase) || bytes == TELNET_CLOSE
}

/// Whether a request asks for something short that takes going through many entries.
fn is_walk(frame: &[u8]) -> bool {
    let op = frame.get(4..).and_then(|rest| rest.first_chunk());
    let op = op.and_then(|op| OpCode::from_wire(i32::from_be_bytes(*op)));
    matches!(op, Some(OpCode::GetAllChildrenNumber | OpCode::GetEphemerals))
}

impl ClientCore {
    pub(super) fn on_received(
        &mut self,
        now: Instant,
        id: ConnectionId,
        bytes: &[u8],
        out: &mut Vec<Output>,
    ) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        if connection.closing || connection.phase == Phase::Admin {
            return;
        }
        if connection.input.is_empty() {
            let taken = self.take_frames(now, id.slot, bytes, out);
            let rest = &bytes[taken..];
            if !rest.is_empty() {
                self.connection_at(id.slot).input.extend_from_slice(rest);
            }
        } else {
            connection.input.extend_from_slice(bytes);
            self.take_input(now, id.slot, out);
        }
        self.pause_or_resume(id.slot, out);
    }

    /// Takes frames from the connection's own buffer.
    pub(super) fn take_input(&mut self, now: Instant, slot: u32, out: &mut Vec<Output>) {
        let connection = self.connection_at(slot);
        let mut input = std::mem::take(&mut connection.input);
        let taken = self.take_frames(now, slot, &input, out);
        if taken == input.len() {
            // An idle connection keeps no buffer.
            return;
        }
        input.drain(..taken);
        self.connection_at(slot).input = input;
    }

    /// Lets connections whose input was held back go on, as far as there is room.
    pub(super) fn admit_held(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.held.is_empty() {
            return;
        }
        // From behind the last walker, so that each has its turn.
        let (before, behind) = (..=self.walker, self.walker + 1..);
        let held: Vec<u32> =
            self.held.range(behind).chain(self.held.range(before)).copied().collect();
        for slot in held {
            if !self.may_take(slot) {
                continue;
            }
            self.held.remove(&slot);
            self.take_input(now, slot, out);
            self.pause_or_resume(slot, out);
        }
    }

    /// Leaves the socket unread while what it has brought waits and is much. Input that waits for
    /// nothing but the rest of its frame is read on, however long the frame.
    fn pause_or_resume(&mut self, slot: u32, out: &mut Vec<Output>) {
        let held = self.held.contains(&slot);
        let connection = self.connection_at(slot);
        let waits = held || connection.phase == Phase::Connecting;
        let pause = waits && connection.input.len() >= HELD_BYTES_MAX;
        if pause != connection.paused {
            connection.paused = pause;
            let id = connection.id;
            out.push(if pause { Output::Pause(id) } else { Output::Resume(id) });
        }
    }

    /// Whether another request of this connection may be taken now.
    ///
    /// Reads that wait are answered all at once when a write in front of them is, and nothing may
    /// hold them up then: there are no more of them than fit into the output.
    ///
    // Compat: ServerCnxn.incrOutstandingAndCheckThrottle - beyond the limit, those with requests
    // in hand wait; a connection without one may always have its first.
    fn may_take(&self, slot: u32) -> bool {
        if self.service != Service::Serving {
            return false;
        }
        let connection = self.connections[slot as usize].as_deref();
        let rules = &self.config.rules;
        let reads_most = rules.output_bytes_max() / 2 / rules.packet_bytes_max.max(1);
        connection.is_some_and(|connection| {
            connection.queue.is_empty()
                || (self.outstanding < self.config.outstanding_max
                    && connection.reads_waiting <= reads_most
                    && connection.backlog() <= OUTPUT_BYTES_HIGH)
        })
    }

    /// Whether this connection may have the core go through much of the tree now. In the next turn
    /// if somebody else has; and not while it waits for a write, since all that waits behind one
    /// is answered at once.
    fn may_walk(&mut self, slot: u32) -> bool {
        if !self.connection_at(slot).queue.is_empty() {
            return false;
        }
        if self.walked {
            self.walk_waits = true;
            return false;
        }
        (self.walker, self.walked) = (slot, true);
        true
    }

    /// Takes whole frames from `bytes` and returns how much of it they were.
    fn take_frames(
        &mut self,
        now: Instant,
        slot: u32,
        bytes: &[u8],
        out: &mut Vec<Output>,
    ) -> usize {
        let mut taken = 0;
        loop {
            let connection = self.connection_at(slot);
            if connection.closing || connection.phase == Phase::Connecting {
                return taken;
            }
            let is_attached = connection.phase == Phase::Attached;
            let rest = &bytes[taken..];
            let Some((prefix, _)) = rest.split_first_chunk::<4>() else {
                return taken;
            };
            if connection.phase == Phase::New && is_word(*prefix) {
                connection.phase = Phase::Admin;
                connection.stats.received += 1;
                out.push(Output::FourLetter(connection.id, *prefix, rest[4..].to_vec()));
                self.stats.packets_received += 1;
                self.stats.bytes_received += 4;
                return bytes.len();
            }
            if self.service == Service::Closed {
                // Compat: NIOServerCnxn.readConnectRequest - there is no server to talk to.
                self.close(slot);
                return bytes.len();
            }
            let len = i32::from_be_bytes(*prefix);
            let Some(len) = self.frame_len(len) else {
                let reason = format!("a packet of {len} bytes is out of range, see jute.maxbuffer");
                self.refuse(now, slot, &reason);
                self.stats.large_requests_rejected += 1;
                return bytes.len();
            };
            let Some(frame) = rest.get(4..4 + len) else {
                return taken;
            };
            if !self.may_take(slot) {
                self.stats.throttled += u64::from(self.held.insert(slot));
                return taken;
            }
            if self.spent > SPENT_BYTES_MAX {
                self.walk_waits = true;
                self.held.insert(slot);
                return taken;
            }
            if is_attached && is_walk(frame) && !self.may_walk(slot) {
                self.held.insert(slot);
                return taken;
            }
            taken += 4 + len;
            match self.take_frame(now, slot, frame) {
                Taken::Done => {}
                Taken::Stop => return bytes.len(),
            }
        }
    }

    fn frame_len(&self, len: i32) -> Option<usize> {
        usize::try_from(len).ok().filter(|&len| len <= self.config.rules.packet_bytes_max)
    }

    fn take_frame(&mut self, now: Instant, slot: u32, frame: &[u8]) -> Taken {
        self.stats.packets_received += 1;
        self.stats.bytes_received += frame.len() as u64 + 4;
        let connection = self.connection_at(slot);
        connection.stats.received += 1;
        if connection.phase == Phase::New {
            return match self.take_connect(now, slot, frame) {
                Ok(()) => Taken::Done,
                Err(reason) => self.refuse(now, slot, &reason),
            };
        }
        let mut reader = Reader::new(frame);
        let (Ok(xid), Ok(op)) = (reader.i32(), reader.i32()) else {
            return self.refuse(now, slot, "a request without a header");
        };
        self.touch(now, slot);
        self.take_request(now, slot, Xid(xid), op, reader.rest())
    }

    // Compat: ZooKeeperServer.processPacket
    fn take_request(&mut self, now: Instant, slot: u32, xid: Xid, op: i32, body: &[u8]) -> Taken {
        let class = op_class(op);
        if class == OpClass::Local(OpCode::Auth) {
            return self.take_auth(now, slot, xid, body);
        }
        if class == OpClass::Local(OpCode::Sasl) {
            self.answer_sasl(slot, xid);
            return Taken::Done;
        }
        let connection = self.connections[slot as usize].as_deref_mut().expect("it sent this");
        if !self.config.auth.enforcement.admits(&connection.ids) {
            let code = ErrorCode::SessionClosedRequireAuth.to_wire();
            records::write_bare_reply(&mut connection.output, xid, 0, code);
            return self.refuse(now, slot, "the client has not authenticated");
        }
        match class {
            OpClass::Write(op) => self.take_write(now, slot, xid, op, body),
            OpClass::Read(_) | OpClass::Unknown | OpClass::Local(_) => {
                self.take_read(now, slot, xid, op, body);
            }
        }
        Taken::Done
    }

    fn take_write(&mut self, now: Instant, slot: u32, xid: Xid, op: OpCode, body: &[u8]) {
        let connection = self.connections[slot as usize].as_deref_mut().expect("it sent this");
        let start = self.submission.bodies.len();
        self.submission.bodies.extend_from_slice(body);
        self.submission.orders.push(Order::Request(Request {
            connection: connection.id,
            session: connection.session.expect("an attached connection has a session"),
            xid,
            op,
            body: start..start + body.len(),
            ids: Arc::clone(&connection.ids),
            cut: matches!(connection.queue.back(), Some(Waiting::Read(_))),
        }));
        connection.queue.push_back(Waiting::Write { xid, op, received: now });
        self.outstanding += 1;
    }

    fn take_read(&mut self, now: Instant, slot: u32, xid: Xid, op: i32, body: &[u8]) {
        let connection = self.connection_at(slot);
        let ids = Arc::clone(&connection.ids);
        if connection.queue.is_empty() && connection.backlog() <= OUTPUT_BYTES_HIGH {
            self.answer_read(now, slot, &ReadRequest { xid, op, body, ids: &ids, received: now });
        } else {
            let read = Read { xid, op, body: body.into(), ids, received: now };
            connection.push_read(read);
            self.outstanding += 1;
        }
    }

    /// Adds identities. Answered at once: it overtakes requests that wait, and does not change
    /// with whose identities these were sent.
    ///
    // Compat: ZooKeeperServer.processPacket
    fn take_auth(&mut self, now: Instant, slot: u32, xid: Xid, body: &[u8]) -> Taken {
        let Ok(packet) = AuthPacket::read(&mut Reader::new(body)) else {
            return self.refuse(now, slot, "an auth packet that cannot be decoded");
        };
        let connection = self.connections[slot as usize].as_deref_mut().expect("it sent this");
        let auth = &self.config.auth;
        match auth.authenticate(connection.peer, packet.scheme.as_deref(), packet.auth) {
            AuthOutcome::Added(added) if identities::add(&mut connection.ids, &added) => {
                self.answer_inline(slot, xid, 0);
                Taken::Done
            }
            AuthOutcome::Added(_) => self.fail_auth(now, slot, xid, "too many identities"),
            AuthOutcome::Failed => self.fail_auth(now, slot, xid, "authentication failed"),
            AuthOutcome::WrongEnsemble => {
                self.refuse(now, slot, "the client means another ensemble")
            }
        }
    }

    fn fail_auth(&mut self, now: Instant, slot: u32, xid: Xid, reason: &str) -> Taken {
        self.stats.auth_failed += 1;
        self.answer_inline(slot, xid, ErrorCode::AuthFailed.to_wire());
        self.refuse(now, slot, reason)
    }

    fn answer_inline(&mut self, slot: u32, xid: Xid, code: i32) {
        let connection = self.connection_at(slot);
        records::write_bare_reply(&mut connection.output, xid, 0, code);
        connection.stats.sent += 1;
        self.stats.packets_sent += 1;
        self.mark_dirty(slot);
    }

    /// A SASL exchange where none is configured.
    ///
    // Compat: ZooKeeperServer.processSasl - error 0 and a null token, whatever was sent.
    fn answer_sasl(&mut self, slot: u32, xid: Xid) {
        let connection = self.connection_at(slot);
        let mut writer = Writer::new(&mut connection.output);
        let frame = records::begin_reply(&mut writer, xid, 0, 0);
        writer.buf_or_null(None);
        writer.end_part(frame);
        connection.stats.sent += 1;
        self.stats.packets_sent += 1;
        self.mark_dirty(slot);
    }

    fn refuse(&mut self, now: Instant, slot: u32, reason: &str) -> Taken {
        if let Some(unsaid) = self.refusals.say(now) {
            tracing::warn!(client = %self.connection_at(slot).peer, unsaid, "closing: {reason}");
        }
        self.close(slot);
        Taken::Stop
    }
}
