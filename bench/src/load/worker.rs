//! One thread of a load: its connections, its poller, its share of the rate.
//!
//! A wake receives what is ready, judges the replies, makes the next requests and sends them with
//! one call per connection. In a closed loop every reply makes room for a request; in an open
//! loop the schedule says when one is due, and a free connection takes it.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use engine::ids::Xid;
use engine::op::OpCode;
use engine::records::{NOTIFICATION_XID, PING_XID};

use super::created::Created;
use super::generator::{Generator, Operation};
use super::mix::Kind;
use super::schedule::Schedule;
use super::window::{SECOND_NS, Settings, Window};
use crate::connection::{Connection, Frames, Loss, State};
use crate::cpu;
use crate::poller::{Poller, Ready};
use crate::recorder::{BINS, Interval, Violation};
use crate::wire;

/// How long all connections may take to come up at the start.
const CONNECT_WAIT: Duration = Duration::from_secs(20);
/// Pause before a lost connection is dialled again.
const RETRY_NS: u64 = 2_000_000;
/// An operation sent this long after it was due counts as late.
const LATE_NS: u64 = 1_000_000;
/// How long the closing of the sessions may take.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What a thread knows at the end.
#[derive(Debug)]
pub struct End {
    /// CPU time it took in the measured window.
    pub cpu: Duration,
    /// What each connection created.
    pub created: Vec<Created>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    operation: Operation,
    xid: Xid,
    due_ns: u64,
}

#[derive(Debug)]
struct Slot {
    connection: Connection,
    number: u64,
    pending: VecDeque<Pending>,
    next_xid: i32,
    last: Option<Operation>,
    created: u64,
    ledger: Created,
    retry_ns: u64,
    sent_ns: u64,
    host: usize,
    was_up: bool,
}

/// The thread's state; see the module.
#[derive(Debug)]
pub struct Worker {
    settings: Settings,
    clock: Instant,
    window: Window,
    slots: Vec<Slot>,
    generator: Generator,
    schedule: Option<Schedule>,
    poller: Poller,
    interval: Interval,
    intervals: Sender<Interval>,
    round_robin: usize,
    up_count: usize,
}

impl Worker {
    /// Connects `numbers` connections; returns when all have a session.
    pub fn connect(
        settings: Settings,
        clock: Instant,
        numbers: impl Iterator<Item = u64>,
        generator: Generator,
        intervals: Sender<Interval>,
    ) -> anyhow::Result<Self> {
        let slots = numbers.zip(0..).map(|(number, key)| Slot {
            connection: Connection::new(key, settings.timeout_ms),
            number,
            pending: VecDeque::with_capacity(settings.depth),
            next_xid: 0,
            last: None,
            created: settings.first_created,
            ledger: Created::new(number, settings.first_created),
            retry_ns: 0,
            sent_ns: 0,
            host: number as usize,
            was_up: false,
        });
        let never = Window { start_ns: u64::MAX, end_ns: u64::MAX, stop_ns: u64::MAX };
        let mut worker = Self {
            slots: slots.collect(),
            settings,
            clock,
            window: never,
            generator,
            schedule: None,
            poller: Poller::new()?,
            interval: Interval::new(0),
            intervals,
            round_robin: 0,
            up_count: 0,
        };
        worker.connect_all()?;
        Ok(worker)
    }

    fn connect_all(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + CONNECT_WAIT;
        let (mut ready, mut buf) = (Vec::new(), Vec::new());
        while self.up_count < self.slots.len() {
            if Instant::now() > deadline {
                let (up, all) = (self.up_count, self.slots.len());
                let host = self.settings.hosts[0];
                bail!(
                    "only {up} of {all} connections got a session within 20 s ({host}, ...); \
                     does the server limit them (maxClientCnxns is 60 by default)?"
                );
            }
            self.revive(self.now());
            self.poller.wait(Some(Duration::from_millis(5)), &mut ready)?;
            for ready in &ready {
                self.on_ready(*ready, &mut buf);
            }
        }
        Ok(())
    }

    /// Runs the load through the window; hands over an interval for every second of it.
    pub fn run(mut self, window: Window, schedule: Option<Schedule>) -> anyhow::Result<End> {
        self.window = window;
        self.schedule = schedule;
        let (mut ready, mut buf) = (Vec::new(), Vec::new());
        let (mut cpu_start, mut cpu) = (None, None);
        for slot in 0..self.slots.len() {
            self.refill(slot, self.now());
            self.flush(slot, self.now());
        }
        loop {
            let now = self.now();
            if now >= window.start_ns && cpu_start.is_none() {
                cpu_start = Some(cpu::thread_time());
            }
            if now >= window.end_ns && cpu.is_none() {
                cpu = cpu_start.map(|start| cpu::thread_time().saturating_sub(start));
            }
            self.turn_interval(now)?;
            self.revive(now);
            self.issue_due(now);
            if now >= window.stop_ns || (now >= window.end_ns && self.is_drained()) {
                break;
            }
            let wait = self.wait_ns(now);
            self.poller.wait(Some(Duration::from_nanos(wait)), &mut ready)?;
            for ready in &ready {
                self.on_ready(*ready, &mut buf);
            }
        }
        self.finish();
        self.close_all(&mut buf)?;
        let Self { slots, intervals, interval, .. } = self;
        intervals.send(interval).context("nobody gathers the intervals")?;
        let created = slots.into_iter().map(|slot| slot.ledger).collect();
        Ok(End { cpu: cpu.unwrap_or_default(), created })
    }

    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    fn is_drained(&self) -> bool {
        let next_ns = self.schedule.as_ref().map_or(u64::MAX, Schedule::next_ns);
        next_ns >= self.window.end_ns && self.slots.iter().all(|slot| slot.pending.is_empty())
    }

    /// How long to sleep if no socket is ready: to the next thing that has its own time.
    fn wait_ns(&self, now: u64) -> u64 {
        let window = &self.window;
        let boundary = window.start_ns + (self.interval.second + 1) * SECOND_NS;
        let mut next = [window.start_ns, window.end_ns, window.stop_ns, boundary]
            .into_iter()
            .filter(|at| *at > now)
            .min()
            .unwrap_or(now);
        if let Some(schedule) = &self.schedule {
            let free = |slot: &Slot| self.has_room(slot);
            if schedule.next_ns() < window.end_ns && self.slots.iter().any(free) {
                next = next.min(schedule.next_ns());
            }
        }
        if self.up_count < self.slots.len() {
            next = next.min(now + RETRY_NS);
        }
        next.saturating_sub(now)
    }

    fn has_room(&self, slot: &Slot) -> bool {
        slot.connection.state == State::Up && slot.pending.len() < self.settings.depth
    }

    fn turn_interval(&mut self, now: u64) -> anyhow::Result<()> {
        let second = now.saturating_sub(self.window.start_ns) / SECOND_NS;
        if second.min(self.window.last_second()) <= self.interval.second {
            return Ok(());
        }
        let next = Interval::new(second.min(self.window.last_second()));
        let past = std::mem::replace(&mut self.interval, next);
        self.intervals.send(past).context("nobody gathers the intervals")?;
        self.ping_idle(now);
        Ok(())
    }

    /// Keeps the sessions of connections that had nothing to send.
    fn ping_idle(&mut self, now: u64) {
        let quiet_ns = self.settings.timeout_ms.unsigned_abs() as u64 * 1_000_000 / 3;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.connection.state == State::Up && now.saturating_sub(slot.sent_ns) > quiet_ns {
                let out = &mut slot.connection.out;
                wire::request(out, PING_XID, OpCode::Ping, |_| {});
                slot.sent_ns = now;
                self.flush(index, now);
            }
        }
    }

    fn revive(&mut self, now: u64) {
        if self.up_count == self.slots.len() {
            return;
        }
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.connection.state == State::Down && now >= slot.retry_ns {
                let host = self.settings.hosts[slot.host % self.settings.hosts.len()];
                if slot.connection.dial(&self.poller, host).is_err() {
                    self.lose(index, Loss::Failed, now);
                }
            }
        }
    }

    fn on_ready(&mut self, ready: Ready, buf: &mut Vec<u8>) {
        let (index, now) = (ready.key as usize, self.now());
        let result = match self.slots[index].connection.state {
            State::Down => return,
            State::Connecting => self.slots[index].connection.on_connected(),
            State::Greeting | State::Up => self.on_bytes(ready, buf),
        };
        match result {
            Ok(()) => self.flush(index, now),
            Err(loss) => self.lose(index, loss, now),
        }
    }

    fn on_bytes(&mut self, ready: Ready, buf: &mut Vec<u8>) -> Result<(), Loss> {
        let index = ready.key as usize;
        loop {
            let is_more = self.slots[index].connection.receive(ready, buf)?;
            let now = self.now();
            let mut frames = Frames::new(buf);
            while let Some(frame) =
                frames.take().inspect_err(|_| self.note(Violation::Garbage, "a length"))?
            {
                if self.slots[index].connection.state == State::Greeting {
                    self.on_welcome(index, frame)?;
                } else {
                    self.on_reply(index, frame, now)?;
                }
            }
            self.slots[index].connection.keep(frames.rest());
            self.refill(index, now);
            if !is_more {
                return Ok(());
            }
        }
    }

    fn on_welcome(&mut self, index: usize, frame: &[u8]) -> Result<(), Loss> {
        let slot = &mut self.slots[index];
        slot.connection.on_welcome(frame)?;
        self.up_count += 1;
        if slot.was_up {
            self.interval.tally.reconnects += 1;
        }
        slot.was_up = true;
        Ok(())
    }

    fn on_reply(&mut self, index: usize, frame: &[u8], now: u64) -> Result<(), Loss> {
        let slot = &mut self.slots[index];
        let tally = &mut self.interval.tally;
        let Some((header, body)) = wire::split_reply(frame) else {
            self.note(Violation::Garbage, "a reply shorter than its header");
            return Err(Loss::Garbage);
        };
        if header.xid == PING_XID {
            return Ok(());
        }
        if header.xid == NOTIFICATION_XID {
            self.note(Violation::UninvitedEvent, "an event, and no watch was set");
            return Ok(());
        }
        let Some(pending) = slot.pending.pop_front() else {
            self.note(Violation::UninvitedReply, "a reply, and nothing was asked");
            return Ok(());
        };
        if pending.xid != header.xid {
            tally.violations.add(Violation::WrongXid, || {
                format!("{} where {} is next", header.xid.0, pending.xid.0)
            });
            slot.pending.push_front(pending);
            return Err(Loss::Garbage);
        }
        if header.zxid < slot.connection.session.last_zxid {
            tally.violations.add(Violation::ZxidWentBack, || {
                format!("{:#x} after {:#x}", header.zxid, slot.connection.session.last_zxid)
            });
        }
        let last = &mut slot.connection.session.last_zxid;
        *last = header.zxid.max(*last);
        self.judge(index, pending, header.err, body, now);
        Ok(())
    }

    fn judge(&mut self, index: usize, pending: Pending, err: i32, body: &[u8], now: u64) {
        let slot = &mut self.slots[index];
        let tally = &mut self.interval.tally;
        let measured = self.window.holds(pending.due_ns);
        let kind = pending.operation.kind;
        if err != 0 {
            if kind == Kind::Create {
                slot.ledger.forget(pending.operation.key);
            }
            if measured {
                tally.refused(kind, err);
            }
            return;
        }
        if let Err(violation) = self.generator.check(pending.operation, slot.number, body) {
            tally.violations.add(violation, || {
                format!("{kind} of key {}, {} bytes", pending.operation.key, body.len())
            });
        }
        if kind == Kind::Create {
            slot.ledger.acknowledge(pending.operation.key);
        }
        if measured {
            tally.answered(kind, now.saturating_sub(pending.due_ns));
        }
        if self.window.holds(now) {
            let into = (now - self.window.start_ns) % SECOND_NS;
            self.interval.bins[(into * BINS as u64 / SECOND_NS) as usize] += 1;
        }
    }

    /// In a closed loop: fills the connection up to its depth.
    fn refill(&mut self, index: usize, now: u64) {
        let runs = self.window.start_ns != u64::MAX && now < self.window.end_ns;
        let is_up = self.slots[index].connection.state == State::Up;
        if self.schedule.is_some() || !runs || !is_up {
            return;
        }
        while self.slots[index].pending.len() < self.settings.depth {
            self.issue(index, now, now);
        }
    }

    /// In an open loop: sends what is due while a connection has room.
    fn issue_due(&mut self, now: u64) {
        let Some(mut schedule) = self.schedule else { return };
        let last_ns = now.min(self.window.end_ns - 1);
        'due: while schedule.next_ns() <= last_ns {
            for _ in 0..self.slots.len() {
                self.round_robin = (self.round_robin + 1) % self.slots.len();
                if self.has_room(&self.slots[self.round_robin]) {
                    if let Some(due_ns) = schedule.take(last_ns) {
                        self.issue(self.round_robin, due_ns, now);
                    }
                    continue 'due;
                }
            }
            break;
        }
        self.schedule = Some(schedule);
        for index in 0..self.slots.len() {
            if !self.slots[index].connection.out.is_empty() {
                self.flush(index, now);
            }
        }
    }

    fn issue(&mut self, index: usize, due_ns: u64, now: u64) {
        let slot = &mut self.slots[index];
        let operation = self.generator.draw(slot.last, &mut slot.created);
        slot.next_xid = if slot.next_xid == i32::MAX { 1 } else { slot.next_xid + 1 };
        let (xid, out) = (Xid(slot.next_xid), &mut slot.connection.out);
        self.generator.encode(operation, slot.number, xid, out);
        slot.last = Some(operation);
        slot.sent_ns = now;
        slot.pending.push_back(Pending { operation, xid, due_ns });
        if self.window.holds(due_ns) {
            self.interval.tally.due += 1;
            self.interval.tally.sent += 1;
            self.interval.tally.late += u64::from(now.saturating_sub(due_ns) > LATE_NS);
        }
    }

    fn flush(&mut self, index: usize, now: u64) {
        if let Err(loss) = self.slots[index].connection.flush() {
            self.lose(index, loss, now);
        }
    }

    fn lose(&mut self, index: usize, loss: Loss, now: u64) {
        let slot = &mut self.slots[index];
        let tally = &mut self.interval.tally;
        if slot.connection.state == State::Up {
            self.up_count -= 1;
            tally.disconnects += 1;
        }
        for pending in slot.pending.drain(..) {
            tally.lost += u64::from(self.window.holds(pending.due_ns));
            if pending.operation.kind == Kind::Create {
                slot.ledger.forget(pending.operation.key);
            }
        }
        tally.expired += u64::from(loss == Loss::Expired);
        slot.connection.hang_up();
        // A create whose fate is unknown must not be repeated under its name, nor deleted.
        slot.last = None;
        slot.retry_ns = now + RETRY_NS;
        slot.host += 1;
    }

    fn note(&mut self, violation: Violation, words: &str) {
        self.interval.tally.violations.add(violation, || words.to_owned());
    }

    /// Counts what was never sent or never answered.
    fn finish(&mut self) {
        if let Some(schedule) = &mut self.schedule {
            while schedule.take(self.window.end_ns - 1).is_some() {
                self.interval.tally.due += 1;
            }
        }
        for slot in &mut self.slots {
            let window = &self.window;
            let unanswered = slot.pending.iter().filter(|pending| window.holds(pending.due_ns));
            self.interval.tally.lost += unanswered.count() as u64;
        }
    }

    /// Closes the sessions, so that the server does not keep them until they expire.
    fn close_all(&mut self, buf: &mut Vec<u8>) -> anyhow::Result<()> {
        for slot in &mut self.slots {
            if slot.connection.state == State::Up {
                wire::request(&mut slot.connection.out, Xid(0), OpCode::CloseSession, |_| {});
                if slot.connection.flush().is_err() {
                    slot.connection.hang_up();
                }
            } else {
                slot.connection.hang_up();
            }
        }
        let deadline = Instant::now() + CLOSE_WAIT;
        let mut ready = Vec::new();
        while self.slots.iter().any(|slot| slot.connection.state == State::Up) {
            if Instant::now() > deadline {
                break;
            }
            self.poller.wait(Some(Duration::from_millis(50)), &mut ready)?;
            for ready in &ready {
                self.slots[ready.key as usize].connection.drain(*ready, buf);
            }
        }
        Ok(())
    }
}
