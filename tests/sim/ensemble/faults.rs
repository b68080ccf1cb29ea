//! What goes wrong.

use super::host::End;
use super::{Event, MS, SECOND, World};

/// A disk may be taken for full this long after it had room again.
const FULL_FOR: u64 = 5 * SECOND;

impl World {
    pub(super) fn schedule_fault(&mut self) {
        let delay = 50 * MS + self.random.any() % self.options.fault_every;
        self.at(delay, Event::Fault);
    }

    pub(super) fn do_harm(&mut self) {
        if self.stood_still.last().is_some_and(|(_, to)| self.now < *to) {
            return;
        }
        let index = self.random.below(self.hosts.len());
        let runs = self.hosts[index].process.is_some();
        let kind = match self.random.below(100) {
            _ if self.options.only_pauses => {
                self.pause_all();
                "pause of all"
            }
            _ if self.hosts[index].medium.is_refused => return,
            0..25 if !runs && self.rot(index) => "bit rot",
            _ if !runs => {
                self.start(index);
                "start"
            }
            0..14 => {
                self.end(index, End::Killed);
                "kill"
            }
            14..25 => {
                self.end(index, End::PowerLost);
                "loss of power"
            }
            25..34 => {
                self.end_leader();
                "kill of the leader"
            }
            34..38 => {
                let delay = 10 * MS + self.random.any() % (3 * SECOND);
                self.pause(index, delay);
                "pause"
            }
            38..40 => {
                self.pause_all();
                "pause of all"
            }
            40..44 if self.may_lose_disk(index) => {
                self.end(index, End::PowerLost);
                self.hosts[index].lose_disk();
                "loss of a disk"
            }
            40..55 => {
                self.partition();
                "partition"
            }
            55..71 => {
                self.reconnect();
                "reconnection"
            }
            71..81 => {
                self.break_a_link();
                "broken link"
            }
            81..84 => {
                for index in 0..self.hosts.len() {
                    self.end(index, End::PowerLost);
                }
                "loss of all power"
            }
            84..88 => {
                self.jump(index);
                "clock jump"
            }
            88..92 => {
                let until = self.now + 200 * MS + self.random.any() % (3 * SECOND);
                self.hosts[index].medium.slow_until(until);
                "slow disk"
            }
            92..96 => {
                self.fill_disk(index);
                "full disk"
            }
            _ => {
                self.hosts[index].medium.good_for = Some(self.random.below(30) as u64);
                "failing write"
            }
        };
        self.tell(|| format!("FAULT {kind} {}", index + 1));
        self.note(104, kind.as_bytes());
        *self.stats.faults.entry(kind).or_default() += 1;
    }

    /// The clocks of a server jump.
    fn jump(&mut self, index: usize) {
        let by = self.random.any() % (3 * SECOND);
        let wall = self.random.below(20_000) as i64 - 10_000;
        self.hosts[index].jump(by, wall);
        self.jumped_at = Some(self.now);
        self.checks.ids_may_repeat |= wall < 0;
    }

    /// There is no room for more than there is, for a while.
    fn fill_disk(&mut self, index: usize) {
        let delay = 200 * MS + self.random.any() % (4 * SECOND);
        self.hosts[index].store.set_full(true);
        self.checks.may_refuse_until(self.now + delay + FULL_FOR);
        self.at(delay, Event::Room(index));
    }

    fn end_leader(&mut self) {
        let leads = |index: &usize| self.hosts[*index].leads();
        if let Some(leader) = (0..self.hosts.len()).find(leads) {
            let power_lost = self.random.percent(30);
            self.end(leader, if power_lost { End::PowerLost } else { End::Killed });
        }
    }

    fn pause(&mut self, index: usize, delay: u64) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if host.process.is_some() && !host.paused {
            (host.paused, host.paused_at) = (true, now);
            let life = host.life;
            self.at(delay, Event::Resume(index, life));
        }
    }

    /// The machine that all of them run on stands still.
    fn pause_all(&mut self) {
        if self.hosts.iter().any(|host| host.paused || host.process.is_none()) {
            return;
        }
        let (least, more) = match self.options.only_pauses {
            true => (500 * MS, 400 * MS),
            false => (SECOND, 6 * SECOND),
        };
        let delay = least + self.random.any() % more;
        for index in 0..self.hosts.len() {
            self.pause(index, delay);
        }
        self.stood_still.push((self.now, self.now + delay));
    }

    /// How long there was somebody who could have heard, between then and now.
    pub(super) fn time_since(&self, then: u64) -> u64 {
        let still = self.stood_still.iter().map(|(from, to)| {
            let to = (*to).min(self.now);
            to.saturating_sub((*from).max(then))
        });
        (self.now - then).saturating_sub(still.sum())
    }

    /// Whether what was committed is on disks enough without this one.
    pub(super) fn may_lose_disk(&self, index: usize) -> bool {
        self.is_quorum(|other| other.index != index && other.has_data())
    }

    /// A process takes a pause for time like any other.
    pub(super) fn live_through_pause(&mut self, index: usize) {
        let (end, step) = (self.now, 40 * MS);
        self.now = self.hosts[index].paused_at;
        while self.now + step < end {
            self.now += step;
            self.tick(index);
        }
        self.now = end;
    }
}
