//! Sessions, and what clients have asked for, from one leader to the next and from one server to
//! another. In every script of three servers, C leads the first epoch.

use std::time::Duration;

use engine::error_code::ErrorCode;
use engine::zab::packet::PacketKind::{Ack, Request};
use tests::sim::script::{A, B, C, Client, D, E, Ensemble, Kind, Settings};

#[test]
fn sessions_stay_with_their_connections_under_a_new_leader() {
    let mut e = Ensemble::led_by_c();
    let (idle, waiting) = (e.connect(A), e.connect(A));
    e.hold(A, C, Request);
    let xid = e.create(waiting, "/x");
    e.run_ms(1);
    e.crash(C);
    e.run_until("B leads", |e| e.leads(B) && e.follows(A, B));
    e.run_until("it is answered", |e| e.answer(waiting, xid) == Some(0));
    assert!(e.is_connected(idle) && e.is_connected(waiting));
    let moved = e.move_to(idle, B);
    e.write(moved, "/moved");
    let late = e.create(idle, "/late");
    e.run_until("A closes", |e| !e.is_connected(idle));
    assert_ne!(e.answer(idle, late), Some(0));
    assert!(e.is_connected(moved));
}

#[test]
fn without_a_grace_the_loss_of_a_leader_closes_connections_before_there_is_another() {
    for (grace, outlives) in [(Duration::ZERO, false), (Settings::of(3).grace, true)] {
        let mut e = Ensemble::with(Settings { grace, ..Settings::of(3) }).stand();
        let idle = e.connect(A);
        e.crash(C);
        e.run_until("A has noticed", |e| !e.follows(A, C));
        assert_eq!((e.leader(), e.is_connected(idle)), (None, outlives), "{grace:?}");
        e.run_until("B leads", |e| e.leads(B) && e.follows(A, B));
        assert_eq!(e.is_connected(idle), outlives, "{grace:?}");
        // The session is there in either case.
        let moved = e.move_to(idle, B);
        e.write(moved, "/x");
        e.all_agree();
    }
}

#[test]
fn connections_end_with_their_grace_where_no_other_leader_comes() {
    let mut e = Ensemble::led_by_c();
    let idle = e.connect(A);
    e.crash(B);
    e.crash(C);
    e.run_until("A has noticed", |e| !e.follows(A, C));
    let grace = Settings::of(3).grace.as_millis() as u64;
    e.run_ms(grace - 1);
    assert!(e.is_connected(idle));
    e.run_ms(2);
    assert!(!e.is_connected(idle));
    e.all_agree();
}

#[test]
fn what_is_left_of_a_connection_does_not_take_the_session_back() {
    let mut e = Ensemble::led_by_c();
    let gone = e.connect(A);
    // Nobody tells A. Then, under another leader, it has the connection all the same.
    let moved = e.move_to(gone, B);
    e.crash(C);
    e.run_until("B leads", |e| e.leads(B) && e.follows(A, B));
    e.run_ms(2_000);
    assert!(e.is_connected(moved));
    e.write(moved, "/x");
    let late = e.create(gone, "/late");
    e.run_until("what is left is closed", |e| !e.is_connected(gone));
    assert_ne!(e.answer(gone, late), Some(0));
    assert!(e.is_connected(moved));
}

/// A client at A, and its request for `/late`, which does not come to C before it is released.
fn asks_late(e: &mut Ensemble) -> (Client, i32) {
    let client = e.connect(A);
    // So that the numbers of the requests differ. Where they don't, A takes the transaction of
    // another for the answer, to a connection on which nobody listens any more.
    e.write(client, "/first");
    e.hold(A, C, Request);
    let late = e.create(client, "/late");
    e.run_ms(1);
    (client, late)
}

#[test]
fn what_a_lost_leader_had_not_done_is_not_done_behind_what_came_later_to_the_next_one() {
    let mut e = Ensemble::led_by_c();
    let (client, late) = asks_late(&mut e);
    let moved = e.move_to(client, B);
    e.write(moved, "/moved");
    e.crash(C);
    e.run_until("B leads", |e| e.leads(B) && e.follows(A, B));
    e.run_until("A has asked again", |e| !e.is_connected(client));
    assert_eq!(e.answer(client, late), None);
    assert!(!e.has(B, "/late"));
    e.write(moved, "/later");
}

#[test]
fn a_server_that_comes_back_to_its_leader_still_has_its_sessions() {
    let mut e = Ensemble::led_by_c();
    let client = e.connect(A);
    e.write(client, "/before");
    e.break_links(A, C);
    e.run_until("A has noticed", |e| !e.follows(A, C));
    e.run_until("A is back", |e| e.follows(A, C));
    assert!(e.leads(C) && e.is_connected(client));
    e.write(client, "/after");
    assert!(e.is_connected(client));
}

/// A client at `server` whose session began at another with 2 s and has an ephemeral, and has 20 s
/// now.
fn patient(e: &mut Ensemble, (from, server): (usize, usize), path: &str) -> Client {
    let hasty = e.connect_for(from, 2_000);
    let xid = e.create_ephemeral(hasty, path);
    e.run_until("it is there", |e| e.answer(hasty, xid) == Some(0));
    let patient = e.move_for(hasty, server, 20_000);
    // What is heard of the connection that is taken for good comes late, and is the last of it.
    e.run_ms(1_000);
    if from != server {
        e.fall_silent(hasty);
    }
    patient
}

#[test]
fn a_session_has_the_timeout_of_its_last_connection_whoever_leads() {
    let mut e = Ensemble::led_by_c();
    let paths = ["/a", "/b", "/from-a", "/from-b"];
    let ways = [(A, A), (B, B), (A, B), (B, A)];
    let clients: Vec<_> =
        ways.iter().zip(paths).map(|(way, path)| patient(&mut e, *way, path)).collect();
    let left = patient(&mut e, (A, B), "/left");
    e.run_ms(1_000);
    e.fall_silent(left);
    e.run_ms(8_000);
    assert!(e.has(A, "/left"), "C knows what B has granted");
    e.crash(C);
    e.run_until("B leads", |e| e.leads(B) && e.follows(A, B));
    e.run_ms(1_000);
    for client in clients {
        e.fall_silent(client);
    }
    e.run_ms(8_000);
    for path in paths {
        assert!(e.has(A, path), "{path}: it may be silent for 20 s");
    }
    e.run_ms(20_000);
    assert!(paths.iter().all(|path| !e.has(A, path)));
}

/// The first request of a client where it comes to with its session, whose number is that of its
/// first elsewhere: there is `/x`.
#[track_caller]
fn hears_of_x(e: &mut Ensemble, moved: Client) {
    let again = e.create(moved, "/x");
    e.run_until("it is answered", |e| e.answer(moved, again).is_some());
    assert_eq!(e.answer(moved, again), Some(ErrorCode::NodeExists.to_wire()));
}

#[test]
fn what_a_server_has_yet_to_log_does_not_answer_who_came_to_it_later() {
    let mut e = Ensemble::led_by_c();
    let client = e.connect(A);
    e.hold_log(B);
    e.write(client, "/x");
    let moved = e.move_to(client, B);
    let again = e.create(moved, "/x");
    e.run_ms(100);
    e.release_disk(B);
    e.run_until("it is answered", |e| e.answer(moved, again).is_some());
    assert_eq!(e.answer(moved, again), Some(ErrorCode::NodeExists.to_wire()));
}

#[test]
fn what_a_leader_has_yet_to_propose_does_not_answer_who_went_elsewhere() {
    let mut e = Ensemble::led_by_c();
    let (client, other) = (e.connect(A), e.connect(C));
    // What comes while the log is busy is proposed later.
    e.hold_log(C);
    e.create(other, "/other");
    e.run_ms(10);
    e.create(client, "/x");
    e.run_ms(10);
    let moving = e.begin_to_move(client, B);
    e.run_ms(100);
    assert!(!e.is_attached(moving), "B would take what comes for an answer");
    e.release_disk(C);
    e.run_until("B has it", |e| e.is_attached(moving));
    hears_of_x(&mut e, moving);
}

#[test]
fn what_is_not_committed_yet_does_not_answer_who_went_to_an_observer() {
    let mut e = Ensemble::with(Settings { observers: 1, ..Settings::of(4) }).stand();
    let client = e.connect(A);
    e.hold(A, C, Ack);
    e.hold(B, C, Ack);
    e.create(client, "/x");
    e.run_ms(10);
    let moving = e.begin_to_move(client, D);
    e.run_ms(100);
    assert!(!e.is_attached(moving), "D would take what comes for an answer");
    e.release(A, C);
    e.release(B, C);
    e.run_until("D has it", |e| e.is_attached(moving));
    hears_of_x(&mut e, moving);
}

#[test]
fn what_was_sent_behind_a_request_of_unknown_outcome_is_not_done_without_it() {
    let mut e = Ensemble::led_by_c();
    let client = e.connect(A);
    e.hold(A, C, Request);
    e.create(client, "/first");
    e.run_ms(1);
    e.break_links(A, C);
    e.run_until("A has noticed", |e| !e.follows(A, C));
    e.create(client, "/second");
    e.release(A, C);
    e.run_until("A follows again", |e| e.follows(A, C));
    e.run_ms(1_000);
    assert!(!e.is_connected(client) && !e.has(C, "/first"));
    assert!(!e.has(C, "/second"), "of two requests, the second");
    e.all_agree();
}

#[test]
fn a_leader_takes_over_more_requests_than_a_group_has_room_for() {
    let mut e = Ensemble::led_by_c();
    let client = e.connect(B);
    e.hold(B, C, Request);
    let data = vec![b'x'; 100_000];
    let xids: Vec<_> =
        (0..200).map(|number| e.create_with(client, &format!("/{number}"), &data)).collect();
    e.run_ms(10);
    e.crash(C);
    e.run_until("B leads", |e| e.leads(B) && e.follows(A, B));
    e.run_until("all are done", |e| e.answer(client, xids[199]).is_some());
    assert!(xids.iter().all(|xid| e.answer(client, *xid) == Some(0)));
    e.all_agree();
}

#[test]
fn a_request_that_comes_late_is_not_done_behind_those_that_were_sent_after_it() {
    let mut e = Ensemble::led_by_c();
    let (client, late) = asks_late(&mut e);
    let moved = e.move_to(client, C);
    e.write(moved, "/moved");
    e.disconnect(moved);
    e.run_ms(1);
    e.release(A, C);
    e.run_until("it is decided", |e| e.answer(client, late).is_some() || !e.is_connected(client));
    let moved = ErrorCode::SessionMoved.to_wire();
    assert_eq!(e.answer(client, late).unwrap_or(moved), moved);
    assert!(!e.has(C, "/late"));
    e.all_agree();
}

/// These hear nothing of the leader any more, elect another one, and the leader has not noticed.
fn leave_unnoticed(e: &mut Ensemble, servers: &[usize], leader: usize, next: usize) {
    for server in servers {
        e.hold(*server, leader, Kind::Everything);
        e.break_links(*server, leader);
    }
    e.run_until("they have another leader", |e| e.leads(next));
    assert!(e.leads(leader), "it has noticed");
}

#[test]
fn a_leader_that_was_left_refuses_no_session_that_the_next_one_has_opened() {
    let mut e = Ensemble::led_by_c();
    leave_unnoticed(&mut e, &[A, B], C, B);
    let client = e.connect(B);
    let moved = e.begin_to_move(client, C);
    e.run_until("C has noticed", |e| !e.leads(C));
    assert!(!e.is_connected(moved) && !e.is_refused(moved));
    [A, B].into_iter().for_each(|server| e.release(server, C));
    e.run_until("C follows", |e| e.follows(C, B));
    e.move_to(client, C);
    e.all_agree();
}

#[test]
fn a_follower_of_a_leader_that_was_left_refuses_none_either() {
    let mut e = Ensemble::of(5).stand();
    let first = e.connect(A);
    e.write(first, "/x");
    leave_unnoticed(&mut e, &[B, C, D], E, D);
    let client = e.connect(B);
    let moved = e.begin_to_move(client, A);
    e.run_until("E has noticed", |e| !e.leads(E));
    assert!(!e.is_refused(moved));
    e.run_until("the next leader is asked", |e| e.is_attached(moved));
    [B, C, D].into_iter().for_each(|server| e.release(server, E));
    e.all_agree();
}

#[test]
fn a_session_is_over_when_its_end_is_committed() {
    let mut e = Ensemble::led_by_c();
    let client = e.connect(A);
    [A, B].into_iter().for_each(|server| e.hold_log(server));
    e.close(client);
    e.run_ms(10);
    let moved = e.begin_to_move(client, B);
    e.run_ms(100);
    assert!(!e.is_refused(moved), "the next leader may have it still");
    [A, B].into_iter().for_each(|server| e.release_disk(server));
    e.run_until("it is over", |e| e.is_refused(moved));
    e.all_agree();
}

#[test]
fn a_session_that_ends_while_a_server_asks_for_it_is_over_when_that_is_committed() {
    let mut e = Ensemble::led_by_c();
    let client = e.connect_for(A, 400);
    [A, B].into_iter().for_each(|server| e.hold_log(server));
    e.create(client, "/x");
    e.run_ms(10);
    let moved = e.begin_to_move_for(client, B, 400);
    e.run_ms(20);
    e.fall_silent(client);
    let made = e.log_end(C);
    e.run_until("it has expired", |e| e.log_end(C) > made);
    [A, B].into_iter().for_each(|server| assert_eq!(e.finish_writes(server, 1), 1));
    e.run_until("/x is committed", |e| e.committed(C) == made);
    e.run_ms(20);
    assert!(!e.is_refused(moved), "the next leader may have it still");
    [A, B].into_iter().for_each(|server| e.release_disk(server));
    e.run_until("it is over", |e| e.is_refused(moved));
    e.all_agree();
}
