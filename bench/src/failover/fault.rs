//! What is done to an ensemble, and to which of its servers.

use serde::Serialize;

/// What is done to an ensemble.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(next_help_heading = "Ensembles")]
pub struct EnsembleOptions {
    /// What happens to which server
    #[arg(long, value_enum, default_value_t = Fault::KillLeader)]
    pub fault: Fault,
    /// Writers per server that clients keep
    #[arg(long, default_value_t = 1)]
    pub writers: usize,
    /// Bytes of a value that they write
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// Observers beside the template's servers [default: 1 if one is to be lost, else 0]
    #[arg(long, default_value_t = 0)]
    pub observers: usize,
    /// Take away the data of a killed server: it comes back as a new one
    #[arg(long)]
    pub wipe: bool,
    /// Writes of an epoch until its zxids run out (rollover)
    #[arg(long, default_value_t = 20_000)]
    pub rollover_after: u32,
}

/// What happens, and to which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// kill -9 of the leader
    KillLeader,
    /// SIGSTOP of the leader: its connections stay open and silent
    StopLeader,
    /// The leader is cut off from the others, and not from clients
    PartitionLeader,
    /// kill -9 of a follower
    KillFollower,
    /// SIGSTOP of a follower
    StopFollower,
    /// A follower is cut off
    PartitionFollower,
    /// kill -9 of an observer
    KillObserver,
    /// SIGSTOP of an observer
    StopObserver,
    /// An observer is cut off
    PartitionObserver,
    /// A follower without data joins an ensemble that had to do without one
    JoinFollower,
    /// The zxids of the leader's epoch run out
    Rollover,
}

/// What happens to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// kill -9.
    Kill,
    /// SIGSTOP.
    Stop,
    /// A cut between it and the others.
    Part,
    /// It is not there at first, and has no data when it comes.
    Join,
    /// Its epoch ends.
    Rollover,
}

impl Blow {
    /// What has become of the server, in a word or two.
    pub fn outcome(self) -> &'static str {
        match self {
            Self::Kill | Self::Stop | Self::Part => "lost",
            Self::Join => "joined",
            Self::Rollover => "stepped down",
        }
    }
}

impl Fault {
    /// What happens.
    pub fn blow(self) -> Blow {
        match self {
            Self::KillLeader | Self::KillFollower | Self::KillObserver => Blow::Kill,
            Self::StopLeader | Self::StopFollower | Self::StopObserver => Blow::Stop,
            Self::PartitionLeader | Self::PartitionFollower | Self::PartitionObserver => Blow::Part,
            Self::JoinFollower => Blow::Join,
            Self::Rollover => Blow::Rollover,
        }
    }

    /// Whether it happens to an observer.
    pub fn is_of_observer(self) -> bool {
        matches!(self, Self::KillObserver | Self::StopObserver | Self::PartitionObserver)
    }

    /// The server that it happens to, where the first ones vote.
    pub fn victim(self, voters: usize, leader: usize) -> usize {
        match self {
            Self::KillLeader | Self::StopLeader | Self::PartitionLeader | Self::Rollover => leader,
            Self::KillFollower
            | Self::StopFollower
            | Self::PartitionFollower
            | Self::JoinFollower => usize::from(leader == 0) % voters,
            Self::KillObserver | Self::StopObserver | Self::PartitionObserver => voters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observer_is_lost_where_observers_are() {
        for fault in [Fault::KillObserver, Fault::StopObserver, Fault::PartitionObserver] {
            assert!(fault.is_of_observer() && fault.victim(3, 1) == 3);
        }
        assert!(!Fault::PartitionLeader.is_of_observer());
    }

    #[test]
    fn the_victim_is_the_leader_or_never_the_leader() {
        for leader in 0..3 {
            assert_eq!(Fault::KillLeader.victim(3, leader), leader);
            for fault in [Fault::KillFollower, Fault::JoinFollower] {
                let follower = fault.victim(3, leader);
                assert!(follower != leader && follower < 3);
            }
        }
    }
}
