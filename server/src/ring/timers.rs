//! The ring's own deadlines: connections that linger, listeners that pause.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Config, Slot};

/// How long no connection is accepted after descriptors or memory ran out.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections on their way out, oldest first. All linger equally long, so the order of
/// arrival is the order of deadlines.
#[derive(Debug)]
pub(super) struct Lingering {
    duration: Duration,
    most: usize,
    queue: VecDeque<(Instant, Slot)>,
}

impl Lingering {
    pub(super) fn new(config: &Config) -> Self {
        let (duration, most) = (config.linger, config.lingering_max);
        Self { duration, most, queue: VecDeque::new() }
    }

    /// Adds one. If those that are not gone are too many now, the oldest has no more time: it is
    /// returned.
    pub(super) fn push(&mut self, slot: Slot, is_gone: impl Fn(Slot) -> bool) -> Option<Slot> {
        self.queue.push_back((Instant::now() + self.duration, slot));
        if self.queue.len() > self.most {
            self.queue.retain(|(_, slot)| !is_gone(*slot));
        }
        let is_crowded = self.queue.len() > self.most;
        self.queue.pop_front_if(|_| is_crowded).map(|(_, slot)| slot)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queue.front().map(|(deadline, _)| *deadline)
    }

    /// Takes the oldest if its time is over. Those in front that are gone are forgotten, so that
    /// the ring need not wake for them; the clock is read only if one is left.
    pub(super) fn pop_due(&mut self, is_gone: impl Fn(Slot) -> bool) -> Option<Slot> {
        while self.queue.pop_front_if(|(_, slot)| is_gone(*slot)).is_some() {}
        let due = self.queue.pop_front_if(|(deadline, _)| *deadline <= Instant::now());
        due.map(|(_, slot)| slot)
    }
}

/// The shorter of a caller's timeout and the time until a deadline of our own.
pub(super) fn bounded(timeout: Option<Duration>, deadline: Option<Instant>) -> Option<Duration> {
    let Some(deadline) = deadline else { return timeout };
    let left = deadline.saturating_duration_since(Instant::now());
    Some(timeout.map_or(left, |timeout| timeout.min(left)))
}
