//! Links that others have opened: how many there may be, and who has to go for a new one.
//!
//! Anybody can connect and say nothing. So each port has places of its own, and when all of them
//! are taken, the oldest link on which not even an introduction came gives up its own.

use std::collections::BTreeMap;

use engine::ids::LinkId;
use engine::time::{Instant, Rarely};
use engine::zab::link::Plane;

/// No introduction is shorter, bytes: the initial message of an election, and FOLLOWERINFO.
const HELLO_BYTES: usize = 20;
const LEARNER_INFO_BYTES: usize = 40;

/// Whether another link has a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// There is one.
    Free,
    /// If this one goes.
    InsteadOf(LinkId),
    /// Nobody goes; how often that was so since it was said last, if it is to be said now.
    None(Option<u64>),
}

#[derive(Debug)]
pub(super) struct Accepted {
    /// The number of the next link that somebody else opens: odd, see [`LinkId`].
    next: LinkId,
    /// How many there may be at each port.
    most: usize,
    election: BTreeMap<LinkId, usize>,
    learner: BTreeMap<LinkId, usize>,
    refusals: Rarely,
}

impl Accepted {
    pub(super) fn new(most: usize) -> Self {
        let (election, learner) = (BTreeMap::new(), BTreeMap::new());
        Self { next: LinkId(1), most, election, learner, refusals: Rarely::default() }
    }

    /// Whether there is a place at this port.
    pub(super) fn place(&mut self, plane: Plane, now: Instant) -> Place {
        let (links, introduction) = match plane {
            Plane::Election => (&self.election, HELLO_BYTES),
            Plane::Learner => (&self.learner, LEARNER_INFO_BYTES),
        };
        if links.len() < self.most {
            return Place::Free;
        }
        match links.iter().find(|(_, received)| **received < introduction) {
            Some((silent, _)) => Place::InsteadOf(*silent),
            None => Place::None(self.refusals.say(now)),
        }
    }

    /// The number of a new link.
    pub(super) fn enter(&mut self, plane: Plane) -> LinkId {
        let id = self.next;
        self.next = LinkId(id.0 + 2);
        match plane {
            Plane::Election => self.election.insert(id, 0),
            Plane::Learner => self.learner.insert(id, 0),
        };
        id
    }

    /// Something has come on a link, perhaps one of these.
    pub(super) fn received(&mut self, id: LinkId, bytes: usize) {
        let links = [&mut self.election, &mut self.learner];
        if let Some(received) = links.into_iter().find_map(|links| links.get_mut(&id)) {
            *received = received.saturating_add(bytes);
        }
    }

    /// A link is gone, perhaps one of these.
    pub(super) fn leave(&mut self, id: LinkId) {
        self.election.remove(&id);
        self.learner.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_said_nothing_goes_for_a_new_one() {
        let mut accepted = Accepted::new(3);
        let now = Instant::ZERO;
        let links = [(); 3].map(|()| accepted.enter(Plane::Learner));
        assert_eq!(accepted.place(Plane::Election, now), Place::Free, "the ports do not share");
        accepted.received(links[0], LEARNER_INFO_BYTES);
        accepted.received(links[1], LEARNER_INFO_BYTES - 1);
        assert_eq!(accepted.place(Plane::Learner, now), Place::InsteadOf(links[1]));
        accepted.received(links[1], 1);
        accepted.leave(links[2]);
        assert_eq!(accepted.place(Plane::Learner, now), Place::Free);
        let last = accepted.enter(Plane::Learner);
        accepted.received(last, usize::MAX);
        assert_eq!(accepted.place(Plane::Learner, now), Place::None(Some(0)));
        assert_eq!(accepted.place(Plane::Learner, now), Place::None(None), "said already");
    }
}
