//! One elector, and hands that are all the other servers.

use super::super::*;
use crate::zab::hello::Hello;
use crate::zab::link::Plane;
use crate::zab::members::Member;

pub(super) const ME: i64 = 3;

/// An elector that all others have connected to; what it does is read in brief.
pub(super) struct World {
    pub(super) elector: Elector,
    pub(super) now: u64,
    pub(super) out: Vec<LinkOp>,
}

pub(super) fn members(voters: &[i64], observers: &[i64]) -> Vec<Member> {
    let member =
        |id: &i64, is_observer| Member { id: ServerId(*id), is_observer, text: String::new() };
    let voters = voters.iter().map(|id| member(id, false));
    voters.chain(observers.iter().map(|id| member(id, true))).collect()
}

pub(super) fn own(epoch: u32, last: Option<u64>) -> OwnState {
    OwnState { last: last.map(Zxid), current_epoch: Epoch(epoch) }
}

/// (leader, zxid, epoch, round)
pub(super) type Numbers = (i64, i64, i64, i64);

pub(super) fn payload(state: PeerState, (leader, zxid, epoch, round): Numbers) -> Vec<u8> {
    let vote = Vote {
        leader: ServerId(leader),
        zxid: Zxid::from_wire(zxid),
        epoch: Epoch(epoch as u32),
        round: ElectionRound(round),
    };
    Notification::message(state, Some(&vote), vote.round, "")
}

impl World {
    /// Of `me` among five voters 1 to 5 and the observer 9, in round 1.
    pub(super) fn new(me: i64, own: OwnState) -> Self {
        let members = Members::majority(&members(&[1, 2, 3, 4, 5], &[9]), 0).unwrap();
        let mut world = Self::of(me, members);
        world.look(own);
        world.out.clear();
        world
    }

    pub(super) fn of(me: i64, members: Members) -> Self {
        let config = ElectorConfig {
            me: ServerId(me),
            is_observer: false,
            members: Arc::new(members),
            my_election_address: "me:2".to_owned(),
            finalize_wait: Duration::from_millis(200),
            notification_interval_min: Duration::from_millis(200),
            notification_interval_max: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(5),
            tick: Duration::from_secs(2),
            fast: true,
        };
        Self { elector: Elector::new(config), now: 0, out: Vec::new() }
    }

    /// Every other member connects. Links are named by twice the id, plus one.
    pub(super) fn connect(mut self) -> Self {
        for id in [1, 2, 4, 5, 9] {
            let link = LinkId(2 * id + 1);
            if ServerId(id as i64) > self.elector.config.me {
                self.link(LinkEvent::Accepted { link, plane: Plane::Election });
                self.link(LinkEvent::Received(link, &Hello::encode(ServerId(id as i64), "h:1")));
            } else {
                self.link(LinkEvent::Connected(Self::dialled(id as i64)));
            }
        }
        self.out.clear();
        self
    }

    /// The link that the elector has dialled a smaller id with, in ascending order.
    pub(super) fn dialled(id: i64) -> LinkId {
        LinkId(4 * id as u64)
    }

    pub(super) fn now(&self) -> Instant {
        Instant::ZERO.after(Duration::from_millis(self.now))
    }

    pub(super) fn look(&mut self, own: OwnState) -> &mut Self {
        self.elector.look(self.now(), own, &mut self.out);
        self
    }

    pub(super) fn link(&mut self, event: LinkEvent<'_>) {
        self.elector.on_link(self.now(), event, &mut self.out);
    }

    pub(super) fn hear(&mut self, sender: i64, state: PeerState, numbers: Numbers) -> &mut Self {
        let id = sender as u64;
        let accepted = ServerId(sender) > self.elector.config.me;
        let link = if accepted { LinkId(2 * id + 1) } else { Self::dialled(sender) };
        self.link(LinkEvent::Received(link, &payload(state, numbers)));
        self
    }

    pub(super) fn pass(&mut self, ms: u64) -> &mut Self {
        self.now += ms;
        self.elector.on_timeout(self.now(), &mut self.out);
        self
    }

    /// What has been sent since the last look: to whom, and what.
    #[track_caller]
    pub(super) fn check_sent(&mut self, expect: &[(&[i64], PeerState, Numbers)]) -> &mut Self {
        let mut sent: Vec<(Vec<i64>, PeerState, Numbers)> = Vec::new();
        for op in self.out.drain(..) {
            let LinkOp::Send { link, bytes } = op else { continue };
            let id = if link.0 % 2 == 1 { (link.0 - 1) / 2 } else { link.0 / 4 } as i64;
            let n = Notification::decode(&bytes[4..]).unwrap();
            let numbers = (n.leader.0, n.zxid, n.epoch, n.round.0);
            match sent.last_mut() {
                Some((ids, state, last)) if (*state, *last) == (n.state, numbers) => ids.push(id),
                _ => sent.push((vec![id], n.state, numbers)),
            }
        }
        let expect: Vec<_> =
            expect.iter().map(|(ids, state, numbers)| (ids.to_vec(), *state, *numbers)).collect();
        assert_eq!(sent, expect);
        self
    }

    #[track_caller]
    pub(super) fn check_decided(&mut self, expect: Option<(Role, Numbers)>) -> &mut Self {
        let decided = self.elector.decided().map(|Decision { vote, role, .. }| {
            let zxid = vote.zxid.map_or(-1, Zxid::to_wire);
            (role, (vote.leader.0, zxid, i64::from(vote.epoch.0), vote.round.0))
        });
        assert_eq!(decided, expect);
        self
    }
}
