//! What is known of another server, as far as connections to it go.

use std::time::Duration;

use crate::ids::{LinkId, ServerId};
use crate::time::{Instant, doubled};
use crate::zab::link::{LinkOp, Plane};

/// The pause between the first two dials that fail, and what it doubles up to.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) is_member: bool,
    /// Whether there should always be a connection.
    pub(super) is_wanted: bool,
    pub(super) open: Option<LinkId>,
    pub(super) dial: Dial,
    /// Dials since the last connection that lasted.
    pub(super) attempts: u32,
    /// Whether a dial of this round was refused.
    pub(super) refused: bool,
    pub(super) pending: Option<Vec<u8>>,
    /// The last answer to a server without vote.
    pub(super) answered: Option<(Instant, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    /// None is under way.
    Idle,
    /// The next one begins then.
    At(Instant),
    /// One is under way, begun in this round.
    Running { link: LinkId, round: u64, deadline: Instant },
    /// The peer has our hello and should dial back.
    Reached { link: Option<LinkId>, deadline: Instant },
}

impl Peer {
    pub(super) fn new(is_member: bool, is_wanted: bool) -> Self {
        Self {
            is_member,
            is_wanted,
            open: None,
            dial: Dial::Idle,
            attempts: 0,
            refused: false,
            pending: None,
            answered: None,
        }
    }

    pub(super) fn begin_dial(
        &mut self,
        peer: ServerId,
        link: LinkId,
        round: u64,
        deadline: Instant,
        out: &mut Vec<LinkOp>,
    ) {
        self.attempts += 1;
        self.dial = Dial::Running { link, round, deadline };
        out.push(LinkOp::Dial { link, peer, plane: Plane::Election });
    }

    /// How long until the next dial.
    pub(super) fn pause(&self) -> Duration {
        doubled(PAUSE_MIN, self.attempts.saturating_sub(1), PAUSE_MAX)
    }
}
