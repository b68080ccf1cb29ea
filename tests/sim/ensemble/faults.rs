//! What goes wrong, and how it is put right again.

use super::{Event, MS, Planted, SECOND, World};

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
            _ if !runs => {
                self.start(index);
                "start"
            }
            0..15 => {
                self.end(index, false);
                "kill"
            }
            15..28 => {
                self.end(index, true);
                "loss of power"
            }
            28..38 => {
                self.end_leader();
                "kill of the leader"
            }
            38..42 => {
                let delay = 10 * MS + self.random.any() % (3 * SECOND);
                self.pause(index, delay);
                "pause"
            }
            42..44 => {
                self.pause_all();
                "pause of all"
            }
            44..48 if self.may_lose_disk(index) => {
                self.end(index, true);
                self.hosts[index].lose_disk();
                "loss of a disk"
            }
            44..59 => {
                self.partition();
                "partition"
            }
            59..78 => {
                self.reconnect();
                "reconnection"
            }
            78..90 => {
                self.break_a_link();
                "broken link"
            }
            90..94 => {
                for index in 0..self.hosts.len() {
                    self.end(index, true);
                }
                "loss of all power"
            }
            _ => {
                let by = self.random.any() % (3 * SECOND);
                let wall = self.random.below(20_000) as i64 - 10_000;
                self.hosts[index].jump(by, wall);
                self.jumped_at = Some(self.now);
                self.checks.ids_may_repeat |= wall < 0;
                "clock jump"
            }
        };
        self.tell(|| format!("FAULT {kind} {}", index + 1));
        self.note(104, kind.as_bytes());
        *self.stats.faults.entry(kind).or_default() += 1;
    }

    fn end_leader(&mut self) {
        let leads = |index: &usize| self.hosts[*index].leads();
        if let Some(leader) = (0..self.hosts.len()).find(leads) {
            let power_lost = self.random.percent(30);
            self.end(leader, power_lost);
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
    fn may_lose_disk(&self, index: usize) -> bool {
        let others = (0..self.options.voters).filter(|other| *other != index);
        let sound = others.filter(|other| self.hosts[*other].has_data()).count();
        sound * 2 > self.options.voters
    }

    /// A server leads: some planted mistakes need that it does not for long.
    pub(super) fn plan_strike(&mut self, leader: usize) {
        let delay = match self.options.planted {
            Some(Planted::EpochsNotWritten) => {
                // Nobody else logs what it proposes.
                for other in 0..self.hosts.len() {
                    self.cut_off(leader, other);
                }
                50 * MS + self.random.any() % (400 * MS)
            }
            Some(Planted::EmptyMemberVotes) => {
                // One of the followers falls behind.
                let behind = (leader + 1 + self.random.below(2)) % 3;
                for other in 0..self.hosts.len() {
                    self.cut_off(behind, other);
                }
                200 * MS + self.random.any() % (600 * MS)
            }
            _ => return,
        };
        if self.faulty && self.random.percent(60) {
            self.at(delay, Event::Strike(leader));
        }
    }

    pub(super) fn strike(&mut self, leader: usize) {
        if !self.faulty || !self.hosts[leader].leads() {
            return;
        }
        let voters = (0..self.options.voters).filter(|index| *index != leader);
        let others: Vec<usize> = voters.collect();
        if self.options.planted == Some(Planted::EpochsNotWritten) {
            for index in &others {
                self.end(*index, false);
            }
            self.end(leader, false);
            others.iter().for_each(|index| self.start(*index));
            return;
        }
        let close = others.iter().find(|other| !self.is_cut_off(leader, **other)).copied();
        self.end(leader, false);
        if let Some(close) = close {
            self.end(close, true);
            self.hosts[close].lose_disk();
            self.start(close);
        }
        self.reconnect();
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

    /// Everybody lives, and everything arrives.
    pub(super) fn heal(&mut self) {
        self.reconnect();
        for index in 0..self.hosts.len() {
            if self.hosts[index].process.is_none() {
                self.start(index);
            }
        }
    }
}
