//! What a seed decides at the beginning of a run.

use std::time::Duration;

use engine::ids::ServerId;
use engine::zab::members::{Groups, Member, Members};

use super::store::GROUP_BYTES;
use super::{MS, Planted, SECOND, TICK, US};
use crate::sim::random::Random;

/// What a seed decides at the beginning.
#[derive(Clone, Debug)]
pub struct Options {
    /// Servers that vote.
    pub voters: usize,
    /// Servers that only learn.
    pub observers: usize,
    /// Cores of each server.
    pub cores: u16,
    /// Clients.
    pub clients: usize,
    /// A message takes up to this.
    pub hop_max: u64,
    /// A write takes up to this.
    pub disk_max: u64,
    /// Clocks gain or lose up to this, millionths.
    pub drift_max: u64,
    /// Faults come after up to this.
    pub fault_every: u64,
    /// How long there are faults.
    pub faulty: u64,
    /// Elections are quick.
    pub fast: bool,
    /// Connections are parked for this long.
    pub grace: Duration,
    /// A snapshot is due after so many transactions.
    pub snapshot_txns: u64,
    /// Bytes of the log that stay in memory.
    pub history_bytes: usize,
    /// How much of the log's files is read for a learner, as a part of the tree.
    pub log_share: f64,
    /// From this counter on, a new epoch begins.
    pub rollover_counter: u32,
    /// How long a session outlives its last sign of life.
    pub timeout_ms: i32,
    /// Clients are served by leaders, too.
    pub leader_serves: bool,
    /// A sync proves that the leader still leads.
    pub linearizable_sync: bool,
    /// Groups of voters, and weights, if not any majority is a quorum.
    pub groups: Option<Groups>,
    /// The only fault is that all stand still for less than they bear.
    pub only_pauses: bool,
    /// What is wrong with the drivers.
    pub planted: Option<Planted>,
    /// Faults come in the order in which this mistake would show, made or not.
    pub provoked: Option<Planted>,
}

impl Options {
    /// Draws them; `more` decides on what was not always drawn, so that the others stay as they
    /// were.
    pub fn draw(random: &mut Random, more: &mut Random) -> Self {
        let pick = |random: &mut Random, of: &[u64]| of[random.below(of.len())];
        let voters = [3, 3, 3, 5][random.below(4)];
        Self {
            voters,
            observers: usize::from(random.percent(25)),
            cores: 1 + random.below(2) as u16,
            clients: 3 + random.below(3),
            hop_max: pick(random, &[50 * US, 300 * US, 2 * MS, 10 * MS]),
            disk_max: pick(random, &[200 * US, MS, 20 * MS]),
            drift_max: pick(random, &[0, 1000, 50_000]),
            fault_every: pick(random, &[200 * MS, 600 * MS, 2 * SECOND]),
            faulty: (3 + random.below(8) as u64) * SECOND,
            fast: random.percent(85),
            grace: Duration::from_millis([0, 300, 1000][random.below(3)]),
            snapshot_txns: pick(random, &[15, 60, u64::MAX]),
            history_bytes: [600, 5000, 1 << 20][random.below(3)],
            log_share: [0.0, 0.33, f64::INFINITY][random.below(3)],
            rollover_counter: [60, u32::MAX - 1000, u32::MAX - 1000][random.below(3)],
            timeout_ms: 4000,
            leader_serves: !more.percent(20),
            linearizable_sync: !more.percent(20),
            groups: more.percent(15).then(|| draw_groups(voters, more)),
            only_pauses: false,
            planted: None,
            provoked: None,
        }
    }

    /// What one turn has time for, bytes of transactions: little where memory is little, so that
    /// what comes from the log's files takes several turns.
    pub(super) fn group_bytes(&self) -> usize {
        if self.history_bytes < 1000 { 1000 } else { GROUP_BYTES }
    }

    /// Who there is, and what is a quorum.
    pub(super) fn members(&self) -> Members {
        let member = |index| Member {
            id: ServerId(index as i64 + 1),
            is_observer: index >= self.voters,
            text: format!("h{index}:1:2:participant"),
        };
        let members: Vec<_> = (0..self.voters + self.observers).map(member).collect();
        let found = match &self.groups {
            Some(groups) => Members::hierarchical(&members, groups, 0),
            None => Members::majority(&members, 0),
        };
        found.expect("they are members")
    }

    /// Adds a mistake, and what it needs to show.
    pub(super) fn plant(&mut self, planted: Option<Planted>) {
        (self.planted, self.provoked) = (planted, planted);
        if planted.is_some() {
            // Strikes are made for majorities, and for clients that are served everywhere.
            (self.leader_serves, self.linearizable_sync, self.groups) = (true, true, None);
        }
        match planted {
            Some(Planted::ReplyBeforePublish) => self.cores = 2,
            Some(
                Planted::EpochsNotWritten | Planted::EmptyMemberVotes | Planted::VoteOfCommitted,
            ) => {
                (self.voters, self.faulty) = (3, 10 * SECOND);
            }
            Some(Planted::ExpiryAfterPause) => {
                // Leaders and followers bear longer silence than sessions do.
                (self.only_pauses, self.timeout_ms) = (true, 2 * TICK.as_millis() as i32);
                (self.hop_max, self.disk_max, self.drift_max) = (300 * US, MS, 0);
            }
            _ => {}
        }
    }
}

/// Up to three groups, and voters that weigh 0, 1 or 2; the first one weighs something.
fn draw_groups(voters: usize, random: &mut Random) -> Groups {
    let count = 1 + random.below(3);
    let id = |index: usize| ServerId(index as i64 + 1);
    let members = |group: usize| (group..voters).step_by(count).map(id).collect();
    let groups = (0..count).map(|group| (group as i64 + 1, members(group))).collect();
    let weight = |index: usize| [1, 1, 1, 2, usize::from(index == 0)][random.below(5)] as u32;
    let weights: Vec<u32> = (0..voters).map(weight).collect();
    let weights = weights.into_iter().enumerate();
    Groups { groups, weights: weights.map(|(index, weight)| (id(index), weight)).collect() }
}
