//! What goes wrong, and how it is put right again.

use super::{Event, MS, SECOND, World};

impl World {
    pub(super) fn schedule_fault(&mut self) {
        let delay = 50 * MS + self.random.any() % self.options.fault_every;
        self.at(delay, Event::Fault);
    }

    pub(super) fn do_harm(&mut self) {
        let index = self.random.below(self.hosts.len());
        let runs = self.hosts[index].process.is_some();
        let kind = match self.random.below(100) {
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
            38..44 => {
                self.pause(index);
                "pause"
            }
            44..58 => {
                self.partition();
                "partition"
            }
            58..78 => {
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

    fn pause(&mut self, index: usize) {
        if !self.hosts[index].paused {
            self.hosts[index].paused = true;
            let delay = 10 * MS + self.random.any() % (3 * SECOND);
            self.at(delay, Event::Resume(index));
        }
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
