//! Failures of ZooKeeper's and of our own that had to do with who leads, as schedules on our
//! machines; numbers as in `history.rs`.

use engine::zab::packet::PacketKind::{
    AckEpoch, Diff, FollowerInfo, LeaderInfo, Proposal, Snap, UpToDate,
};
use engine::zxid::Epoch;
use tests::sim::script::{A, B, C, D, E, Ensemble, Kind};

#[test]
fn a_leader_hands_on_what_it_got_when_it_was_synchronized_itself() {
    // 4925: what a follower got by DIFF was missing from what it sent others by DIFF later.
    let mut e = Ensemble::of(5).stand();
    let client = e.connect(E);
    e.crash(A);
    e.crash(B);
    for number in 0..3 {
        e.write(client, &format!("/x{number}"));
    }
    e.start(A);
    e.run_until("A has them", |e| e.follows(A, E) && e.has(A, "/x2"));
    e.hold(E, C, Proposal);
    e.write(client, "/y");
    e.crash(D);
    e.crash(E);
    e.release(E, C);
    e.start(B);
    e.run_until("A leads", |e| e.leads(A) && e.stands());
    for server in [A, B, C] {
        e.run_until("it has all", |e| ["/x0", "/x1", "/x2", "/y"].iter().all(|x| e.has(server, x)));
    }
    assert!(e.sent(A, B, Snap).is_empty() && !e.sent(A, B, Diff).is_empty());
    e.all_agree();
}

#[test]
fn a_member_that_lost_its_disk_does_not_help_to_lose_what_was_acknowledged() {
    // 261: servers that came back empty voted like any other.
    let mut e = Ensemble::led_by_c();
    let client = e.connect(C);
    e.hold(C, A, Proposal);
    e.write(client, "/x");
    for server in [A, B, C] {
        e.crash(server);
    }
    e.release(C, A);
    e.wipe(B);
    e.start(A);
    e.start(B);
    e.run_ms(3000);
    assert_eq!(e.leader(), None, "who could know of it is not there");
    e.start(C);
    e.run_until("C leads", |e| e.leads(C) && e.stands());
    assert!(e.has(A, "/x") && e.has(B, "/x"));
    e.all_agree();
}

/// A and B have committed `/y`, which C, who leads, has yet to write. B has lost its disk since,
/// and wants a tree.
fn b_wants_a_tree() -> Ensemble {
    let mut e = Ensemble::led_by_c();
    let client = e.connect(A);
    e.write(client, "/x");
    e.hold_log(C);
    e.write(client, "/y");
    e.crash(B);
    e.wipe(B);
    e.hold(C, B, Proposal);
    e.start(B);
    e.run_ms(500);
    e
}

#[test]
fn a_tree_makes_up_for_all_that_a_member_has_acknowledged_before_it_lost_its_disk() {
    let mut e = b_wants_a_tree();
    for server in [A, B, C] {
        e.crash(server);
    }
    e.release(C, B);
    e.start(B);
    e.start(C);
    e.run_ms(3000);
    assert_eq!(e.leader(), None, "the one who has /y is not there");
    e.start(A);
    e.run_until("A leads", |e| e.leads(A) && e.stands());
    e.all_agree();
}

#[test]
fn a_member_without_data_gets_its_tree_when_the_leader_has_written_what_is_committed() {
    let mut e = b_wants_a_tree();
    assert!(e.sent(C, B, Snap).is_empty());
    e.release(C, B);
    e.release_disk(C);
    e.run_until("B follows", |e| e.follows(B, C) && e.has(B, "/y"));
    assert_eq!(e.sent(C, B, LeaderInfo).len(), 2, "it has not had to ask again");
    e.all_agree();
}

#[test]
fn an_election_comes_to_its_end_whenever_a_link_breaks() {
    // 2080 and its like: votes that were lost with a connection were not sent again.
    let votes =
        |e: &Ensemble| e.delivered(A, B, Kind::Votes).len() + e.delivered(B, A, Kind::Votes).len();
    for after in 0..20 {
        let mut e = Ensemble::led_by_c();
        let client = e.connect(B);
        e.write(client, "/x");
        e.forget_packets();
        e.crash(C);
        e.run_until("votes pass", |e| votes(e) >= after || e.stands());
        let (decided, began) = (e.stands(), e.ms());
        e.break_links(A, B);
        e.run_until("B leads", |e| e.leads(B) && e.follows(A, B));
        // Votes are repeated after 200 ms in any case.
        assert!(e.ms() - began < 100, "{after} votes, {} ms", e.ms() - began);
        e.all_agree();
        if decided {
            return;
        }
    }
    panic!("the election takes more than 20 votes");
}

/// Has A promise two epochs to B, which never comes to lead: B's own word gets lost both times.
fn promise_in_vain(e: &mut Ensemble) {
    for epoch in [2, 3] {
        e.start(A);
        e.start(B);
        e.hold_data(B);
        e.run_until("A promises", |e| e.epochs(A).accepted == Epoch(epoch));
        e.crash(A);
        e.crash(B);
    }
    assert_eq!(e.epochs(B).accepted, Epoch(1));
}

#[test]
fn a_voter_that_has_promised_a_later_epoch_is_not_left_out() {
    // With ZooKeeper it stays out until the others happen to elect again.
    let mut e = Ensemble::led_by_c();
    e.crash(C);
    e.crash(A);
    e.crash(B);
    promise_in_vain(&mut e);
    e.start(B);
    e.start(C);
    e.run_until("C leads", |e| e.leads(C) && e.stands());
    assert_eq!(e.epochs(C).current, Epoch(2), "older than what A has promised");
    let client = e.connect(B);
    e.start(A);
    e.run_until("A follows", |e| e.follows(A, C) && e.stands());
    assert_eq!(e.epochs(A).current, Epoch(4));
    e.write(client, "/x");
    e.run_until("A has it", |e| e.has(A, "/x"));
    e.all_agree();
}

#[test]
fn a_leader_does_not_wait_where_voters_have_promised_its_epoch_to_another() {
    // With ZooKeeper it waits for initLimit: their word is missing, and nobody else's will come.
    let mut e = Ensemble::of(5).stand();
    for server in [A, B, C, D, E] {
        e.crash(server);
    }
    e.hold(C, B, LeaderInfo);
    e.hold_data(C);
    for server in [A, B, C] {
        e.start(server);
    }
    e.run_until("A promises", |e| e.epochs(A).accepted == Epoch(2));
    for server in [A, B, C] {
        e.crash(server);
    }
    e.release(C, B);
    assert_eq!([B, C].map(|server| e.epochs(server).accepted), [Epoch(1); 2]);
    // E does not hear of A before it proposes the same epoch, and C is lost before it answers.
    e.hold(A, E, FollowerInfo);
    e.hold(C, E, AckEpoch);
    for server in [A, C, D, E] {
        e.start(server);
    }
    e.run_until("C promises", |e| e.epochs(C).accepted == Epoch(2));
    e.crash(C);
    let began = e.ms();
    e.release(A, E);
    e.run_until("E leads", |e| e.leads(E) && e.follows(A, E) && e.follows(D, E));
    assert!(e.ms() - began < 500, "{} ms", e.ms() - began);
    assert_eq!(e.epochs(E).current, Epoch(3));
    e.all_agree();
}

#[test]
fn a_follower_whose_first_leader_was_lost_before_it_served_votes() {
    // The seed 18020553 of the simulation: a new ensemble found no leader any more.
    let mut e = Ensemble::of(5);
    e.hold(E, A, LeaderInfo);
    e.hold(E, D, UpToDate);
    for server in [A, B, C, D, E] {
        e.start(server);
    }
    e.run_until("E leads", |e| e.follows(B, E) && e.follows(C, E) && e.epochs(D).current.0 > 0);
    let client = e.connect(E);
    e.write(client, "/x");
    e.crash(C);
    e.crash(E);
    e.release(E, A);
    e.release(E, D);
    let epochs: Vec<_> = [A, B, D].iter().map(|server| e.epochs(*server).current).collect();
    assert_eq!(epochs, [0, 1, 1].map(Epoch), "D has the epoch, and has never served");
    e.start(E);
    e.run_until("E leads again", |e| e.leads(E) && e.follows(D, E));
    assert!(e.has(D, "/x"));
    e.all_agree();
}
