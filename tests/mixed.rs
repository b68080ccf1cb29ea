//! What a ZooKeeper at the other end of a link does, and a ringkeeper does not: puppets play its
//! part. Where a leader is slow or a follower is, they play that too.

use engine::error_code::ErrorCode;
use engine::ids::{SessionId, Xid};
use engine::jute::Writer;
use engine::op::OpCode;
use engine::time::WallTime;
use engine::tree;
use engine::txn::{Txn, TxnError, TxnHeader, codec};
use engine::txnlog::format::{FRAME_HEADER_BYTES, FRAMES_START, TXN_LENGTH_BYTES};
use engine::zab::packet::Packet;
use engine::zab::packet::PacketKind::{Ack, AckEpoch, Commit, Diff, LeaderInfo, NewLeader};
use engine::zab::packet::PacketKind::{Ping, Proposal, Request, UpToDate};
use engine::zxid::{Epoch, Zxid};
use tests::sim::ensemble::store::{GROUP_BYTES, SEGMENT_BYTES};
use tests::sim::script::{A, B, C, Client, D, Ensemble, Kind, Settings, create_body};

/// A transaction that has a segment of the log to itself.
const TXN_BYTES_MAX: usize =
    SEGMENT_BYTES as usize - FRAMES_START as usize - FRAME_HEADER_BYTES - TXN_LENGTH_BYTES;

const NEW_LEADER: Zxid = Zxid::new(Epoch(1), 0);

/// A refused request, with a digest that no tree has.
fn error_txn(zxid: Zxid) -> Vec<u8> {
    let header = TxnHeader { session: SessionId::NONE, cxid: Xid(0), zxid, time: WallTime(0) };
    let mut txn = Vec::new();
    codec::encode(&header, &Txn::Error(TxnError(-101)), Some(1), &mut txn);
    txn
}

/// C leads A; the puppet B has been sent NEWLEADER.
fn b_is_synchronized() -> (Ensemble, Client, usize) {
    b_is_synchronized_in(Settings::of(3))
}

fn b_is_synchronized_in(settings: Settings) -> (Ensemble, Client, usize) {
    let mut e = Ensemble::with(settings).stand();
    let client = e.connect(C);
    e.write(client, "/x");
    e.crash(B);
    e.make_puppet(B);
    e.forget_packets();
    let link = synchronize_b(&mut e);
    (e, client, link)
}

fn synchronize_b(e: &mut Ensemble) -> usize {
    let last = e.committed(C);
    let link = e.puppet_follows(B, C, Epoch(1));
    e.run_until("it is told the epoch", |e| !e.sent(C, B, LeaderInfo).is_empty());
    e.puppet_acks_epoch(link, Epoch(1), last);
    e.run_until("it is synchronized", |e| !e.sent(C, B, NewLeader).is_empty());
    link
}

fn acknowledge_leader(e: &mut Ensemble, link: usize) {
    e.puppet_acks(link, NEW_LEADER);
    e.run_until("it is up to date", |e| !e.sent(C, B, UpToDate).is_empty());
}

#[test]
fn pings_that_a_learner_lets_pass_hold_up_no_sync() {
    // Compat: Learner.syncWithLeader - a PING in front of UPTODATE is not answered.
    let (mut e, client, link) = b_is_synchronized();
    e.run_ms(1_000);
    let mut answered = e.sent(C, B, Ping).len();
    acknowledge_leader(&mut e, link);
    e.crash(A);
    let (sync, began) = (e.sync(client), e.ms());
    while e.answer(client, sync).is_none() {
        assert!(e.ms() < began + 20, "a sync is a round trip");
        e.run_ms(1);
        answered = e.puppet_answers_pings((B, C), link, answered);
    }
    e.all_agree();
}

#[test]
fn an_ack_of_a_proposal_is_none_of_newleader() {
    // 4685: followers of 3.9.0 may acknowledge what is proposed before they do NEWLEADER.
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    e.crash(B);
    e.make_puppet(B);
    e.hold_log(A);
    let (before, y) = (e.log_end(C), e.create(client, "/y"));
    e.run_until("C logs it", |e| e.log_end(C) > before);
    let y_zxid = e.log_end(C);
    e.forget_packets();
    let link = synchronize_b(&mut e);
    e.puppet_acks(link, y_zxid);
    e.run_ms(5);
    assert!(e.sent(C, B, UpToDate).is_empty());
    assert_eq!(e.answer(client, y), None);
    acknowledge_leader(&mut e, link);
    e.run_until("it is committed", |e| e.answer(client, y) == Some(0));
    e.all_agree();
}

/// Writes go on, and the puppet B acknowledges each later than the one before, up to so much;
/// whether its link is closed.
fn is_given_up_if_it_lags(most_ms: u64) -> bool {
    let (mut e, client, link) = b_is_synchronized();
    let mut answered = e.sent(C, B, Ping).len();
    acknowledge_leader(&mut e, link);
    let (mut proposed, mut acked) = (Vec::new(), 0);
    for round in 0..400 {
        if round % 5 == 0 {
            e.create(client, &format!("/lag{round}"));
        }
        e.run_ms(10);
        if !e.sent(C, B, Kind::Closed).is_empty() {
            e.all_agree();
            return true;
        }
        answered = e.puppet_answers_pings((B, C), link, answered);
        let sent = e.sent(C, B, Proposal);
        for (number, zxid) in (1_u64..).zip(sent).skip(proposed.len()) {
            proposed.push((e.ms() + most_ms.min(100 * number), zxid));
        }
        while let Some((_, zxid)) = proposed.get(acked).filter(|(due, _)| *due <= e.ms()) {
            e.puppet_acks(link, *zxid);
            acked += 1;
        }
    }
    assert!(acked > 0);
    false
}

#[test]
fn a_follower_that_lags_is_given_up_though_it_acknowledges_all_the_time() {
    // Compat: LearnerHandler.SyncLimitCheck. It is one second here.
    assert!(is_given_up_if_it_lags(1_300));
    assert!(!is_given_up_if_it_lags(700));
}

#[test]
fn a_tree_is_followed_by_all_that_it_lacks_where_the_leaders_disk_lags() {
    let settings = Settings { observers: 1, history_bytes: 0, ..Settings::of(4) };
    let mut e = Ensemble::with(settings);
    [A, B, C].into_iter().for_each(|server| e.start(server));
    e.run_until("C leads", |e| e.leads(C) && e.stands());
    let client = e.connect(A);
    e.hold_log(C);
    // Large enough to go to the log by itself, though that is busy.
    let data = vec![0; GROUP_BYTES];
    for path in ["/x", "/y", "/z"] {
        let xid = e.create_with(client, path, &data);
        e.run_until("it is committed", |e| e.answer(client, xid) == Some(0));
    }
    e.start(D);
    e.run_until("D has all of it", |e| e.observes(D, C) && e.has(D, "/z"));
    assert!(!e.has(C, "/x"));
    e.all_agree();
}

#[test]
fn a_tree_may_be_ahead_of_its_zxid_and_proposals_behind_it() {
    // Compat: LearnerHandler.run - the zxid of SNAP is read when proposals are queued already, and
    // the tree is written while transactions are applied to it.
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    let begin = e.published(C);
    for path in ["/a", "/b", "/c"] {
        e.write(client, path);
    }
    let history = e.peer(C).replica().history();
    let txns: Vec<_> = history.behind(begin).map(|(zxid, txn)| (zxid, txn.to_vec())).collect();
    let ahead = e.peer(C).replica().published().clone();
    let [_, (b, _), (c, _)] = txns[..] else { panic!("{txns:?}") };
    for server in [A, B, C] {
        e.crash(server);
    }
    e.make_puppet(B);
    e.make_puppet(C);
    e.forget_packets();
    e.wipe(A);
    e.start(A);
    e.puppets_elect(C, B, A);
    e.puppet_proposes_epoch(C, Epoch(2));
    e.run_until("it promises", |e| !e.sent(A, C, AckEpoch).is_empty());
    e.puppet_sends_tree(C, b, &ahead);
    for (zxid, txn) in &txns {
        e.puppet_says(C, Proposal, *zxid, Some(txn));
        e.puppet_says(C, Commit, *zxid, None);
    }
    let new_leader = Zxid::new(Epoch(2), 0);
    e.puppet_says(C, NewLeader, new_leader, Some(b""));
    e.run_until("it acknowledges", |e| !e.sent(A, C, Ack).is_empty());
    assert_eq!(e.sent(A, C, Ack), [new_leader]);
    e.puppet_says(C, UpToDate, Zxid::ZERO, None);
    e.run_until("it follows", |e| e.follows(A, C) && e.published(A) == c);
    assert_eq!(e.digest(A), tree::digest(&ahead));
    assert!(!e.peer(A).replica().digest_differs());
    // From here on each transaction says what the tree must be.
    let zxid = Zxid::new(Epoch(2), 1);
    e.puppet_says(C, Proposal, zxid, Some(&error_txn(zxid)));
    e.puppet_says(C, Commit, zxid, None);
    e.run_until("it is applied", |e| e.published(A) == zxid);
    assert!(e.peer(A).replica().digest_differs());
}

#[test]
fn a_learner_that_lies_costs_its_own_link_alone() {
    let (mut e, client, link) = b_is_synchronized();
    acknowledge_leader(&mut e, link);
    let closed = |e: &Ensemble| e.sent(C, B, Kind::Closed).len();
    // It acknowledges what nobody has proposed.
    e.puppet_acks(link, Zxid::new(Epoch(1), 1_000_000));
    e.run_until("its link is closed", |e| closed(e) == 1);
    // It has promised the last epoch that there can be, and then one of some years ahead.
    for epoch in [i32::MAX as u32, 1 << 25] {
        let before = closed(&e);
        e.puppet_follows(B, C, Epoch(epoch));
        e.run_until("its link is closed", |e| closed(e) > before);
    }
    // It says that it is the leader.
    let before = closed(&e);
    e.puppet_follows_as(C, B, C, Epoch(1));
    e.run_until("its link is closed", |e| closed(e) > before);
    e.write(client, "/y");
    assert_eq!(e.epochs(C).accepted, Epoch(1));
    e.all_agree();
    assert_eq!(e.epochs(C).accepted, Epoch(1), "nobody had to be elected");
}

#[test]
fn what_is_of_a_later_epoch_than_its_leader_is_not_taken() {
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    e.write(client, "/x");
    let tree = e.peer(C).replica().published().clone();
    for server in [A, B, C] {
        e.crash(server);
    }
    e.make_puppet(B);
    e.make_puppet(C);
    e.start(A);
    let closed = |e: &Ensemble| e.sent(A, C, Kind::Closed).len();
    let end = e.log_end(A);
    for epoch in [2, 3] {
        let (promised, before) = (e.sent(A, C, AckEpoch).len(), closed(&e));
        e.puppets_elect(C, B, A);
        e.puppet_proposes_epoch(C, Epoch(epoch));
        e.run_until("it promises", |e| e.sent(A, C, AckEpoch).len() > promised);
        if epoch == 2 {
            e.puppet_sends_tree(C, Zxid::new(Epoch(9), 1), &tree);
        } else {
            e.puppet_says(C, Diff, end, None);
            e.puppet_says(
                C,
                Proposal,
                Zxid::new(Epoch(9), 1),
                Some(&error_txn(Zxid::new(Epoch(9), 1))),
            );
        }
        e.run_until("it gives up", |e| closed(e) > before);
        assert_eq!(e.log_end(A), end);
    }
    // Nor is an epoch that its ensemble cannot have come to.
    let before = closed(&e);
    e.puppets_elect(C, B, A);
    e.puppet_proposes_epoch(C, Epoch(i32::MAX as u32));
    e.run_until("it gives up", |e| closed(e) > before);
    assert_eq!(e.epochs(A).accepted, Epoch(3));
    e.all_agree();
}

#[test]
fn a_request_that_is_too_long_for_its_leader_is_refused() {
    // Its server has a larger jute.maxbuffer. A leader of ZooKeeper's gives up the link.
    let mut e = Ensemble::led_by_c();
    let client = e.connect(A);
    let xid = e.create_with(client, "/long", &[0; SEGMENT_BYTES as usize]);
    e.run_until("it is answered", |e| e.answer(client, xid).is_some());
    assert_eq!(e.answer(client, xid), Some(ErrorCode::MarshallingError.to_wire()));
    e.write(client, "/short");
    assert!(e.leads(C) && !e.has(C, "/long"));
    e.all_agree();
}

/// The puppet C leads A, which is up to date, and whose log is busy.
fn a_follows_a_puppet() -> Ensemble {
    let mut e = Ensemble::of(3);
    e.make_puppet(B);
    e.make_puppet(C);
    e.start(A);
    e.puppets_elect(C, B, A);
    e.puppet_proposes_epoch(C, Epoch(2));
    e.run_until("it promises", |e| !e.sent(A, C, AckEpoch).is_empty());
    e.puppet_says(C, Diff, Zxid::ZERO, None);
    e.puppet_says(C, NewLeader, Zxid::new(Epoch(2), 0), Some(b""));
    e.run_until("it acknowledges", |e| !e.sent(A, C, Ack).is_empty());
    e.puppet_says(C, UpToDate, Zxid::ZERO, None);
    e.run_until("it follows", |e| e.follows(A, C));
    e.hold_log(A);
    e
}

/// The puppet C proposes a transaction of so many bytes.
fn propose(e: &mut Ensemble, counter: u32, bytes: usize) {
    let zxid = Zxid::new(Epoch(2), counter);
    let header = TxnHeader { session: SessionId::NONE, cxid: Xid(0), zxid, time: WallTime(0) };
    let encode = |data: &[u8]| {
        let (path, data) = (format!("/{counter}").into(), Some(data.into()));
        let mut txn = Vec::new();
        let set = Txn::SetData { path, data, version: 1, reconfig: false };
        codec::encode(&header, &set, None, &mut txn);
        txn
    };
    let txn = encode(&vec![0; bytes - encode(&[]).len()]);
    e.puppet_says(C, Proposal, zxid, Some(&txn));
}

#[test]
fn proposals_go_to_the_log_in_groups_for_which_it_has_room() {
    let mut e = a_follows_a_puppet();
    for (counter, bytes) in (1..).zip([100, 100, TXN_BYTES_MAX, TXN_BYTES_MAX - 104, 100, 100]) {
        propose(&mut e, counter, bytes);
    }
    e.run_ms(5);
    e.release_disk(A);
    let last = Zxid::new(Epoch(2), 6);
    e.run_until("it has all of them", |e| e.sent(A, C, Ack).last() == Some(&last));
}

#[test]
fn a_leader_whose_proposal_is_too_long_is_given_up() {
    let mut e = a_follows_a_puppet();
    propose(&mut e, 1, TXN_BYTES_MAX + 1);
    e.run_until("it is given up", |e| !e.sent(A, C, Kind::Closed).is_empty());
}

/// Has the follower B ask C to create a znode for a session that C does not know; whether it is
/// there then.
fn is_created(local_sessions: bool, server: i64, flags: i32) -> bool {
    let settings = Settings { local_sessions, ..Settings::of(3) };
    let (mut e, client, link) = b_is_synchronized_in(settings);
    acknowledge_leader(&mut e, link);
    let mut data = Vec::new();
    let mut writer = Writer::new(&mut data);
    writer.i64(server << 56 | 1);
    writer.i32(1);
    writer.i32(OpCode::Create.to_wire());
    data.extend(create_body("/local", b"", flags));
    e.puppet_says_as_learner(link, &Packet { kind: Request, zxid: -1, data, ids: vec![] });
    e.write(client, "/later");
    e.all_agree();
    e.has(C, "/local")
}

#[test]
fn a_session_that_only_its_server_knows_may_write_where_there_are_such_sessions() {
    let [of_b, of_c] = [2, 3];
    assert!(is_created(true, of_b, 0));
    assert!(!is_created(false, of_b, 0), "sessions are global, so it has expired");
    assert!(!is_created(true, of_c, 0), "the leader knows its own");
    assert!(!is_created(true, of_b, 1), "nobody would delete the ephemeral znode");
}
