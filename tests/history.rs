//! Failures of ZooKeeper's that lost data or let servers differ, as schedules on our machines.
//!
//! Each test names the report at <https://issues.apache.org/jira/browse/ZOOKEEPER-1234>, with the
//! number in place of 1234. In every script, C leads the first epoch.

use engine::zab::packet::PacketKind::{Ack, Commit, Diff, LeaderInfo, NewLeader, Proposal};
use engine::zab::packet::PacketKind::{Request, Snap, Trunc, UpToDate};
use engine::zxid::{Epoch, Zxid};
use tests::sim::script::{A, B, C, D, E, Ensemble, Kind, Settings};

/// C leads, and alone has logged `/x` when the others lose it.
fn left_with_x(settings: Settings) -> Ensemble {
    let mut e = Ensemble::with(settings).stand();
    let client = e.connect(C);
    e.write(client, "/before");
    let before = e.log_end(C);
    e.hold(C, A, Proposal);
    e.hold(C, B, Proposal);
    e.create(client, "/x");
    e.run_until("C logs it", |e| e.log_end(C) > before);
    e.cut(A, C);
    e.cut(B, C);
    e.release(C, A);
    e.release(C, B);
    e
}

fn heal_c(e: &mut Ensemble) {
    e.heal(A, C);
    e.heal(B, C);
}

/// A and B go on without C.
fn go_on_without_c(e: &mut Ensemble) {
    e.run_until("B leads", |e| e.leads(B) && e.follows(A, B));
    let client = e.connect(B);
    e.write(client, "/y");
}

fn nobody_has(e: &Ensemble, path: &str) {
    for server in [A, B, C] {
        assert!(!e.has(server, path), "server {}", server + 1);
    }
}

/// C leads, A has crashed, and B has, like C, what A lacks.
fn a_lags(settings: Settings) -> Ensemble {
    let mut e = Ensemble::with(settings).stand();
    let client = e.connect(C);
    e.write(client, "/before");
    e.crash(A);
    for number in 0..3 {
        e.write(client, &format!("/x{number}"));
    }
    e.forget_packets();
    e
}

#[test]
fn a_lost_leader_that_comes_back_without_a_restart_has_what_it_will_have_after_one() {
    // 2845: a leader kept its state in memory, without its last proposal, and its log, with it.
    let mut e = left_with_x(Settings::of(3));
    go_on_without_c(&mut e);
    heal_c(&mut e);
    e.run_until("C follows", |e| e.follows(C, B) && e.has(C, "/y"));
    assert!(!e.has(C, "/x"));
    e.crash_with_all_written(C);
    e.start(C);
    e.all_agree();
    nobody_has(&e, "/x");
}

#[test]
fn nobody_serves_what_only_the_new_leader_has_on_disk() {
    // 3911, 4646: followers acknowledged NEWLEADER before the history was on their disks.
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    let before = e.log_end(B);
    e.hold_log(C);
    e.hold(C, A, Proposal);
    e.create(client, "/x");
    e.run_until("B has it", |e| e.log_end(B) > before);
    e.hold_log(A);
    e.crash(C);
    e.release(C, A);
    e.run_until("A gets it", |e| !e.delivered(B, A, NewLeader).is_empty());
    e.run_ms(500);
    assert!(e.sent(A, B, Ack).is_empty());
    assert_eq!(e.leader(), None);
    e.release_disk(A);
    e.run_until("B leads", |e| e.leads(B) && e.follows(A, B));
    e.crash(A);
    e.crash(B);
    e.start(A);
    e.start(C);
    e.run_until("A and C go on", Ensemble::stands);
    assert!(e.has(A, "/x") && e.has(C, "/x"));
    e.all_agree();
}

#[test]
fn a_follower_takes_over_an_epoch_when_it_has_its_history_on_disk() {
    // 4643: the current epoch was written first, so that a server with a later epoch and a shorter
    // log won the next election.
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    e.hold(C, A, Proposal);
    e.write(client, "/x");
    e.hold_log(A);
    e.crash(C);
    e.release(C, A);
    e.run_until("A gets it", |e| !e.delivered(B, A, NewLeader).is_empty());
    e.run_ms(50);
    assert_eq!(e.epochs(A).accepted, Epoch(2));
    assert_eq!(e.epochs(A).current, Epoch(1));
    e.crash(A);
    e.crash(B);
    e.start(A);
    e.start(C);
    e.run_until("A and C go on", Ensemble::stands);
    assert!(e.has(A, "/x") && e.has(C, "/x"));
    e.all_agree();
}

#[test]
fn the_ack_of_newleader_is_none_of_what_is_proposed_around_it() {
    // 4785, 3023: transactions of the synchronization that were not on disk were taken as such.
    // 4685: the ACK of such a transaction came before that of NEWLEADER.
    let mut e = a_lags(Settings::of(3));
    let client = e.connect(C);
    e.hold_log(B);
    let y = e.create(client, "/y");
    e.run_until("B gets it", |e| e.waits_for_disk(B).0);
    e.start(A);
    e.hold_log(A);
    e.run_until("A gets it", |e| !e.delivered(C, A, NewLeader).is_empty());
    e.run_ms(300);
    assert!(e.sent(A, C, Ack).is_empty());
    assert_eq!(e.answer(client, y), None);
    // From here on A has what came before NEWLEADER, and not what comes behind it.
    e.hold(A, C, Ack);
    e.release_disk(A);
    e.run_until("A acknowledges", |e| !e.sent(A, C, Ack).is_empty());
    assert_eq!(e.sent(A, C, Ack)[0], Zxid::new(Epoch(1), 0));
    e.hold_log(A);
    let z = e.create(client, "/z");
    e.run_until("A gets it", |e| e.waits_for_disk(A).0);
    e.release(A, C);
    e.run_until("A follows", |e| e.follows(A, C));
    e.run_ms(300);
    assert_eq!((e.answer(client, y), e.answer(client, z)), (Some(0), None));
    for server in [A, B, C] {
        e.crash(server);
    }
    e.start(A);
    e.start(B);
    e.run_until("A and B go on", Ensemble::stands);
    assert!(e.has(A, "/y") && e.has(B, "/y"));
    e.all_agree();
}

#[test]
fn a_follower_that_acknowledges_newleader_alone_is_taken_at_its_word() {
    // 4785, 3911: ZooKeeper's followers log what is outstanding behind their ACK of NEWLEADER.
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    e.crash(B);
    e.hold_log(A);
    let before = e.log_end(C);
    let y = e.create(client, "/y");
    e.run_until("C logs it", |e| e.log_end(C) > before);
    let (committed, y_zxid) = (e.committed(C), e.log_end(C));
    e.forget_packets();
    e.make_puppet(B);
    let link = e.puppet_follows(B, C, Epoch(1));
    e.run_until("it is told the epoch", |e| !e.sent(C, B, LeaderInfo).is_empty());
    e.puppet_acks_epoch(link, Epoch(1), committed);
    e.run_until("it is synchronized", |e| !e.sent(C, B, NewLeader).is_empty());
    assert_eq!(e.sent(C, B, Proposal), [y_zxid]);
    e.puppet_acks(link, Zxid::new(Epoch(1), 0));
    e.run_until("it is up to date", |e| !e.sent(C, B, UpToDate).is_empty());
    e.run_ms(5);
    assert_eq!(e.answer(client, y), None);
    e.puppet_acks(link, y_zxid);
    e.run_until("it is committed", |e| e.answer(client, y) == Some(0));
    e.release_disk(A);
    e.all_agree();
}

#[test]
fn what_is_committed_while_a_follower_is_synchronized_reaches_it() {
    // 4394: a COMMIT between NEWLEADER and UPTODATE, of a proposal in front of NEWLEADER.
    let mut e = a_lags(Settings::of(3));
    let client = e.connect(C);
    e.hold_log(B);
    e.create(client, "/y");
    e.run_until("B gets it", |e| e.waits_for_disk(B).0);
    e.forget_packets();
    e.hold(A, C, Ack);
    e.start(A);
    e.run_until("A acknowledges", |e| !e.sent(A, C, Ack).is_empty());
    e.release_disk(B);
    e.run_until("it is committed", |e| e.has(C, "/y"));
    e.run_ms(1);
    assert!(!e.has(A, "/y"));
    e.release(A, C);
    e.run_until("A follows", |e| e.follows(A, C) && e.has(A, "/y"));
    let mut course = e.course(C, A);
    course.dedup();
    let expected = [LeaderInfo, Diff, Proposal, Commit];
    assert_eq!(course[..4], expected.map(Kind::Packet));
    let end = [Proposal, NewLeader, Commit, UpToDate].map(Kind::Packet);
    assert!(course.windows(4).any(|found| found == end), "{course:?}");
    assert!(e.sent(A, C, Kind::Closed).is_empty());
    e.all_agree();
}

#[test]
fn a_follower_that_loses_its_leader_while_it_logs_waits_before_it_votes() {
    // 2832, 4409, 4712: the log, or its acknowledgements, outlived the role that they belonged to.
    for dies in [false, true] {
        let mut e = Ensemble::led_by_c();
        let client = e.connect(C);
        e.hold_log(A);
        e.write(client, "/x");
        e.run_until("A gets it", |e| e.waits_for_disk(A).0);
        e.forget_packets();
        e.cut(A, C);
        e.run_ms(300);
        assert!(e.sent(A, B, Kind::Votes).is_empty());
        e.heal(A, C);
        if dies {
            e.crash(A);
            e.start(A);
        } else {
            e.release_disk(A);
        }
        e.run_until("A follows", |e| e.follows(A, C) && e.has(A, "/x"));
        e.all_agree();
    }
}

#[test]
fn a_snapshot_never_has_what_may_have_to_go() {
    // 1549: a new leader took a snapshot of a log whose end was never committed.
    let mut e = left_with_x(Settings { snapshot_txns: 1, ..Settings::of(3) });
    e.crash_with_all_written(C);
    // C is elected by A, and comes as far as its history being on its way.
    e.heal(A, C);
    e.crash(A);
    e.crash(B);
    e.hold(C, A, Snap);
    e.start(A);
    e.start(C);
    e.run_until("it is sent", |e| !e.sent(C, A, Snap).is_empty());
    e.run_ms(300);
    assert_eq!(e.leader(), None);
    e.cut(A, C);
    e.release(C, A);
    e.start(B);
    go_on_without_c(&mut e);
    heal_c(&mut e);
    e.run_until("C follows", |e| e.follows(C, B));
    e.crash_with_all_written(C);
    e.start(C);
    e.all_agree();
    nobody_has(&e, "/x");
}

#[test]
fn a_tree_of_what_was_never_committed_is_given_up() {
    // 1549, 3701: a follower had such a snapshot from a leader that failed, and could not cut it.
    let mut e = Ensemble::of(5).stand();
    let client = e.connect(E);
    e.write(client, "/before");
    let before = e.log_end(E);
    (A..E).for_each(|server| e.hold(E, server, Proposal));
    e.create(client, "/x");
    e.run_until("E logs it", |e| e.log_end(E) > before);
    (A..=E).for_each(|server| e.crash(server));
    // E is elected again, and comes as far as its tree being on the disk of A.
    (A..E).for_each(|server| e.release(E, server));
    (B..E).for_each(|server| e.hold(E, server, Snap));
    e.forget_packets();
    (A..=E).for_each(|server| e.start(server));
    e.run_until("A takes it", |e| !e.sent(A, E, Ack).is_empty());
    assert_eq!(e.leader(), None);
    e.crash(E);
    e.crash(A);
    e.run_until("D leads", |e| e.leads(D) && e.stands());
    let client = e.connect(D);
    e.write(client, "/y");
    e.start(A);
    e.run_until("A follows", |e| e.follows(A, D) && e.has(A, "/y"));
    assert!(!e.has(A, "/x"));
    assert!(!e.sent(D, A, Snap).is_empty());
    e.all_agree();
    (A..=E).for_each(|server| assert!(!e.has(server, "/x"), "server {}", server + 1));
}

/// A has a tree with `/x` from C, which is gone, and starts from it; B has begun a later epoch.
fn a_cannot_cut() -> Ensemble {
    let mut e = left_with_x(Settings { history_bytes: 1, ..Settings::of(3) });
    let x = e.log_end(C);
    e.crash_with_all_written(C);
    // B comes as far as its epoch, and C then as far as its tree being on the disk of A.
    e.hold(B, A, NewLeader);
    e.run_until("B begins an epoch", |e| e.epochs(B).current > x.epoch());
    e.crash(B);
    e.release(B, A);
    e.heal(A, C);
    e.hold(C, A, NewLeader);
    e.start(C);
    e.run_until("A takes it", |e| !e.sent(C, A, Snap).is_empty() && e.log_end(A) == x);
    e.crash(C);
    e.start(B);
    e
}

#[test]
fn a_server_that_cannot_cut_what_was_never_committed_makes_a_quorum_all_the_same() {
    // 1549: with one more that is gone for good, nobody else is there.
    let mut e = a_cannot_cut();
    go_on_without_c(&mut e);
    assert!(!e.sent(B, A, Snap).is_empty());
    heal_c(&mut e);
    e.all_agree();
    nobody_has(&e, "/x");
}

#[test]
fn a_server_that_could_not_cut_counts_as_soon_as_it_has_the_tree_in_its_place() {
    let mut e = a_cannot_cut();
    e.hold(B, A, UpToDate);
    e.run_until("B leads", |e| e.leads(B));
    heal_c(&mut e);
    e.release(C, A);
    e.start(C);
    e.run_until("C follows", |e| e.follows(C, B) && e.epochs(A) == e.epochs(C));
    let client = e.connect(B);
    e.write(client, "/y");
    e.crash(B);
    e.run_until("C leads", |e| e.leads(C) && e.follows(A, C));
    e.all_agree();
    nobody_has(&e, "/x");
}

#[test]
fn a_follower_may_crash_between_any_two_writes_of_its_synchronization() {
    // 335, 1653, 2307: epochs and log that did not fit together kept a server from starting.
    for writes in 0..12 {
        for all_written in [false, true] {
            let mut e = a_lags(Settings::of(3));
            e.crash(C);
            e.start(C);
            e.run_until("there is a second epoch", Ensemble::stands);
            let client = e.connect(C);
            e.write(client, "/y");
            e.start(A);
            let done = e.finish_writes(A, writes);
            let (crash, with_all) = (Ensemble::crash, Ensemble::crash_with_all_written);
            if all_written {
                with_all(&mut e, A)
            } else {
                crash(&mut e, A)
            }
            e.start(A);
            let epochs = e.epochs(A);
            assert!(epochs.accepted >= epochs.current && epochs.current >= e.log_end(A).epoch());
            e.all_agree();
            assert!(e.has(A, "/y"));
            if done < writes {
                break;
            }
        }
    }
}

#[test]
fn a_tree_that_does_not_come_whole_leaves_the_old_one() {
    // 3642: part of a SNAP stayed in memory, and a DIFF of another leader came on top.
    let settings = Settings { history_bytes: 1, ..Settings::of(3) };
    for end in [Some(Kind::Tree), Some(Kind::Signature), None] {
        for all_written in [false, true] {
            let mut e = a_lags(settings);
            end.into_iter().for_each(|kind| e.hold(C, A, kind));
            let held = end.is_none();
            e.start(A);
            e.hold_data(A);
            e.run_until("the tree is on its way", |e| {
                let begins = !e.delivered(C, A, Snap).is_empty();
                begins && (!held || e.waits_for_disk(A).1)
            });
            e.run_ms(50);
            assert!(e.sent(A, C, Ack).is_empty());
            e.cut(A, B);
            e.cut(A, C);
            if all_written {
                e.crash_with_all_written(A);
            } else {
                e.crash(A);
            }
            e.start(A);
            assert!(e.has(A, "/before"));
            assert_eq!(e.has(A, "/x2"), held && all_written);
            e.all_agree();
        }
    }
}

#[test]
fn a_cut_that_a_crash_interrupts_is_made_good() {
    // 3701: a server whose log could not be cut went on with it. Here the disk fails at each of
    // the changes that a cut makes.
    let mut crashes = 0;
    for changes in 0..40 {
        let mut e = left_with_x(Settings::of(3));
        go_on_without_c(&mut e);
        heal_c(&mut e);
        e.run_until("C is told", |e| !e.sent(B, C, Trunc).is_empty());
        e.fail_disk_after(C, changes);
        e.run_until("C follows, or not", |e| !e.runs(C) || e.follows(C, B));
        let done = e.runs(C);
        e.all_agree();
        nobody_has(&e, "/x");
        if done {
            break;
        }
        crashes += 1;
    }
    assert!((2..40).contains(&crashes), "{crashes}");
}

#[test]
fn an_ephemeral_goes_where_its_session_ended_while_a_follower_was_away() {
    // 2355: a follower failed while it read the proposal that closed a session.
    let mut e = Ensemble::led_by_c();
    let owner = e.connect(B);
    e.create_ephemeral(owner, "/e");
    e.run_until("all have it", |e| [A, B, C].into_iter().all(|at| e.has(at, "/e")));
    e.hold(C, A, Proposal);
    let xid = e.close(owner);
    e.run_until("the session is over", |e| e.answer(owner, xid) == Some(0));
    assert!(e.has(A, "/e"));
    e.break_links(A, C);
    e.release(C, A);
    e.run_until("A is back", |e| e.follows(A, C) && !e.has(A, "/e"));
    // What A has on disk is what it shows.
    e.crash(A);
    e.crash(C);
    e.start(A);
    e.all_agree();
    nobody_has(&e, "/e");
}

#[test]
fn an_ephemeral_goes_where_its_session_ends_while_the_tree_is_sent() {
    // 3104, 3306: a tree was sent while it changed, and what changed did not come behind it.
    let mut e = a_lags(Settings { history_bytes: 1, ..Settings::of(3) });
    let owner = e.connect(B);
    e.create_ephemeral(owner, "/e");
    // More than is sent at once.
    for number in 0..40 {
        e.create_with(owner, &format!("/large{number}"), &[7; 8000]);
    }
    e.run_until("all is there", |e| e.has(C, "/large39"));
    e.hold(C, A, Kind::Tree);
    e.start(A);
    e.run_until("the tree is on its way", |e| !e.delivered(C, A, Snap).is_empty());
    assert!(e.sent(C, A, NewLeader).is_empty(), "it waits behind the rest of the tree");
    let xid = e.close(owner);
    e.run_until("the session is over", |e| e.answer(owner, xid) == Some(0));
    e.forget_packets();
    e.release(C, A);
    e.run_until("A follows", |e| e.follows(A, C) && e.published(A) == e.published(C));
    assert!(e.sent(C, A, LeaderInfo).is_empty(), "it came behind the tree, not in a second try");
    nobody_has(&e, "/e");
    e.all_agree();
}

#[test]
fn a_session_that_has_expired_creates_nothing_any_more() {
    // 4541: a follower's request for an ephemeral is overtaken by the end of its session.
    let mut e = Ensemble::led_by_c();
    let owner = e.connect_for(A, 400);
    let before = e.committed(C);
    e.hold(A, C, Request);
    let xid = e.create_ephemeral(owner, "/e");
    e.run_until("the session expires", |e| e.committed(C) > before);
    assert_eq!(e.answer(owner, xid), None);
    e.release(A, C);
    e.run_until("the request is ordered", |e| !e.delivered(A, C, Request).is_empty());
    e.run_ms(5);
    nobody_has(&e, "/e");
    assert_ne!(e.answer(owner, xid), Some(0));
    e.all_agree();
}
