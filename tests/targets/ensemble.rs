//! What other members of an ensemble send, through the whole machine of one.

use engine::acl::{ALL, Acl, AclBytes, Id};
use engine::ids::{ConnectionId, CoreId, LinkId, ServerId, SessionId, Xid};
use engine::op::OpCode;
use engine::order::{Connect, Order};
use engine::quorum_peer::RoleKind;
use engine::time::WallTime;
use engine::txn::{NewNode, Txn, TxnHeader, codec};
use engine::zab::hello::Hello;
use engine::zab::link::Plane;
use engine::zab::notification::PeerState;
use engine::zab::packet::{self, LearnerInfo, PROTOCOL_VERSION, PacketKind, PacketReader};
use engine::zab::vote::{ElectionRound, Vote};
use engine::zxid::{Epoch, Zxid};

use super::input::Input;
use super::member::Member;

const FIRST: ServerId = ServerId(1);
const SECOND: ServerId = ServerId(2);
const THIRD: ServerId = ServerId(3);

const SESSION: SessionId = SessionId(7);
const TIMEOUT_MS: i32 = 8_000;

/// At the election port of the second server: who has not said who it is, the third server, and
/// the first one, which was dialled.
pub(super) fn election(input: &[u8]) {
    let mut input = Input(input);
    let mut member = Member::new(SECOND, input.u8() & 1 != 0);
    let (stranger, third) = (LinkId(1), LinkId(3));
    member.accept(stranger, Plane::Election);
    member.accept(third, Plane::Election);
    member.receive(third, &Hello::encode(THIRD, "127.0.0.1:3888"));
    let first = member.connect(FIRST, Plane::Election);
    member.listen(&mut input, &[stranger, third, first], |_| {});
    member.check();
}

/// At the learner port of the third server, which leads or is about to: the second one, which has
/// come to one of some steps.
pub(super) fn leading(input: &[u8]) {
    let mut input = Input(input);
    let kind = input.u8();
    let step = kind % 8;
    let mut member = Member::new(THIRD, false);
    let (leader, round) = (THIRD, ElectionRound(1));
    let vote = Vote { leader, zxid: Some(Zxid::ZERO), epoch: Epoch(0), round };
    for id in [FIRST, SECOND] {
        let link = member.connect(id, Plane::Election);
        member.tell(link, PeerState::Looking, &vote);
    }
    let mut follower = Follower { link: LinkId(1), reader: PacketReader::default() };
    member.accept(follower.link, Plane::Learner);
    if step > 0 {
        introduce(&mut member, follower.link, FIRST, PacketKind::FollowerInfo);
        follower.answer(&mut member);
        assert!(matches!(member.peer.role(), RoleKind::Leading { .. }), "it leads");
    }
    let link = LinkId(3);
    member.accept(link, Plane::Learner);
    if step > 1 {
        let is_observer = kind & 8 != 0;
        let kind = if is_observer { PacketKind::ObserverInfo } else { PacketKind::FollowerInfo };
        introduce(&mut member, link, SECOND, kind);
    }
    let mut bytes = Vec::new();
    if step > 2 {
        packet::write_ack_epoch(Some(Zxid::ZERO), Some(Epoch(0)), &mut bytes);
    }
    if step > 3 {
        packet::write_bare(PacketKind::Ack, Zxid::new(Epoch(1), 0), &mut bytes);
    }
    if step > 4 {
        let (op, timeout) = (OpCode::CreateSession.to_wire(), TIMEOUT_MS.to_be_bytes());
        packet::write_request(SESSION, Xid(0), op, &timeout, &[], &mut bytes);
    }
    member.receive(link, &bytes);
    follower.answer(&mut member);
    member.listen(&mut input, &[link], |member| follower.answer(member));
    member.check();
}

fn introduce(member: &mut Member, link: LinkId, server: ServerId, kind: PacketKind) {
    let info = LearnerInfo { server, protocol: PROTOCOL_VERSION, config_version: 0 };
    let mut bytes = Vec::new();
    info.write(kind, Epoch(0), &mut bytes);
    member.receive(link, &bytes);
}

/// A follower that does as it should.
struct Follower {
    link: LinkId,
    reader: PacketReader,
}

impl Follower {
    /// Answers until it is told nothing more.
    fn answer(&mut self, member: &mut Member) {
        while let Some(sent) = member.sent.remove(&self.link) {
            self.reader.stream.push(&sent);
            let mut bytes = Vec::new();
            while let Some(packet) = self.reader.take().expect("a leader's packets") {
                let zxid = Zxid::from_wire(packet.zxid).unwrap_or(Zxid::ZERO);
                match packet.kind {
                    PacketKind::LeaderInfo => {
                        packet::write_ack_epoch(Some(Zxid::ZERO), Some(Epoch(0)), &mut bytes);
                    }
                    PacketKind::NewLeader | PacketKind::Proposal => {
                        packet::write_bare(PacketKind::Ack, zxid, &mut bytes);
                    }
                    PacketKind::Ping => packet::write_bare(PacketKind::Ping, zxid, &mut bytes),
                    _ => {}
                }
            }
            member.receive(self.link, &bytes);
        }
    }
}

/// The third server, which leads the first one, or is about to. It has led it before, so that
/// there is a log.
pub(super) fn following(input: &[u8]) {
    let mut input = Input(input);
    let kind = input.u8();
    let mut member = Member::new(FIRST, kind & 8 != 0);
    let (leader, round) = (THIRD, ElectionRound(1));
    let vote = Vote { leader, zxid: Some(Zxid::ZERO), epoch: Epoch(0), round };
    let votes = [(LinkId(1), SECOND, PeerState::Following), (LinkId(3), THIRD, PeerState::Leading)];
    for (link, id, state) in votes {
        member.accept(link, Plane::Election);
        member.receive(link, &Hello::encode(id, "127.0.0.1:3888"));
        member.tell(link, state, &vote);
    }
    let link = member.connect(THIRD, Plane::Learner);
    lead(&mut member, link, Epoch(1), 4);
    write_some(&mut member, link);
    member.close(link);
    for (link, _, state) in votes {
        member.tell(link, state, &vote);
    }
    let link = member.connect(THIRD, Plane::Learner);
    let step = usize::from(kind % 8).min(4);
    lead(&mut member, link, Epoch(2), step);
    if step == 4 {
        ask_for_sessions(&mut member);
    }
    member.listen(&mut input, &[link], |_| {});
    member.check();
}

/// The leader takes so many steps.
fn lead(member: &mut Member, link: LinkId, epoch: Epoch, steps: usize) {
    let begin = Zxid::new(epoch, 0);
    let packets = [
        (PacketKind::LeaderInfo, begin),
        (PacketKind::Diff, member.peer.replica().last_logged()),
        (PacketKind::NewLeader, begin),
        (PacketKind::UpToDate, Zxid::ZERO),
    ];
    for (kind, zxid) in &packets[..steps] {
        say(member, link, *kind, *zxid, &PROTOCOL_VERSION.to_be_bytes());
    }
    let learns = matches!(member.peer.role(), RoleKind::Following(_) | RoleKind::Observing(_));
    assert_eq!(learns, steps == packets.len());
}

fn say(member: &mut Member, link: LinkId, kind: PacketKind, zxid: Zxid, data: &[u8]) {
    let mut bytes = Vec::new();
    packet::write(kind, zxid.to_wire(), Some(data), &mut bytes);
    member.receive(link, &bytes);
}

/// A session, a znode, and one below it that goes with the session.
fn write_some(member: &mut Member, link: LinkId) {
    let open = Acl { perms: ALL, id: Id::new("world", "anyone") };
    let create = |path: &'static str, ephemeral| Txn::Create {
        with_stat: false,
        node: NewNode {
            path: path.into(),
            data: Some(b"data".into()),
            acl: AclBytes::encode(std::slice::from_ref(&open)),
            parent_cversion: 1,
        },
        ephemeral,
    };
    let session = Txn::CreateSession { timeout_ms: TIMEOUT_MS };
    for (txn, counter) in [session, create("/a", false), create("/a/b", true)].iter().zip(1..) {
        let zxid = Zxid::new(Epoch(1), counter);
        let header = TxnHeader { session: SESSION, cxid: Xid(0), zxid, time: WallTime(0) };
        let mut bytes = Vec::new();
        codec::encode(&header, txn, None, &mut bytes);
        say(member, link, PacketKind::Proposal, zxid, &bytes);
        say(member, link, PacketKind::Commit, zxid, &[]);
        assert_eq!(member.peer.replica().published().zxid(), zxid);
    }
}

/// One of its clients wants a new session, and one that which there is.
fn ask_for_sessions(member: &mut Member) {
    let orders = [(1, SessionId::NONE), (2, SESSION)].map(|(slot, session)| {
        let connection = ConnectionId { core: CoreId(0), slot, generation: 1 };
        Order::Connect(Connect { connection, session, genuine: true, timeout_ms: TIMEOUT_MS })
    });
    member.submit(orders.into());
}
