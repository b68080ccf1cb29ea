//! Deadlines of sessions, in buckets of a tick.
//!
//! A deadline is `now + timeout` rounded up to the next multiple of the tick, never down, so a
//! session expires between its timeout and its timeout plus a tick after its last sign of life.
//! Sessions of one deadline hang in one list; most touches find the session where it belongs and
//! change nothing, the others move it from list to list. Both are O(1), but for the search among
//! the few deadlines that exist.
//!
//! Expiry takes two steps, because a sign of life may have reached a core that has not yet passed
//! it on: [`ExpiryQueue::due`] says that something looks due and up to which deadline; the caller
//! then asks every core for what it has seen, touches that, and [`ExpiryQueue::expire`] removes
//! those sessions that are due even so.
//!
//! When the clock jumped without anyone being able to speak (the process was stopped, the machine
//! slept), [`ExpiryQueue::shift`] moves all deadlines at once.
//!
//! Invariants:
//!
//!   * each tracked session is in exactly one list, that of its `deadline`
//!   * no list is empty
//!   * `due` and `expire` list sessions in the order in which they got their deadline
//!
//! A session costs 32 to 40 bytes here and 19 to 39 in the index.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::collections::FastMap;
use crate::ids::SessionId;
use crate::time::Instant;

/// The end of a list, and of the free list.
const NOBODY: u32 = u32::MAX;

/// Room for this many sessions is made at the least.
const ENTRIES_MIN: usize = 64;

/// Deadlines of all sessions of one owner.
#[derive(Debug)]
pub struct ExpiryQueue {
    tick_ms: u64,
    /// How far the deadlines were shifted, that is: how far this queue's time is behind.
    shifted: Duration,
    slots: FastMap<SessionId, u32>,
    entries: Vec<Entry>,
    /// Head of the list of unused entries, linked by `next`.
    free: u32,
    lists: BTreeMap<Deadline, List>,
    /// The step one that waits for its step two; nothing up to here is reported due again.
    judging: Option<Deadline>,
}

/// A deadline, in ticks of the queue's own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Deadline(u64);

/// Something looks due: to be handed back to [`ExpiryQueue::expire`] once every core was asked.
#[must_use = "sessions expire only in the second step"]
#[derive(Debug, PartialEq, Eq)]
pub struct Due {
    through: Deadline,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    session: SessionId,
    deadline: Deadline,
    timeout_ms: u32,
    earlier: u32,
    next: u32,
}

const _: () = assert!(size_of::<Entry>() <= 32);

/// The sessions of one deadline.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

impl ExpiryQueue {
    /// An empty queue with deadlines at multiples of `tick_ms`.
    pub fn new(tick_ms: u32) -> Self {
        assert!(tick_ms > 0, "deadlines need a tick to be rounded to");
        Self {
            tick_ms: u64::from(tick_ms),
            shifted: Duration::ZERO,
            slots: FastMap::default(),
            entries: Vec::new(),
            free: NOBODY,
            lists: BTreeMap::new(),
            judging: None,
        }
    }

    /// Sessions tracked.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no session is tracked.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether `session` is tracked.
    pub fn contains(&self, session: SessionId) -> bool {
        self.slots.contains_key(&session)
    }

    /// Tracks `session` from `now` on, or grants it another timeout, which may bring its deadline
    /// nearer.
    pub fn track(&mut self, now: Instant, session: SessionId, timeout_ms: u32) {
        let deadline = self.deadline(now, timeout_ms);
        if let Some(&slot) = self.slots.get(&session) {
            self.entries[slot as usize].timeout_ms = timeout_ms;
            self.relink(slot, deadline);
            return;
        }
        let entry = Entry { session, deadline, timeout_ms, earlier: NOBODY, next: NOBODY };
        let slot = self.occupy(entry);
        self.slots.insert(session, slot);
        self.link(slot);
    }

    /// Records a sign of life of `session` at `now`. False if it is not tracked (any more).
    ///
    /// Cores report what they saw a little late; a report that is older than the last one must
    /// not bring the deadline nearer.
    // Compat: SessionTrackerImpl.touchSession
    pub fn touch(&mut self, now: Instant, session: SessionId) -> bool {
        let Some(&slot) = self.slots.get(&session) else {
            return false;
        };
        self.extend(slot, now, self.entries[slot as usize].timeout_ms);
        true
    }

    /// The same for a sign of life whose connection was granted this timeout, which need not be
    /// the one that counts from then on.
    pub fn touch_for(&mut self, now: Instant, session: SessionId, timeout_ms: u32) {
        if let Some(&slot) = self.slots.get(&session) {
            self.extend(slot, now, timeout_ms);
        }
    }

    /// The deadline moves, if that is further away.
    fn extend(&mut self, slot: u32, now: Instant, timeout_ms: u32) {
        let deadline = self.deadline(now, timeout_ms);
        if deadline > self.entries[slot as usize].deadline {
            self.relink(slot, deadline);
        }
    }

    /// Stops tracking `session`. False if it was not tracked.
    pub fn remove(&mut self, session: SessionId) -> bool {
        let Some(slot) = self.slots.remove(&session) else {
            return false;
        };
        self.unlink(slot);
        self.release(slot);
        true
    }

    /// Stops tracking all sessions and forgets a judgement under way.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.entries.clear();
        self.free = NOBODY;
        self.lists.clear();
        self.judging = None;
    }

    /// When to ask [`ExpiryQueue::due`] next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let mut deadlines = self.lists.keys();
        let next = match self.judging {
            None => deadlines.next(),
            Some(judged) => deadlines.find(|&&deadline| deadline > judged),
        };
        next.map(|&deadline| self.instant(deadline))
    }

    /// Step one: whether sessions are past their deadline at `now` that are not already being
    /// judged. A judgement may begin while an earlier one is under way; it then includes it.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if now < self.next_timeout()? {
            return None;
        }
        // Compat: ExpiryQueue.poll hands out a bucket as soon as its time is reached.
        let through = Deadline(self.own_ms(now) / self.tick_ms);
        self.judging = Some(through);
        Some(Due { through })
    }

    /// Step two: stops tracking the sessions that are past the deadlines of `due` although all
    /// signs of life until then were recorded, and appends them to `expired`.
    pub fn expire(&mut self, due: Due, expired: &mut Vec<SessionId>) {
        if self.judging == Some(due.through) {
            self.judging = None;
        }
        while let Some(list) = self.lists.first_entry() {
            if *list.key() > due.through {
                break;
            }
            let mut slot = list.remove().first;
            while slot != NOBODY {
                let entry = self.entries[slot as usize];
                self.slots.remove(&entry.session);
                self.release(slot);
                expired.push(entry.session);
                slot = entry.next;
            }
        }
    }

    /// Moves all deadlines back by `jump`: the time during which nobody could give a sign of life.
    pub fn shift(&mut self, jump: Duration) {
        self.shifted = self.shifted.saturating_add(jump);
    }

    /// The deadlines, soonest first, and the sessions of each.
    pub fn deadlines(&self) -> impl Iterator<Item = (Instant, impl Iterator<Item = SessionId>)> {
        self.lists.iter().map(move |(&deadline, list)| {
            let mut slot = list.first;
            let sessions = std::iter::from_fn(move || {
                let entry = self.entries.get(slot as usize)?;
                slot = entry.next;
                Some(entry.session)
            });
            (self.instant(deadline), sessions)
        })
    }

    /// Milliseconds of the queue's own time, which stands still while deadlines are shifted.
    fn own_ms(&self, now: Instant) -> u64 {
        let shifted = u64::try_from(self.shifted.as_nanos()).unwrap_or(u64::MAX);
        Instant::from_nanos(now.as_nanos().saturating_sub(shifted)).as_millis()
    }

    // Compat: ExpiryQueue.roundToNextInterval goes one tick up even from a multiple of it.
    fn deadline(&self, now: Instant, timeout_ms: u32) -> Deadline {
        Deadline((self.own_ms(now) + u64::from(timeout_ms)) / self.tick_ms + 1)
    }

    fn instant(&self, deadline: Deadline) -> Instant {
        let own = Duration::from_millis(deadline.0.saturating_mul(self.tick_ms));
        Instant::ZERO.after(own).after(self.shifted)
    }

    fn relink(&mut self, slot: u32, deadline: Deadline) {
        if self.entries[slot as usize].deadline != deadline {
            self.unlink(slot);
            self.entries[slot as usize].deadline = deadline;
            self.link(slot);
        }
    }

    fn link(&mut self, slot: u32) {
        let deadline = self.entries[slot as usize].deadline;
        let list = self.lists.entry(deadline).or_insert(List { first: slot, last: NOBODY });
        let last = std::mem::replace(&mut list.last, slot);
        self.entries[slot as usize].earlier = last;
        self.entries[slot as usize].next = NOBODY;
        if let Some(entry) = self.entries.get_mut(last as usize) {
            entry.next = slot;
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Entry { deadline, earlier, next, .. } = self.entries[slot as usize];
        if earlier == NOBODY && next == NOBODY {
            self.lists.remove(&deadline);
            return;
        }
        let list = self.lists.get_mut(&deadline).expect("an entry's deadline has a list");
        match self.entries.get_mut(earlier as usize) {
            Some(entry) => entry.next = next,
            None => list.first = next,
        }
        match self.entries.get_mut(next as usize) {
            Some(entry) => entry.earlier = earlier,
            None => list.last = earlier,
        }
    }

    fn occupy(&mut self, entry: Entry) -> u32 {
        let slot = self.free;
        if let Some(unused) = self.entries.get_mut(slot as usize) {
            self.free = unused.next;
            *unused = entry;
            return slot;
        }
        if self.entries.len() == self.entries.capacity() {
            // A quarter more, where a vector would double: memory matters here.
            self.entries.reserve_exact((self.entries.len() / 4).max(ENTRIES_MIN));
        }
        self.entries.push(entry);
        u32::try_from(self.entries.len() - 1).expect("memory ends before 2^32 sessions")
    }

    fn release(&mut self, slot: u32) {
        self.entries[slot as usize].next = self.free;
        self.free = slot;
    }
}

#[cfg(test)]
mod tests;
