//! Faults in the order that a planted mistake needs to show.

use super::host::End;
use super::{Event, MS, Planted, World};

impl World {
    /// A server leads: some planted mistakes need that it does not for long.
    pub(super) fn plan_strike(&mut self, leader: usize) {
        if !self.faulty {
            return;
        }
        let delay = match self.options.provoked {
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
            Some(Planted::VoteOfCommitted) => 300 * MS + self.random.any() % (600 * MS),
            _ => return,
        };
        if self.random.percent(60) {
            self.at(delay, Event::Strike(leader, 0));
        }
    }

    pub(super) fn strike(&mut self, leader: usize, step: u8) {
        if !self.faulty || !self.hosts[leader].leads() && step == 0 {
            return;
        }
        let voters = (0..self.options.voters).filter(|index| *index != leader);
        let others: Vec<usize> = voters.collect();
        if self.options.provoked == Some(Planted::VoteOfCommitted) {
            return self.strike_between_ack_and_commit(leader, (others[0], others[1]), step);
        }
        if self.options.provoked == Some(Planted::EpochsNotWritten) {
            for index in &others {
                self.end(*index, End::Killed);
            }
            self.end(leader, End::Killed);
            others.iter().for_each(|index| self.start(*index));
            return;
        }
        let close = others.iter().find(|other| !self.is_cut_off(leader, **other)).copied();
        self.end(leader, End::Killed);
        if let Some(close) = close {
            self.end(close, End::PowerLost);
            self.hosts[close].lose_disk();
            self.start(close);
        }
        self.reconnect();
    }

    /// One follower logs what the other is not sent, and does not hear that it is committed.
    fn strike_between_ack_and_commit(
        &mut self,
        leader: usize,
        (ahead, behind): (usize, usize),
        step: u8,
    ) {
        let way = self.options.hop_max + self.options.disk_max;
        let delay = match step {
            0 => {
                self.cut_off(leader, behind);
                1 + self.random.any() % way
            }
            1 => {
                self.mute(leader, ahead);
                20 * MS + 2 * way
            }
            2 => {
                self.break_links(leader, ahead);
                self.end(leader, End::Killed);
                1
            }
            _ => return self.reconnect(),
        };
        self.at(delay, Event::Strike(leader, step + 1));
    }
}
