//! What the ZAB paper promises, as schedules on the production machines.
//!
//! Junqueira, Reed, Serafini: Zab: High-performance broadcast for primary-backup systems, DSN 2011.
//! The properties of its section III are looked at after every step of every script; see
//! `sim::script::checks`. The scripts bring about what could break them.

use engine::zab::packet::PacketKind::{Ack, AckEpoch, FollowerInfo, LeaderInfo, NewLeader};
use engine::zab::packet::PacketKind::{Proposal, Trunc, UpToDate};
use engine::zxid::{Epoch, Zxid};
use tests::sim::script::{A, B, C, Ensemble, Kind};

const ALL: [usize; 3] = [A, B, C];

fn zxid(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

fn others(server: usize) -> [usize; 2] {
    [(server + 1) % 3, (server + 2) % 3]
}

/// A runs alone; the others are puppets.
fn a_among_puppets() -> Ensemble {
    let mut e = Ensemble::of(3);
    e.make_puppet(B);
    e.make_puppet(C);
    e.start(A);
    e
}

/// The puppet C proposes epoch 5, A promises it, and starts again.
fn promise_epoch_5(e: &mut Ensemble) {
    e.puppets_elect(C, B, A);
    e.puppet_proposes_epoch(C, Epoch(5));
    e.run_until("it promises", |e| !e.sent(A, C, AckEpoch).is_empty());
    assert_eq!(e.epochs(A).accepted, Epoch(5), "on disk before it says so");
    e.crash(A);
    e.start(A);
}

/// All power is lost.
fn crash_all(e: &mut Ensemble) {
    ALL.into_iter()
        .filter(|server| e.runs(*server))
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|server| e.crash(server));
}

#[test]
fn a_new_leader_proposes_nothing_before_a_quorum_has_its_history() {
    // Section IV, phase 2: a leader goes on to phase 3 with a quorum of ACK-LD.
    let mut e = Ensemble::of(3);
    e.hold(A, C, Ack);
    e.hold(B, C, Ack);
    ALL.into_iter().for_each(|server| e.start(server));
    e.run_until("followers acknowledge", |e| !e.sent(B, C, Ack).is_empty());
    e.run_ms(300);
    assert_eq!(e.leader(), None);
    for follower in [A, B] {
        assert_eq!(e.sent(C, follower, NewLeader).len(), 1);
        assert!(e.sent(C, follower, Proposal).is_empty());
        assert!(e.sent(C, follower, UpToDate).is_empty());
    }
    e.release(A, C);
    e.run_until("there is a quorum", |e| e.leads(C));
    let client = e.connect(C);
    e.write(client, "/a");
    assert!(!e.follows(B, C), "its ACK of NEWLEADER is still on its way");
    e.all_agree();
}

#[test]
fn who_has_promised_an_epoch_follows_no_leader_of_an_older_one() {
    // Section IV, phase 1: a follower answers NEWEPOCH(e') if its promise is older than e'.
    let mut e = a_among_puppets();
    promise_epoch_5(&mut e);
    e.puppets_elect(C, B, A);
    assert_eq!(e.sent(A, C, FollowerInfo).last(), Some(&zxid(5, 0)));
    e.puppet_proposes_epoch(C, Epoch(4));
    e.run_ms(5);
    assert_eq!(e.sent(A, C, AckEpoch).len(), 1, "the older epoch gets none");
    assert_eq!(e.epochs(A).accepted, Epoch(5));
    assert!(!e.sent(A, C, Kind::Closed).is_empty());
}

#[test]
fn a_leader_that_cannot_be_followed_is_tried_less_and_less_often() {
    // A leading ZooKeeper does not step down for a voter that has promised a later epoch.
    let mut e = a_among_puppets();
    promise_epoch_5(&mut e);
    let mut took = Vec::new();
    for _ in 0..12 {
        let (began, before) = (e.ms(), e.sent(A, C, Kind::Closed).len());
        e.puppets_elect(C, B, A);
        e.puppet_proposes_epoch(C, Epoch(4));
        e.run_until("it gives up", |e| e.sent(A, C, Kind::Closed).len() > before);
        took.push(e.ms() - began);
    }
    assert!(took[..2].iter().all(|ms| *ms < 10), "{took:?}");
    assert!(took.is_sorted_by(|one, next| *one <= next + 5), "{took:?}");
    assert!((1_000..1_100).contains(&took[11]), "{took:?}");
}

#[test]
fn a_promise_is_on_disk_before_it_is_given() {
    // Section IV, phase 1: ACK-E follows the change of the last promise.
    let mut e = Ensemble::led_by_c();
    crash_all(&mut e);
    e.forget_packets();
    ALL.into_iter().for_each(|server| e.start(server));
    e.hold_data(A);
    e.hold_data(B);
    e.run_until("an epoch is proposed", |e| !e.delivered(C, B, LeaderInfo).is_empty());
    e.run_ms(300);
    for follower in [A, B] {
        assert!(e.sent(follower, C, AckEpoch).is_empty());
        assert!(e.sent(C, follower, NewLeader).is_empty());
    }
    e.all_agree();
}

#[test]
fn an_epoch_that_a_quorum_has_promised_is_not_proposed_again() {
    // Section IV, phase 1: e' is later than every e of a quorum of CEPOCH(e).
    let mut e = Ensemble::led_by_c();
    crash_all(&mut e);
    e.hold(A, C, AckEpoch);
    e.hold(B, C, AckEpoch);
    ALL.into_iter().for_each(|server| e.start(server));
    let promised = |e: &Ensemble| [A, B].iter().all(|at| e.epochs(*at).accepted == Epoch(2));
    e.run_until("followers promise", promised);
    crash_all(&mut e);
    e.start(A);
    e.start(B);
    e.run_until("there is a leader", |e| e.leads(B));
    assert_eq!(e.epochs(A).current, Epoch(3));
    e.all_agree();
}

#[test]
fn a_leader_does_not_lead_a_follower_that_has_a_later_history() {
    // Section IV, phase 1: a leader's history is the latest of a quorum; where the election has
    // chosen the leader, it must see to it that its own is.
    let mut e = Ensemble::led_by_c();
    crash_all(&mut e);
    e.make_puppet(A);
    e.hold(B, C, FollowerInfo);
    e.forget_packets();
    e.start(B);
    e.start(C);
    e.run_until("C is elected", |e| !e.sent(B, C, FollowerInfo).is_empty());
    let link = e.puppet_follows(A, C, Epoch(1));
    e.run_until("an epoch is proposed", |e| !e.sent(C, A, LeaderInfo).is_empty());
    e.puppet_acks_epoch(link, Epoch(1), zxid(1, 9));
    e.run_until("C gives it up", |e| !e.sent(C, A, Kind::Closed).is_empty());
    assert!(e.sent(C, A, NewLeader).is_empty() && e.sent(C, A, Trunc).is_empty());
    // More transactions, but of an earlier epoch: it follows.
    let link = e.puppet_follows(A, C, Epoch(2));
    e.run_until("the epoch is proposed", |e| e.sent(C, A, LeaderInfo).len() == 2);
    e.puppet_acks_epoch(link, Epoch(0), zxid(0, 9));
    e.run_until("C brings it up to date", |e| !e.sent(C, A, NewLeader).is_empty());
    e.all_agree();
}

#[test]
fn what_was_acknowledged_survives_whichever_quorum_comes_back() {
    // Section III, agreement; claim: quorums intersect.
    for late in [A, B] {
        for missing in ALL {
            let mut e = Ensemble::led_by_c();
            let client = e.connect(C);
            e.write(client, "/before");
            e.hold(C, late, Proposal);
            e.write(client, "/x");
            crash_all(&mut e);
            e.release(C, late);
            for server in others(missing) {
                e.start(server);
            }
            e.run_until("there is a leader", |e| e.leader().is_some() && e.stands());
            for server in others(missing) {
                e.run_until("it has it", |e| e.has(server, "/x"));
            }
            e.all_agree();
        }
    }
}

#[test]
fn what_no_quorum_has_may_go_or_stay_but_is_the_same_everywhere() {
    // Section III, agreement and total order.
    for missing in ALL {
        let mut e = Ensemble::led_by_c();
        let client = e.connect(C);
        e.write(client, "/before");
        let before = e.log_end(C);
        e.hold(C, A, Proposal);
        e.hold(C, B, Proposal);
        e.create(client, "/x");
        e.run_until("the leader logs it", |e| e.log_end(C) > before);
        crash_all(&mut e);
        for server in others(missing) {
            e.release(C, A);
            e.release(C, B);
            e.start(server);
        }
        e.run_until("there is a leader", |e| e.leader().is_some() && e.stands());
        e.all_agree();
        for server in ALL {
            assert_eq!(e.has(server, "/x"), missing != C, "server {}", server + 1);
        }
    }
}

#[test]
fn what_a_leader_broadcasts_is_delivered_in_that_order_and_without_gaps() {
    // Section III, local primary order; a link breaks behind each of the proposals.
    for after in 1..14 {
        let mut e = Ensemble::led_by_c();
        let (near, far) = (e.connect(C), e.connect(A));
        e.forget_packets();
        for number in 0..6 {
            e.create(near, &format!("/near{number}"));
            e.create(far, &format!("/far{number}"));
        }
        e.hold(C, A, UpToDate);
        let enough = |e: &Ensemble| e.delivered(C, B, Proposal).len() >= after.min(12);
        e.run_until("proposals arrive", enough);
        e.break_links(B, C);
        if after % 2 == 0 {
            e.break_links(A, C);
        }
        e.all_agree();
    }
}

#[test]
fn who_broadcasts_in_an_epoch_has_all_that_is_delivered_of_earlier_ones() {
    // Section III, global primary order and primary integrity: leaders come and go, and each
    // leaves a transaction that it alone has, or of which it has not heard that a follower has it.
    let mut e = Ensemble::led_by_c();
    for round in 0..8 {
        let leader = e.leader().unwrap();
        let [one, other] = others(leader);
        let client = e.connect(leader);
        e.write(client, &format!("/w{round}"));
        let before = e.log_end(leader);
        e.hold(leader, one, Proposal);
        if round % 2 == 0 {
            e.hold(leader, other, Proposal);
        } else {
            e.hold(other, leader, Ack);
        }
        e.create(client, &format!("/u{round}"));
        e.run_until("the leader logs it", |e| e.log_end(leader) > before);
        e.run_ms(1);
        e.crash(leader);
        [one, other].into_iter().for_each(|server| e.release(leader, server));
        e.release(other, leader);
        e.run_until("another leads", |e| e.leader().is_some_and(|new| new != leader));
        let client = e.connect(e.leader().unwrap());
        e.write(client, &format!("/v{round}"));
        e.start(leader);
        e.run_until("all follow it", Ensemble::stands);
    }
    e.all_agree();
}

#[test]
fn who_joins_while_transactions_are_committed_misses_none() {
    // zookeeper-specifications/protocol-spec/issues.md, issues 1 and 3: proposals go to everybody
    // who was sent NEWLEADER, and UPTODATE stands for all commits until then.
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    e.crash(B);
    e.write(client, "/1");
    e.forget_packets();
    e.hold(B, C, Ack);
    e.start(B);
    e.run_until("it has the history", |e| !e.sent(B, C, Ack).is_empty());
    e.write(client, "/2");
    e.write(client, "/3");
    assert!(!e.follows(B, C));
    e.release(B, C);
    e.run_until("it follows", |e| e.follows(B, C) && e.published(B) == e.published(C));
    assert!(e.has(B, "/3"));
    e.all_agree();
}

#[test]
fn who_joins_between_a_proposal_and_its_commit_gets_it_once() {
    // zookeeper-specifications/protocol-spec/issues.md, issue 2.
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    e.crash(B);
    let before = e.log_end(C);
    e.hold(C, A, Proposal);
    let xid = e.create(client, "/x");
    e.run_until("it is proposed", |e| e.log_end(C) > before);
    let proposed = e.log_end(C);
    e.forget_packets();
    e.start(B);
    e.run_until("two have it", |e| e.answer(client, xid) == Some(0));
    let times = e.sent(C, B, Proposal).into_iter().filter(|sent| *sent == proposed).count();
    assert_eq!(times, 1);
    e.all_agree();
}
