//! What goes from a leader to its learners, and from one leader to the next: logs that no crash may
//! take back, trees, and what a learner lacks. In every script, C leads the first epoch.

use std::time::Duration;

use engine::order::Service;
use engine::zab::packet::PacketKind::{
    Commit, FollowerInfo, Inform, LeaderInfo, NewLeader, Ping, Proposal, Snap, UpToDate,
};
use tests::sim::script::{A, B, C, D, Ensemble, Kind, Settings};

#[test]
fn a_tree_never_takes_a_server_back_behind_what_it_has_acknowledged() {
    // The client's connection outlives all of the elections.
    let grace = Duration::from_mins(1);
    let mut e = Ensemble::with(Settings { grace, ..Settings::of(3) }).stand();
    let client = e.connect(C);
    e.write(client, "/before");
    e.cut(A, B);
    e.cut(A, C);
    // A quorum has it on disk, and its client is told. B does not hear of that.
    e.hold(C, B, Commit);
    e.write(client, "/x");
    let x = e.log_end(C);
    assert!(e.log_end(B) == x && e.published(B) < x);
    // C leads again, with the ACK of B, logs more and is gone before B serves.
    e.hold(C, B, UpToDate);
    e.break_links(B, C);
    e.release(C, B);
    e.hold(C, B, UpToDate);
    e.run_until("C leads", |e| e.leads(C) && e.epochs(B).current > x.epoch());
    e.hold(C, B, Proposal);
    e.create(client, "/more");
    e.run_until("C logs more", |e| e.log_end(C).epoch() > x.epoch());
    e.crash_with_all_written(C);
    assert!(e.published(B) < x);
    // B begins another epoch, with A, which is gone before it learns anything.
    e.release(C, B);
    e.hold(B, A, NewLeader);
    e.heal(A, B);
    let before = e.epochs(B).current;
    e.run_until("A has promised", |e| e.epochs(B).current > before);
    e.crash(A);
    assert!(e.published(B) < x);
    // C comes back, and gets the tree of B: what it had in its epoch went on nowhere.
    e.hold(B, C, Proposal);
    e.heal(A, C);
    e.start(C);
    e.run_until("C has taken it", |e| !e.sent(B, C, Snap).is_empty() && e.log_end(C) <= x);
    assert_eq!(e.leader(), None);
    // C and A are a quorum. Each has only what was on its disk.
    e.crash(B);
    e.start(A);
    e.run_until("C leads", |e| e.leads(C) && e.follows(A, C));
    assert!(e.has(C, "/x") && e.has(A, "/x"), "it was acknowledged");
    e.all_agree();
}

#[test]
fn an_observer_owes_no_ack_of_what_was_under_way_when_it_joined() {
    let mut e = Ensemble::with(Settings { observers: 1, ..Settings::of(4) }).stand();
    let client = e.connect(C);
    e.crash(D);
    e.forget_packets();
    let before = e.log_end(C);
    e.hold(C, A, Proposal);
    e.hold(C, B, Proposal);
    e.create(client, "/x");
    e.run_until("C logs it", |e| e.log_end(C) > before);
    e.start(D);
    e.run_until("D observes", |e| e.observes(D, C));
    e.release(C, A);
    e.release(C, B);
    e.run_ms(5_000);
    assert!(e.stands() && e.has(D, "/x"));
    assert_eq!(e.sent(C, D, UpToDate).len(), 1, "it was not given up meanwhile");
}

#[test]
fn an_observer_whose_disk_is_slow_takes_no_more_than_it_has_room_for() {
    const PIECES: usize = 40;
    let mut e = Ensemble::with(Settings { observers: 1, ..Settings::of(4) }).stand();
    let client = e.connect(C);
    e.hold_log(D);
    let data = vec![b'x'; 10_000];
    for piece in 0..PIECES {
        e.create_with(client, &format!("/{piece}"), &data);
    }
    e.run_ms(1_000);
    let last = format!("/{}", PIECES - 1);
    assert!(e.has(C, &last));
    let told = e.delivered(C, D, Inform).len();
    assert!((1..PIECES / 2).contains(&told), "{told} came, which is less than wait for the disk");
    // It is not waited for, and comes back by itself when its disk does.
    e.run_until("D is given up", |e| !e.observes(D, C));
    e.run_ms(5_000);
    assert_eq!(e.delivered(C, D, Inform).len(), told);
    e.release_disk(D);
    e.run_until("D has it", |e| e.observes(D, C) && e.has(D, &last));
    e.all_agree();
}

#[test]
fn a_tree_that_took_long_to_write_need_not_be_sent_again() {
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    e.write(client, "/x");
    e.crash(A);
    e.wipe(A);
    e.forget_packets();
    e.hold(C, A, Kind::Signature);
    e.start(A);
    e.run_until("it has come", |e| !e.delivered(C, A, Kind::Tree).is_empty());
    e.hold_data(A);
    e.release(C, A);
    // C waits no longer than initLimit.
    e.run_ms(3_000);
    e.write(client, "/y");
    e.release_disk(A);
    e.run_until("A follows", |e| e.follows(A, C) && e.has(A, "/y"));
    assert_eq!(e.sent(C, A, Snap).len(), 1);
    e.all_agree();
}

#[test]
fn a_learner_that_lacks_much_hears_its_leader_while_it_catches_up() {
    let mut e = Ensemble::with(Settings { group_bytes: 1, ..Settings::of(3) }).stand();
    let client = e.connect(C);
    e.crash(A);
    for number in 0..50 {
        e.write(client, &format!("/{number}"));
    }
    e.start(A);
    e.run_until("A is told", |e| !e.delivered(C, A, UpToDate).is_empty());
    let mut turns = 0;
    while !e.has(A, "/49") {
        assert_ne!(e.peer(A).service(), Service::Serving, "it has not all of it yet");
        let has = e.published(A);
        e.run_until("it goes on", |e| e.published(A) > has);
        turns += 1;
    }
    assert!(turns > 10, "{turns}");
    e.run_until("A serves", |e| e.peer(A).service() == Service::Serving);
    e.all_agree();
}

#[test]
fn a_tree_that_comes_slowly_costs_neither_its_learner_the_link_nor_others_their_answers() {
    let mut e = Ensemble::led_by_c();
    let other = e.connect(B);
    e.crash(A);
    e.wipe(A);
    // More than ten of the pieces that are sent at once.
    let data = vec![b'x'; 10_000];
    let xids: Vec<_> =
        (0..80).map(|number| e.create_with(other, &format!("/{number}"), &data)).collect();
    e.run_until("all is there", |e| xids.iter().all(|xid| e.answer(other, *xid) == Some(0)));
    e.forget_packets();
    e.hold(C, A, Kind::Tree);
    e.start(A);
    e.run_until("the tree is on its way", |e| !e.delivered(C, A, Snap).is_empty());
    let begin = e.ms();
    while e.sent(C, A, Kind::Signature).is_empty() {
        let pings = e.delivered(C, B, Ping).len();
        let sync = e.sync(other);
        e.run_ms(500);
        assert_eq!(e.answer(other, sync), Some(0), "B waits for the tree of A");
        assert!(e.delivered(C, B, Ping).len() > pings + 1, "B is not asked for signs of life");
        e.let_one_through(C, A);
        e.run_ms(1);
        assert_eq!(e.sent(A, C, FollowerInfo).len(), 1, "A has lost its link");
    }
    // Each piece came in time; all of them took longer than initLimit.
    assert!(e.ms() - begin > 2 * 2_000);
    e.release(C, A);
    e.run_until("A follows", |e| e.follows(A, C) && e.published(A) == e.published(C));
    let once = [e.sent(A, C, FollowerInfo), e.sent(C, A, LeaderInfo), e.sent(C, A, Snap)];
    assert_eq!(once.map(|sent| sent.len()), [1; 3]);
    e.all_agree();
}
