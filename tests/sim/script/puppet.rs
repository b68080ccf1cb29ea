//! A member that a script speaks for, to see what a server makes of what it hears.

use engine::btree::Version;
use engine::ids::ServerId;
use engine::jute::Writer;
use engine::zab::hello::Hello;
use engine::zab::link::Plane;
use engine::zab::notification::{Notification, PeerState};
use engine::zab::packet::{
    self, LearnerInfo, PROTOCOL_VERSION, Packet, PacketKind, SNAP_SIGNATURE,
};
use engine::zab::vote::{ElectionRound, Vote};
use engine::zookeeper_files::TreeWriter;
use engine::zxid::{Epoch, Zxid};

use super::{Ensemble, Kind};

impl Ensemble {
    /// From now on the script speaks for this server, which does not run.
    pub fn make_puppet(&mut self, index: usize) {
        assert!(!self.runs(index), "it runs");
        self.servers[index].is_puppet = true;
        self.servers[index].life += 1;
    }

    /// The puppet says to `to` that it leads, or follows who does.
    pub fn puppet_votes(&mut self, puppet: usize, to: usize, leader: usize, last: Zxid) {
        let leads = puppet == leader;
        let state = if leads { PeerState::Leading } else { PeerState::Following };
        let (leader, round) = (ServerId(leader as i64 + 1), ElectionRound(1));
        let vote = Vote { leader, zxid: Some(last), epoch: last.epoch(), round };
        let me = ServerId(puppet as i64 + 1);
        let mut bytes = Hello::encode(me, &format!("127.0.0.1:{}", 3888 + me.0));
        bytes.extend(Notification::message(state, Some(&vote), round, self.members.text()));
        let pipe = self.puppet_dials(puppet, to, Plane::Election);
        self.puppet_sends(pipe, 1, &bytes);
    }

    /// The puppet introduces itself to a leader; the link.
    pub fn puppet_follows(&mut self, puppet: usize, leader: usize, accepted: Epoch) -> usize {
        self.puppet_follows_as(puppet, puppet, leader, accepted)
    }

    /// The puppet says to a leader that it is `named`, and wants to follow.
    pub fn puppet_follows_as(
        &mut self,
        named: usize,
        puppet: usize,
        leader: usize,
        accepted: Epoch,
    ) -> usize {
        let server = ServerId(named as i64 + 1);
        let info = LearnerInfo { server, protocol: PROTOCOL_VERSION, config_version: 0 };
        let mut bytes = Vec::new();
        info.write(PacketKind::FollowerInfo, accepted, &mut bytes);
        let pipe = self.puppet_dials(puppet, leader, Plane::Learner);
        self.puppet_sends(pipe, 1, &bytes);
        pipe
    }

    /// The puppet connects to a leader, and says nothing yet; the link.
    pub fn puppet_opens(&mut self, puppet: usize, leader: usize) -> usize {
        self.puppet_dials(puppet, leader, Plane::Learner)
    }

    /// A puppet sends a packet, whatever it is, on a link that it has opened.
    pub fn puppet_says_as_learner(&mut self, link: usize, packet: &Packet) {
        self.puppet_pushes(link, 1, packet);
    }

    /// The puppet sends a packet, whatever it is, to who has dialled it last.
    pub fn puppet_says_as_leader(&mut self, puppet: usize, packet: &Packet) {
        let link = self.last_link_to(puppet).expect("somebody has dialled it");
        let txn = match packet.kind {
            PacketKind::Proposal | PacketKind::Inform => &packet.data[..],
            PacketKind::InformAndActivate => &packet.data[8..],
            _ => &[],
        };
        if !txn.is_empty() {
            self.checks.puppet_proposes(Zxid(packet.zxid as u64), txn);
        }
        self.puppet_pushes(link, 0, packet);
    }

    fn puppet_pushes(&mut self, link: usize, end: usize, packet: &Packet) {
        let mut bytes = Vec::new();
        packet::write(packet.kind, packet.zxid, Some(&packet.data), &mut bytes);
        self.run_ms(1);
        self.push(link, end, Kind::Packet(packet.kind), Zxid::ZERO, bytes);
    }

    /// The puppet, which follows, acknowledges the epoch that it was told.
    pub fn puppet_acks_epoch(&mut self, link: usize, current: Epoch, last: Zxid) {
        let mut bytes = Vec::new();
        packet::write_ack_epoch(Some(last), Some(current), &mut bytes);
        self.puppet_sends(link, 1, &bytes);
    }

    /// The puppet, which follows, acknowledges NEWLEADER or a proposal.
    pub fn puppet_acks(&mut self, link: usize, zxid: Zxid) {
        let mut bytes = Vec::new();
        packet::write_bare(PacketKind::Ack, zxid, &mut bytes);
        self.puppet_sends(link, 1, &bytes);
    }

    /// The puppet, which follows, answers pings, beginning with the one of this number; how many
    /// there have been.
    pub fn puppet_answers_pings(
        &mut self,
        (puppet, leader): (usize, usize),
        link: usize,
        first: usize,
    ) -> usize {
        let pings = self.sent(leader, puppet, PacketKind::Ping);
        for zxid in &pings[first..] {
            let mut bytes = Vec::new();
            packet::write_bare(PacketKind::Ping, *zxid, &mut bytes);
            self.send(link, 1, &bytes);
        }
        pings.len()
    }

    /// Two puppets tell a server that one of them leads, until it has introduced itself there.
    pub fn puppets_elect(&mut self, leader: usize, other: usize, to: usize) {
        let introductions = |e: &Self| {
            let of = |kind: PacketKind| e.sent(to, leader, kind).len();
            of(PacketKind::FollowerInfo) + of(PacketKind::ObserverInfo)
        };
        let before = introductions(self);
        let last = Zxid::new(Epoch(1), 1);
        self.puppet_votes(leader, to, leader, last);
        self.puppet_votes(other, to, leader, last);
        self.run_until("it introduces itself", |e| introductions(e) > before);
    }

    /// The puppet, which leads, says something to who has dialled it last.
    pub fn puppet_says(
        &mut self,
        puppet: usize,
        kind: PacketKind,
        zxid: Zxid,
        data: Option<&[u8]>,
    ) {
        let mut bytes = Vec::new();
        packet::write(kind, zxid.to_wire(), data, &mut bytes);
        if let (PacketKind::Proposal, Some(txn)) = (kind, data) {
            self.checks.puppet_proposes(zxid, txn);
        }
        self.puppet_tells(puppet, &bytes);
    }

    /// The puppet, which leads, sends a tree as that of this zxid.
    pub fn puppet_sends_tree(&mut self, puppet: usize, zxid: Zxid, tree: &Version) {
        let mut bytes = Vec::new();
        packet::write_bare(PacketKind::Snap, zxid, &mut bytes);
        assert!(TreeWriter::new().write(tree, usize::MAX, &mut bytes), "all of it");
        Writer::new(&mut bytes).string(SNAP_SIGNATURE);
        self.puppet_tells(puppet, &bytes);
    }

    /// The puppet, which leads, proposes its epoch to who has dialled it last.
    pub fn puppet_proposes_epoch(&mut self, puppet: usize, epoch: Epoch) {
        let mut bytes = Vec::new();
        packet::write_leader_info(epoch, &mut bytes);
        self.puppet_tells(puppet, &bytes);
    }

    fn puppet_tells(&mut self, puppet: usize, bytes: &[u8]) {
        let link = self.last_link_to(puppet).expect("somebody has dialled it");
        self.puppet_sends(link, 0, bytes);
    }
}
