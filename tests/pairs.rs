//! Every packet in every step of whoever is at the learner port: what is done about it is decided,
//! and written down here. Puppets bring a production server to the step, and send it the packet.
//!
//! ```text
//!   >  it goes on to the next step        a  it answers
//!   t  it logs it, or commits by it       .  it lets it pass
//!   x  it gives the link up
//! ```
//!
//! Whoever is not said to have given up is brought from the same step to the end as if nothing had
//! come; whoever gives up a leader follows the next one, and whoever gives up a learner goes on
//! leading the others.
//!
//! ZooKeeper differs where nobody sends such a packet. Its learner lets it pass while it
//! synchronizes, and so do its follower, observer and leader when they are up to date; here the
//! link is given up: what such a peer means is not known, and a new link begins with what is.
//! Before that, ZooKeeper gives up, too, or exits. But it knows leaders from before 3.4, which send
//! NEWLEADER in LEADERINFO's place and then UPTODATE.
//!
// Compat: Learner.registerWithLeader, syncWithLeader; Follower.processPacket,
// Observer.processPacket; LearnerHandler.run

use std::fmt::Write;

use engine::ids::{ServerId, SessionId, Xid};
use engine::jute::Writer;
use engine::op::OpCode;
use engine::time::WallTime;
use engine::txn::{Txn, TxnError, TxnHeader, codec};
use engine::zab::packet::PacketKind::{self, *};
use engine::zab::packet::{LearnerInfo, PROTOCOL_VERSION, Packet, push_session};
use engine::zxid::{Epoch, Zxid};
use tests::sim::script::{A, B, C, D, E, Ensemble, Kind, Settings};

const KINDS: [PacketKind; 19] = [
    Request,
    Proposal,
    Ack,
    Commit,
    Ping,
    Revalidate,
    Sync,
    Inform,
    CommitAndActivate,
    NewLeader,
    FollowerInfo,
    UpToDate,
    Diff,
    Trunc,
    Snap,
    ObserverInfo,
    LeaderInfo,
    AckEpoch,
    InformAndActivate,
];

/// How a learner is brought up to date, and where it waits for its disk meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Learning {
    Registering,
    Accepting,
    Acknowledged,
    Truncating,
    Receiving,
    Replacing,
    Synchronizing,
    Logging,
    Adopting,
    Waiting,
    Active,
}

/// How far a leader has brought a learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leading {
    Introducing,
    Introduced,
    AckingEpoch,
    Waiting,
    Reading,
    AckingLeader,
    Synchronized,
    Active,
}

fn txn(zxid: Zxid) -> Vec<u8> {
    let header = TxnHeader { session: SessionId::NONE, cxid: Xid(0), zxid, time: WallTime(0) };
    let mut txn = Vec::new();
    codec::encode(&header, &Txn::Error(TxnError(-101)), None, &mut txn);
    txn
}

/// A packet as it could come from who leads `epoch`, or follows there, after `last`.
fn packet(kind: PacketKind, epoch: Epoch, last: Zxid, of_leader: bool) -> Packet {
    let begin = Zxid::new(epoch, 0);
    let next = if last < begin { Zxid::new(epoch, 1) } else { Zxid(last.0 + 1) };
    let mut data = Vec::new();
    let zxid = match kind {
        Commit | CommitAndActivate | Ping | Diff | Trunc | Snap | AckEpoch => last,
        Proposal | Inform | InformAndActivate => next,
        Request | Revalidate | Sync | UpToDate => Zxid(u64::MAX),
        Ack | NewLeader | LeaderInfo => begin,
        FollowerInfo | ObserverInfo => Zxid::ZERO,
    };
    match kind {
        Proposal | Inform => data = txn(next),
        InformAndActivate => data = [&[0; 8], &txn(next)[..]].concat(),
        CommitAndActivate => data = vec![0; 8],
        Revalidate if of_leader => data = vec![0; 9],
        Revalidate => push_session(SessionId(7), 8_000, &mut data),
        Request => {
            let mut writer = Writer::new(&mut data);
            writer.i64(7);
            writer.i32(1);
            writer.i32(OpCode::Delete.to_wire());
            writer.string("/nowhere");
            writer.i32(-1);
        }
        FollowerInfo | ObserverInfo => {
            let server = ServerId(A as i64 + 1);
            let info = LearnerInfo { server, protocol: PROTOCOL_VERSION, config_version: 0 };
            let mut bytes = Vec::new();
            info.write(kind, Epoch(0), &mut bytes);
            data = bytes[16..36].to_vec();
        }
        LeaderInfo => data = PROTOCOL_VERSION.to_be_bytes().to_vec(),
        AckEpoch => data = vec![0; 4],
        Ack | Commit | Ping | Sync | NewLeader | UpToDate | Diff | Trunc | Snap => {}
    }
    Packet { kind, zxid: zxid.0.cast_signed(), data, ids: Vec::new() }
}

/// A line of a table: a step, and what comes of each packet.
fn line(step: impl std::fmt::Debug, outcomes: &str) -> String {
    let mut line = format!("{:<14}", format!("{step:?}"));
    outcomes.chars().for_each(|outcome| write!(line, "  {outcome}").unwrap());
    line + "\n"
}

/// Two tables are the same.
#[track_caller]
fn compare(found: &str, expected: &str) {
    assert!(expected.lines().skip(2).eq(found.lines()), "found:\n{found}");
}

/// A, a follower or an observer, has some history, and is among puppets.
fn a_among_puppets(observes: bool) -> Ensemble {
    let servers = if observes { 4 } else { 3 };
    let settings = Settings { first_observes: observes, ..Settings::of(servers) };
    let mut e = Ensemble::with(settings).stand();
    let leader = e.leader().expect("it stands");
    let client = e.connect(leader);
    e.write(client, "/x");
    let end = e.published(leader);
    e.run_until("A has it", |e| e.log_end(A) == end);
    (0..servers).for_each(|server| e.crash(server));
    e.make_puppet(B);
    e.make_puppet(C);
    e.start(A);
    e
}

/// The puppet C, which leads, says this.
fn lead(e: &mut Ensemble, epoch: Epoch, kind: PacketKind) {
    let last = e.peer(A).replica().last_received();
    e.puppet_says_as_leader(C, &packet(kind, epoch, last, true));
}

/// The puppet C brings A from one step to another. False if A gives it up.
fn guide(e: &mut Ensemble, epoch: Epoch, from: Learning, to: Learning) -> bool {
    use Learning::*;
    let steps = [
        (Registering, LeaderInfo, Some(AckEpoch)),
        (Acknowledged, Diff, None),
        (Synchronizing, NewLeader, Some(Ack)),
        (Waiting, UpToDate, Some(Ack)),
    ];
    let closed = e.sent(A, C, Kind::Closed).len();
    let (begin, end) = (from as usize, to as usize);
    for (_, kind, answer) in
        steps.into_iter().filter(|(step, ..)| (begin..end).contains(&(*step as usize)))
    {
        let before = e.said(A, C).len();
        lead(e, epoch, kind);
        e.run_ms(5);
        for _ in 0..1_000 {
            if e.sent(A, C, Kind::Closed).len() > closed {
                return false;
            }
            if answer.is_none_or(|kind| e.said(A, C)[before..].contains(&kind)) {
                break;
            }
            e.run_ms(5);
        }
    }
    true
}

/// A is in this step of following the puppet C.
fn learner_at(step: Learning, epoch: Epoch, observes: bool) -> Ensemble {
    use Learning::*;
    let mut e = a_among_puppets(observes);
    e.puppets_elect(C, B, A);
    let ready = match step {
        Accepting => Registering,
        Truncating | Receiving | Replacing => Acknowledged,
        Logging | Adopting => Synchronizing,
        step => step,
    };
    assert!(guide(&mut e, epoch, Registering, ready), "{step:?}");
    match step {
        Logging => {
            e.hold_log(A);
            lead(&mut e, epoch, Proposal);
            e.run_ms(1);
            lead(&mut e, epoch, Commit);
        }
        _ if step != ready && step != Receiving => e.hold_data(A),
        _ => {}
    }
    match step {
        Accepting => lead(&mut e, epoch, LeaderInfo),
        Truncating => lead(&mut e, epoch, Trunc),
        Receiving => lead(&mut e, epoch, Snap),
        Replacing => {
            let (zxid, tree) = (e.log_end(A), e.peer(A).replica().published().clone());
            e.puppet_sends_tree(C, zxid, &tree);
        }
        Logging | Adopting => lead(&mut e, epoch, NewLeader),
        _ => {}
    }
    e.run_ms(5);
    e.forget_packets();
    e
}

/// What a learner in some step makes of a packet.
fn learner_outcome(step: Learning, kind: PacketKind, observes: bool) -> char {
    use Learning::*;
    let epoch = Epoch(9);
    let mut e = learner_at(step, epoch, observes);
    let known = |e: &Ensemble| (e.log_end(A), e.committed(A), e.peer(A).replica().last_received());
    let waits = match step {
        Accepting => Some((Acknowledged, &[AckEpoch][..])),
        Truncating | Replacing => Some((Synchronizing, &[][..])),
        Logging | Adopting => Some((Waiting, &[Ack][..])),
        _ => None,
    };
    let mut before = known(&e);
    let last = before.2;
    e.puppet_says_as_leader(C, &packet(kind, epoch, last, true));
    e.run_ms(5);
    if waits.is_some() {
        let quiet = e.said(A, C).is_empty() && e.sent(A, C, Kind::Closed).is_empty();
        assert!(quiet && known(&e) == before, "{step:?} does not wait with {kind:?}");
        before.0 = before.2;
        e.release_disk(A);
        e.run_ms(5);
    }
    if step == Receiving {
        // It is taken for the beginning of a tree.
        let tree = e.peer(A).replica().published().clone();
        e.puppet_sends_tree(C, last, &tree);
        e.run_until("it gives up", |e| !e.sent(A, C, Kind::Closed).is_empty());
    }
    let (step, own) = waits.unwrap_or((step, &[]));
    let said = e.said(A, C);
    let said = said.strip_prefix(own).expect("it goes on, and then takes what has come");
    let outcome = if !e.sent(A, C, Kind::Closed).is_empty() {
        'x'
    } else if matches!(said, [AckEpoch]) || kind != Proposal && matches!(said, [Ack]) {
        '>'
    } else if !said.is_empty() {
        'a'
    } else if known(&e) != before {
        't'
    } else {
        '.'
    };
    let outcome = match outcome {
        '.' | 't' | 'a' if !guide(&mut e, epoch, step, Active) => '>',
        outcome => outcome,
    };
    if e.follows(A, C) || e.observes(A, C) {
        return outcome;
    }
    if outcome == '>' && e.sent(A, C, Kind::Closed).is_empty() {
        return outcome;
    }
    // It comes back, and follows who keeps to the protocol.
    e.forget_packets();
    e.puppets_elect(C, B, A);
    assert!(guide(&mut e, Epoch(10), Registering, Active), "{step:?} {kind:?}");
    e.run_until("it is up to date", |e| e.follows(A, C) || e.observes(A, C));
    outcome
}

fn learner_table(observes: bool) -> String {
    use Learning::*;
    let row = |step| KINDS.map(|kind| learner_outcome(step, kind, observes));
    let text = |row: [char; 19]| row.iter().collect::<String>();
    let steps = [Registering, Acknowledged, Receiving, Synchronizing, Waiting, Active];
    let mut table = String::new();
    for step in steps {
        let found = row(step);
        // Whatever comes while the disk is busy is taken when it is done.
        let busy: &[_] = match step {
            Acknowledged => &[Accepting],
            Synchronizing => &[Truncating, Replacing],
            Waiting => &[Logging, Adopting],
            _ => &[],
        };
        for busy in busy {
            assert_eq!(text(row(*busy)), text(found), "{busy:?}");
        }
        table += &line(step, &text(found));
    }
    table
}

/// COMMIT is of what it has. SYNC and REVALIDATE answer what nobody has asked: ZooKeeper warns of
/// that, too. In a tree's place, a packet is the beginning of a broken tree. INFORM is taken as by
/// ZooKeeper's learner while it synchronizes; its follower lets it pass later.
const FOLLOWER: &str = "
                Rq Pr Ak Co Pi Rv Sy In CA NL FI UD Df Tr Sn OI LI AE IA
Registering     x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  >  x  x
Acknowledged    x  x  x  x  x  x  x  x  x  x  x  x  >  >  >  x  x  x  x
Receiving       x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x
Synchronizing   x  t  x  .  .  .  .  t  .  >  x  x  x  x  x  x  x  x  t
Waiting         x  a  x  .  .  .  .  t  .  x  x  >  x  x  x  x  x  x  t
Active          x  a  x  .  a  .  .  t  .  x  x  x  x  x  x  x  x  x  t
";

/// As a follower, without ACKs of proposals; those, and commits, ZooKeeper's observer lets pass
/// when it is up to date. No leader sends any.
const OBSERVER: &str = "
                Rq Pr Ak Co Pi Rv Sy In CA NL FI UD Df Tr Sn OI LI AE IA
Registering     x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  >  x  x
Acknowledged    x  x  x  x  x  x  x  x  x  x  x  x  >  >  >  x  x  x  x
Receiving       x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x
Synchronizing   x  t  x  .  .  .  .  t  .  >  x  x  x  x  x  x  x  x  t
Waiting         x  t  x  .  .  .  .  t  .  x  x  >  x  x  x  x  x  x  t
Active          x  t  x  .  a  .  .  t  .  x  x  x  x  x  x  x  x  x  t
";

/// The same for followers and observers. PING answers that of a leader, who sends none before the
/// ACK of NEWLEADER; REQUEST and REVALIDATE wait for UPTODATE in learners of both kinds.
const LEADER: &str = "
                Rq Pr Ak Co Pi Rv Sy In CA NL FI UD Df Tr Sn OI LI AE IA
Introducing     x  x  x  x  x  x  x  x  x  x  >  x  x  x  x  >  x  x  x
Introduced      x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x
AckingEpoch     x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  >  x
Waiting         x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x
Reading         x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x
AckingLeader    x  x  >  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x  x
Synchronized    x  x  .  x  .  x  x  x  x  x  x  x  x  x  x  x  x  x  x
Active          a  x  .  x  .  a  x  x  x  x  x  x  x  x  x  x  x  x  x
";

#[test]
fn a_follower_has_decided_about_every_packet_in_every_step() {
    compare(&learner_table(false), FOLLOWER);
}

#[test]
fn an_observer_has_decided_about_every_packet_in_every_step() {
    compare(&learner_table(true), OBSERVER);
}

/// The puppet A, which learns from E, says this.
fn learn(e: &mut Ensemble, link: usize, kind: PacketKind) {
    let last = e.peer(E).replica().last_logged();
    e.puppet_says_as_learner(link, &packet(kind, Epoch(1), last, false));
}

/// The puppet A goes from one step to another. False if E gives it up.
fn advance(
    e: &mut Ensemble,
    link: usize,
    way: (Leading, Leading),
    introduction: PacketKind,
) -> bool {
    use Leading::*;
    let steps = [
        (Introducing, Some(introduction), None),
        (Introduced, None, Some(LeaderInfo)),
        (AckingEpoch, Some(AckEpoch), None),
        (Waiting, None, Some(NewLeader)),
        (AckingLeader, Some(Ack), None),
        (Synchronized, None, Some(UpToDate)),
    ];
    let range = way.0 as usize..way.1 as usize;
    for (_, kind, needs) in steps.into_iter().filter(|it| range.contains(&(it.0 as usize))) {
        kind.into_iter().for_each(|kind| learn(e, link, kind));
        e.run_ms(5);
        if !e.sent(E, A, Kind::Closed).is_empty() {
            return false;
        }
        if needs.is_some_and(|kind| !e.said(E, A).contains(&kind)) {
            return false;
        }
    }
    true
}

/// E leads, or is about to, and is in this step with the puppet A; others wait as long as A must.
fn leader_at(step: Leading, introduction: PacketKind) -> (Ensemble, usize) {
    use Leading::*;
    let reads = step == Reading;
    let history_bytes = if reads { 0 } else { 1 << 20 };
    let mut e = Ensemble::with(Settings { history_bytes, asks_for_log: reads, ..Settings::of(5) });
    let held = match step {
        Introduced => Some(FollowerInfo),
        Waiting => Some(AckEpoch),
        Synchronized => Some(Ack),
        _ => None,
    };
    for server in [A, B, C, D] {
        held.iter().for_each(|kind| e.hold(server, E, *kind));
    }
    [A, B, C, D, E].into_iter().for_each(|server| e.start(server));
    match held {
        None => e.run_until("E leads", Ensemble::stands),
        Some(kind) => e.run_until("others wait", |e| {
            [A, B, C, D].iter().all(|server| !e.sent(*server, E, kind).is_empty())
        }),
    }
    e.crash(A);
    e.release(A, E);
    e.make_puppet(A);
    e.forget_packets();
    let link = e.puppet_opens(A, E);
    let ready = if reads { AckingEpoch } else { step };
    assert!(advance(&mut e, link, (Introducing, ready), introduction), "{step:?}");
    if reads {
        let client = e.connect(E);
        ["/a", "/b"].iter().for_each(|path| e.write(client, path));
        let first = Zxid::new(Epoch(1), 1);
        e.puppet_says_as_learner(link, &packet(AckEpoch, Epoch(1), first, false));
    }
    e.run_ms(5);
    (e, link)
}

/// What a leader makes of a packet of who is in some step.
fn leader_outcome(step: Leading, kind: PacketKind, introduction: PacketKind) -> char {
    let (mut e, link) = leader_at(step, introduction);
    let before = e.said(E, A).len();
    learn(&mut e, link, kind);
    e.run_ms(5);
    let said = e.said(E, A).split_off(before);
    let said: Vec<_> = said.into_iter().filter(|kind| *kind != Ping).collect();
    let next = |kind: &PacketKind| matches!(kind, LeaderInfo | NewLeader | UpToDate);
    let outcome = if !e.sent(E, A, Kind::Closed).is_empty() {
        'x'
    } else if said.iter().any(next) {
        '>'
    } else if said.is_empty() {
        '.'
    } else {
        'a'
    };
    for server in [B, C, D] {
        e.release(server, E);
    }
    e.run_until("E leads", Ensemble::stands);
    if outcome == '.' && step == Leading::Reading {
        assert_eq!(e.said(E, A), [LeaderInfo], "nobody reads for it");
    } else if outcome == '.' {
        assert!(advance(&mut e, link, (step, Leading::Active), introduction), "{step:?} {kind:?}");
    }
    let client = e.connect(E);
    e.write(client, "/y");
    assert!(e.leads(E) && e.epochs(E).current == Epoch(1), "nobody had to be elected");
    for server in [B, C, D] {
        assert!(e.sent(E, server, Kind::Closed).is_empty(), "{step:?} {kind:?}");
    }
    outcome
}

#[test]
fn a_leader_has_decided_about_every_packet_in_every_step() {
    use Leading::*;
    for introduction in [FollowerInfo, ObserverInfo] {
        let mut table = String::new();
        let prepared = [Introducing, Introduced, AckingEpoch, Waiting, Reading];
        for step in prepared.into_iter().chain([AckingLeader, Synchronized, Active]) {
            let outcomes = KINDS.iter().map(|kind| leader_outcome(step, *kind, introduction));
            table += &line(step, &outcomes.collect::<String>());
        }
        compare(&table, LEADER);
    }
}
